package scheduler

import (
	"fmt"
	"iter"
	"time"

	"labmesh"
	"labmesh/state"
)

// Lease is how long a worker that says nothing still counts as there. A new
// leader gives every worker this long to be heard before it calls one lost.
const Lease = 6 * time.Second

// LightGrace is the same for a light worker, from when its node was last heard of: it has so long to
// attach to another. While its node is there, that says when it is gone.
const LightGrace = 30 * time.Second

// FenceMargin is how much longer than its lease a worker that holds attempts is waited for. By then
// it has stopped them: it counts its lease from when it sent the word that renewed it, the leader from when that came.
const FenceMargin = time.Second

// VoteMargin is how much longer a new leader waits: the leader before it may have renewed leases for
// so long after the new one was elected, on the word of followers that was under way.
const VoteMargin = time.Second

// tendBusy is how often Tend is to be asked while any worker holds an attempt.
const tendBusy = 250 * time.Millisecond

// tendLeast is the least time between two looks: some of what is overdue has to wait all the same.
const tendLeast = 10 * time.Millisecond

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
		cause := state.Overdue(t)
		if cause == labmesh.CauseWorkerLost && in.Now.Sub(in.Led) < t.Spec.Outlasts()+state.UnknownGrace {
			continue // it was reckoned by the clock of another leader, which may have been wrong
		}
		out = append(out, labmesh.ExpireTask{ID: t.ID, Attempt: t.Attempt, Cause: cause})
	}
	if wake, _ := in.View.NextTimer(); !wake.IsZero() && !wake.After(in.Now) {
		out = append(out, labmesh.WakeTasks{})
	}
	return out
}

// silent says why a worker counts as lost, or "" while it does not.
func silent(in Input, w *labmesh.Worker) string {
	h, heard := in.Heard[w.ID]
	renewed, renews := in.Renewed[w.ID]
	since, patience := in.Led, Lease
	if w.Light {
		patience = LightGrace
	}
	later := func(t time.Time) {
		if t.After(since) {
			since = t
		}
	}
	busy := in.View.Used(w.ID).Tasks > 0
	if busy {
		later(in.Led.Add(VoteMargin))
		patience += FenceMargin
	}
	later(w.Changed) // it registered just now; its first advert may be on the way
	later(renewed)
	if busy && (renews || h.Renews) {
		// Adverts come by way of others. That it can be heard says nothing about whether it
		// hears: by now it may have stopped what it ran, and be unable to say so.
		later(oldest(in.View.Held(w.ID)))
	} else if heard {
		later(h.Expires.Add(-Lease))
	}
	if quiet := in.Now.Sub(since); quiet > patience {
		return fmt.Sprintf("not heard of for %s", quiet.Round(100*time.Millisecond))
	}
	return ""
}

// oldest is when the first of the attempts was placed that a worker holds.
func oldest(held iter.Seq[*labmesh.Task]) (first time.Time) {
	for t := range held {
		if first.IsZero() || t.Assigned.Before(first) {
			first = t.Assigned
		}
	}
	return first
}

// Quarantine says which worker is to be given no more tasks because it fails them at once, and others do not:
// at most one, since what is known of the others changes with it. It finds one only while another
// worker is active and does better.
func Quarantine(in Input) []labmesh.Command {
	for w := range in.View.Workers() {
		if w.Status != labmesh.WorkerActive {
			continue
		}
		if n, why := in.View.Burns(w.ID); n >= state.BurnsMax {
			return []labmesh.Command{labmesh.HoldWorker{ID: w.ID, Status: labmesh.WorkerQuarantined, Reason: why, By: "the leader"}}
		}
	}
	return nil
}

// NextTend is when Tend may have something to say next, if nothing else
// happens: at the next timer, and at the latest after idle.
func NextTend(in Input, idle time.Duration) time.Duration {
	wake, deadline := in.View.NextTimer()
	d := idle
	if c := in.View.Counts(); c[labmesh.Assigned]+c[labmesh.Running]+c[labmesh.Cancelling] > 0 {
		d = min(d, tendBusy)
	}
	for _, t := range []time.Time{wake, deadline} {
		if !t.IsZero() {
			d = min(d, max(t.Sub(in.Now), tendLeast))
		}
	}
	return d
}
