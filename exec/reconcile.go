package exec

import "labmesh"

// key names one attempt: a task and its fencing token.
type key struct {
	task    labmesh.TaskID
	attempt int
}

func keyOf(t *labmesh.Task) key { return key{t.ID, t.Attempt} }

// state is where an attempt that this worker knows of stands.
type state string

const (
	live     state = "live"     // its runner has been started and has not returned
	ended    state = "ended"    // it has ended, and its end is reported or nobody wants to hear it
	declined state = "declined" // it has ended, stopped because the mesh declined its start
)

// plan is what a worker must do to match its desk.
type plan struct {
	start    []*labmesh.Task // to be run, in this order, as slots allow
	resume   []*labmesh.Task // begun by an earlier life, and to be taken up
	cancel   []key           // live, and cancelled
	drop     []key           // live, and no longer held
	orphaned []*labmesh.Task // held, not running here, and not to be started: their end must be reported
	forget   []key           // ended, and off the desk: the view has taken note of their end
}

// reconcile compares the tasks a worker holds with the attempts it knows of, and
// with those that an earlier life left.
func reconcile(held []*labmesh.Task, have map[key]state, left func(key) bool) plan {
	var p plan
	on := make(map[key]struct{}, len(held))
	for _, t := range held {
		k := keyOf(t)
		on[k] = struct{}{}
		s, known := have[k]
		switch {
		case !known && left(k):
			p.resume = append(p.resume, t)
		case t.Phase == labmesh.Assigned && !known:
			p.start = append(p.start, t)
		case t.Phase == labmesh.Running && !known:
			p.orphaned = append(p.orphaned, t)
		case t.Phase == labmesh.Cancelling && s == live:
			p.cancel = append(p.cancel, k)
		case t.Phase == labmesh.Cancelling && (!known || s == declined):
			p.orphaned = append(p.orphaned, t)
		}
	}
	for k, s := range have {
		if _, held := on[k]; held {
			continue
		}
		if s == live {
			p.drop = append(p.drop, k)
		} else {
			p.forget = append(p.forget, k)
		}
	}
	return p
}
