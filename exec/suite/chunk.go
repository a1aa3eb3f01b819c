package suite

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"labmesh"
	"labmesh/exec"
	"labmesh/exec/output"
	"labmesh/exec/process"
)

// Program is a program that a chunk needs run.
type Program struct {
	Name  string // a path, or a name to be found on PATH
	Args  []string
	Env   []string // besides what every task sees
	Grace time.Duration
}

// Machine is where chunks run.
type Machine interface {
	// Launch runs p for a, in a's work directory, and waits for it.
	Launch(ctx context.Context, a exec.Attempt, p Program) (process.Exit, error)
	// Python is a Python interpreter, with pytest if that is asked for.
	Python(ctx context.Context, pytest bool) (string, error)
}

// Names of files. What interpreters read and write is in the attempt's directory
// for temporary files, which every sandbox lets them use.
const (
	ownDir        = "labmesh-suite" // in the one for temporary files: plans, events and plugins
	collectedName = "collected.jsonl"
	junitName     = "junit.xml"
)

// grace is how long an interpreter that is to be killed has to end by itself.
const grace = time.Second

// chunk is one chunk under way.
type chunk struct {
	m    Machine
	a    exec.Attempt
	conf Config

	label      string // of the framework, in test cases
	quarantine map[string]bool
	ended      map[string]bool // cases of the config that have a verdict
	counts     map[labmesh.TestVerdict]int
	bad        int // verdicts that make the chunk fail
	halted     bool

	py    string    // the interpreter, once it was found
	first *launched // the first interpreter, where it was started early
}

// Run runs a chunk. An error says why it could not be run at all.
func Run(ctx context.Context, m Machine, a exec.Attempt, conf Config) (labmesh.Outcome, error) {
	c, err := newChunk(m, a, conf)
	if err != nil {
		return labmesh.Outcome{}, err
	}
	return c.run(ctx)
}

// Early reports whether a chunk can begin before it has a slot.
func (c *Config) Early() bool {
	return !c.Collect && (c.Framework == Pytest || c.Framework == Unittest)
}

// Begin starts the interpreter of a chunk that has no slot yet: none of the
// suite's own code runs in it. What Begin returns is the chunk's Run, and must be called.
func Begin(ctx context.Context, m Machine, a exec.Attempt, conf Config) (run func(ctx context.Context) (labmesh.Outcome, error)) {
	c, err := newChunk(m, a, conf)
	if err != nil {
		return func(context.Context) (labmesh.Outcome, error) { return labmesh.Outcome{}, err }
	}
	if conf.Early() {
		c.early(ctx)
	}
	return func(ctx context.Context) (labmesh.Outcome, error) {
		defer c.dropFirst()
		return c.run(ctx)
	}
}

func newChunk(m Machine, a exec.Attempt, conf Config) (*chunk, error) {
	if err := conf.Validate(); err != nil {
		return nil, err
	}
	if err := os.MkdirAll(filepath.Join(a.Tmp(), ownDir), 0o700); err != nil {
		return nil, fmt.Errorf("make the chunk's directory: %w", err)
	}
	c := &chunk{m: m, a: a, conf: conf, label: string(conf.Framework), quarantine: map[string]bool{}, ended: map[string]bool{}, counts: map[labmesh.TestVerdict]int{}}
	for _, id := range conf.Quarantine {
		c.quarantine[id] = true
	}
	c.conf.Cases = unique(conf.Cases)
	if c.conf.Collect && len(c.conf.Paths) == 0 {
		c.conf.Paths = []string{"."}
	}
	return c, nil
}

func (c *chunk) run(ctx context.Context) (labmesh.Outcome, error) {
	switch c.conf.Framework {
	case Go:
		return c.golang(ctx)
	case Command:
		return c.command(ctx)
	}
	return c.python(ctx)
}

func unique(list []string) []string {
	seen := make(map[string]bool, len(list))
	out := make([]string, 0, len(list))
	for _, s := range list {
		if !seen[s] {
			seen[s] = true
			out = append(out, s)
		}
	}
	return out
}

// file is a file of the chunk's own.
func (c *chunk) file(name string) string { return filepath.Join(c.a.Tmp(), ownDir, name) }

// verdict is how one case ended.
type verdict struct {
	id      string // as the config names it, "" for one that it does not name
	file    string
	name    string
	params  string
	verdict labmesh.TestVerdict
	seconds float64
	message string
	log     string
}

// record hands in a verdict. A case gets one only.
func (c *chunk) record(v verdict) {
	if v.id != "" {
		if c.ended[v.id] {
			return
		}
		c.ended[v.id] = true
	}
	t := labmesh.TestCase{Suite: c.conf.Suite, Framework: c.label, File: clipName(v.file), Name: clipName(v.name), Params: clipName(v.params),
		Verdict: v.verdict, Seconds: max(v.seconds, 0), Try: max(c.conf.Try, 1), Message: clip(v.message, labmesh.CaseMessageBytesMax), Log: v.log}
	t.Quarantined = v.id != "" && c.quarantine[v.id] || v.file != "" && c.quarantine[v.file] || c.quarantine[v.file+"::"+v.name]
	c.counts[v.verdict]++
	if v.verdict.Bad() && !t.Quarantined {
		c.bad++
		c.halted = c.halted || c.conf.FailFast
	}
	if c.a.Record != nil {
		c.a.Record([]labmesh.TestCase{t})
	}
}

// open lists the cases without a verdict, in order.
func (c *chunk) open() []string {
	return slices.DeleteFunc(slices.Clone(c.conf.Cases), func(id string) bool { return c.ended[id] })
}

// result is what a chunk that ran cases hands in.
type result struct {
	Framework Framework `json:"framework"`
	Passed    int       `json:"passed"`
	Failed    int       `json:"failed"`
	Errors    int       `json:"errors"`
	Skipped   int       `json:"skipped"`
	XFailed   int       `json:"xfailed,omitempty"`
	XPassed   int       `json:"xpassed,omitempty"`
	Crashed   int       `json:"crashed"`
	Timeouts  int       `json:"timeouts"`
	NotRun    []string  `json:"not_run"`
	More      int       `json:"not_run_more,omitempty"` // not run and not listed, for want of room
}

// notRunBytesMax bounds the list of what was not run.
const notRunBytesMax = labmesh.ResultBytesMax / 8

// outcome is how the chunk ended, once nothing runs any more.
func (c *chunk) outcome(ctx context.Context) labmesh.Outcome {
	n := c.counts
	r := result{Framework: c.conf.Framework, Passed: n[labmesh.TestPassed], Failed: n[labmesh.TestFailed], Errors: n[labmesh.TestError], Skipped: n[labmesh.TestSkipped],
		XFailed: n[labmesh.TestXFailed], XPassed: n[labmesh.TestXPassed], Crashed: n[labmesh.TestCrashed], Timeouts: n[labmesh.TestTimeout], NotRun: []string{}}
	size := 0
	for _, id := range c.open() {
		if size += len(id) + 4; size > notRunBytesMax {
			r.More++
			continue
		}
		r.NotRun = append(r.NotRun, strings.ToValidUTF8(id, "\uFFFD"))
	}
	o := labmesh.Outcome{OK: true, Result: encode(r)}
	if cause, message, stopped := exec.Stopped(ctx); stopped && len(r.NotRun)+r.More > 0 {
		o.OK, o.Cause, o.Error = false, cause, message
	} else if c.bad > 0 {
		o.OK, o.Cause, o.Error = false, labmesh.CauseExit, c.summary()
	}
	return o
}

// summary counts the bad verdicts in words.
func (c *chunk) summary() string {
	var words []string
	for _, v := range []labmesh.TestVerdict{labmesh.TestFailed, labmesh.TestError, labmesh.TestCrashed, labmesh.TestTimeout} {
		if n := c.counts[v]; n > 0 {
			words = append(words, fmt.Sprintf("%d %s", n, v))
		}
	}
	all := 0
	for _, n := range c.counts {
		all += n
	}
	return fmt.Sprintf("of %d tests: %s", all, strings.Join(words, ", "))
}

// lastWords is the end of what was printed, to explain what went wrong.
func (c *chunk) lastWords() string {
	out, errs := c.a.Output.Excerpt(output.Stdout).Text, c.a.Output.Excerpt(output.Stderr).Text
	return strings.TrimSpace(tail(out, 1500) + "\n" + tail(errs, 2000))
}

func tail(s string, most int) string {
	if len(s) <= most {
		return s
	}
	return strings.ToValidUTF8("…"+s[len(s)-most:], "")
}

// span names the part of a stream where the output of a case is.
func span(s output.Stream, from, to int64) string {
	if to <= from {
		return ""
	}
	return fmt.Sprintf("%s:%d-%d", s, from, to)
}

func encode(v any) json.RawMessage {
	data, err := json.Marshal(v)
	if err != nil {
		return nil // it is made of strings and numbers: it cannot be
	}
	return data
}
