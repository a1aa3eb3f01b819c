package bench

import (
	"context"
	"encoding/json"
	"io"
	"time"

	"labmesh/bench"
	"labmesh/exec"
	"labmesh/exec/bench/engines"
	"labmesh/exec/process"
)

// Host is what benchmarks run with on this machine.
type Host struct {
	Launcher Launcher
	Engines  func(context.Context) []engines.Found // those of this machine; nil for none but a task's own
	Machine  Machine                               // nil where nobody can tell whether the machine is quiet
}

// Launcher starts programs for attempts.
type Launcher interface {
	// Launch runs p for a until it has ended and nothing of it runs any more. When
	// ctx ends p gets SIGTERM, and a grace later its whole tree is killed.
	Launch(ctx context.Context, a exec.Attempt, p Program) (process.Exit, error)
}

// Program is a runner to launch.
type Program struct {
	Name   string            // a path, or a name to be found on PATH
	Args   []string          // without its name
	Env    []string          // of its environment, where the task says nothing else
	Over   map[string]string // of its environment, whatever the task says
	Stdin  string            // what it reads
	Stdout io.Writer         // takes what it prints
}

// Machine watches the machine while it is measured.
type Machine interface {
	// Wait waits until the machine, and d, are quiet, for most at most.
	Wait(ctx context.Context, d bench.Device, most time.Duration) bench.Quiet
	// Env is the fingerprint of the machine and of d: an object of at most
	// [labmesh.BenchEnvBytesMax] bytes, or nil.
	Env(ctx context.Context, d bench.Device) json.RawMessage
	// Watch watches until stop is called, once.
	Watch(ctx context.Context, d bench.Device) (stop func() bench.Observed)
}

// blind is the machine where nobody watches.
type blind struct{}

func (blind) Wait(context.Context, bench.Device, time.Duration) bench.Quiet {
	return bench.Quiet{Reasons: []string{"this node cannot tell whether its machine is quiet"}}
}

func (blind) Env(context.Context, bench.Device) json.RawMessage { return nil }

func (blind) Watch(context.Context, bench.Device) func() bench.Observed {
	return func() bench.Observed { return bench.Observed{} }
}
