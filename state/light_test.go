package state

import (
	"testing"

	"labmesh"
)

func lightOn(node labmesh.NodeID) labmesh.PutWorker {
	return labmesh.PutWorker{Worker: labmesh.Worker{ID: "l", Node: node, Light: true, Slots: 1, Kinds: labmesh.Kinds()}}
}

func TestALightWorkerMovesWithWhatItHolds(t *testing.T) {
	t.Parallel()
	m := newMesh()
	m.apply(labmesh.RaiseLevel{Level: 4}, labmesh.PutWorker{Worker: labmesh.Worker{ID: "l", Hostname: "announced"}})
	if _, a := m.apply(lightOn("n1")); a[0].Refused != nil {
		t.Fatal("after it was announced:", a[0].Refused)
	}
	m.apply(labmesh.SubmitTask{ID: "t", Spec: labmesh.Spec{Kind: labmesh.Custom}}, labmesh.PlaceTask{ID: "t", Attempt: 1, Worker: "l"}, labmesh.StartTask{ID: "t", Attempt: 1, Worker: "l"})
	if _, a := m.apply(lightOn("n2")); a[0].Refused != nil {
		t.Fatal(a[0].Refused)
	}
	if w, _ := m.c.View().Worker("l"); w.Node != "n2" || w.Status != labmesh.WorkerActive {
		t.Fatalf("it is %s on %s", w.Status, w.Node)
	}
	if _, a := m.apply(labmesh.FinishTask{ID: "t", Attempt: 1, Worker: "l", Outcome: labmesh.Outcome{OK: true, Seconds: 0.001}}); a[0].Refused != nil {
		t.Fatal(a[0].Refused)
	}
	if room := m.c.View().AheadRoom(&labmesh.Worker{ID: "l", Slots: 1}); room != 0 {
		t.Errorf("%d tasks may be placed ahead on it", room)
	}
	heavy := labmesh.PutWorker{Worker: labmesh.Worker{ID: "l", Node: "n3", Slots: 1}}
	if _, a := m.apply(heavy); a[0].Refused == nil {
		t.Error("a node took the name of a light worker")
	}
	light := lightOn("n1")
	light.Worker.ID = "w1"
	if _, a := m.apply(light); a[0].Refused == nil {
		t.Error("a light worker took the name of a node's")
	}
}

func TestACancelledTaskOfALightWorkerIsOverAtOnce(t *testing.T) {
	t.Parallel()
	for _, started := range []bool{false, true} {
		m := newMesh()
		m.apply(labmesh.RaiseLevel{Level: 4}, lightOn("n1"), labmesh.SubmitTask{ID: "t", Spec: labmesh.Spec{Kind: labmesh.Custom}}, labmesh.PlaceTask{ID: "t", Attempt: 1, Worker: "l"})
		if started {
			m.apply(labmesh.StartTask{ID: "t", Attempt: 1, Worker: "l"})
		}
		m.apply(labmesh.CancelTask{ID: "t", By: "ada"})
		got, _ := m.c.View().Task("t")
		if got.Phase != labmesh.Cancelled || len(got.History) != 1 || got.History[0].Status != "cancelled" || m.c.View().Used("l").Tasks != 0 {
			t.Fatalf("it is %s, with %+v on record", got.Phase, got.History)
		}
		if _, a := m.apply(labmesh.FinishTask{ID: "t", Attempt: 1, Worker: "l", Outcome: labmesh.Outcome{OK: true, Seconds: 2}}); a[0].Refused == nil {
			t.Fatal("its late result was taken")
		}
	}
}

func TestLightWorkersGetNoTasksThatNeedANode(t *testing.T) {
	t.Parallel()
	m := newMesh()
	bundled := labmesh.Spec{Kind: labmesh.Custom, Bundle: "b"}
	m.apply(labmesh.RaiseLevel{Level: 4}, lightOn("n1"), labmesh.SubmitTask{ID: "t", Spec: bundled}, labmesh.SubmitTask{ID: "plain", Spec: labmesh.Spec{Kind: labmesh.Custom}})
	_, a := m.apply(labmesh.PlaceTask{ID: "t", Attempt: 1, Worker: "l"}, labmesh.PlaceTask{ID: "plain", Attempt: 1, Worker: "l"})
	if a[0].Refused == nil || a[1].Refused != nil {
		t.Fatalf("with a bundle: %v, without: %v", a[0].Refused, a[1].Refused)
	}
	l := lightOn("n1").Worker
	for c := range m.c.View().Classes() {
		if c.Fits(&l) {
			t.Errorf("class %s fits a light worker", c.ID)
		}
	}
	w, _ := m.c.View().Worker("w1")
	if _, a := m.apply(labmesh.PlaceTask{ID: "t", Attempt: 1, Worker: w.ID}); a[0].Refused != nil {
		t.Fatal(a[0].Refused)
	}
}
