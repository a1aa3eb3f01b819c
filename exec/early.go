package exec

import (
	"context"
	"errors"
	"slices"
	"time"

	"labmesh"
	"labmesh/exec/output"
)

// earlyRun begins an attempt before it has a slot: see [Early].
type earlyRun = func(ctx context.Context, a Attempt) (run func(ctx context.Context) labmesh.Outcome)

// earlyRun is how an attempt of t begins before it has a slot, or nil. Nothing does
// while a benchmark measures the machine. The caller holds mu.
func (w *Worker) earlyRun(t *labmesh.Task) earlyRun {
	for _, r := range w.have {
		if r.kind == labmesh.Benchmark && r.state == live {
			return nil
		}
	}
	if r, ok := w.cfg.Runners[t.Spec.Kind].(Early); ok {
		return r.Early(t)
	}
	return nil
}

// admitEarly makes an attempt a live one that waits for its slots. The caller holds mu.
func (w *Worker) admitEarly(work context.Context, t *labmesh.Task, o *output.Output, early earlyRun) begun {
	b := w.admit(work, t, o)
	r := b.run
	w.used -= r.slots
	r.wants, r.slots, r.early, r.granted = r.slots, 0, early, make(chan struct{})
	w.early = append(w.early, r)
	return b
}

// grant gives free slots to the attempts that wait for them, in order. The caller holds mu.
func (w *Worker) grant() {
	for len(w.early) > 0 && w.used+w.early[0].wants <= w.cfg.Slots {
		r := w.early[0]
		w.early = slices.Delete(w.early, 0, 1)
		r.slots = r.wants
		w.used += r.slots
		close(r.granted)
	}
}

// awaitSlot begins an attempt early, waits until it has its slots, and reports
// the start. Run is the rest of it. Where it
// gets none, what was begun has ended, and the outcome says why.
func (w *Worker) awaitSlot(ctx context.Context, a Attempt, r *run) (run func(context.Context) labmesh.Outcome, o labmesh.Outcome, failed bool) {
	if a.Task.Spec.Bundle != "" {
		if o, failed := w.unpack(ctx, a); failed {
			return nil, o, true
		}
	}
	run = r.early(ctx, a)
	select {
	case <-r.granted:
		r.began = time.Now()
		w.reportStart(a)
		return run, o, false
	case <-ctx.Done():
	}
	run(ctx)
	cause, message, _ := Stopped(ctx)
	if errors.Is(context.Cause(ctx), ErrShutdown) {
		cause = labmesh.CauseOffer // it never had a slot
	}
	return nil, labmesh.Outcome{Cause: cause, Error: message}, true
}
