package lab

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

// BinVar is the environment variable that names a labmesh binary to use in place
// of building one, e.g. one built with -race.
const BinVar = "LABMESH_BIN"

// buildWait bounds the build of a node; the first on a machine compiles DuckDB's bindings.
const buildWait = 15 * time.Minute

// Build builds labmesh into dir and returns the path of the binary, or returns
// what LABMESH_BIN names. It must run inside the module.
func Build(ctx context.Context, dir string) (string, error) {
	if bin := os.Getenv(BinVar); bin != "" {
		return existing(bin)
	}
	bin, err := filepath.Abs(filepath.Join(dir, "labmesh"))
	if err != nil {
		return "", fmt.Errorf("build labmesh: %w", err)
	}
	ctx, cancel := context.WithTimeout(ctx, buildWait)
	defer cancel()
	cmd := exec.CommandContext(ctx, "go", "build", "-o", bin, "labmesh/cmd/labmesh")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=1")
	if os.Getenv("CGO_CFLAGS") == "" {
		cmd.Env = append(cmd.Env, "CGO_CFLAGS=-O2 -g -Wno-deprecated-declarations")
	}
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build labmesh: %w: %s", err, strings.TrimSpace(string(out)))
	}
	return bin, nil
}

func existing(bin string) (string, error) {
	bin, err := filepath.Abs(bin)
	if err != nil {
		return "", fmt.Errorf("use %s: %w", BinVar, err)
	}
	if _, err := os.Stat(bin); err != nil {
		return "", fmt.Errorf("use %s: %w", BinVar, err)
	}
	return bin, nil
}
