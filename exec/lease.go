package exec

import (
	"context"
	"errors"
	"fmt"
	"math"
	"time"

	"labmesh"
)

// Lease is for how long a worker may count on its attempts being its own: the mesh
// gives them to another when it has not heard of the worker for longer.
type Lease interface {
	// Silent is how long ago the newest word was sent that the mesh has answered, on a clock
	// that nobody sets and that goes on while the machine sleeps.
	Silent() time.Duration
	// Wanted has the lease renewed at once, and on for as long as [Worker.Engaged].
	Wanted()
}

// killWithin is between SIGTERM and SIGKILL for a program that must not go on.
const killWithin = 500 * time.Millisecond

// cutError is why an attempt was stopped that must not go on without the mesh.
type cutError struct{ silent time.Duration }

func (e cutError) Error() string {
	return fmt.Sprintf("this worker was cut off from the mesh for %s, which gives the task to another", e.silent.Round(100*time.Millisecond))
}

// Grace is how long what is stopped for it may take to end.
func (cutError) Grace() time.Duration { return killWithin }

// Cut reports whether the context of an attempt ended because the worker was cut off from the mesh.
func Cut(ctx context.Context) bool {
	var cut cutError
	return errors.As(context.Cause(ctx), &cut)
}

// outlasts is how long an attempt of t may go on without word from the mesh.
func (w *Worker) outlasts(t *labmesh.Task) time.Duration {
	d := t.Spec.Outlasts()
	if d < 0 {
		return math.MaxInt64
	}
	return max(d, w.cfg.LeaseTime)
}

// inTouch reports whether the lease holds: without it nothing is begun.
func (w *Worker) inTouch() bool { return w.cfg.Lease == nil || w.cfg.Lease.Silent() < w.cfg.LeaseTime }

// Engaged reports whether the worker needs its lease: it runs something, or would like to.
func (w *Worker) Engaged() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.live > 0 || w.waiting
}

// Fence stops the attempts that must not go on, as the mesh has not answered for so long. It is
// to be called before the lease is counted as renewed: what has run out does not come back.
func (w *Worker) Fence(silent time.Duration) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for k, r := range w.have {
		if r.state == live && !r.cut && silent >= r.outlasts {
			r.cut = true
			w.cfg.Logger.Warn("attempt stopped: this worker is cut off from the mesh", "task", k.task, "attempt", k.attempt, "silent", silent)
			r.stop(cutError{silent})
		}
	}
}

// InTouch has the worker begin what it could not while it was cut off.
func (w *Worker) InTouch() {
	w.mu.Lock()
	waiting := w.waiting
	w.mu.Unlock()
	if !waiting {
		return
	}
	select {
	case w.freed <- struct{}{}:
	default: // the loop has yet to see the last one
	}
}
