package nodetest_test

import (
	"context"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"labmesh"
	"labmesh/exec"
	"labmesh/exec/calibrate"
	"labmesh/node/nodetest"
)

// TestMachinesAreMeasuredWhileTheyHaveNothingToDo: some time after a worker came,
// never beside an attempt, once a day, and twice before one is called slow.
func TestMachinesAreMeasuredWhileTheyHaveNothingToDo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := nodetest.Start(t, 1, map[labmesh.Kind]exec.Runner{labmesh.Custom: &nodetest.Runner{Takes: 40 * time.Second}})
		var begun, done, cut, running atomic.Int64
		speed := atomic.Pointer[float64]{}
		speed.Store(new(2.0))
		m.Calibrate = func(ctx context.Context, _ string, _ int64) (calibrate.Result, error) {
			begun.Add(1)
			if running.Load() > 0 {
				t.Error("a measurement began beside an attempt")
			}
			select {
			case <-time.After(12 * time.Second):
				done.Add(1)
				return calibrate.Result{Kernel: "x", Calibration: labmesh.Calibration{At: time.Now(), Speed: *speed.Load()}}, nil
			case <-ctx.Done():
				cut.Add(1)
				return calibrate.Result{}, ctx.Err()
			}
		}
		m.Join(t, nodetest.Plain())
		known := func() *labmesh.Calibration {
			w, _, err := m.Nodes[0].Service().Worker(t.Context(), "w1")
			if err != nil {
				t.Fatal(err)
			}
			return w.Capabilities.Calibration
		}
		m.Wait(t, time.Minute, "a measurement to begin", func() bool { return begun.Load() == 1 })
		id := m.Submit(t, 0, labmesh.Spec{Requirements: labmesh.Requirements{WorkerID: "w1"}})
		m.Wait(t, time.Second, "the measurement to give way", func() bool { return cut.Load() == 1 })
		m.Wait(t, time.Minute, "the attempt", func() bool { return m.Task(t, 0, id).Phase == labmesh.Running })
		running.Store(1)
		time.Sleep(20 * time.Second)
		if begun.Load() != 1 || known() != nil {
			t.Errorf("%d began, known %+v", begun.Load(), known())
		}
		m.Wait(t, time.Minute, "the attempt's end", func() bool { return m.Task(t, 0, id).Phase == labmesh.Completed })
		running.Store(0)
		m.Wait(t, 2*time.Minute, "the figures", func() bool { c := known(); return c != nil && c.Speed == 2 })

		m.Halt(t, 1)
		m.Run(t, 1)
		before := begun.Load()
		time.Sleep(20 * time.Second)
		if c := known(); begun.Load() != before || c == nil || c.Speed != 2 {
			t.Errorf("after a restart before the next is due: %d more, known %+v", begun.Load()-before, c)
		}

		time.Sleep(4 * nodetest.CalibrateEvery)
		if n := done.Load(); n < 4 || n > 5 {
			t.Errorf("%d measurements in four intervals", n)
		}
		speed.Store(new(1.0))
		m.Wait(t, 5*time.Minute, "word that it is slower", func() bool {
			c := known()
			return c != nil && strings.Contains(c.Slower, "one processor by 50 %")
		})
		if s := m.Nodes[0].Service().Status(t.Context()); !strings.Contains(strings.Join(s.Warnings, "; "), "w1 (b): it is slower than it usually is") {
			t.Errorf("warnings %q", s.Warnings)
		}
	})
}
