package runner

import (
	"context"

	"labmesh"
	"labmesh/exec"
	"labmesh/exec/bench"
	"labmesh/exec/bench/engines"
	"labmesh/exec/process"
)

// Benchmark runs a model and times it.
type Benchmark struct{ shop *shop }

// Benchmarks has benchmarks run by the engines of this machine, and watched by m.
// Without it they run with what the task brings, and nobody watches.
func Benchmarks(found func(context.Context) []engines.Found, m bench.Machine) Option {
	return func(s *shop) { s.engines, s.machine = found, m }
}

// Run runs a benchmark task.
func (b *Benchmark) Run(ctx context.Context, a exec.Attempt) labmesh.Outcome {
	o, err := bench.Run(ctx, bench.Host{Launcher: launcher{b.shop}, Engines: b.shop.engines, Machine: b.shop.machine}, a)
	if err != nil {
		return fault(err)
	}
	return o
}

// launcher starts the programs of benchmarks.
type launcher struct{ shop *shop }

var _ bench.Launcher = launcher{}

// Launch runs a program of a benchmark.
func (l launcher) Launch(ctx context.Context, a exec.Attempt, p bench.Program) (process.Exit, error) {
	if err := checkEnv(p.Over); err != nil {
		return process.Exit{}, err
	}
	return l.shop.run(ctx, a, job{name: p.Name, args: p.Args, env: p.Env, over: p.Over, stdin: p.Stdin, stdout: p.Stdout})
}
