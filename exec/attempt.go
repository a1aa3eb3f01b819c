package exec

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"labmesh"
)

// restarted is said of attempts that an earlier life of the worker had begun.
const restarted = "the worker restarted"

// attempt runs one attempt from its start to the report of its end.
func (w *Worker) attempt(ctx context.Context, t labmesh.Task, r *run) {
	defer r.stop(nil)
	k := keyOf(&t)
	r.began = time.Now().Add(-r.age)
	var o labmesh.Outcome
	over := false
	if !r.resumed {
		o, over = w.prepare(k)
	}
	if !over {
		o = w.perform(ctx, t, r)
	}
	r.output.Close()
	if w.detached.Load() {
		return // the next life reports it
	}
	gone := w.dirs.give(k)
	if gone {
		w.journal.quiet(k)
	}
	if o.Seconds == 0 {
		o.Seconds = time.Since(r.began).Seconds()
	}
	w.end(k, r, trim(o), context.Cause(ctx))
	if !gone && !errors.Is(context.Cause(ctx), ErrShutdown) {
		w.clear(k, t.Spec.Bundle != "", o)
	}
}

// prepare makes the directory of an attempt. Where that cannot be, it gives the
// outcome instead, and done is true.
func (w *Worker) prepare(k key) (o labmesh.Outcome, done bool) {
	if free, err := freeBytes(w.cfg.Dir); err == nil && free < w.cfg.Floor {
		return labmesh.Outcome{Cause: labmesh.CauseDisk, Error: tooFull(w.cfg.Dir, free, w.cfg.Floor)}, true
	}
	first, err := w.journal.begin(k)
	if err == nil && !first { // by an earlier life, which did not live to report it
		return labmesh.Outcome{Cause: labmesh.CauseWorkerLost, Error: restarted}, true
	}
	if err == nil {
		err = w.dirs.take(k)
	}
	if errors.Is(err, fs.ErrExist) { // begun so long ago that the journal has forgotten
		return labmesh.Outcome{Cause: labmesh.CauseWorkerLost, Error: restarted}, true
	}
	if err != nil {
		return labmesh.Outcome{Cause: labmesh.CauseDisk, Error: diskProblem(err)}, true
	}
	return labmesh.Outcome{}, false
}

// perform reports the start and runs the attempt.
func (w *Worker) perform(ctx context.Context, t labmesh.Task, r *run) (o labmesh.Outcome) {
	runner, ok := w.cfg.Runners[t.Spec.Kind]
	if !ok {
		return labmesh.Outcome{Cause: labmesh.CauseConfig, Error: fmt.Sprintf("this worker cannot run %s tasks", t.Spec.Kind)}
	}
	rec := &recorder{w: w, k: keyOf(&t)}
	a := Attempt{Task: t, Number: t.Attempt, Worker: w.cfg.Worker, Dir: attemptDir(w.cfg.Dir, keyOf(&t)), Output: r.output, Record: rec.cases, RecordRows: rec.rows, programs: new(atomic.Int64)}
	if w.cfg.Lease != nil {
		a.Outlasts = r.outlasts
	}
	if o, failed := w.entrust(&a); failed {
		if r.resumed {
			w.cfg.Programs.Drop(keyOf(&t).name()) // what it still prints could not be hidden
		}
		return o
	}
	defer func() { o = hideIn(a.hide, o) }()
	defer func() {
		if p := recover(); p != nil {
			o = labmesh.Outcome{Cause: labmesh.CauseSpawn, Error: fmt.Sprintf("the %s runner panicked: %v", t.Spec.Kind, p)}
		}
	}()
	rest := func(ctx context.Context) labmesh.Outcome { return runner.Run(ctx, a) }
	failed := false
	if r.early != nil {
		rest, o, failed = w.awaitSlot(ctx, a, r)
	} else {
		o, failed = w.start(ctx, a)
	}
	if failed {
		return o
	}
	run := ctx
	if d := t.Spec.Timeout(); d > 0 {
		if r.resumed {
			d = max(d-r.age, resumeLeast)
		}
		var cancel context.CancelFunc
		run, cancel = context.WithTimeoutCause(ctx, d, ErrTimeout)
		defer cancel()
	}
	run, unwatch := underQuota(run, a)
	defer unwatch()
	o = rest(run)
	if cause, message, stopped := Stopped(run); stopped && !o.OK && o.Cause == "" {
		o.Cause, o.Error = cause, message
	}
	if w.detached.Load() {
		return o
	}
	return w.keep(run, a, w.blame(run, a, o))
}

// start reports the start of an attempt, and before that brings it its bundle:
// what that takes is not part of its time unless it takes long.
func (w *Worker) start(ctx context.Context, a Attempt) (o labmesh.Outcome, failed bool) {
	report := func() { w.reportStart(a) }
	if a.Task.Spec.Bundle != "" {
		report = sync.OnceFunc(report)
		within := startWithin
		if a.Task.Ahead {
			within = 0 // the mesh does not wait long for what it placed ahead
		}
		defer time.AfterFunc(within, report).Stop()
		if o, failed := w.unpack(ctx, a); failed {
			return o, true
		}
	}
	report()
	return o, false
}

func (w *Worker) reportStart(a Attempt) {
	if a.Task.Phase != labmesh.Assigned {
		return // an earlier life has said so
	}
	w.reports.add(labmesh.StartTask{ID: a.Task.ID, Attempt: a.Number, Worker: w.cfg.Worker}, w.startLinger())
}

// startLinger is how long word of a start may wait: no less than word of the
// ends among which it stands.
func (w *Worker) startLinger() time.Duration {
	w.mu.Lock()
	defer w.mu.Unlock()
	return max(startLinger, finishLinger(w.queued))
}

// end frees the slots of an attempt and reports its end, unless the mesh has
// moved on from it.
func (w *Worker) end(k key, r *run, o labmesh.Outcome, why error) {
	w.mu.Lock()
	w.used -= r.slots
	w.live--
	w.early = slices.DeleteFunc(w.early, func(e *run) bool { return e == r })
	if errors.Is(why, ErrSuperseded) {
		r.state = declined
	} else {
		r.state = ended
		w.finish(k, o)
	}
	w.mu.Unlock()
	select {
	case w.freed <- struct{}{}:
	default: // the loop has yet to see the last one
	}
}

// trim makes an outcome fit for the log: bounded, and valid.
func trim(o labmesh.Outcome) labmesh.Outcome {
	o.Error = strings.ToValidUTF8(o.Error, "\uFFFD")
	if len(o.Error) > errorBytesMax {
		o.Error = strings.ToValidUTF8(o.Error[:errorBytesMax], "") + " …"
	}
	if len(o.Result) > labmesh.ResultBytesMax {
		o.Result = json.RawMessage(fmt.Sprintf(`{"truncated":true,"bytes":%d}`, len(o.Result)))
	}
	return o
}

// DiskFull reports whether err says that a disk has no room left.
func DiskFull(err error) bool {
	return errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT)
}
