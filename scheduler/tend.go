package scheduler

import (
	"fmt"
	"time"

	"labmesh"
	"labmesh/state"
)

// Lease is how long a worker that says nothing still counts as there. A new
// leader gives every worker this long to be heard before it calls one lost.
const Lease = 6 * time.Second

// Tend says what has to be done because time has passed: workers that are not
// heard of any more are lost, deadlines have passed, waits before a retry are over.
func Tend(in Input) []labmesh.Command {
	var out []labmesh.Command
	for w := range in.View.Workers() {
		if w.Status == labmesh.WorkerOffline {
			continue
		}
		if why := silent(in, w); why != "" {
			out = append(out, labmesh.LoseWorker{ID: w.ID, Reason: why})
		}
	}
	for t := range in.View.Overdue(in.Now) {
		if len(out) >= PlanMax {
			return out
		}
		out = append(out, labmesh.ExpireTask{ID: t.ID, Attempt: t.Attempt, Cause: state.Overdue(t.Phase)})
	}
	if wake, _ := in.View.NextTimer(); !wake.IsZero() && !wake.After(in.Now) {
		out = append(out, labmesh.WakeTasks{})
	}
	return out
}

// silent says why a worker counts as lost, or "" while it does not.
func silent(in Input, w *labmesh.Worker) string {
	since := in.Led
	if w.Changed.After(since) {
		since = w.Changed // it registered just now; its first advert may be on the way
	}
	h, ok := in.Heard[w.ID]
	if ok && h.Expires.After(since.Add(Lease)) {
		since = h.Expires.Add(-Lease)
	}
	if quiet := in.Now.Sub(since); quiet > Lease {
		return fmt.Sprintf("not heard of for %s", quiet.Round(100*time.Millisecond))
	}
	return ""
}

// NextTend is when Tend may have something to say next, if nothing else
// happens: at the next timer, and at the latest after idle.
func NextTend(in Input, idle time.Duration) time.Duration {
	wake, deadline := in.View.NextTimer()
	d := idle
	for _, t := range []time.Time{wake, deadline} {
		if !t.IsZero() {
			d = min(d, max(t.Sub(in.Now), 0))
		}
	}
	return d
}
