package state

import (
	"reflect"
	"time"

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
		moves := w.Light && (old.Light || old.Node == "") // it is attached elsewhere now, or comes after it was announced
		if !moves && old.Node != w.Node && old.Status != labmesh.WorkerOffline {
			return labmesh.Refuse(labmesh.Conflict, "put worker %s: node %s has a worker of that name: start this one with another --worker-id", w.ID, old.Node)
		}
		if !moves && old.Node != w.Node && x.v.Used(w.ID).Tasks > 0 {
			return labmesh.Refuse(labmesh.Conflict, "put worker %s: it is the worker of node %s, which is not heard of and may still run tasks: cancel them, ban that node, or start this one with another --worker-id", w.ID, old.Node)
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
	for _, t := range x.heldBy(w.ID) {
		x.doubt(t, time.Time{})
	}
	return nil
}

// loseWorker ends every attempt that the worker holds, but those that may go on
// without the mesh. They go on elsewhere; what the worker still says of them is late.
func (x *change) loseWorker(cmd labmesh.LoseWorker) *labmesh.Error {
	old, ok := x.v.workers.Get(cmd.ID)
	if !ok {
		return labmesh.Refuse(labmesh.NotFound, "lose worker: no worker %s", cmd.ID)
	}
	if old.Status == labmesh.WorkerOffline && !cmd.Stopped {
		return nil // sent twice
	}
	if old.Status != labmesh.WorkerOffline {
		x.setOffline(old, cmd.Reason)
	}
	for _, t := range x.heldBy(cmd.ID) {
		if !cmd.Stopped && t.Spec.Outlasts() != 0 {
			x.doubt(t, x.at)
			continue
		}
		x.takeBack(t, "worker "+string(cmd.ID)+" was lost: "+cmd.Reason)
	}
	return nil
}

func (x *change) setOffline(old *labmesh.Worker, reason string) {
	w := *old
	w.Status, w.Reason, w.Changed, w.Index = labmesh.WorkerOffline, reason, x.at, x.v.index
	x.v.workers.Set(w.ID, &w)
	x.v.tempo.Delete(w.ID) // when it comes back it may be another machine
	x.v.outcomes.Delete(w.ID)
	x.reckon(w.ID)
	x.tell(labmesh.Event{Type: labmesh.WorkerGone, Worker: &w, Detail: reason})
}

// heldBy is the tasks that a worker holds, as they are before any of them is changed.
func (x *change) heldBy(id labmesh.WorkerID) (held []*labmesh.Task) {
	for t := range x.v.Held(id) {
		held = append(held, t)
	}
	return held
}

// doubt notes since when it is unknown whether a task still runs, or with a zero
// time that it is known again.
func (x *change) doubt(old *labmesh.Task, since time.Time) {
	if old.Unknown.Equal(since) {
		return
	}
	t := *old
	t.Unknown = since
	x.put(old, &t)
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
		x.v.outcomes.Delete(w.ID) // somebody has seen to it
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
	for _, t := range x.heldBy(w.ID) {
		if t.Phase == labmesh.Assigned && t.Ahead {
			x.takeBack(t, "worker "+string(w.ID)+" takes no more work")
		}
	}
	return nil
}
