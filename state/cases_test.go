package state

import (
	"bytes"
	"fmt"
	"testing"
	"time"

	"pgregory.net/rapid"

	"labmesh"
)

func cases(from, n int) (out []labmesh.TestCase) {
	for i := range n {
		out = append(out, labmesh.TestCase{Framework: "pytest", File: "a.py", Name: fmt.Sprint("test_", from+i), Verdict: labmesh.TestPassed})
	}
	return out
}

// running is a mesh in which w1 runs attempt 2 of task t.
func running(t *testing.T) *mesh {
	t.Helper()
	m := newMesh()
	_, answers := m.apply(
		labmesh.SubmitTask{ID: "t", Spec: labmesh.Spec{Kind: labmesh.Custom, MaxAttempts: 5}},
		labmesh.PlaceTask{ID: "t", Attempt: 1, Worker: "w2"},
		labmesh.StartTask{ID: "t", Attempt: 1, Worker: "w2"},
		labmesh.RecordTests{ID: "t", Attempt: 1, Worker: "w2", Cases: cases(0, 9)},
		labmesh.FinishTask{ID: "t", Attempt: 1, Worker: "w2", Outcome: labmesh.Outcome{Cause: labmesh.CauseSpawn}},
		labmesh.PlaceTask{ID: "t", Attempt: 2, Worker: "w1"},
		labmesh.StartTask{ID: "t", Attempt: 2, Worker: "w1"})
	for _, a := range answers {
		if a.Refused != nil {
			t.Fatal(a.Refused)
		}
	}
	return m
}

func TestTestCasesAreFencedAndCountOnce(t *testing.T) {
	t.Parallel()
	type R = labmesh.RecordTests
	for name, c := range map[string]struct {
		sent    []R
		want    int            // cases on record
		refused labmesh.Reason // of the last
	}{
		"in order":                    {[]R{{From: 0, Cases: cases(0, 2)}, {From: 2, Cases: cases(2, 3)}}, 5, ""},
		"sent twice":                  {[]R{{From: 0, Cases: cases(0, 2)}, {From: 0, Cases: cases(0, 2)}}, 2, ""},
		"an old one again":            {[]R{{From: 0, Cases: cases(0, 2)}, {From: 2, Cases: cases(2, 2)}, {From: 0, Cases: cases(0, 2)}}, 4, ""},
		"grouped otherwise":           {[]R{{From: 0, Cases: cases(0, 3)}, {From: 1, Cases: cases(1, 5)}}, 6, ""},
		"with a hole":                 {[]R{{From: 0, Cases: cases(0, 2)}, {From: 3, Cases: cases(3, 1)}}, 2, labmesh.Conflict},
		"none":                        {[]R{{From: 0}}, 0, labmesh.Invalid},
		"too many":                    {[]R{{From: 0, Cases: cases(0, labmesh.CasesMax+1)}}, 0, labmesh.Invalid},
		"as many as may be":           {[]R{{From: 0, Cases: cases(0, labmesh.CasesMax)}}, labmesh.CasesMax, ""},
		"from before the first":       {[]R{{From: -1, Cases: cases(0, 2)}}, 0, labmesh.Invalid},
		"of an earlier attempt":       {[]R{{Attempt: 1, Worker: "w2", From: 9, Cases: cases(9, 1)}}, 0, labmesh.Conflict},
		"of an attempt to come":       {[]R{{Attempt: 3, From: 0, Cases: cases(0, 1)}}, 0, labmesh.Conflict},
		"of a worker without it":      {[]R{{Worker: "w2", From: 0, Cases: cases(0, 1)}}, 0, labmesh.Conflict},
		"of a task that nobody knows": {[]R{{ID: "x", From: 0, Cases: cases(0, 1)}}, 0, labmesh.NotFound},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			m := running(t)
			var seen []string
			var refused *labmesh.Error
			for _, cmd := range c.sent {
				if cmd.ID == "" {
					cmd.ID = "t"
				}
				if cmd.Attempt == 0 {
					cmd.Attempt = 2
				}
				if cmd.Worker == "" {
					cmd.Worker = "w1"
				}
				events, answers := m.apply(cmd)
				refused = answers[0].Refused
				for _, e := range events {
					if e.Tests.From != len(seen) || e.Tests.Task != "t" || e.Tests.Attempt != 2 || e.Tests.Worker != "w1" || e.Task == nil {
						t.Errorf("event %+v after %d cases", e.Tests, len(seen))
					}
					for _, c := range e.Tests.Cases {
						seen = append(seen, c.Name)
					}
				}
			}
			if got := (c.refused != ""); (refused != nil) != got || got && refused.Reason != c.refused {
				t.Errorf("answered %v, want %q", refused, c.refused)
			}
			task, _ := m.c.v.Task("t")
			if len(seen) != c.want || task.Cases != c.want {
				t.Errorf("%d cases on record, the task says %d, want %d", len(seen), task.Cases, c.want)
			}
			for i, name := range seen {
				if name != fmt.Sprint("test_", i) {
					t.Errorf("at place %d is %s", i, name)
				}
			}
		})
	}
}

func TestTestCasesOfAnEndedAttemptAreRefused(t *testing.T) {
	t.Parallel()
	m := running(t)
	m.apply(labmesh.FinishTask{ID: "t", Attempt: 2, Worker: "w1", Outcome: labmesh.Outcome{OK: true}})
	events, answers := m.apply(labmesh.RecordTests{ID: "t", Attempt: 2, Worker: "w1", Cases: cases(0, 1)})
	if len(events) > 0 || answers[0].Refused == nil || answers[0].Refused.Reason != labmesh.Conflict {
		t.Errorf("events %v, answer %v", events, answers[0])
	}
}

// TestEachTestCaseIsRecordedOnce: a worker that repeats itself and groups its
// cases anew each time, over attempts and snapshots, has each on record once, in
// order, under an id of its own.
func TestEachTestCaseIsRecordedOnce(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(r *rapid.T) {
		m := newMesh()
		m.apply(labmesh.SubmitTask{ID: "t", Spec: labmesh.Spec{Kind: labmesh.Custom}})
		ids := map[int64]bool{}
		last := int64(-1)
		for attempt := 1; attempt <= 3; attempt++ {
			total := rapid.IntRange(1, 30).Draw(r, "cases")
			_, answers := m.apply(labmesh.PlaceTask{ID: "t", Attempt: attempt, Worker: "w1"}, labmesh.StartTask{ID: "t", Attempt: attempt, Worker: "w1"})
			for _, a := range answers {
				if a.Refused != nil {
					r.Fatal(a.Refused)
				}
			}
			recorded := 0
			for tries := 0; recorded < total; tries++ {
				if tries > 1000 {
					r.Fatalf("attempt %d gets nowhere", attempt)
				}
				var cmds []labmesh.Command
				for range rapid.IntRange(1, 4).Draw(r, "commands") {
					from := rapid.IntRange(0, recorded+2).Draw(r, "from")
					n := rapid.IntRange(0, max(0, total-from)).Draw(r, "n")
					cmds = append(cmds, labmesh.RecordTests{ID: "t", Attempt: attempt, Worker: "w1", From: from, Cases: cases(from, n)})
				}
				events, _ := m.apply(cmds...)
				for _, e := range events {
					for i, c := range e.Tests.Cases {
						id := e.Tests.ID + int64(i)
						if c.Name != fmt.Sprint("test_", recorded) || e.Tests.From+i != recorded || ids[id] || id <= last {
							r.Fatalf("attempt %d: %s at place %d with id %d, after %d cases", attempt, c.Name, e.Tests.From+i, id, recorded)
						}
						ids[id], last = true, id
						recorded++
					}
				}
				if rapid.IntRange(0, 5).Draw(r, "snapshot") == 0 {
					c, err := Decode(bytes.NewReader(encode(r, m.c)))
					if err != nil {
						r.Fatal(err)
					}
					m.c = c
				}
			}
			m.apply(labmesh.FinishTask{ID: "t", Attempt: attempt, Worker: "w1", Outcome: labmesh.Outcome{Cause: labmesh.CauseSpawn}})
			m.at = m.at.Add(time.Hour)
		}
	})
}
