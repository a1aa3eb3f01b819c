package nodetest_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"labmesh"
	"labmesh/exec"
	"labmesh/node/nodetest"
	"labmesh/scheduler"
)

// span is when an attempt ran. An end of zero means that it still does.
type span struct {
	attempt    int
	worker     labmesh.WorkerID
	begin, end time.Time
}

// watched is a runner that waits, and writes down when each attempt ran.
type watched struct {
	takes time.Duration

	mu    sync.Mutex
	spans map[labmesh.TaskID][]span
}

func (r *watched) Run(ctx context.Context, a exec.Attempt) labmesh.Outcome {
	r.mu.Lock()
	if r.spans == nil {
		r.spans = map[labmesh.TaskID][]span{}
	}
	i := len(r.spans[a.Task.ID])
	r.spans[a.Task.ID] = append(r.spans[a.Task.ID], span{a.Number, a.Worker, time.Now(), time.Time{}})
	r.mu.Unlock()
	defer func() {
		r.mu.Lock()
		r.spans[a.Task.ID][i].end = time.Now()
		r.mu.Unlock()
	}()
	select {
	case <-time.After(r.takes):
		return labmesh.Outcome{OK: true}
	case <-ctx.Done():
		if exec.Cut(ctx) {
			time.Sleep(400 * time.Millisecond) // it takes almost all of its grace
		}
		cause, message, _ := exec.Stopped(ctx)
		return labmesh.Outcome{Cause: cause, Error: message}
	}
}

func (r *watched) of(id labmesh.TaskID) []span {
	r.mu.Lock()
	defer r.mu.Unlock()
	return append([]span(nil), r.spans[id]...)
}

// overlaps says where two attempts of a task ran at the same time.
func (r *watched) overlaps(id labmesh.TaskID) (out []string) {
	all := r.of(id)
	for i, a := range all {
		for _, b := range all[i+1:] {
			if a.end.IsZero() || b.begin.Before(a.end) {
				out = append(out, fmt.Sprintf("attempt %d on %s ran until %s, attempt %d on %s from %s", a.attempt, a.worker, a.end.Format("05.000"), b.attempt, b.worker, b.begin.Format("05.000")))
			}
		}
	}
	return out
}

// startWatched runs a mesh whose attempts are written down.
func startWatched(t *testing.T, n int, takes time.Duration) (*nodetest.Mesh, *watched) {
	t.Helper()
	r := &watched{takes: takes}
	return nodetest.Start(t, n, map[labmesh.Kind]exec.Runner{labmesh.Custom: r}), r
}

func workerOf(i int) labmesh.WorkerID { return labmesh.WorkerID(fmt.Sprint("w", i)) }

// TestAWorkerThatIsCutOffStopsBeforeOthersBegin: whoever is cut off, leader or not, and for however long, no task
// runs in two places at once, none counts twice, and a short cut costs nothing.
func TestAWorkerThatIsCutOffStopsBeforeOthersBegin(t *testing.T) {
	cuts := []time.Duration{scheduler.Lease / 2, scheduler.Lease, 3 * scheduler.Lease}
	for seed := range uint64(4) {
		t.Run(fmt.Sprint("seed=", seed), func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				rnd := rand.New(rand.NewPCG(seed, 1))
				m, r := startWatched(t, 3, 45*time.Second)
				for round := range 6 {
					cut := cuts[round%len(cuts)]
					var ids []labmesh.TaskID
					for i := range 8 {
						ids = append(ids, m.Submit(t, i%3, labmesh.Spec{}))
					}
					time.Sleep(time.Second + time.Duration(rnd.Int64N(int64(2*time.Second))))
					victim := rnd.IntN(3)
					m.Cut(victim)
					time.Sleep(cut)
					m.Heal(victim)
					m.Wait(t, 5*time.Minute, "all tasks to end", func() bool {
						for _, id := range ids {
							if !m.Task(t, (victim+1)%3, id).Phase.Final() {
								return false
							}
						}
						return true
					})
					time.Sleep(2 * time.Second)
					for _, id := range ids {
						task := ended(t, m, id, labmesh.Completed, 0, 1, 2)
						for _, o := range r.overlaps(id) {
							t.Errorf("node %d cut off for %s: %s: %s", victim, cut, id, o)
						}
						if cut < scheduler.Lease && len(r.of(id)) != 1 {
							t.Errorf("node %d cut off for %s: %s ran %d times: %+v", victim, cut, id, len(r.of(id)), task.History)
						}
					}
				}
			})
		})
	}
}

// TestTasksThatMayGoOnStayWithAWorkerThatIsCutOff: those of on_disconnect keep until it is back, those with a time for that long.
func TestTasksThatMayGoOnStayWithAWorkerThatIsCutOff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m, r := startWatched(t, 3, 2*time.Minute)
		victim := (m.Leader(t).Index + 1) % 3
		seen := (victim + 1) % 3
		// All land on the victim: its machine alone may take them at first.
		submit := func(policy string) labmesh.TaskID {
			return m.Submit(t, seen, labmesh.Spec{OnDisconnect: policy, Requirements: labmesh.Requirements{WorkerID: workerOf(victim)}})
		}
		keep, long, short, stop := submit("keep"), submit("10m"), submit("20s"), submit("")
		time.Sleep(3 * time.Second)
		m.Cut(victim)
		time.Sleep(15 * time.Second)
		for _, id := range []labmesh.TaskID{keep, long, short} {
			task := m.Task(t, seen, id)
			if task.Phase != labmesh.Running || task.Unknown.IsZero() {
				t.Errorf("%s is %s, unknown since %v", task.Spec.OnDisconnect, task.Phase, task.Unknown)
			}
			if why, err := m.Nodes[seen].Service().Why(t.Context(), id); err != nil || why.Summary[:6] != "nobody" {
				t.Errorf("why: %+v, %v", why, err)
			}
		}
		if task := m.Task(t, seen, stop); task.Phase != labmesh.Pending {
			t.Errorf("the task that is to stop is %s", task.Phase)
		}
		time.Sleep(30 * time.Second)
		if task := m.Task(t, seen, short); task.Phase != labmesh.Pending {
			t.Errorf("the task that was kept for 20 s is %s after 45", task.Phase)
		}
		m.Heal(victim)
		m.Wait(t, 10*time.Minute, "all to end", func() bool {
			for _, id := range []labmesh.TaskID{keep, long, short, stop} {
				if !m.Task(t, seen, id).Phase.Final() {
					return false
				}
			}
			return true
		})
		time.Sleep(time.Second)
		for id, runs := range map[labmesh.TaskID]int{keep: 1, long: 1, short: 2, stop: 2} {
			task := ended(t, m, id, labmesh.Completed, 0, 1, 2)
			if len(r.of(id)) != runs || !task.Unknown.IsZero() {
				t.Errorf("on_disconnect %q ran %d times, want %d; unknown since %v", task.Spec.OnDisconnect, len(r.of(id)), runs, task.Unknown)
			}
			for _, o := range r.overlaps(id) {
				t.Error(o)
			}
		}
	})
}

// TestAKeptTaskCanBeCancelledWhileItsWorkerIsGone, and a banned worker keeps nothing.
func TestAKeptTaskCanBeCancelledWhileItsWorkerIsGone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m, _ := startWatched(t, 3, time.Hour)
		victim := (m.Leader(t).Index + 1) % 3
		seen := (victim + 1) % 3
		spec := labmesh.Spec{OnDisconnect: "keep", Requirements: labmesh.Requirements{WorkerID: workerOf(victim)}}
		cancelled, lost := m.Submit(t, seen, spec), m.Submit(t, seen, spec)
		time.Sleep(3 * time.Second)
		m.Cut(victim)
		time.Sleep(15 * time.Second)
		if err := m.Nodes[seen].Service().Cancel(t.Context(), cancelled, "test", ""); err != nil {
			t.Fatal(err)
		}
		m.Wait(t, 2*time.Minute, "the cancel to be done", func() bool { return m.Task(t, seen, cancelled).Phase == labmesh.Cancelled })
		if task := m.Task(t, seen, lost); task.Phase != labmesh.Running {
			t.Errorf("the kept task is %s", task.Phase)
		}
		if _, err := m.Nodes[seen].Service().Ban(t.Context(), string(workerOf(victim)), "test"); err != nil {
			t.Fatal(err)
		}
		if task := m.Task(t, seen, lost); task.Phase != labmesh.Pending {
			t.Errorf("the task of a banned worker is %s", task.Phase)
		}
	})
}

// TestAMachineThatSleptStopsWhatItRan: on waking it knows that its lease is over, before it has heard of anyone.
func TestAMachineThatSleptStopsWhatItRan(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m, r := startWatched(t, 3, time.Minute)
		victim := (m.Leader(t).Index + 1) % 3
		id := m.Submit(t, 0, labmesh.Spec{Requirements: labmesh.Requirements{WorkerID: workerOf(victim)}})
		m.Wait(t, time.Minute, "it to run", func() bool { return len(r.of(id)) == 1 })
		time.Sleep(2 * time.Second)
		m.Cut(victim) // a machine that sleeps answers nobody
		woke := time.Now()
		m.Nodes[victim].Sleep(time.Hour)
		m.Wait(t, 10*time.Second, "it to be stopped", func() bool { return !r.of(id)[0].end.IsZero() })
		if took := time.Since(woke); took > time.Second {
			t.Errorf("stopped %s after waking", took)
		}
		m.Heal(victim)
		m.Wait(t, 5*time.Minute, "it to end", func() bool { return m.Task(t, 0, id).Phase.Final() })
		time.Sleep(time.Second)
		ended(t, m, id, labmesh.Completed, 0, 1, 2)
	})
}
