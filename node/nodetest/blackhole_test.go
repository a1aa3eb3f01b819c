package nodetest_test

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"labmesh"
	"labmesh/exec"
	"labmesh/node/nodetest"
)

// hole is a runner that fails everything at once on the workers named, for some cause.
type hole struct {
	bad   map[labmesh.WorkerID]bool
	cause labmesh.Cause

	mu     sync.Mutex
	burned map[labmesh.TaskID]bool
}

func (h *hole) Run(_ context.Context, a exec.Attempt) labmesh.Outcome {
	if !h.bad[a.Worker] {
		time.Sleep(500 * time.Millisecond)
		return labmesh.Outcome{OK: true}
	}
	time.Sleep(20 * time.Millisecond)
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.burned == nil {
		h.burned = map[labmesh.TaskID]bool{}
	}
	h.burned[a.Task.ID] = true
	return labmesh.Outcome{Cause: h.cause, Error: "no", Seconds: 0.02}
}

// TestAWorkerThatFailsEverythingIsQuarantined among five good ones.
func TestAWorkerThatFailsEverythingIsQuarantined(t *testing.T) {
	for _, cause := range []labmesh.Cause{labmesh.CauseSpawn, labmesh.CauseExit} {
		t.Run(string(cause), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				h := &hole{bad: map[labmesh.WorkerID]bool{"w2": true}, cause: cause}
				m := nodetest.Start(t, 6, map[labmesh.Kind]exec.Runner{labmesh.Custom: h})
				var ids []labmesh.TaskID
				for i := range 200 {
					ids = append(ids, m.Submit(t, i%6, labmesh.Spec{}))
				}
				failed := 0
				m.Wait(t, 5*time.Minute, "all to end", func() bool {
					failed = 0
					for _, id := range ids {
						task := m.Task(t, 0, id)
						if !task.Phase.Final() {
							return false
						}
						if task.Phase != labmesh.Completed {
							failed++
						}
					}
					return true
				})
				w, _, err := m.Nodes[0].Service().Worker(t.Context(), "w2")
				if err != nil || w.Status != labmesh.WorkerQuarantined {
					t.Errorf("w2 is %s: %v", w.Status, err)
				}
				t.Logf("%s: %d tasks burned, %d failed for good; %s", cause, len(h.burned), failed, w.Reason)
				if len(h.burned) > 5 {
					t.Errorf("%d tasks burned", len(h.burned))
				}
				if cause.Infra() && failed > 0 {
					t.Errorf("%d tasks failed", failed)
				}
				for i := range 6 {
					id := labmesh.WorkerID(fmt.Sprint("w", i))
					if w, _, err := m.Nodes[0].Service().Worker(t.Context(), id); i != 2 && (err != nil || w.Status != labmesh.WorkerActive) {
						t.Errorf("%s is %s: %s, %v", id, w.Status, w.Reason, err)
					}
				}
			})
		})
	}
}

// TestTasksThatFailEverywhereQuarantineNobody, and neither does the only worker there is.
func TestTasksThatFailEverywhereQuarantineNobody(t *testing.T) {
	for n := 1; n <= 3; n += 2 {
		synctest.Test(t, func(t *testing.T) {
			h := &hole{bad: map[labmesh.WorkerID]bool{"w0": true, "w1": true, "w2": true}, cause: labmesh.CauseExit}
			m := nodetest.Start(t, n, map[labmesh.Kind]exec.Runner{labmesh.Custom: h})
			for range 60 {
				m.Submit(t, 0, labmesh.Spec{})
			}
			time.Sleep(30 * time.Second)
			if c := m.Nodes[0].Service().Status(t.Context()); len(h.burned) != 60 {
				t.Errorf("%d of 60 were run: %+v", len(h.burned), c)
			}
			for i := range n {
				if w, _, err := m.Nodes[0].Service().Worker(t.Context(), labmesh.WorkerID(fmt.Sprint("w", i))); err != nil || w.Status != labmesh.WorkerActive {
					t.Errorf("worker %d is %s: %s, %v", i, w.Status, w.Reason, err)
				}
			}
		})
	}
}
