package runner

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"labmesh"
	"labmesh/exec"
	"labmesh/exec/bench"
	"labmesh/exec/bench/engines"
	"labmesh/exec/output"
	"labmesh/exec/process"
	"labmesh/exec/sandbox"
)

// stdinName is the file of an attempt's directory that holds what its program can read.
const stdinName = "stdin"

// shop is what runners have in common.
type shop struct {
	host *process.Host
	base []string // the environment of every task
	box  sandbox.Box

	engines func(context.Context) []engines.Found // of benchmarks
	machine bench.Machine                         // watches them
}

// job is a program to run for an attempt.
type job struct {
	name  string // a path, or a name to be found on PATH
	args  []string
	dir   string // from the work directory; "" means the work directory
	stdin string // what it can read
	grace time.Duration
	umask string   // octal digits; "" leaves the node's
	env   []string // besides what every task sees

	// What follows is for programs that are measured.
	over   map[string]string // of the environment, whatever the task says
	stdout io.Writer         // takes what it prints; the program ends with the node's process
}

// problem is what kept a program from running, with whose fault that is.
type problem struct {
	cause   labmesh.Cause
	message string
}

func (p *problem) Error() string { return p.message }

func (p *problem) outcome() labmesh.Outcome {
	return labmesh.Outcome{Cause: p.cause, Error: p.message}
}

// fault makes an outcome of what kept an attempt from running.
func fault(err error) labmesh.Outcome {
	var p *problem
	if errors.As(err, &p) {
		return p.outcome()
	}
	var e *labmesh.Error
	if errors.As(err, &e) {
		return labmesh.Outcome{Cause: labmesh.CauseConfig, Error: e.Message}
	}
	return labmesh.Outcome{Cause: labmesh.CauseSpawn, Error: err.Error()}
}

// run runs j for a.
func (s *shop) run(ctx context.Context, a exec.Attempt, j job) (process.Exit, error) {
	if err := checkEnv(a.Task.Spec.Env); err != nil {
		return process.Exit{}, err
	}
	c := process.Command{Dir: a.Work(), Env: environment(s.base, a, j.env, j.over), Output: a.Output, Grace: j.grace, Limits: limits(a), Stdout: j.stdout, Brisk: j.stdout != nil}
	if j.dir != "" {
		if c.Dir = j.dir; !filepath.IsAbs(j.dir) {
			c.Dir = filepath.Join(a.Work(), j.dir)
		}
		if info, err := os.Stat(c.Dir); err != nil || !info.IsDir() {
			return process.Exit{}, &problem{labmesh.CauseConfig, fmt.Sprintf("config: dir: there is no directory %s on this machine", c.Dir)}
		}
	}
	if j.stdin != "" {
		c.Stdin = filepath.Join(a.Dir, stdinName)
		_ = os.Remove(c.Stdin) // a program that is taken up may be reading it
		if err := os.WriteFile(c.Stdin, []byte(j.stdin), 0o600); err != nil {
			return process.Exit{}, &problem{diskCause(err), fmt.Sprintf("write the attempt's stdin: %v", err)}
		}
		defer func() { _ = os.Remove(c.Stdin) }()
	}
	path, err := lookPath(j.name, c.Dir, c.Env)
	if err != nil {
		return process.Exit{}, missing(j.name, err)
	}
	c.Path, c.Args = path, append([]string{j.name}, j.args...)
	if j.stdout == nil {
		c.Attempt, c.Ordinal = a.Program()
	}
	c.Outlasts = a.Outlasts
	c.Label = strings.Join(append([]string{path, c.Dir}, c.Args...), "\x00") // what follows may be done in another way next time
	s.mask(&c, j.umask)
	why, err := s.shut(&c, a)
	if err != nil {
		return process.Exit{}, err
	}
	exit, err := s.host.Run(ctx, c)
	if err != nil {
		if _, lost := os.Stat(c.Dir); errors.Is(err, unix.ENOENT) && os.IsNotExist(lost) { // which the system tells in the same way
			return exit, &problem{labmesh.CauseSpawn, fmt.Sprintf("the directory %s, where %s was to run, is not there any more", c.Dir, j.name)}
		}
		return exit, startProblem(j.name, path, err)
	}
	if p := why(); p != nil {
		return exit, p
	}
	return exit, nil
}

func diskCause(err error) labmesh.Cause {
	if exec.DiskFull(err) || errors.Is(err, syscall.EROFS) {
		return labmesh.CauseDisk
	}
	return labmesh.CauseSpawn
}

// missing says what to do about a program that is not there, or may not be run.
func missing(name string, err error) *problem {
	switch {
	case os.IsPermission(err):
		return &problem{labmesh.CauseProgram, fmt.Sprintf("%s may not be run on this machine: make it executable (chmod +x)", name)}
	case strings.Contains(name, "/"):
		return &problem{labmesh.CauseProgram, fmt.Sprintf("there is no %s on this machine: check the path, or require a worker that has it", name)}
	}
	return &problem{labmesh.CauseProgram, fmt.Sprintf("no program %q on the PATH of this machine: install it, give its path, or require a worker that has it", name)}
}

// startProblem says why a program that is there could not be started.
func startProblem(name, path string, err error) *problem {
	if errors.Is(err, process.ErrLost) {
		return &problem{labmesh.CauseWorkerLost, err.Error()}
	}
	var start *process.StartError
	if !errors.As(err, &start) {
		return &problem{labmesh.CauseSpawn, err.Error()}
	}
	is := func(errs ...unix.Errno) bool {
		for _, e := range errs {
			if errors.Is(start.Err, e) {
				return true
			}
		}
		return false
	}
	switch {
	case is(unix.ENOENT):
		return &problem{labmesh.CauseProgram, fmt.Sprintf("%s is there, but what runs it is not: check the interpreter in its first line (#!), or its loader", path)}
	case is(unix.ENOEXEC):
		return &problem{labmesh.CauseProgram, fmt.Sprintf("%s is no program of this machine: a script needs a first line such as #!/bin/sh, a binary the right platform", path)}
	case is(unix.EACCES, unix.EPERM, unix.ENOTDIR, unix.ELOOP):
		return &problem{labmesh.CauseProgram, fmt.Sprintf("%s may not be run on this machine: %v", path, start.Err)}
	case is(unix.E2BIG):
		return &problem{labmesh.CauseConfig, fmt.Sprintf("config: args: they and the environment are more than the system takes; give %s a file, or stdin", name)}
	case is(unix.EINVAL):
		return &problem{labmesh.CauseConfig, "config: args: an argument holds a NUL byte"}
	case exec.DiskFull(start.Err):
		return &problem{labmesh.CauseDisk, err.Error()}
	}
	return &problem{labmesh.CauseSpawn, err.Error()}
}

// result is what a finished program hands in. It fits in [labmesh.ResultBytesMax]
// whatever was printed: an excerpt of 4 KiB becomes at most six times that.
type result struct {
	Runner          string `json:"runner,omitempty"`
	ExitCode        int    `json:"exit_code"`
	Signal          string `json:"signal,omitempty"`
	Summary         string `json:"summary,omitempty"`
	Stdout          string `json:"stdout"`
	Stderr          string `json:"stderr"`
	StdoutBytes     int64  `json:"stdout_bytes"`
	StderrBytes     int64  `json:"stderr_bytes"`
	StdoutTruncated bool   `json:"stdout_truncated,omitempty"`
	StderrTruncated bool   `json:"stderr_truncated,omitempty"`
}

// usage is what a finished program used.
type usage struct {
	CPUSeconds    float64 `json:"cpu_seconds"`
	UserSeconds   float64 `json:"user_seconds"`
	SystemSeconds float64 `json:"system_seconds"`
	MaxRSSMB      float64 `json:"max_rss_mb,omitempty"` // MiB, of the largest process

	PeakMemoryMB  float64  `json:"peak_memory_mb,omitempty"`  // MiB, of all its processes at once, with files they had in memory
	LimitsNotHeld []string `json:"limits_not_held,omitempty"` // what this machine could not hold it to
}

// conclude makes the outcome of a program that ran.
func conclude(ctx context.Context, a exec.Attempt, exit process.Exit, r result) labmesh.Outcome {
	out, errs := a.Output.Excerpt(output.Stdout), a.Output.Excerpt(output.Stderr)
	r.ExitCode = exit.Code
	r.Stdout, r.StdoutBytes, r.StdoutTruncated = out.Text, out.Bytes, out.Truncated
	r.Stderr, r.StderrBytes, r.StderrTruncated = errs.Text, errs.Bytes, errs.Truncated
	if exit.Signal != 0 {
		r.Signal = unix.SignalName(exit.Signal)
	}
	o := labmesh.Outcome{
		Result: encode(r),
		Metrics: encode(usage{
			CPUSeconds:  (exit.User + exit.System).Seconds(),
			UserSeconds: exit.User.Seconds(), SystemSeconds: exit.System.Seconds(),
			MaxRSSMB: float64(exit.MaxRSS) / (1 << 20), PeakMemoryMB: float64(exit.PeakMemory) / (1 << 20), LimitsNotHeld: exit.NotHeld,
		}),
	}
	cause, message, stopped := exec.Stopped(ctx)
	oom, killed := outOfMemory(a, exit)
	switch {
	case exit.Stopped && stopped:
		o.Cause, o.Error = cause, message
	case killed:
		o.Cause, o.Error = labmesh.CauseOOM, oom
	case exit.Stopped: // by an earlier life of the node, which alone knew why
		o.Cause, o.Error = labmesh.CauseWorkerLost, "the node stopped the attempt, and was restarted"
	case exit.Signal != 0:
		o.Cause, o.Error = labmesh.CauseSignal, fmt.Sprintf("the program was killed by %s (%v)", r.Signal, exit.Signal)
	case exit.Code != 0:
		o.Cause, o.Error = labmesh.CauseExit, fmt.Sprintf("the program ended with exit code %d", exit.Code)
	default:
		o.OK = true
	}
	return o
}

func encode(v any) json.RawMessage {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil {
		return nil // it is made of strings and numbers: it cannot be
	}
	return bytes.TrimRight(b.Bytes(), "\n")
}
