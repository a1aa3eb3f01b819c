package suite_test

import (
	"encoding/xml"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"labmesh"
	"labmesh/suite"
)

var start = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

// hand asks a queue for what to do, and wants one chunk.
func hand(t *testing.T, q *suite.Queue, now time.Time) *suite.Chunk {
	t.Helper()
	orders := q.Next(now)
	if len(orders) != 1 || orders[0].Start == nil {
		t.Fatalf("orders %+v, want one chunk", orders)
	}
	return orders[0].Start
}

func casesOf(names ...string) (list []suite.Case) {
	for _, n := range names {
		list = append(list, suite.Case{ID: "f.py::" + n, File: "f.py", Name: n, Seconds: 0.1})
	}
	return list
}

func record(name string, v labmesh.TestVerdict) labmesh.TestCase {
	return labmesh.TestCase{File: "f.py", Name: name, Verdict: v, Seconds: 0.1}
}

func TestAFailureIsTriedAgainAloneAndLastElsewhere(t *testing.T) {
	t.Parallel()
	q := suite.New(casesOf("a", "b", "c"), suite.Options{Retries: 1})
	q.SetWorkers([]suite.Worker{{ID: "w1", Slots: 1, Speed: 1}})
	c := hand(t, q, start)
	if len(c.Cases) != 3 {
		t.Fatalf("the first chunk is %+v", c)
	}
	q.Started(c.ID, start)
	q.Recorded(c.ID, suite.Source{Task: "t1", Attempt: 1, Worker: "w1"}, 0, []labmesh.TestCase{record("a", labmesh.TestPassed), record("b", labmesh.TestFailed), record("c", labmesh.TestCrashed)}, start)
	q.Ended(c.ID, suite.Source{Task: "t1", Attempt: 1, Worker: "w1"}, suite.End{Started: true, Cause: labmesh.CauseExit}, start)
	q.SetWorkers([]suite.Worker{{ID: "w1", Slots: 1, Speed: 1}, {ID: "w2", Slots: 1, Speed: 1}})
	for n, want := range []labmesh.TestVerdict{labmesh.TestPassed, labmesh.TestFailed} {
		c = hand(t, q, start)
		if len(c.Cases) != 1 || c.Worker != "w2" || c.Try != 2 {
			t.Fatalf("the retry is %+v, want one case on w2", c)
		}
		src := suite.Source{Task: labmesh.TaskID(fmt.Sprint("r", n)), Attempt: 1, Worker: c.Worker}
		q.Started(c.ID, start)
		q.Recorded(c.ID, src, 0, []labmesh.TestCase{record(c.Cases[0].Name, want)}, start)
		q.Ended(c.ID, src, suite.End{OK: want == labmesh.TestPassed, Started: true, Cause: labmesh.CauseExit}, start)
	}
	rs := q.Results()
	if !q.Done() || !rs[1].Flaky || rs[1].Verdict != labmesh.TestPassed || rs[2].Flaky || rs[2].Verdict != labmesh.TestFailed || len(rs[2].Runs) != 2 {
		t.Errorf("done %v, results %+v", q.Done(), rs)
	}
	if n := q.Counts(); n.Flaky != 1 || n.Bad != 1 || n.Passed != 2 || n.Failed != 1 {
		t.Errorf("counts %+v", n)
	}
}

func TestFailFastLeavesTheRest(t *testing.T) {
	t.Parallel()
	q := suite.New(casesOf("a", "b", "c"), suite.Options{FailFast: true})
	q.SetWorkers([]suite.Worker{{ID: "w1", Slots: 1}})
	c := hand(t, q, start)
	src := suite.Source{Task: "t1", Attempt: 1, Worker: "w1"}
	q.Recorded(c.ID, src, 0, []labmesh.TestCase{record("a", labmesh.TestFailed)}, start)
	orders := q.Next(start)
	if len(orders) != 1 || orders[0].Start != nil || orders[0].Withdraw != c.ID {
		t.Fatalf("orders %+v, want the chunk taken back", orders)
	}
	q.Ended(c.ID, src, suite.End{Started: true, Cause: labmesh.CauseCancelled}, start)
	if n := q.Counts(); !q.Done() || n.NotRun != 2 || n.Bad != 1 {
		t.Errorf("done %v, counts %+v", q.Done(), n)
	}
}

func TestAQuarantinedFailureDoesNotCount(t *testing.T) {
	t.Parallel()
	list := casesOf("a")
	list[0].Quarantined = true
	q := suite.New(list, suite.Options{FailFast: true})
	q.SetWorkers([]suite.Worker{{ID: "w1", Slots: 1}})
	c := hand(t, q, start)
	q.Recorded(c.ID, suite.Source{}, 0, []labmesh.TestCase{record("a", labmesh.TestFailed)}, start)
	q.Ended(c.ID, suite.Source{}, suite.End{Started: true, Cause: labmesh.CauseExit}, start)
	if n := q.Counts(); q.Stopped() != "" || n.Bad != 0 || n.Quarantined != 1 || n.Failed != 1 {
		t.Errorf("stopped %q, counts %+v", q.Stopped(), n)
	}
}

func TestAMissedRecordIsNoticed(t *testing.T) {
	t.Parallel()
	q := suite.New(casesOf("a", "b"), suite.Options{})
	q.SetWorkers([]suite.Worker{{ID: "w1", Slots: 1}})
	c := hand(t, q, start)
	if q.Recorded(c.ID, suite.Source{}, 1, []labmesh.TestCase{record("b", labmesh.TestPassed)}, start) || q.Seen(c.ID) != 0 {
		t.Error("records after a gap were taken")
	}
	both := []labmesh.TestCase{record("a", labmesh.TestPassed), record("b", labmesh.TestPassed)}
	if !q.Recorded(c.ID, suite.Source{}, 0, both, start) || !q.Recorded(c.ID, suite.Source{}, 0, both, start) || q.Seen(c.ID) != 2 {
		t.Errorf("%d records", q.Seen(c.ID))
	}
}

func TestAFileThatIsRunAsOneYieldsItsCases(t *testing.T) {
	t.Parallel()
	q := suite.New([]suite.Case{{ID: "x.t", File: "x.t", Whole: true}, {ID: "y.t", File: "y.t", Whole: true}}, suite.Options{Retries: 1})
	q.SetWorkers([]suite.Worker{{ID: "w1", Slots: 1, Speed: 1}})
	verdict := labmesh.TestFailed
	for n := 0; !q.Done(); n++ {
		c := hand(t, q, start)
		src := suite.Source{Task: labmesh.TaskID(fmt.Sprint("t", n)), Attempt: 1, Worker: "w1"}
		q.Started(c.ID, start)
		for i, f := range c.Cases {
			if f.File == "x.t" {
				q.Recorded(c.ID, src, i, []labmesh.TestCase{{File: "x.t", Name: "one", Verdict: verdict}}, start)
				verdict = labmesh.TestPassed
			}
		}
		q.Ended(c.ID, src, suite.End{Started: true, Cause: labmesh.CauseExit, Error: "exit code 1"}, start)
		if n > 5 {
			t.Fatal("it goes on and on")
		}
	}
	rs := q.Results()
	if len(rs) != 2 || q.Counts().Flaky != 1 || q.Counts().Errors != 1 || q.Counts().Total != 2 {
		t.Errorf("results %+v, counts %+v", rs, q.Counts())
	}
}

func TestAWorkerThatOnlyFailsIsSetAside(t *testing.T) {
	t.Parallel()
	var names []string
	for i := range 40 {
		names = append(names, fmt.Sprint("t", i))
	}
	q := suite.New(casesOf(names...), suite.Options{})
	q.SetWorkers([]suite.Worker{{ID: "bad", Slots: 1, Speed: 9}, {ID: "good", Slots: 1, Speed: 1}})
	now, bad := start, 0
	for range 50 {
		for _, o := range q.Next(now) {
			if o.Start == nil {
				continue
			}
			src := suite.Source{Task: labmesh.TaskID(fmt.Sprint(o.Start.ID)), Attempt: 1, Worker: o.Start.Worker}
			q.Started(o.Start.ID, now)
			if o.Start.Worker == "bad" {
				bad++
				q.Ended(o.Start.ID, src, suite.End{Started: true, Cause: labmesh.CauseProgram, Error: "no pytest"}, now)
				continue
			}
			for i, c := range o.Start.Cases {
				q.Recorded(o.Start.ID, src, i, []labmesh.TestCase{record(c.Name, labmesh.TestPassed)}, now)
			}
			q.Ended(o.Start.ID, src, suite.End{OK: true, Started: true}, now)
		}
		now = now.Add(100 * time.Millisecond)
	}
	if n := q.Counts(); !q.Done() || n.Passed != 40 || bad > 6 {
		t.Errorf("done %v, %d chunks went to the bad worker, counts %+v", q.Done(), bad, n)
	}
}

func TestWhatDoesNotBeginIsTakenBack(t *testing.T) {
	t.Parallel()
	q := suite.New(casesOf("a", "b"), suite.Options{})
	q.SetWorkers([]suite.Worker{{ID: "w1", Slots: 1, Speed: 1}})
	c := hand(t, q, start)
	q.SetWorkers([]suite.Worker{{ID: "w2", Slots: 1, Speed: 1}})
	orders := q.Next(start.Add(time.Second))
	if len(orders) != 1 || orders[0].Withdraw != c.ID {
		t.Fatalf("orders %+v", orders)
	}
	q.Ended(c.ID, suite.Source{}, suite.End{Cause: labmesh.CauseCancelled}, start)
	if c = hand(t, q, start); c.Worker != "w2" || len(c.Cases) != 2 {
		t.Errorf("then %+v", c)
	}
}

func TestQuarantineLists(t *testing.T) {
	t.Parallel()
	q, err := suite.ParseQuarantine("# flaky ones\n\nf.py::a\nf.py::b[*] until 2026-01-02 # issue 7\ng.py::* until 2025-12-31\nh.py::x[1-?]\n")
	if err != nil {
		t.Fatal(err)
	}
	for id, want := range map[string]bool{"f.py::a": true, "f.py::ab": false, "f.py::b[1]": true, "f.py::b": false, "g.py::x": false, "h.py::x[1-2]": true, "h.py::x1": false} {
		if q.Holds(id, start) != want {
			t.Errorf("%s: %v, want %v", id, !want, want)
		}
	}
	if q.Holds("f.py::b[1]", start.AddDate(0, 0, 1)) || !slices.Equal(q.Expired(start), []string{"g.py::*"}) {
		t.Errorf("expired %q", q.Expired(start))
	}
	if _, err := suite.ParseQuarantine("f.py::a until tomorrow\n"); err == nil || !strings.Contains(err.Error(), "line 1") {
		t.Errorf("error %v", err)
	}
	var none *suite.Quarantine
	if none.Holds("x", start) || none.Expired(start) != nil {
		t.Error("no list holds something")
	}
}

func FuzzParseQuarantine(f *testing.F) {
	f.Add("a until 2026-01-01\n*b?c # x", "abc")
	f.Fuzz(func(t *testing.T, text, id string) {
		if q, err := suite.ParseQuarantine(text); err == nil {
			q.Holds(id, start)
		}
	})
}

func TestShardsHaveAllBetweenThem(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		n := rapid.IntRange(1, 9).Draw(t, "parts")
		var list []suite.Case
		for i := range rapid.IntRange(0, 200).Draw(t, "cases") {
			list = append(list, suite.Case{ID: fmt.Sprint("f.py::t", i)})
		}
		seen := map[string]int{}
		for i := 1; i <= n; i++ {
			s, err := suite.ParseShards(fmt.Sprintf("%d/%d", i, n))
			if err != nil {
				t.Fatal(err)
			}
			mine := s.Pick(list)
			if len(mine) > len(list)/n+1 {
				t.Fatalf("part %d of %d has %d of %d", i, n, len(mine), len(list))
			}
			for _, c := range mine {
				seen[c.ID]++
			}
		}
		for _, c := range list {
			if seen[c.ID] != 1 {
				t.Fatalf("%s is in %d parts", c.ID, seen[c.ID])
			}
		}
	})
	for _, s := range []string{"0", "-1", "3/2", "1/0", "x", "1/x", "/"} {
		if _, err := suite.ParseShards(s); err == nil {
			t.Errorf("%q was taken", s)
		}
	}
	if s, err := suite.ParseShards("8"); err != nil || s.Parallel != 8 || s.Part != 0 {
		t.Errorf("8 is %+v, %v", s, err)
	}
}

// FuzzJUnit: whatever a test says, the file is valid XML and tells of each case once.
func FuzzJUnit(f *testing.F) {
	f.Add("tests/test_a.py", "T::test_b", "x-\x00", "assert 1 == \xff\x1b[31m]]>", uint8(0))
	f.Add("", "", "", "", uint8(5))
	f.Fuzz(func(t *testing.T, file, name, params, message string, n uint8) {
		verdicts := []labmesh.TestVerdict{"failed", "passed", "error", "skipped", "crashed", "timeout", "xfailed", "xpassed", ""}
		v := verdicts[int(n)%len(verdicts)]
		c := suite.Case{ID: name, File: file, Name: name, Params: params, Quarantined: n > 128}
		run := func(v labmesh.TestVerdict) suite.Run {
			return suite.Run{TestCase: labmesh.TestCase{Verdict: v, Message: message, Seconds: -1}, Source: suite.Source{Task: labmesh.TaskID(name), Worker: labmesh.WorkerID(message)}}
		}
		res := suite.Result{Case: c, Verdict: v}
		if v != "" {
			res.Runs = []suite.Run{run("failed"), run(v)}
		}
		var b strings.Builder
		r := suite.Report{Name: name, Started: start, Results: []suite.Result{res}, Errors: []suite.CollectError{{File: file, Message: message}}}
		if err := r.WriteJUnit(&b); err != nil {
			t.Fatal(err)
		}
		cases, bad := 0, 0
		for d := xml.NewDecoder(strings.NewReader(b.String())); ; {
			tok, err := d.Token()
			if err == io.EOF {
				break
			}
			if err != nil {
				t.Fatalf("it is no XML: %v\n%s", err, b.String())
			}
			if s, ok := tok.(xml.StartElement); ok {
				switch s.Name.Local {
				case "testcase":
					cases++
				case "failure", "error", "skipped":
					bad++
				}
			}
		}
		if want := 2; cases != want || bad < 1 {
			t.Fatalf("%d cases, %d of them bad", cases, bad)
		}
	})
}
