// Package runner holds the runners for each kind of task: [Custom] runs a
// program, [Test] runs a test file by its kind, or a chunk of a suite (exec/suite),
// [Benchmark] runs a model and times it (exec/bench).
// All run real processes through exec/process and turn how they ended into outcomes.
//
// # The environment of a task
//
// A task sees little of the node's environment, and nothing secret of it: the
// variables that say who and where (HOME, USER, LOGNAME, LANG, LC_ALL, TZ, PATH),
// those by which toolchains find their parts and caches (see inherited in env.go),
// its own:
//
//	TMPDIR                 a directory of the attempt's own, swept with it
//	LABMESH_TASK_ID        the task
//	LABMESH_ATTEMPT        the number of the attempt
//	LABMESH_WORKER_ID      the worker that runs it
//	LABMESH_ATTEMPT_TOKEN  by which its processes are found; leave it alone
//
// and last those of the task's `env`, which may set anything but names that
// begin with LABMESH_. It starts in an empty work directory of its own, with
// nothing to read on stdin, the umask of the node unless its config says
// otherwise, and no core dumps.
package runner

import (
	"os"

	"labmesh"
	"labmesh/exec"
	"labmesh/exec/process"
)

// New is the runners of this machine, by the kind of task they run. Environ is
// the node's own environment, as [os.Environ] gives it.
func New(host *process.Host, environ []string, with ...Option) (map[labmesh.Kind]exec.Runner, error) {
	cwd, err := os.Getwd()
	if err != nil {
		return nil, err
	}
	s := &shop{host: host, base: inherit(environ)}
	for _, o := range with {
		o(s)
	}
	return map[labmesh.Kind]exec.Runner{
		labmesh.Custom:    &Custom{s},
		labmesh.Test:      &Test{shop: s, root: cwd, python: newPythons(environ)},
		labmesh.Benchmark: &Benchmark{s},
	}, nil
}

// Interface guards.
var (
	_ exec.Runner = (*Custom)(nil)
	_ exec.Early  = (*Test)(nil)
	_ exec.Runner = (*Benchmark)(nil)
)
