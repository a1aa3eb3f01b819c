package exec_test

import (
	"context"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"labmesh"
	"labmesh/exec"
	"labmesh/exec/exectest"
)

// early is a slow runner of attempts that begin before they have a slot.
type early struct {
	slow
	mu           sync.Mutex
	begun, ended []labmesh.TaskID // what was begun early, and of that what was ended without a slot
}

func (e *early) Early(t *labmesh.Task) func(context.Context, exec.Attempt) func(context.Context) labmesh.Outcome {
	if t.Spec.Requirements.Exclusive {
		return nil
	}
	return func(_ context.Context, a exec.Attempt) func(context.Context) labmesh.Outcome {
		e.note(&e.begun, a.Task.ID)
		return func(ctx context.Context) labmesh.Outcome {
			if ctx.Err() != nil {
				e.note(&e.ended, a.Task.ID)
			}
			return e.Run(ctx, a)
		}
	}
}

func (e *early) note(list *[]labmesh.TaskID, id labmesh.TaskID) {
	e.mu.Lock()
	defer e.mu.Unlock()
	*list = append(*list, id)
}

func (e *early) early() int { e.mu.Lock(); defer e.mu.Unlock(); return len(e.begun) }

func TestAnAttemptBeginsEarlyAndRunsWhenItHasASlot(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		desk, r := &exectest.Desk{}, &early{}
		desk.Put(task("a", time.Minute), task("b", time.Minute), task("c", time.Minute))
		w, stop := start(t, dir, 1, desk, r)
		time.Sleep(30 * time.Second)
		if r.early() != 1 || r.begun[0] != "b" || w.Running() != 1 || desk.Phase("b") != labmesh.Assigned {
			t.Errorf("begun early: %v; %d run; b is %s", r.begun, w.Running(), desk.Phase("b"))
		}
		time.Sleep(60 * time.Second)
		if r.early() != 2 || desk.Phase("b") != labmesh.Running || w.Running() != 1 {
			t.Errorf("begun early: %v; %d run; b is %s", r.begun, w.Running(), desk.Phase("b"))
		}
		time.Sleep(10 * time.Minute)
		for _, id := range []labmesh.TaskID{"a", "b", "c"} {
			want(t, desk, id, true, "")
			if o, _ := desk.Outcome(id); o.Seconds < 60 || o.Seconds > 61 {
				t.Errorf("%s took %g s, with its wait", id, o.Seconds)
			}
		}
		if r.peak() != 1 || len(r.ended) > 0 || w.Running() != 0 {
			t.Errorf("%d at once, %v ended early, %d run", r.peak(), r.ended, w.Running())
		}
		stop()
	})
}

func TestWhatBeganEarlyEndsWithoutASlot(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		desk, r := &exectest.Desk{}, &early{}
		desk.Put(task("a", time.Hour), task("cancelled", time.Minute))
		_, stop := start(t, dir, 1, desk, r)
		time.Sleep(time.Second)
		desk.Cancel("cancelled")
		time.Sleep(time.Second)
		want(t, desk, "cancelled", false, labmesh.CauseCancelled)
		desk.Put(task("taken", time.Minute))
		time.Sleep(time.Second)
		desk.Take("taken")
		time.Sleep(time.Second)
		desk.Put(task("left", time.Minute))
		time.Sleep(time.Second)
		stop()
		want(t, desk, "left", false, labmesh.CauseOffer)
		if len(r.begun) != 3 || len(r.ended) != 3 {
			t.Errorf("begun early %v, ended %v", r.begun, r.ended)
		}
		if _, ended := desk.Outcome("taken"); ended || len(desk.Late()) > 0 {
			t.Errorf("the end of what was taken away was reported, or declined: %v", desk.Late())
		}
	})
}

func TestWhatWaitsIsNotOvertaken(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		desk, r := &exectest.Desk{}, &early{}
		whole := task("whole", time.Minute) // does not begin early
		whole.Spec.Requirements.Exclusive = true
		desk.Put(task("a", 2*time.Minute), task("b", time.Minute), task("waits", time.Minute), whole, task("last", time.Minute))
		_, stop := start(t, dir, 2, desk, r)
		time.Sleep(time.Hour)
		stop()
		if got := r.ran; len(got) != 5 || got[2] != "waits" || got[3] != "whole" || got[4] != "last" {
			t.Errorf("they ran in the order %v", got)
		}
		if r.early() != 2 || r.begun[0] != "waits" || r.begun[1] != "last" {
			t.Errorf("begun early: %v", r.begun)
		}
	})
}

func TestNothingBeginsEarlyBesideABenchmark(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		desk, r := &exectest.Desk{}, &early{}
		measured := task("measured", time.Minute)
		measured.Spec.Kind = labmesh.Benchmark
		desk.Put(measured, task("next", time.Minute))
		_, stop := start(t, dir, 1, desk, r)
		defer stop()
		time.Sleep(30 * time.Second)
		if r.early() != 0 || desk.Phase("measured") != labmesh.Running {
			t.Errorf("begun early: %v", r.begun)
		}
		time.Sleep(10 * time.Minute)
		want(t, desk, "measured", true, "")
		want(t, desk, "next", true, "")
	})
}
