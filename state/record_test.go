package state

import (
	"fmt"
	"testing"

	"labmesh"
)

// bearing is a mesh at the level from which on it looks at how workers bear themselves.
func bearing() *mesh {
	m := newMesh()
	m.apply(labmesh.FoundMesh{Mesh: "m", Founder: labmesh.Member{Node: "n-w1", Role: labmesh.RoleNode}, Level: bearingLevel})
	return m
}

// run has a worker run a task once, and returns what became of the task.
func (m *mesh) run(t *testing.T, id labmesh.TaskID, w labmesh.WorkerID, o labmesh.Outcome) *labmesh.Task {
	t.Helper()
	m.apply(labmesh.SubmitTask{ID: id, Spec: labmesh.Spec{Kind: labmesh.Custom}})
	task, _ := m.c.v.Task(id)
	_, answers := m.apply(labmesh.PlaceTask{ID: id, Attempt: task.Attempt + 1, Worker: w}, labmesh.StartTask{ID: id, Attempt: task.Attempt + 1, Worker: w},
		labmesh.FinishTask{ID: id, Attempt: task.Attempt + 1, Worker: w, Outcome: o})
	for _, a := range answers {
		if a.Refused != nil {
			t.Fatal(a.Refused)
		}
	}
	task, _ = m.c.v.Task(id)
	return task
}

func TestBurnsOfAWorker(t *testing.T) {
	t.Parallel()
	good := labmesh.Outcome{OK: true, Seconds: 0.1}
	quick, slow := labmesh.Outcome{Cause: labmesh.CauseExit, Seconds: 0.1}, labmesh.Outcome{Cause: labmesh.CauseExit, Seconds: 30}
	type ran struct {
		w labmesh.WorkerID
		o labmesh.Outcome
	}
	on := func(w labmesh.WorkerID, outcomes ...labmesh.Outcome) (out []ran) {
		for _, o := range outcomes {
			out = append(out, ran{w, o})
		}
		return out
	}
	others := on("w2", good, good, good, good)
	for name, c := range map[string]struct {
		ran  []ran
		want int // of w1
	}{
		"nothing is known":                     {nil, 0},
		"it fails what others do not":          {append(others, on("w1", quick, quick, quick)...), 3},
		"one that did well ends the row":       {append(others, on("w1", quick, quick, good, quick)...), 1},
		"one that ran for a while ends it too": {append(others, on("w1", quick, slow, quick, quick)...), 2},
		"nobody else did anything":             {on("w1", quick, quick, quick, quick), 0},
		"others did too little":                {append(on("w2", good, good), on("w1", quick, quick, quick)...), 0},
		"they fail everywhere":                 {append(append(on("w2", good, good, good, quick), on("w3", quick, quick)...), on("w1", quick, quick, quick)...), 0},
		"a cancel says nothing":                {append(others, on("w1", quick, quick, labmesh.Outcome{Cause: labmesh.CauseTimeout, Seconds: 0.5}, quick)...), 3},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			m := bearing()
			for i, r := range c.ran {
				m.run(t, labmesh.TaskID(fmt.Sprint("t", i)), r.w, r.o)
			}
			if n, why := m.c.View().Burns("w1"); n != c.want {
				t.Errorf("%d, want %d: %s", n, c.want, why)
			}
			if n, _ := m.c.View().Burns("w2"); n != 0 {
				t.Errorf("the other worker is said to fail %d", n)
			}
			checkSnapshotPlain(t, m)
		})
	}
}

// TestWhatABadWorkerFailedRunsElsewhere: the first failures are the tasks' own, the third in a row is the worker's.
func TestWhatABadWorkerFailedRunsElsewhere(t *testing.T) {
	t.Parallel()
	m := bearing()
	for i := range 4 {
		m.run(t, labmesh.TaskID(fmt.Sprint("g", i)), "w2", labmesh.Outcome{OK: true})
	}
	bad := labmesh.Outcome{Cause: labmesh.CauseExit, Error: "exit status 1", Seconds: 0.1}
	for i := range 5 {
		task := m.run(t, labmesh.TaskID(fmt.Sprint("b", i)), "w1", bad)
		if own := i < BurnsMax-1; own && (task.Phase != labmesh.Failed || task.Cause != labmesh.CauseExit) || !own && (task.Phase != labmesh.Pending || task.Cause != labmesh.CauseWorker || task.Failed != 0) {
			t.Errorf("task %d is %s (%s: %s), %d failures of its own", i, task.Phase, task.Cause, task.Error, task.Failed)
		}
	}
	m.apply(labmesh.HoldWorker{ID: "w1", Status: labmesh.WorkerQuarantined, Reason: "x"})
	m.apply(labmesh.HoldWorker{ID: "w1"})
	if n, _ := m.c.View().Burns("w1"); n != 0 {
		t.Errorf("it takes work again, and %d failures are held against it", n)
	}
	old := newMesh() // at level 1
	for i := range 4 {
		old.run(t, labmesh.TaskID(fmt.Sprint("g", i)), "w2", labmesh.Outcome{OK: true})
	}
	for i := range 5 {
		if task := old.run(t, labmesh.TaskID(fmt.Sprint("b", i)), "w1", bad); task.Phase != labmesh.Failed {
			t.Errorf("a mesh with an old replica decides otherwise than that: %s", task.Phase)
		}
	}
}
