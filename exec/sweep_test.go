package exec_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"labmesh"
	"labmesh/exec"
	"labmesh/exec/exectest"
	"labmesh/exec/output"
)

func TestFullDiskTakesNoWork(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		desk, r := &exectest.Desk{}, &slow{}
		w, err := exec.Open(t.Context(), exec.Config{Worker: "w", Dir: dir, Desk: desk, Floor: 1 << 62,
			Runners: map[labmesh.Kind]exec.Runner{labmesh.Custom: r}})
		if err != nil {
			t.Fatal(err)
		}
		if ok, why := w.Accepts(); ok || !strings.Contains(why, "KiB left") {
			t.Errorf("accepts %v, %q", ok, why)
		}
		desk.Put(task("a", 0))
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- w.Run(ctx) }()
		synctest.Wait()
		want(t, desk, "a", false, labmesh.CauseDisk)
		cancel()
		if err := errors.Join(<-done, w.Close()); err != nil || r.starts() != 0 {
			t.Errorf("%v, %d started", err, r.starts())
		}
	})
}

func TestSweepKeepsTheNewestAndWhatIsHeld(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		for i := range 6 { // t5 is the newest
			path := filepath.Join(dir, fmt.Sprintf("t%d", i), "1")
			at := time.Now().Add(time.Duration(i) * time.Hour)
			if err := errors.Join(os.MkdirAll(path, 0o700), os.WriteFile(filepath.Join(path, "stdout"), []byte("kept"), 0o600), os.Chtimes(path, at, at)); err != nil {
				t.Fatal(err)
			}
		}
		held := task("t0", time.Hour)
		held.Phase = labmesh.Running
		desk := &exectest.Desk{Fail: func([]labmesh.Command) error { return errors.New("cut off") }}
		desk.Put(held)
		w, err := exec.Open(t.Context(), exec.Config{Worker: "w", Dir: dir, Desk: desk, Floor: 1, Keep: exec.Keep{Age: 1000 * time.Hour, Attempts: 2, Bytes: 1 << 30},
			Runners: map[labmesh.Kind]exec.Runner{labmesh.Custom: &slow{}}})
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- w.Run(ctx) }()
		time.Sleep(time.Second)
		for i, keep := range []bool{true, false, false, false, true, true} {
			id := labmesh.TaskID(fmt.Sprintf("t%d", i))
			if _, err := os.Stat(filepath.Join(dir, string(id))); (err == nil) != keep {
				t.Errorf("%s: %v, keep %v", id, err, keep)
			}
			if keep && i > 0 {
				r, err := w.Logs(ctx, id, 0, output.Query{})
				if err != nil {
					t.Fatal(err)
				}
				if data, err := io.ReadAll(r); string(data) != "kept" || err != nil {
					t.Errorf("%s: %q, %v", id, data, err)
				}
				r.Close()
			} else if _, err := w.Logs(ctx, id, 1, output.Query{}); !keep && labmesh.ReasonOf(err) != labmesh.NotFound {
				t.Errorf("%s: %v", id, err)
			}
		}
		cancel()
		if err := errors.Join(<-done, w.Close()); err != nil {
			t.Error(err)
		}
	})
}

func TestSweepWaitsForWhatIsMeasured(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		old := filepath.Join(dir, "t", "1")
		at := time.Now().Add(-1000 * time.Hour)
		if err := errors.Join(os.MkdirAll(old, 0o700), os.Chtimes(old, at, at)); err != nil {
			t.Fatal(err)
		}
		var over atomic.Bool
		w, err := exec.Open(t.Context(), exec.Config{Worker: "w", Dir: dir, Desk: &exectest.Desk{}, Floor: 1, Held: func() bool { return !over.Load() },
			Runners: map[labmesh.Kind]exec.Runner{labmesh.Custom: &slow{}}})
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- w.Run(ctx) }()
		there := func() bool { _, err := os.Stat(old); return err == nil }
		if time.Sleep(15 * time.Minute); !there() {
			t.Error("swept while something was measured")
		}
		over.Store(true)
		if time.Sleep(2 * time.Second); there() {
			t.Error("not swept when nothing was measured any more")
		}
		cancel()
		if err := errors.Join(<-done, w.Close()); err != nil {
			t.Error(err)
		}
	})
}
