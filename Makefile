# labmesh: what a person types. `make` alone lists the targets.

SHELL       := bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS   += --no-builtin-rules

GO        ?= go
BIN       ?= bin/labmesh
FUZZTIME  ?= 30s
BENCH     ?= .
BENCHTIME ?= 1s

# Packages tested at the same time, and the longest that one of them may take.
TEST_PARALLEL ?= 2
TEST_TIMEOUT  ?= 10m

STATICCHECK_VERSION := v0.6.1
GOLANGCI_VERSION    := v2.12.2
GOVULNCHECK_VERSION := v1.9.0

# The headers of go-nvml call functions that they mark as deprecated.
CGO_CFLAGS ?= -O2 -g -Wno-deprecated-declarations
export CGO_CFLAGS

# The version of a build: the last tag and what came after it, or the commit
# alone; nothing outside git. There go must not look for a commit either.
VERSION := $(shell git describe --tags --always --dirty 2>/dev/null)
ifeq ($(VERSION),)
export GOFLAGS := $(shell $(GO) env GOFLAGS) -buildvcs=false
endif
LDFLAGS := -X main.release=$(VERSION)

# What `make chaos` does; e.g. CHAOS="-bench LeaderKilled -chaos.kills 300", or CHAOS="-run Whatever -bench XXX -chaos.seed 42".
CHAOS ?= -bench . -chaos.long

# Seeds that make sim runs, and the first of them.
SEEDS ?= 2000
FIRST ?= 1

.PHONY: help build fmt vet check needs test test-gpu test-python race sim fuzz bench bench-engine chaos demo lab clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

build: ## build bin/labmesh
	$(GO) build -trimpath -ldflags '$(LDFLAGS)' -o $(BIN) ./cmd/labmesh

fmt:
	@unformatted=$$(gofmt -l .); \
	if [ -n "$$unformatted" ]; then echo "gofmt -w these:"; echo "$$unformatted"; exit 1; fi

vet:
	$(GO) vet $(VETFLAGS) ./...

check: fmt vet ## gofmt and go vet, and staticcheck, golangci-lint and govulncheck where they are installed
	@scripts/check-with staticcheck   honnef.co/go/tools/cmd/staticcheck@$(STATICCHECK_VERSION) ./...
	@scripts/check-with golangci-lint github.com/golangci/golangci-lint/v2/cmd/golangci-lint@$(GOLANGCI_VERSION) run ./...
	@scripts/check-with govulncheck   golang.org/x/vuln/cmd/govulncheck@$(GOVULNCHECK_VERSION) ./...

needs:
	@scripts/needs

test: VETFLAGS = -race # looks at what the tests compile anyway
test: needs fmt vet test-python race ## all tests: gofmt, go vet, go test -race; installs what they need on Debian as root (LABMESH_TEST_TORCH=1: PyTorch too)

test-gpu: build ## what only a machine with an NVIDIA GPU can show, with figures; says why where it skips
	scripts/test-gpu $(BIN)

test-python: ## the tests of the Python package (clients/python)
	@scripts/test-python

race: ## go test -race on every package
	scripts/gotest -race -count=1 -p $(TEST_PARALLEL) -timeout $(TEST_TIMEOUT) ./...

sim: ## SEEDS (2000) meshes in virtual time through random work and faults (docs/reliability.md)
	$(GO) test ./node -run 'TestSim$$' -seeds $(SEEDS) -first $(FIRST) -count=1 -timeout 10h

fuzz: ## every fuzz target, each for FUZZTIME (30s)
	@scripts/each-fuzz $(FUZZTIME)

bench: ## the benchmarks, but for those of make chaos; BENCH=regexp chooses, BENCHTIME says how long
	@scripts/needs bench
	$(GO) test -run '^$$' -bench '$(BENCH)' -benchtime $(BENCHTIME) -benchmem -p 1 -timeout 30m \
		$$(grep -rl --include='*_test.go' '^func Benchmark' . | xargs -n1 dirname | sort -u | grep -vx ./chaos)

bench-engine: ## the built-in engine against ONNX Runtime (fetched with npm) and PyTorch (if a Python has it)
	@scripts/bench-engine

chaos: build sim ## break machines and lines under meshes of real processes, best as root; CHAOS=flags chooses (docs/reliability.md)
	@scripts/needs
	LABMESH_BIN=$(abspath $(BIN)) $(GO) test -v -count=1 -benchtime 1x -timeout 10h ./chaos/ $(CHAOS)

demo: build ## three nodes on this machine, real work, the leader killed in the middle; exits 1 if anything is lost
	$(GO) run ./cmd/demo -bin $(BIN)

lab: build ## the same three nodes, left running until Ctrl-C
	$(GO) run ./cmd/demo -bin $(BIN) -stay

clean: ## remove what was built
	rm -rf bin dist
	find . -name '*.test' -o -name '*.prof' | xargs -r rm -f
