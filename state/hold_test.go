package state

import (
	"testing"

	"labmesh"
)

func TestHeldWorkerKeepsWhatItRunsAndTakesNothingNew(t *testing.T) {
	t.Parallel()
	m, program := newMesh(), labmesh.Spec{Kind: labmesh.Custom}
	m.apply(labmesh.SubmitTask{ID: "runs", Spec: program}, labmesh.SubmitTask{ID: "waits", Spec: program}, labmesh.SubmitTask{ID: "new", Spec: program},
		labmesh.PlaceTask{ID: "runs", Attempt: 1, Worker: "w1"}, labmesh.StartTask{ID: "runs", Attempt: 1, Worker: "w1"},
		labmesh.PlaceTask{ID: "waits", Attempt: 1, Worker: "w1", Ahead: true})
	_, answers := m.apply(labmesh.HoldWorker{ID: "w1", Status: labmesh.WorkerDraining, Reason: "new disk"})
	if r := answers[0].Refused; r != nil {
		t.Fatal(r)
	}
	for id, want := range map[labmesh.TaskID]labmesh.Phase{"runs": labmesh.Running, "waits": labmesh.Pending} {
		if got, _ := m.c.View().Task(id); got.Phase != want || len(got.History) != 0 || got.Lost != 0 {
			t.Errorf("%s is %s with %d attempts on record, want %s and none", id, got.Phase, len(got.History), want)
		}
	}
	place := labmesh.PlaceTask{ID: "new", Attempt: 1, Worker: "w1"}
	if _, a := m.apply(place); a[0].Refused == nil {
		t.Error("a draining worker was given a task")
	}

	m.apply(labmesh.LoseWorker{ID: "w1", Reason: "its node was stopped"}, labmesh.PutWorker{Worker: worker("w1")})
	if w, _ := m.c.View().Worker("w1"); w.Status != labmesh.WorkerDraining || w.Reason != "new disk" {
		t.Errorf("after its restart it is %s (%s), want draining", w.Status, w.Reason)
	}
	m.apply(labmesh.HoldWorker{ID: "w1"})
	if _, a := m.apply(place); a[0].Refused != nil {
		t.Error("released, but:", a[0].Refused)
	}
	if _, a := m.apply(labmesh.HoldWorker{ID: "nobody"}, labmesh.HoldWorker{ID: "w1", Status: "offline"}); a[0].Refused == nil || a[1].Refused == nil {
		t.Error("a worker that is not there, and a status that cannot be wanted, were taken")
	}
}
