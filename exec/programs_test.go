package exec_test

import (
	"context"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"labmesh"
	"labmesh/exec"
	"labmesh/exec/exectest"
)

// programs are those of an earlier life, by attempt.
type programs struct {
	mu        sync.Mutex
	left      map[string]time.Duration
	forgotten []string
	dropped   []string
	detached  bool
}

func (p *programs) Attempts() map[string]time.Duration { return p.left }
func (p *programs) Forget(attempt string)              { p.add(&p.forgotten, attempt) }
func (p *programs) Drop(attempt string)                { p.add(&p.dropped, attempt) }

func (p *programs) Detach() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.detached = true
	return true
}

func (p *programs) add(to *[]string, attempt string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	*to = append(*to, attempt)
	slices.Sort(*to)
}

func (p *programs) want(t *testing.T, forgotten, dropped []string) {
	t.Helper()
	p.mu.Lock()
	defer p.mu.Unlock()
	if !slices.Equal(p.forgotten, forgotten) || !slices.Equal(p.dropped, dropped) {
		t.Errorf("forgotten %q, dropped %q; want %q, %q", p.forgotten, p.dropped, forgotten, dropped)
	}
}

// startWith runs a worker with programs. What it returns ends it.
func startWith(t *testing.T, dir string, desk *exectest.Desk, r exec.Runner, p *programs, keep bool) func() {
	t.Helper()
	w, err := exec.Open(t.Context(), exec.Config{Worker: "w", Dir: dir, Slots: 2, Desk: desk, Floor: 1, Programs: p, Detach: func() bool { return keep },
		Runners: map[labmesh.Kind]exec.Runner{labmesh.Custom: r}})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- w.Run(ctx) }()
	return func() {
		cancel()
		if err := <-done; err != nil || w.Close() != nil || w.Detached() != keep {
			t.Errorf("it ended with %v; left its attempts %v", err, w.Detached())
		}
	}
}

func TestAttemptsOutliveTheirWorker(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		desk, r, p := &exectest.Desk{}, &slow{}, &programs{}
		desk.Put(task("long", time.Hour), task("short", time.Second), task("gone", time.Hour))
		stop := startWith(t, dir, desk, r, p, true)
		time.Sleep(time.Minute)
		stop()
		p.want(t, []string{"short/1"}, nil)
		if _, ended := desk.Outcome("long"); ended || !p.detached || desk.Phase("long") != labmesh.Running {
			t.Fatalf("what should go on was reported, or not left")
		}

		p = &programs{left: map[string]time.Duration{"long/1": time.Minute, "gone/1": time.Minute, "over/7": 0}}
		desk.Take("gone")
		desk.Put(func() labmesh.Task { x := task("unknown", 0); x.Phase = labmesh.Running; return x }())
		stop = startWith(t, dir, desk, r, p, false)
		time.Sleep(2 * time.Hour)
		want(t, desk, "long", true, "")
		want(t, desk, "unknown", false, labmesh.CauseWorkerLost)
		p.want(t, []string{"long/1", "unknown/1"}, []string{"gone/1", "over/7"})
		if o, _ := desk.Outcome("long"); o.Seconds < 3600+60 {
			t.Errorf("its time began anew: %v s", o.Seconds)
		}
		if late := desk.Late(); len(late) > 0 {
			t.Errorf("declined: %v", late)
		}
		stop()
	})
}

func TestTimeGoesOnWhileTheWorkerIsAway(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		desk, p := &exectest.Desk{}, &programs{left: map[string]time.Duration{"late/1": 50 * time.Second, "cancelled/1": 0}}
		late, cancelled := task("late", time.Hour), task("cancelled", time.Hour)
		late.Spec.TimeoutSeconds, late.Phase, cancelled.Phase = 60, labmesh.Running, labmesh.Cancelling
		desk.Put(late, cancelled)
		stop := startWith(t, dir, desk, &slow{}, p, false)
		time.Sleep(5 * time.Second)
		want(t, desk, "cancelled", false, labmesh.CauseCancelled)
		if _, ended := desk.Outcome("late"); ended {
			t.Error("it was ended before its time")
		}
		time.Sleep(10 * time.Second)
		want(t, desk, "late", false, labmesh.CauseTimeout)
		stop()
	})
}
