package state

import (
	"reflect"

	"labmesh"
)

func (x *change) putWorker(cmd labmesh.PutWorker) *labmesh.Error {
	w := cmd.Worker
	if w.ID == "" || w.Slots < 0 {
		return labmesh.Refuse(labmesh.Invalid, "put worker: it needs an id, and slots of 0 or more")
	}
	old, known := x.v.workers.Get(w.ID)
	w.Registered, w.Changed, w.Index = x.at, x.at, x.v.index
	w.Status, w.Reason, w.Hold, w.HoldReason = labmesh.WorkerActive, "", "", ""
	event := labmesh.WorkerJoined
	if known {
		if old.Node != w.Node && old.Status != labmesh.WorkerOffline {
			return labmesh.Refuse(labmesh.Conflict, "put worker %s: node %s has a worker of that name: start this one with another --worker-id", w.ID, old.Node)
		}
		w.Registered = old.Registered
		if w.Hold, w.HoldReason = old.Hold, old.HoldReason; w.Hold != "" {
			w.Status, w.Reason = w.Hold, w.HoldReason
		}
		if old.Status != labmesh.WorkerOffline {
			w.Status, w.Reason, w.Changed = old.Status, old.Reason, old.Changed
			event = labmesh.WorkerUpdated
			same := *old
			same.Index = w.Index
			if reflect.DeepEqual(same, w) {
				return nil // sent twice
			}
		}
	}
	x.v.workers.Set(w.ID, &w)
	x.reckon(w.ID)
	x.tell(labmesh.Event{Type: event, Worker: &w, Actor: string(w.Node)})
	return nil
}

// loseWorker ends every attempt that the worker holds. They go on elsewhere;
// what the worker still says of them is late.
func (x *change) loseWorker(cmd labmesh.LoseWorker) *labmesh.Error {
	old, ok := x.v.workers.Get(cmd.ID)
	if !ok {
		return labmesh.Refuse(labmesh.NotFound, "lose worker: no worker %s", cmd.ID)
	}
	if old.Status == labmesh.WorkerOffline {
		return nil // sent twice
	}
	w := *old
	w.Status, w.Reason, w.Changed, w.Index = labmesh.WorkerOffline, cmd.Reason, x.at, x.v.index
	x.v.workers.Set(w.ID, &w)
	x.v.tempo.Delete(w.ID) // when it comes back it may be another machine
	x.reckon(w.ID)
	x.tell(labmesh.Event{Type: labmesh.WorkerGone, Worker: &w, Detail: cmd.Reason})

	var lost []*labmesh.Task
	for t := range x.v.Held(w.ID) {
		lost = append(lost, t)
	}
	for _, old := range lost {
		x.takeBack(old, "worker "+string(w.ID)+" was lost: "+cmd.Reason)
	}
	return nil
}

// takeBack ends the attempt of a task that its worker will not end.
func (x *change) takeBack(old *labmesh.Task, why string) {
	t := *old
	o := labmesh.Outcome{Cause: labmesh.CauseWorkerLost, Error: why}
	if refused := step(&t, x.blame(&t, o.Cause)); refused != nil {
		return // cannot be: every held phase has a way out
	}
	t.Cause, t.Error = o.Cause, o.Error
	if !onlyWaited(old, o.Cause) {
		x.endAttempt(&t, attemptLost, o)
	}
	x.settle(old, &t)
}

// holdWorker has a worker take no new work, or take it again.
func (x *change) holdWorker(cmd labmesh.HoldWorker) *labmesh.Error {
	old, ok := x.v.workers.Get(cmd.ID)
	switch {
	case !ok:
		return labmesh.Refuse(labmesh.NotFound, "hold worker: no worker %s", cmd.ID)
	case cmd.Status != "" && cmd.Status != labmesh.WorkerDraining && cmd.Status != labmesh.WorkerQuarantined:
		return labmesh.Refuse(labmesh.Invalid, "hold worker %s: it cannot be made %q", cmd.ID, cmd.Status)
	case old.Hold == cmd.Status:
		return nil // sent twice, or wanted twice: the first reason stays
	}
	w := *old
	w.Hold, w.HoldReason, w.Index = cmd.Status, cmd.Reason, x.v.index
	if w.Hold == "" {
		w.HoldReason = ""
	}
	if old.Status != labmesh.WorkerOffline {
		w.Status, w.Reason, w.Changed = w.Hold, w.HoldReason, x.at
		if w.Hold == "" {
			w.Status = labmesh.WorkerActive
		}
	}
	x.v.workers.Set(w.ID, &w)
	x.reckon(w.ID)
	x.tell(labmesh.Event{Type: labmesh.WorkerUpdated, Worker: &w, Actor: cmd.By, Detail: cmd.Reason})
	if w.Status == labmesh.WorkerActive {
		return nil
	}
	var ahead []*labmesh.Task
	for t := range x.v.Held(w.ID) {
		if t.Phase == labmesh.Assigned && t.Ahead {
			ahead = append(ahead, t)
		}
	}
	for _, t := range ahead {
		x.takeBack(t, "worker "+string(w.ID)+" takes no more work")
	}
	return nil
}
