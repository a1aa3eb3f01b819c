package state

import "labmesh"

// edge says that task by waits for task on. Both are named by their seq.
type edge struct{ on, by uint64 }

func (a edge) less(b edge) bool {
	if a.on != b.on {
		return a.on < b.on
	}
	return a.by < b.by
}

// checkDependencies refuses a task that depends on one that is not known: it
// must have been submitted before, so that no circle can come to be. What a
// project may not see is not known to it.
func (x *change) checkDependencies(cmd *labmesh.SubmitTask) *labmesh.Error {
	for _, id := range cmd.Spec.DependsOn {
		if !x.v.Known(id) || !x.v.inReach(cmd.Project, id) {
			return labmesh.RefuseField("depends_on", "depends_on: there is no task %s, or it ended long ago: submit it first", id)
		}
	}
	return nil
}

// countDependencies counts what t has to wait for. It returns a task that t
// depends on and that has ended without completing, if there is one.
func (x *change) countDependencies(t *labmesh.Task) (failed labmesh.TaskID) {
	for on, id := range x.dependencies(t) {
		if on != nil {
			t.Waits++
		} else if x.endedBadly(id) {
			failed = id
		}
	}
	return failed
}

// dependencies yields each task that t depends on, once: nil for one that has ended.
func (x *change) dependencies(t *labmesh.Task) func(func(*labmesh.Task, labmesh.TaskID) bool) {
	return func(yield func(*labmesh.Task, labmesh.TaskID) bool) {
		for i, id := range t.Spec.DependsOn {
			if indexOf(t.Spec.DependsOn, id) < i {
				continue // named twice
			}
			on, ok := x.v.Task(id)
			if !ok || on.Phase.Final() {
				on = nil
			}
			if !yield(on, id) {
				return
			}
		}
	}
}

func indexOf(ids []labmesh.TaskID, id labmesh.TaskID) int {
	for i := range ids {
		if ids[i] == id {
			return i
		}
	}
	return -1
}

// endedBadly reports whether a task that has ended did not complete.
func (x *change) endedBadly(id labmesh.TaskID) bool {
	if t, ok := x.v.Task(id); ok {
		return t.Phase != labmesh.Completed
	}
	return x.v.ending(id).Bad
}

// ending is how a task ended that is known and not kept whole.
func (v View) ending(id labmesh.TaskID) (found ending) {
	v.ended.Reverse(func(_ uint64, e ending) bool {
		if e.ID == id {
			found = e
		}
		return e.ID != id
	})
	return found
}

func (x *change) await(t *labmesh.Task) {
	for on := range x.dependencies(t) {
		if on != nil {
			x.v.waits.Set(edge{on.Seq, t.Seq})
		}
	}
}

func (x *change) unawait(t *labmesh.Task) {
	for i := range t.Spec.DependsOn {
		if seq, ok := x.v.ids.Get(t.Spec.DependsOn[i]); ok {
			x.v.waits.Delete(edge{seq, t.Seq})
		}
	}
}

// settleDependents lets go of the tasks that waited for those that ended in
// this entry, and cancels those that waited in vain; and so on.
func (x *change) settleDependents() {
	for len(x.over) > 0 {
		on := x.over[0]
		x.over = x.over[1:]
		var waiting []*labmesh.Task
		x.v.waits.Ascend(edge{on: on.Seq}, func(e edge) bool {
			if e.on != on.Seq {
				return false
			}
			if t, ok := x.v.tasks.Get(e.by); ok {
				waiting = append(waiting, t)
			}
			return true
		})
		for _, old := range waiting {
			x.v.waits.Delete(edge{on.Seq, old.Seq})
			if on.Phase != labmesh.Completed {
				x.doom(old, on.ID)
				continue
			}
			t := *old
			if t.Waits--; t.Waits == 0 {
				x.put(old, &t)
				continue
			}
			t.Index = x.v.index // nothing else of what is kept about it changes
			x.v.tasks.Set(t.Seq, &t)
		}
	}
	x.over = nil
}

// doom cancels a task because one that it depends on did not complete.
func (x *change) doom(old *labmesh.Task, on labmesh.TaskID) {
	t := *old
	if refused := step(&t, labmesh.Cancel); refused != nil {
		return
	}
	t.Cancelled, t.Cause = x.at, labmesh.CauseDependency
	t.Error = "task " + string(on) + ", which it depends on, did not complete"
	x.settle(old, &t)
}
