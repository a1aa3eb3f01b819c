package runner_test

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"labmesh"
	"labmesh/exec"
	"labmesh/exec/suite"
)

// earlyRunner runs each attempt as one that begins before it has a slot.
type earlyRunner struct{ exec.Early }

func (r earlyRunner) Run(ctx context.Context, a exec.Attempt) labmesh.Outcome {
	return r.Early.Early(&a.Task)(ctx, a)(ctx)
}

func TestChunksThatBeginEarly(t *testing.T) {
	t.Parallel()
	needPytest(t)
	tree := map[string]string{
		"conftest.py": "open('loaded', 'w').close()\n",
		"own.py":      "open('loaded', 'w').close()\n",
		"pytest.ini":  "[pytest]\naddopts = -p own\n",
		"test_a.py":   "import os, unittest\nclass T(unittest.TestCase):\n  def test_1(self): pass\n  def test_dies(self): os.kill(os.getpid(), 11)\n  def test_2(self): self.assertEqual(1, 2)\n",
	}
	for _, f := range []suite.Framework{suite.Pytest, suite.Unittest, suite.Pytest} {
		b := newBed(t)
		early := b.runner.(exec.Early)
		b.runner = earlyRunner{early}
		conf := suite.Config{Framework: f, CaseTimeout: 20, Cases: ids("test_a.py::T::test_1 test_a.py::T::test_dies test_a.py::T::test_2")}
		c := b.run(t, b.attempt(t, tree, conf))
		if len(c.order) != 3 || c.result.Passed != 1 || c.result.Crashed != 1 || c.result.Failed != 1 {
			t.Errorf("%s: %+v\n%s", f, c.outcome, c.verdicts())
		}
		c.want(t, "test_a.py::T::test_dies", labmesh.TestCrashed, "SIGSEGV")

		a := b.attempt(t, tree, conf)
		ctx, cancel := context.WithCancelCause(t.Context())
		rest := early.Early(&a.Task)(ctx, a)
		tick := time.NewTicker(5 * time.Millisecond)
		for events := ""; !strings.Contains(events, `"waiting"`); <-tick.C {
			text, err := os.ReadFile(filepath.Join(a.Tmp(), "labmesh-suite", "events.0"))
			if events = string(text); err != nil && !os.IsNotExist(err) || t.Context().Err() != nil {
				t.Fatalf("%s: it does not wait: %v", f, err)
			}
		}
		tick.Stop()
		cancel(exec.ErrCancelled)
		began := time.Now()
		if o := rest(ctx); o.OK || o.Cause != labmesh.CauseCancelled || time.Since(began) > 5*time.Second {
			t.Errorf("%s: cancelled while it waited: %+v after %s", f, o, time.Since(began))
		}
		if _, err := os.Stat(filepath.Join(a.Work(), "loaded")); err == nil {
			t.Errorf("%s: code of the suite ran before there was a slot", f)
		}
		delete(tree, "pytest.ini") // the last of them may go on until it comes to conftest.py
	}
}

func TestWhatDoesNotBeginEarly(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	early := b.runner.(exec.Early)
	alone := b.attempt(t, nil, suite.Config{Framework: suite.Pytest, Cases: ids("a.py::test")}).Task
	alone.Spec.Requirements.Exclusive = true
	for name, task := range map[string]labmesh.Task{
		"a collection":            b.attempt(t, nil, suite.Config{Framework: suite.Pytest, Collect: true}).Task,
		"go test":                 b.attempt(t, nil, suite.Config{Framework: suite.Go, Cases: ids("p.TestA")}).Task,
		"no chunk":                {Spec: labmesh.Spec{Kind: labmesh.Test, Config: []byte(`{"test_file":"a.py"}`)}},
		"one with a bad config":   {Spec: labmesh.Spec{Kind: labmesh.Test, Config: []byte(`{"framework":"pytest","cases":["a.py::test"],"try":-1}`)}},
		"one that wants no other": alone,
	} {
		if early.Early(&task) != nil {
			t.Errorf("%s begins before it has a slot", name)
		}
	}
}
