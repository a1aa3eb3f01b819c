package suite

import (
	"context"
	"embed"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"strconv"
	"strings"

	"labmesh"
	"labmesh/exec/output"
	"labmesh/exec/process"
)

//go:embed plugin/*.py
var plugins embed.FS

// plan is what an interpreter is told to do. It is in a file: ids may be many,
// and of any kind.
type plan struct {
	Collect    bool     `json:"collect,omitempty"`
	Paths      []string `json:"paths"`
	Args       []string `json:"args,omitempty"`
	Cases      []string `json:"cases,omitempty"`
	Timeout    float64  `json:"timeout,omitempty"` // seconds until the stacks of a test are written
	FailFast   bool     `json:"fail_fast,omitempty"`
	Quarantine []string `json:"quarantine,omitempty"`
	Events     string   `json:"events"` // files for what it writes
	Stack      string   `json:"stack"`
	Cache      string   `json:"cache"`
	Go         string   `json:"go"` // nothing of the suite is loaded before there is this file
}

// python runs a chunk of pytest or unittest.
func (c *chunk) python(ctx context.Context) (labmesh.Outcome, error) {
	if err := c.findPython(ctx); err != nil {
		return labmesh.Outcome{}, err
	}
	if c.conf.Collect {
		return c.collectPython(ctx)
	}
	for n := 0; ; n++ {
		left := c.open()
		if len(left) == 0 || c.halted || ctx.Err() != nil {
			return c.outcome(ctx), nil
		}
		s := newSession(c, left)
		exit, err := c.interpret(ctx, n, c.planOf(left), s)
		if err != nil && !errors.Is(err, errTooMuch) {
			return c.outcome(ctx), err
		}
		if ctx.Err() != nil {
			return c.outcome(ctx), nil
		}
		if full := s.diskFull(); full != nil {
			return labmesh.Outcome{Cause: labmesh.CauseDisk, Error: full.Error(), Result: c.outcome(ctx).Result}, nil
		}
		if !s.conclude(exit, err) {
			return c.outcome(ctx), nil
		}
	}
}

// planOf is a plan to run cases.
func (c *chunk) planOf(cases []string) plan {
	return plan{Paths: files(cases), Args: c.conf.Args, Cases: cases, Timeout: c.conf.CaseTimeout, FailFast: c.conf.FailFast, Quarantine: c.conf.Quarantine}
}

// findPython sees to what it takes to start an interpreter.
func (c *chunk) findPython(ctx context.Context) (err error) {
	if c.py != "" {
		return nil
	}
	if c.py, err = c.m.Python(ctx, c.conf.Framework == Pytest); err != nil {
		return err
	}
	return c.unpackPlugins()
}

// early starts the chunk's first interpreter, which loads the framework and then
// waits until it may go on.
func (c *chunk) early(ctx context.Context) {
	if c.findPython(ctx) != nil {
		return // python will say why
	}
	if _, err := c.writePlan(0, c.planOf(c.open())); err == nil {
		c.first = c.launch(ctx, c.interpreter(0))
	}
}

// dropFirst ends the interpreter that was started early, if nobody took it.
func (c *chunk) dropFirst() {
	if c.first != nil {
		c.first.stop(errKilled)
		<-c.first.done
	}
}

// interpreter is the n-th interpreter of the chunk.
func (c *chunk) interpreter(n int) Program {
	return Program{Name: c.py, Args: []string{c.file("labmesh_" + string(c.conf.Framework) + ".py"), c.file("plan." + strconv.Itoa(n))}, Grace: grace,
		Env: []string{"PYTHONDONTWRITEBYTECODE=1", "PYTHONUNBUFFERED=1", "PYTHONIOENCODING=utf-8:backslashreplace"}}
}

// unpackPlugins writes our Python files beside the attempt's work directory.
func (c *chunk) unpackPlugins() error {
	entries, err := plugins.ReadDir("plugin")
	if err != nil {
		return err
	}
	for _, e := range entries {
		text, err := plugins.ReadFile(path.Join("plugin", e.Name()))
		if err != nil {
			return err
		}
		if err := os.WriteFile(c.file(e.Name()), text, 0o600); err != nil {
			return fmt.Errorf("write the test plugin: %w", err)
		}
	}
	return nil
}

// interpret runs the n-th interpreter of the chunk by a plan.
func (c *chunk) interpret(ctx context.Context, n int, p plan, s *session) (process.Exit, error) {
	p, err := c.writePlan(n, p)
	if err == nil {
		err = os.WriteFile(p.Go, nil, 0o600)
	}
	if err != nil {
		return process.Exit{}, fmt.Errorf("write the plan of the tests: %w", err)
	}
	s.events, s.stack = p.Events, p.Stack
	l := c.first
	if c.first = nil; l == nil {
		l = c.launch(ctx, c.interpreter(n))
	}
	return c.supervise(ctx, l, p.Events, s)
}

// writePlan writes the plan of the n-th interpreter, and returns it with its files
// named. It may be there: that of an attempt that is taken up again, or was begun
// early, is the same, and is being read perhaps.
func (c *chunk) writePlan(n int, p plan) (plan, error) {
	number := strconv.Itoa(n)
	p.Events, p.Stack, p.Cache, p.Go = c.file("events."+number), c.file("stack."+number), filepath.Join(c.a.Tmp(), "pytest_cache"), c.file("go")
	data, err := json.Marshal(p)
	if err != nil {
		return p, err
	}
	at := c.file("plan." + number)
	if err := os.WriteFile(at+".new", data, 0o600); err != nil {
		return p, err
	}
	return p, os.Rename(at+".new", at)
}

// files lists the files of cases, each once, in order.
func files(cases []string) []string {
	out := make([]string, 0, len(cases))
	for _, id := range cases {
		file, _, _ := strings.Cut(id, "::")
		out = append(out, file)
	}
	return unique(out)
}

// stream is where the framework prints what it says of failed tests.
func (c *chunk) stream() output.Stream {
	if c.conf.Framework == Unittest {
		return output.Stderr
	}
	return output.Stdout
}

// printed is how much is in the log of the attempt so far.
func (c *chunk) printed() int64 { return c.a.Output.Size(c.stream()) }
