package exec

import (
	"context"
	"errors"
	"strconv"
	"time"

	"labmesh"
	"labmesh/exec/output"
)

// Programs are the programs of attempts where they can outlive this process.
// Attempts go by the name that [Attempt.Program] gives them.
type Programs interface {
	// Attempts lists what an earlier life left, running or ended, and how long
	// ago each began.
	Attempts() map[string]time.Duration
	// Forget says that the attempt's end is known to the mesh.
	Forget(attempt string)
	// Drop ends what an earlier life left of an attempt.
	Drop(attempt string)
	// Detach has all programs go on without this process, as far as that can be
	// had: then it returns true, and runners learn nothing more of them.
	Detach() bool
}

// ErrDetached is why the context of an attempt ended that goes on without this
// process. Its runner may say what it likes.
var ErrDetached = errors.New("the attempt goes on without the node")

// resumeLeast is the least time that a runner gets for an attempt that it takes
// up, to find out that it has ended.
const resumeLeast = 2 * time.Second

// Program names the attempt's next program for [Programs]: by the attempt and,
// within it, by its number. An attempt that is taken up after a restart of the
// worker must run its programs in the same order again; those that were begun
// are not begun again.
func (a Attempt) Program() (attempt string, ordinal int) {
	if a.programs == nil {
		return "", 0
	}
	return keyOf(&a.Task).name(), int(a.programs.Add(1))
}

// name is what [Programs] call k.
func (k key) name() string { return string(k.task) + "/" + strconv.Itoa(k.attempt) }

// wasLeft reports whether an earlier life left k. The caller holds mu.
func (w *Worker) wasLeft(k key) bool {
	if len(w.left) == 0 {
		return false
	}
	_, ok := w.left[k.name()]
	return ok
}

// resume takes up an attempt of an earlier life. It runs whether a slot is free
// or not, unless it was waiting for one. The caller holds mu.
func (w *Worker) resume(work context.Context, t *labmesh.Task) (b begun, ok bool) {
	k := keyOf(t)
	age := w.left[k.name()]
	delete(w.left, k.name())
	o, err := output.Resume(attemptDir(w.cfg.Dir, k))
	if err != nil {
		w.cfg.Logger.Warn("attempt of an earlier life not taken up", "task", t.ID, "attempt", t.Attempt, "err", err)
		w.drops = append(w.drops, k.name())
		w.reportOrphan(t)
		return begun{}, false
	}
	if early := w.earlyRun(t); early != nil && t.Phase == labmesh.Assigned {
		b = w.admitEarly(work, t, o, early)
	} else {
		b = w.admit(work, t, o)
	}
	b.run.resumed, b.run.age = true, age
	if t.Phase == labmesh.Cancelling {
		b.run.stop(ErrCancelled)
	}
	return b, true
}

// dropLeft ends, beside the worker's work, what an earlier life left and the
// mesh has moved on from. The caller holds mu, and has taken up the rest.
func (w *Worker) dropLeft() {
	names := w.drops
	for name := range w.left {
		names = append(names, name)
	}
	w.left, w.drops = nil, nil
	if len(names) == 0 {
		return
	}
	w.dropping.Go(func() {
		for _, name := range names {
			w.cfg.Programs.Drop(name)
		}
	})
}

// detach has what runs go on without this process, if that is wanted and can be.
func (w *Worker) detach() bool {
	if w.cfg.Programs == nil || w.cfg.Detach == nil || !w.cfg.Detach() {
		return false
	}
	w.mu.Lock()
	none := len(w.left) == 0
	w.mu.Unlock()
	if none && w.Running() == 0 {
		return false // the mesh may as well hear that the worker goes
	}
	w.detached.Store(true) // before the first runner returns for it
	if !w.cfg.Programs.Detach() {
		w.detached.Store(false)
	}
	return w.detached.Load()
}

// Detached reports whether Run ended and what it ran goes on.
func (w *Worker) Detached() bool { return w.detached.Load() }
