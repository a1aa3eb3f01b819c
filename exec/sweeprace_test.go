package exec

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"labmesh"
)

// bare is a desk with nothing on it.
type bare struct{ Desk }

func (bare) Assigned() []*labmesh.Task { return nil }

// TestASweepLeavesWhatBeginsMeanwhile: directories are made with a time of long
// ago, so one that begins while a sweep is under way looks older than all that is to be kept.
func TestASweepLeavesWhatBeginsMeanwhile(t *testing.T) {
	t.Parallel()
	w := &Worker{cfg: Config{Dir: t.TempDir(), Desk: bare{}, Keep: Keep{Age: time.Hour, Attempts: 1 << 20, Bytes: 1 << 40}, Floor: 1}, have: map[key]*run{}}
	var err error
	if w.dirs, err = openDirs(w.cfg.Dir); err != nil {
		t.Fatal(err)
	}
	for i := range 2000 { // that a sweep has to look at
		if err := os.Mkdir(filepath.Join(w.cfg.Dir, fmt.Sprint("old", i)), dirMode); err != nil {
			t.Fatal(err)
		}
	}
	over := make(chan struct{})
	var sweeps sync.WaitGroup
	sweeps.Go(func() {
		for {
			select {
			case <-over:
				return
			default:
			}
			if _, err := w.sweep(t.Context(), time.Now()); err != nil {
				t.Error(err)
				return
			}
		}
	})
	const (
		attempts = 1000
		atOnce   = 200
	)
	id := func(i int) key { return key{labmesh.TaskID(fmt.Sprint("t", i)), 1} }
	for i := range attempts + atOnce {
		if i < attempts {
			w.mu.Lock()
			w.have[id(i)] = &run{state: live}
			w.mu.Unlock()
			if err := w.dirs.take(id(i)); err != nil {
				t.Fatal(err)
			}
		}
		if i < atOnce {
			continue
		}
		ends := id(i - atOnce)
		if _, err := os.Stat(filepath.Join(attemptDir(w.cfg.Dir, ends), workName)); err != nil {
			t.Errorf("an attempt under way has lost its directory: %v", err)
			break
		}
		w.dirs.give(ends)
		w.mu.Lock()
		delete(w.have, ends)
		w.mu.Unlock()
	}
	close(over)
	sweeps.Wait()
}

// TestASweepKeepsWhatAnAttemptLeftInItsWork although its own directory was never touched.
func TestASweepKeepsWhatAnAttemptLeftInItsWork(t *testing.T) {
	t.Parallel()
	w := &Worker{cfg: Config{Dir: t.TempDir(), Desk: bare{}, Keep: Keep{Age: time.Hour, Attempts: 10, Bytes: 1 << 30}, Floor: 1}, have: map[key]*run{}}
	var err error
	if w.dirs, err = openDirs(w.cfg.Dir); err != nil {
		t.Fatal(err)
	}
	left, empty := key{"left", 1}, key{"empty", 1}
	file := filepath.Join(attemptDir(w.cfg.Dir, left), workName, "result")
	if err := errors.Join(w.dirs.take(left), w.dirs.take(empty), os.WriteFile(file, nil, 0o600)); err != nil {
		t.Fatal(err)
	}
	n, err := w.sweep(t.Context(), time.Now())
	if _, gone := os.Stat(file); err != nil || n != 1 || gone != nil {
		t.Errorf("%d removed (%v), want the empty one; what the other left: %v", n, err, gone)
	}
}
