package run_test

import (
	"context"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"labmesh"
	"labmesh/api"
	"labmesh/suite"
	"labmesh/suite/run"
)

func lines(n int) string {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, `{"id":"tests/test_%d.py::test_%d","file":"tests/test_%d.py","name":"test_%d"}`+"\n", i%4, i, i%4, i)
	}
	return b.String()
}

func config(m *fakeMesh) run.Config {
	return run.Config{
		Mesh: m, ID: "s1", Name: "tests", Framework: run.Pytest, Paths: []string{"tests"}, Task: labmesh.Spec{Priority: api.PriorityDefault},
	}
}

// each checks that every case ran to its end once and passed.
func each(t *testing.T, m *fakeMesh, rep *run.Report, n int) {
	t.Helper()
	if len(rep.Results) != n || rep.Counts.Passed != n || !rep.OK() {
		t.Fatalf("counts %+v, stopped %q, want %d that passed", rep.Counts, rep.Stopped, n)
	}
	for _, r := range rep.Results {
		if len(r.Runs) != 1 || m.runs[r.Case.ID] != 1 {
			t.Errorf("%s has %d runs on record and ran %d times", r.Case.ID, len(r.Runs), m.runs[r.Case.ID])
		}
	}
}

func TestASuiteIsRunOverTheWorkers(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		m := newFake("w1", "w2", "w3")
		m.collected = lines(120)
		var last run.Progress
		cfg := config(m)
		cfg.Show = func(p run.Progress) { last = p }
		rep, err := run.Run(t.Context(), cfg)
		if err != nil {
			t.Fatal(err)
		}
		each(t, m, rep, 120)
		if !last.Final || last.Counts != rep.Counts || len(rep.Workers) != 3 || rep.Workers["w1"].Hostname != "host-w1" {
			t.Errorf("at last %+v, workers %+v", last, rep.Workers)
		}
		if ideal := 4 * time.Second; rep.Took > ideal*14/10+time.Second {
			t.Errorf("it took %s, ideal is %s", rep.Took, ideal)
		}
		for _, s := range m.specs {
			if s.Labels["suite"] != "s1" || !slices.Equal(s.Requirements.Tools, []string{"pytest"}) {
				t.Errorf("a task of the suite has the labels %v and needs %v", s.Labels, s.Requirements.Tools)
			}
		}
		m.wg.Wait()
	})
}

// A stream that breaks off again and again, and loses events each time.
func TestWhatWasMissedIsReadFromTheLedger(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		m := newFake("w1", "w2")
		m.collected = lines(60)
		ctx, stop := context.WithCancel(t.Context())
		m.wg.Go(func() {
			for ctx.Err() == nil {
				time.Sleep(700 * time.Millisecond)
				m.mu.Lock()
				m.deaf = !m.deaf
				for _, breakOff := range m.feeds {
					breakOff()
				}
				m.mu.Unlock()
			}
		})
		rep, err := run.Run(t.Context(), config(m))
		stop()
		if err != nil {
			t.Fatal(err)
		}
		each(t, m, rep, 60)
		m.wg.Wait()
	})
}

func TestALostWorkersCasesAreRunElsewhere(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		m := newFake("w1", "w2", "w3")
		m.collected = lines(90)
		m.wg.Go(func() {
			time.Sleep(1500 * time.Millisecond)
			m.mu.Lock()
			m.dead["w2"] = true
			m.mu.Unlock()
		})
		rep, err := run.Run(t.Context(), config(m))
		m.wg.Wait()
		if err != nil {
			t.Fatal(err)
		}
		each(t, m, rep, 90)
	})
}

func TestAnInterruptCancelsWhatIsOut(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		m := newFake("w1", "w2")
		m.collected = lines(60)
		ctx, cancel := context.WithTimeout(t.Context(), 1500*time.Millisecond)
		defer cancel()
		rep, err := run.Run(ctx, config(m))
		if err != nil || !rep.Interrupted || rep.Counts.Passed == 0 || rep.Counts.NotRun == 0 || rep.OK() {
			t.Errorf("error %v, report %+v", err, rep.Counts)
		}
		m.wg.Wait()
		for id, task := range m.tasks {
			if !task.Status.Final() {
				t.Errorf("%s is %s", id, task.Status)
			}
		}
	})
}

func TestFailuresAreTriedAgainAndShown(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		m := newFake("w1", "w2")
		m.collected = lines(20) + `{"id":"tests/bad.py","file":"tests/bad.py","error":"SyntaxError: line 3"}` + "\n"
		m.verdict = func(id string, try int) (labmesh.TestVerdict, time.Duration) {
			switch {
			case strings.HasSuffix(id, "::test_3") && try == 1:
				return labmesh.TestCrashed, time.Second
			case strings.HasSuffix(id, "::test_5"), strings.HasSuffix(id, "::test_6"):
				return labmesh.TestFailed, time.Second
			}
			return labmesh.TestPassed, 10 * time.Millisecond
		}
		cfg := config(m)
		cfg.Retries = 2
		var err error
		if cfg.Quarantine, err = suite.ParseQuarantine("*::test_6\n"); err != nil {
			t.Fatal(err)
		}
		var failed, flaky []string
		cfg.Show = func(p run.Progress) { failed, flaky = append(failed, p.Failed...), append(flaky, p.Flaky...) }
		rep, err := run.Run(t.Context(), cfg)
		if err != nil {
			t.Fatal(err)
		}
		n := rep.Counts
		if n.Flaky != 1 || n.Bad != 1 || n.Quarantined != 1 || n.Passed != 18 || len(rep.Errors) != 1 || rep.Errors[0].Message != "SyntaxError: line 3" || rep.OK() {
			t.Errorf("counts %+v, errors %+v", n, rep.Errors)
		}
		if len(failed) == 0 || m.runs["tests/test_1.py::test_5"] != 3 {
			t.Errorf("shown as failed %v, flaky %v; test_5 ran %d times", failed, flaky, m.runs["tests/test_1.py::test_5"])
		}
		m.wg.Wait()
	})
}

func TestACollectionThatWaitsSaysWhy(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		m := newFake("w1")
		m.collected, m.pending = lines(3), 5*time.Second
		var notes []string
		cfg := config(m)
		cfg.Note = func(format string, args ...any) { notes = append(notes, fmt.Sprintf(format, args...)) }
		if _, err := run.Run(t.Context(), cfg); err != nil {
			t.Fatal(err)
		}
		if want := []string{"labmesh: the suite waits: no worker fits it", "labmesh:   w1: these tools are not on it: pytest"}; !slices.Equal(notes, want) {
			t.Errorf("notes %q", notes)
		}
		m.wg.Wait()
	})
}

func TestAListThatIsDamagedIsRefused(t *testing.T) {
	t.Parallel()
	for _, text := range []string{"{", `{"file":"x"}`, "not json"} {
		synctest.Test(t, func(t *testing.T) {
			m := newFake("w1")
			m.collected = text
			if _, err := run.Run(t.Context(), config(m)); err == nil {
				t.Errorf("%q was taken", text)
			}
			m.wg.Wait()
		})
	}
}

// What was asked of the suite's tasks holds for the collection and for every chunk.
func TestAllTasksOfASuiteAreAsTheFirstIsAsked(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		m := newFake("w1", "w2")
		m.collected = lines(40)
		cfg := config(m)
		cfg.Task.Secrets = []string{"TOKEN"}
		cfg.Task.Limits = &labmesh.Limits{CPUs: 1, MemoryGB: 2, Pids: 100, DiskGB: 3}
		cfg.Task.Env = map[string]string{"A": "b"}
		cfg.Task.Artifacts = []string{"*.xml"}
		cfg.Task.Requirements.Tools = []string{"pytest", "gdb"}
		cfg.Task.Requirements.Sandbox = labmesh.SandboxNoNetwork
		if _, err := run.Run(t.Context(), cfg); err != nil {
			t.Fatal(err)
		}
		if len(m.specs) < 2 {
			t.Fatalf("%d tasks, want a collection and chunks", len(m.specs))
		}
		for _, s := range m.specs {
			if !reflect.DeepEqual(s.Secrets, cfg.Task.Secrets) || !reflect.DeepEqual(s.Limits, cfg.Task.Limits) || s.Env["A"] != "b" || !slices.Equal(s.Artifacts, cfg.Task.Artifacts) ||
				s.Requirements.Sandbox != labmesh.SandboxNoNetwork || !slices.Equal(s.Requirements.Tools, []string{"gdb", "pytest"}) {
				t.Errorf("%s: secrets %v, limits %+v, env %v, artifacts %v, requirements %+v", s.TaskID, s.Secrets, s.Limits, s.Env, s.Artifacts, s.Requirements)
			}
		}
	})
}
