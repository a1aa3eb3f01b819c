package main

import (
	"slices"
	"testing"

	"github.com/spf13/pflag"

	"labmesh"
	suiterun "labmesh/suite/run"
)

// What the flags ask of a task goes into what all tasks of a suite have in common.
func TestTheFlagsOfATaskHoldForASuite(t *testing.T) {
	t.Parallel()
	f := &testFlags{}
	flags := pflag.NewFlagSet("test", pflag.ContinueOnError)
	f.bind(flags)
	err := flags.Parse([]string{"--secret", "TOKEN,KEY", "--memory-limit", "2GiB", "--disk-limit", "3GiB", "--cpu-limit", "1.5", "--pids-limit", "64", "--sandbox", "no_network",
		"--tool", "gdb", "--env", "A=b", "--tag", "room=1", "--hardware", "cuda", "--priority", "7", "--queue-timeout", "60s", "--worker", "w-1", "--timeout", "5s", "--retries", "2"})
	if err != nil {
		t.Fatal(err)
	}
	a := newApp(nil, nil, nil, func(string) (string, bool) { return "", false })
	cfg, err := a.suiteConfig(f, testPlan{framework: suiterun.Pytest, root: t.TempDir(), name: "tests"})
	if err != nil {
		t.Fatal(err)
	}
	s, r := cfg.Task, cfg.Task.Requirements
	if !slices.Equal(s.Secrets, []string{"TOKEN", "KEY"}) || s.Limits == nil || *s.Limits != (labmesh.Limits{CPUs: 1.5, MemoryGB: 2, Pids: 64, DiskGB: 3}) || s.Env["A"] != "b" || s.Priority != 7 || s.QueueTimeoutSeconds != 60 {
		t.Errorf("%+v, limits %+v", s, s.Limits)
	}
	if r.Sandbox != labmesh.SandboxNoNetwork || !slices.Equal(r.Tools, []string{"gdb"}) || r.Tags["room"] != "1" || !slices.Equal(r.Hardware, []string{"cuda"}) || r.WorkerID != "w-1" {
		t.Errorf("requirements %+v", r)
	}
	if s.TimeoutSeconds != 0 || s.Retry != nil || cfg.CaseTimeout.Seconds() != 5 || cfg.Retries != 2 {
		t.Errorf("the timeout and the retries are of tests: task %v %+v, suite %v %d", s.TimeoutSeconds, s.Retry, cfg.CaseTimeout, cfg.Retries)
	}
}
