package runner_test

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"os"
	osexec "os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"labmesh"
	"labmesh/exec"
	"labmesh/exec/output"
	"labmesh/exec/process"
	"labmesh/exec/runner"
	"labmesh/exec/suite"
)

// chunk is a chunk's config and files, and what became of it.
type chunk struct {
	outcome labmesh.Outcome
	result  struct {
		Passed, Failed, Errors, Skipped, Crashed, Timeouts, XFailed, XPassed, Cases int
		NotRun                                                                      []string `json:"not_run"`
	}
	cases     map[string]labmesh.TestCase // by their id
	order     []string
	collected []collected
	a         exec.Attempt
}

type collected struct{ ID, File, Name, Parameters, Error string }

// idOf is the id of a recorded case of pytest.
func idOf(c labmesh.TestCase) string {
	id := c.File + "::" + c.Name
	if c.Params != "" {
		id += "[" + c.Params + "]"
	}
	return id
}

// bed runs chunks without a worker.
type bed struct {
	runner exec.Runner
	dir    string
	ctx    context.Context //nolint:containedctx // of a test
}

func newBed(t testing.TB, options ...runner.Option) *bed {
	t.Helper()
	dir := t.TempDir()
	host, err := process.Open(t.Context(), process.Config{Dir: filepath.Join(dir, "running"), Grace: 200 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := host.Close(); err != nil {
			t.Error(err)
		}
	})
	runners, err := runner.New(host, os.Environ(), options...)
	if err != nil {
		t.Fatal(err)
	}
	return &bed{runners[labmesh.Test], dir, t.Context()}
}

// attempt makes an attempt whose work directory holds a tree, as if it was its bundle.
func (b *bed) attempt(t testing.TB, tree map[string]string, conf suite.Config) exec.Attempt {
	t.Helper()
	dir, err := os.MkdirTemp(b.dir, "attempt")
	if err != nil {
		t.Fatal(err)
	}
	config, err := json.Marshal(conf)
	if err != nil {
		t.Fatal(err)
	}
	a := exec.Attempt{Task: labmesh.Task{ID: "t1", Spec: labmesh.Spec{Kind: labmesh.Test, Config: config}}, Number: 1, Worker: "w1", Dir: dir, Output: output.New(dir)}
	for _, d := range []string{a.Work(), a.Tmp()} {
		if err := os.Mkdir(d, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	for name, text := range tree {
		path := filepath.Join(a.Work(), filepath.FromSlash(name))
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		mode := os.FileMode(0o600)
		if strings.HasPrefix(text, "#!") {
			mode = 0o700
		}
		if err := os.WriteFile(path, []byte(text), mode); err != nil {
			t.Fatal(err)
		}
	}
	return a
}

// runChunk runs a chunk on a tree of files.
func runChunk(t *testing.T, tree map[string]string, conf suite.Config) chunk {
	t.Helper()
	b := newBed(t)
	return b.run(t, b.attempt(t, tree, conf))
}

func (b *bed) run(t testing.TB, a exec.Attempt) chunk {
	t.Helper()
	ctx, cancel := context.WithTimeout(b.ctx, time.Minute)
	defer cancel()
	var mu sync.Mutex
	var cases []labmesh.TestCase
	a.Record = func(more []labmesh.TestCase) {
		mu.Lock()
		defer mu.Unlock()
		cases = append(cases, more...)
	}
	began := time.Now()
	o := b.runner.Run(ctx, a)
	a.Output.Close()
	c := chunk{outcome: o, cases: map[string]labmesh.TestCase{}, a: a}
	if o.Result != nil {
		if err := json.Unmarshal(o.Result, &c.result); err != nil {
			t.Errorf("result %s: %v", o.Result, err)
		}
	}
	for _, tc := range cases {
		if _, twice := c.cases[idOf(tc)]; twice {
			t.Errorf("%s has two verdicts", idOf(tc))
		}
		if len(tc.Message) > labmesh.CaseMessageBytesMax || tc.Seconds < 0 || tc.Seconds > time.Since(began).Seconds()+1 {
			t.Errorf("%s: a message of %d bytes, %g s", idOf(tc), len(tc.Message), tc.Seconds)
		}
		c.cases[idOf(tc)] = tc
		c.order = append(c.order, idOf(tc))
	}
	if f, err := os.Open(filepath.Join(a.Keep(), "collected.jsonl")); err == nil {
		defer f.Close()
		lines := bufio.NewScanner(f)
		lines.Buffer(nil, 1<<20)
		for lines.Scan() {
			var l collected
			if err := json.Unmarshal(lines.Bytes(), &l); err != nil {
				t.Error(err)
			}
			c.collected = append(c.collected, l)
		}
	}
	_ = filepath.WalkDir(a.Work(), func(path string, _ os.DirEntry, _ error) error {
		rel, _ := filepath.Rel(a.Work(), path)
		if strings.Contains(rel, "__pycache__") || strings.Contains(rel, ".pytest_cache") || strings.Contains(rel, "labmesh") {
			t.Errorf("%s was left in the bundle", rel)
		}
		return nil
	})
	return c
}

// verdicts lists the cases in order, each with its verdict.
func (c chunk) verdicts() string {
	var b strings.Builder
	for _, id := range c.order {
		fmt.Fprintf(&b, "%s %s\n", id, c.cases[id].Verdict)
	}
	return b.String()
}

func needPytest(t *testing.T) {
	t.Helper()
	if !hasPytest() {
		t.Skip("no python3 with pytest on this machine: apt-get install python3-pytest, or set LABMESH_PYTHON")
	}
}

func needProgram(t *testing.T, name string) {
	t.Helper()
	if _, err := osexec.LookPath(name); err != nil {
		t.Skipf("no %s on PATH", name)
	}
}

func (c chunk) want(t *testing.T, id string, v labmesh.TestVerdict, says string) {
	t.Helper()
	got, ok := c.cases[id]
	if !ok || got.Verdict != v || !strings.Contains(got.Message, says) {
		t.Errorf("%s: %+v; want %s with %q", id, got, v, says)
	}
}

// logOf is the output that a case refers to.
func (c chunk) logOf(t *testing.T, id string) string {
	t.Helper()
	var stream string
	var from, to int
	if _, err := fmt.Sscanf(strings.NewReplacer(":", " ", "-", " ").Replace(c.cases[id].Log), "%s %d %d", &stream, &from, &to); err != nil {
		t.Errorf("%s: log %q: %v", id, c.cases[id].Log, err)
		return ""
	}
	data, err := os.ReadFile(filepath.Join(c.a.Dir, stream))
	if err != nil || to > len(data) {
		t.Errorf("%s: log %q of %d bytes: %v", id, c.cases[id].Log, len(data), err)
		return ""
	}
	return string(data[from:to])
}
