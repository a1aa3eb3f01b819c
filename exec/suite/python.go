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
}

// python runs a chunk of pytest or unittest.
func (c *chunk) python(ctx context.Context) (labmesh.Outcome, error) {
	py, err := c.m.Python(ctx, c.conf.Framework == Pytest)
	if err != nil {
		return labmesh.Outcome{}, err
	}
	if err := c.unpackPlugins(); err != nil {
		return labmesh.Outcome{}, err
	}
	if c.conf.Collect {
		return c.collectPython(ctx, py)
	}
	for n := 0; ; n++ {
		left := c.open()
		if len(left) == 0 || c.halted || ctx.Err() != nil {
			return c.outcome(ctx), nil
		}
		s := newSession(c, left)
		exit, err := c.interpret(ctx, py, n, plan{Paths: files(left), Args: c.conf.Args, Cases: left, Timeout: c.conf.CaseTimeout,
			FailFast: c.conf.FailFast, Quarantine: c.conf.Quarantine}, s)
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
func (c *chunk) interpret(ctx context.Context, py string, n int, p plan, s *session) (process.Exit, error) {
	number := strconv.Itoa(n)
	p.Events, p.Stack, p.Cache = c.file("events."+number), c.file("stack."+number), filepath.Join(c.a.Tmp(), "pytest_cache")
	s.events, s.stack = p.Events, p.Stack
	data, err := json.Marshal(p)
	if err != nil {
		return process.Exit{}, err
	}
	at := c.file("plan." + number)
	if err := os.WriteFile(at, data, 0o600); err != nil {
		return process.Exit{}, fmt.Errorf("write the plan of the tests: %w", err)
	}
	script := "labmesh_" + string(c.conf.Framework) + ".py"
	return c.supervise(ctx, Program{Name: py, Args: []string{c.file(script), at}, Grace: grace,
		Env: []string{"PYTHONDONTWRITEBYTECODE=1", "PYTHONUNBUFFERED=1", "PYTHONIOENCODING=utf-8:backslashreplace"}}, p.Events, s)
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
