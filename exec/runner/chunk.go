package runner

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"

	"labmesh"
	"labmesh/exec"
	"labmesh/exec/process"
	"labmesh/exec/suite"
)

// ParseChunk reads the config of a test task that is a chunk of a suite and
// refuses what it does not know.
func ParseChunk(config json.RawMessage) (suite.Config, error) {
	var c suite.Config
	if err := decodeStrict(config, &c); err != nil {
		return c, err
	}
	return c, c.Validate()
}

func (t *Test) runChunk(ctx context.Context, a exec.Attempt) labmesh.Outcome {
	conf, err := ParseChunk(a.Task.Spec.Config)
	if err != nil {
		return fault(err)
	}
	o, err := suite.Run(ctx, chunkMachine{t}, a, conf)
	if err != nil {
		return fault(err)
	}
	return o
}

// Early has a chunk's interpreter start while the chunk waits for a slot.
func (t *Test) Early(task *labmesh.Task) (begin func(context.Context, exec.Attempt) (run func(context.Context) labmesh.Outcome)) {
	if task.Spec.Requirements.Exclusive || !suite.Is(task.Spec.Config) {
		return nil
	}
	conf, err := ParseChunk(task.Spec.Config)
	if err != nil || !conf.Early() {
		return nil
	}
	return func(ctx context.Context, a exec.Attempt) func(context.Context) labmesh.Outcome {
		rest := suite.Begin(ctx, chunkMachine{t}, a, conf)
		return func(ctx context.Context) labmesh.Outcome {
			o, err := rest(ctx)
			if err != nil {
				return fault(err)
			}
			return o
		}
	}
}

// chunkMachine is what chunks of suites need of the runner of tests.
type chunkMachine struct{ t *Test }

var _ suite.Machine = chunkMachine{}

// Launch runs a program of a chunk.
func (m chunkMachine) Launch(ctx context.Context, a exec.Attempt, p suite.Program) (process.Exit, error) {
	return m.t.shop.run(ctx, a, job{name: p.Name, args: p.Args, env: p.Env, grace: p.Grace})
}

// Python finds an interpreter.
func (m chunkMachine) Python(ctx context.Context, pytest bool) (string, error) {
	if !pytest {
		return m.t.python.plain(ctx)
	}
	if py := m.t.python.withPytest(ctx); py != "" {
		return py, nil
	}
	return "", &problem{labmesh.CauseProgram, fmt.Sprintf(
		"no python3 of this machine has pytest (asked: %s): install it (apt-get install python3-pytest), or name one that has it in LABMESH_PYTHON where the node is started",
		strings.Join(m.t.python.candidates, ", "))}
}
