package main

import (
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"github.com/dustin/go-humanize"
	"github.com/spf13/pflag"

	"labmesh"
	"labmesh/api"
)

// taskFlags are the flags of commands that submit tasks: how to run them, and
// which workers fit.
type taskFlags struct {
	name         string
	priority     int
	timeout      time.Duration
	queueTimeout time.Duration
	hardware     []string
	memoryGB     float64
	compute      float64
	cpus, gpus   int
	exclusive    bool
	tags, labels []string
	env          []string
	secrets      []string
	worker       string
	retries      int
	backoff      time.Duration
	after        []string
	bundle       string
	artifacts    []string
	disconnect   string
	tools        []string
	sandbox      string
	cpuLimit     float64
	memoryLimit  string
	diskLimit    string
	pidsLimit    int
}

func (f *taskFlags) bind(flags *pflag.FlagSet) {
	flags.StringVar(&f.name, "name", "", "a name for the task, for people")
	flags.IntVar(&f.priority, "priority", api.PriorityDefault, "a higher number goes first")
	flags.DurationVar(&f.timeout, "timeout", 0, "end an attempt that runs longer (default never)")
	flags.DurationVar(&f.queueTimeout, "queue-timeout", 0, "give up when it has not started by then (default never)")
	flags.StringSliceVar(&f.hardware, "hardware", nil, "`WORDS` that must all be in the worker's hardware, e.g. cuda,cpu")
	flags.Float64Var(&f.memoryGB, "min-memory-gb", 0, "memory the worker must have, in `GiB`")
	flags.Float64Var(&f.compute, "min-cuda-compute", 0, "CUDA compute capability its GPU must have, e.g. 7.5")
	flags.IntVar(&f.cpus, "cpus", 0, "slots of the worker to take (default 1)")
	flags.IntVar(&f.gpus, "gpus", 0, "GPUs to take")
	flags.StringSliceVar(&f.tools, "tool", nil, "`NAMES` of tools that must all be on the worker, e.g. pytest")
	flags.StringVar(&f.sandbox, "sandbox", "", "shut it in: `LEVEL` is no_network, or bubblewrap, where it also writes only to its own directories")
	flags.Float64Var(&f.cpuLimit, "cpu-limit", 0, "CPU seconds a second that it may use, e.g. 1.5 (default no limit)")
	flags.StringVar(&f.memoryLimit, "memory-limit", "", "`SIZE` of memory beyond which it is killed, e.g. 2GiB")
	flags.StringVar(&f.diskLimit, "disk-limit", "", "`SIZE` of files beyond which it is stopped, e.g. 10GiB")
	flags.IntVar(&f.pidsLimit, "pids-limit", 0, "processes and threads that it may have (default no limit)")
	flags.BoolVar(&f.exclusive, "exclusive", false, "take the whole worker")
	flags.StringArrayVar(&f.tags, "tag", nil, "`KEY=VALUE` that the worker must be tagged with (repeatable)")
	flags.StringVar(&f.worker, "worker", "", "only on the worker with this `ID`")
	flags.IntVar(&f.retries, "retries", 0, "run it again this often when it fails by its own fault")
	flags.DurationVar(&f.backoff, "backoff", 0, "wait before the first of these retries; doubled with each")
	flags.StringVar(&f.disconnect, "on-disconnect", api.DisconnectStop, "when its worker is cut off: `WORD` is stop (and run it elsewhere), keep (it there until the worker is back) or a time to keep it for, e.g. 10m")
	flags.StringSliceVar(&f.after, "after", nil, "`IDS` of tasks that must have completed before it is started")
	flags.StringArrayVar(&f.env, "env", nil, "`NAME=VALUE` in its environment, or NAME to pass yours on (repeatable)")
	flags.StringSliceVar(&f.secrets, "secret", nil, "secrets of the mesh, by `NAME`, in its environment (repeatable)")
	flags.StringArrayVar(&f.labels, "label", nil, "`KEY=VALUE` to find it by later (repeatable)")
}

// bindFiles adds the flags of what files a task starts from and leaves.
func (f *taskFlags) bindFiles(flags *pflag.FlagSet) {
	flags.StringVar(&f.bundle, "bundle", "", "ship this `DIRECTORY` (or the bundle with this id) and run in a copy of it; .gitignore and .labmeshignore say what is left out")
	flags.StringArrayVar(&f.artifacts, "artifact", nil, "keep the files that match this `PATTERN`, as in .gitignore, e.g. '*.xml' or 'out/**' (repeatable; see labmesh artifacts)")
}

// spec is a task of a kind with a config as the flags describe it. It is
// checked as the mesh will check it.
func (f *taskFlags) spec(kind labmesh.Kind, config any, lookup func(string) (string, bool)) (labmesh.Spec, error) {
	raw, err := json.Marshal(config)
	if err != nil {
		return labmesh.Spec{}, fmt.Errorf("encode the task's config: %w", err)
	}
	s := labmesh.Spec{
		Kind: kind, Priority: f.priority, Config: raw, Name: f.name, Secrets: f.secrets,
		Artifacts:      f.artifacts,
		TimeoutSeconds: f.timeout.Seconds(), QueueTimeoutSeconds: f.queueTimeout.Seconds(),
		Requirements: labmesh.Requirements{
			Hardware: f.hardware, MinMemoryGB: f.memoryGB, MinCUDACompute: f.compute,
			CPUs: f.cpus, GPUs: f.gpus, Exclusive: f.exclusive, WorkerID: labmesh.WorkerID(f.worker),
			Tools: f.tools, Sandbox: labmesh.Sandbox(f.sandbox),
		},
	}
	if f.disconnect != api.DisconnectStop {
		s.OnDisconnect = f.disconnect
	}
	if s.Limits, err = f.limits(); err != nil {
		return s, err
	}
	if f.retries != 0 || f.backoff != 0 {
		s.Retry = &labmesh.RetryPolicy{MaxRetries: f.retries, BackoffSeconds: f.backoff.Seconds()}
	}
	for _, id := range f.after {
		s.DependsOn = append(s.DependsOn, labmesh.TaskID(id))
	}
	if s.Requirements.Tags, err = pairs("tag", f.tags); err != nil {
		return s, err
	}
	if s.Labels, err = pairs("label", f.labels); err != nil {
		return s, err
	}
	if s.Env, err = environment(f.env, lookup); err != nil {
		return s, err
	}
	if err := api.ValidateSpec(&s); err != nil {
		return s, usageError{err}
	}
	return s, nil
}

// limits are those of the flags; nil when there are none.
func (f *taskFlags) limits() (*labmesh.Limits, error) {
	l := labmesh.Limits{CPUs: f.cpuLimit, Pids: f.pidsLimit}
	for _, size := range []struct {
		flag, text string
		to         *float64
	}{{"memory-limit", f.memoryLimit, &l.MemoryGB}, {"disk-limit", f.diskLimit, &l.DiskGB}} {
		if size.text == "" {
			continue
		}
		n, err := humanize.ParseBytes(size.text)
		if err != nil || n == 0 {
			return nil, usagef("--%s: %q is no size: write it as 2GiB", size.flag, size.text)
		}
		*size.to = float64(n) / (1 << 30)
	}
	if l == (labmesh.Limits{}) {
		return nil, nil
	}
	return &l, nil
}

// pairs reads KEY=VALUE words.
func pairs(flag string, words []string) (map[string]string, error) {
	m := make(map[string]string, len(words))
	for _, w := range words {
		key, value, ok := strings.Cut(w, "=")
		if !ok || key == "" {
			return nil, usagef("--%s %s: it is KEY=VALUE", flag, w)
		}
		m[key] = value
	}
	return m, nil
}

// environment reads NAME=VALUE words; NAME alone stands for its value here.
func environment(words []string, lookup func(string) (string, bool)) (map[string]string, error) {
	m := make(map[string]string, len(words))
	for _, w := range words {
		name, value, ok := strings.Cut(w, "=")
		if !ok {
			if value, ok = lookup(name); !ok {
				return nil, usagef("--env %s: it is not set here; give it as NAME=VALUE", w)
			}
		}
		m[name] = value
	}
	return m, nil
}
