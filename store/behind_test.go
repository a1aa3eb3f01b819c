package store_test

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"labmesh"
	"labmesh/store"
	"labmesh/store/memory"
	"labmesh/store/storetest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// disk is a ledger whose writes take time and can be made to not succeed.
type disk struct {
	*memory.DB
	mu      sync.Mutex
	full    error
	slow    time.Duration
	commits int
}

func (d *disk) Append(ctx context.Context, applied uint64, events []labmesh.Event) error {
	d.mu.Lock()
	full, slow := d.full, d.slow
	d.commits++
	d.mu.Unlock()
	time.Sleep(slow) // in a bubble
	if full != nil {
		return full
	}
	return d.DB.Append(ctx, applied, events)
}

func (d *disk) set(full error, slow time.Duration) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.full, d.slow = full, slow
}

// running runs a queue before d inside a bubble until the test ends.
func running(t *testing.T, d *disk, cfg store.BehindConfig) (b *store.Behind, stop func() error) {
	t.Helper()
	cfg.Logger = slog.New(slog.DiscardHandler)
	b, err := store.NewBehind(d, cfg)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- b.Run(ctx) }()
	return b, func() error { cancel(); return <-done }
}

func put(t *testing.T, b *store.Behind, m *storetest.Mesh, entries int) {
	t.Helper()
	for range entries {
		_, events := m.Finish()
		if err := b.Append(m.Index, events); err != nil {
			t.Fatal(err)
		}
	}
}

func TestManyEntriesAreOneCommit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := &disk{DB: memory.New()}
		b, stop := running(t, d, store.BehindConfig{})
		var m storetest.Mesh
		for range 100 { // an entry each millisecond
			put(t, b, &m, 1)
			time.Sleep(time.Millisecond)
		}
		time.Sleep(store.CommitInterval)
		synctest.Wait()
		if b.Applied() != 100 || d.commits > 8 {
			t.Errorf("applied %d in %d commits", b.Applied(), d.commits)
		}
		if err := stop(); err != nil {
			t.Error(err)
		}
	})
}

func TestAwaitFlushesAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := &disk{DB: memory.New()}
		b, stop := running(t, d, store.BehindConfig{Interval: time.Minute})
		var m storetest.Mesh
		put(t, b, &m, 1)
		begun := time.Now()
		for range 5 {
			put(t, b, &m, 3)
			if err := b.Await(t.Context(), m.Index); err != nil {
				t.Fatal(err)
			}
		}
		m.Index++ // an entry without events
		go func() {
			time.Sleep(time.Second)
			if err := b.Append(m.Index, nil); err != nil {
				t.Error(err)
			}
		}()
		if err := b.Await(t.Context(), m.Index); err != nil { // before it is there
			t.Fatal(err)
		}
		if took := time.Since(begun); took != time.Second {
			t.Errorf("waited %s", took)
		}
		if index, err := d.Applied(); err != nil || index != m.Index {
			t.Errorf("on disk: %d, %v", index, err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
		defer cancel()
		if err := b.Await(ctx, m.Index+1); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("await what never comes: %v", err)
		}
		if err := stop(); err != nil {
			t.Error(err)
		}
		if err := b.Await(t.Context(), m.Index+1); !errors.Is(err, store.ErrClosed) {
			t.Errorf("await after the end: %v", err)
		}
	})
}

func TestIdleLogCostsFewCommits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := &disk{DB: memory.New()}
		b, stop := running(t, d, store.BehindConfig{})
		for i := range uint64(1000) { // entries without events, ten seconds long
			if err := b.Append(i+1, nil); err != nil {
				t.Fatal(err)
			}
			time.Sleep(10 * time.Millisecond)
		}
		time.Sleep(2 * store.IndexInterval)
		if b.Applied() != 1000 || d.commits > 12 {
			t.Errorf("applied %d in %d commits", b.Applied(), d.commits)
		}
		if err := stop(); err != nil {
			t.Error(err)
		}
	})
}

func TestFullQueueHoldsTheLogBack(t *testing.T) {
	for name, cfg := range map[string]store.BehindConfig{"events": {Events: 10, Batch: 4}, "bytes": {Bytes: 12_000, Batch: 4}} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				d := &disk{DB: memory.New(), slow: time.Second}
				b, stop := running(t, d, cfg)
				most, done := 0, make(chan struct{})
				go func() {
					defer close(done)
					var m storetest.Mesh
					put(t, b, &m, 50)
				}()
				for busy := true; busy; {
					select {
					case <-done:
						busy = false
					case <-time.After(100 * time.Millisecond):
						most = max(most, b.Stats().Events)
					}
				}
				if err := b.Await(t.Context(), 50); err != nil {
					t.Fatal(err)
				}
				if s := b.Stats(); most > 16 || most < 6 || s.Events != 0 || s.Bytes != 0 || s.Written != 100 || s.Lag() != 0 {
					t.Errorf("at most %d events waited; then %+v", most, s)
				}
				if err := stop(); err != nil {
					t.Error(err)
				}
			})
		})
	}
}

func TestEntryLargerThanTheQueueGoesThrough(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b, stop := running(t, &disk{DB: memory.New(), slow: time.Millisecond}, store.BehindConfig{Events: 5, Bytes: 100})
		var m storetest.Mesh
		for range 3 {
			events := m.FinishBatch(40)
			if err := b.Append(m.Index, events); err != nil {
				t.Fatal(err)
			}
		}
		if err := b.Await(t.Context(), 3); err != nil {
			t.Fatal(err)
		}
		if err := stop(); err != nil {
			t.Error(err)
		}
	})
}

func TestFullDiskLosesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := &disk{DB: memory.New(), full: errors.New("no space left on device")}
		b, stop := running(t, d, store.BehindConfig{})
		var m storetest.Mesh
		put(t, b, &m, 20)
		time.Sleep(10 * time.Minute)
		if err := b.Err(); err == nil || b.Applied() != 0 {
			t.Errorf("while the disk is full: applied %d, %v", b.Applied(), err)
		}
		if d.commits > 150 {
			t.Errorf("%d tries in ten minutes", d.commits)
		}
		d.set(nil, 0)
		if err := b.Await(t.Context(), 20); err != nil {
			t.Fatal(err)
		}
		tasks, err := d.Tasks(t.Context(), store.Filter{})
		if err != nil || len(tasks) != 20 || b.Err() != nil {
			t.Errorf("%d tasks, %v; warning %v", len(tasks), err, b.Err())
		}
		d.set(errors.New("no space left on device"), 0)
		put(t, b, &m, 1)
		if err := stop(); err == nil {
			t.Error("the end hides that the last entries were not written")
		}
	})
}

func TestEndWritesWhatIsQueued(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := &disk{DB: memory.New()}
		b, stop := running(t, d, store.BehindConfig{Interval: time.Hour, Batch: 7})
		var m storetest.Mesh
		put(t, b, &m, 30)
		if err := stop(); err != nil {
			t.Fatal(err)
		}
		if index, err := d.Applied(); err != nil || index != 30 {
			t.Errorf("on disk: %d, %v", index, err)
		}
		if err := b.Append(31, nil); !errors.Is(err, store.ErrClosed) {
			t.Errorf("append after the end: %v", err)
		}
	})
}

func TestEndFreesAnAppendThatWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := &disk{DB: memory.New(), full: errors.New("no space left on device")}
		b, stop := running(t, d, store.BehindConfig{Events: 2})
		var m storetest.Mesh
		put(t, b, &m, 1)
		waiting := make(chan error)
		go func() {
			_, events := m.Finish()
			waiting <- b.Append(m.Index, events)
		}()
		synctest.Wait()
		if err := stop(); err == nil {
			t.Error("no error")
		}
		if err := <-waiting; !errors.Is(err, store.ErrClosed) {
			t.Errorf("the append that waited: %v", err)
		}
	})
}

func TestSnapshotLeavesAGapInOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := &disk{DB: memory.New()}
		b, stop := running(t, d, store.BehindConfig{})
		var m storetest.Mesh
		put(t, b, &m, 3)
		if err := b.Require(2); err != nil { // the ledger will have it
			t.Fatal(err)
		}
		m.Index = 50
		if err := b.Require(50); err != nil {
			t.Fatal(err)
		}
		put(t, b, &m, 2)
		if err := b.Await(t.Context(), 52); err != nil {
			t.Fatal(err)
		}
		gap, ok, err := d.Gap(t.Context())
		if err != nil || !ok || gap != (store.Gap{After: 3, Upto: 50}) {
			t.Errorf("gap %v, %v, %v", gap, ok, err)
		}
		if events, err := d.Events(t.Context(), store.Position{Index: 50}, 0); err != nil || len(events) != 4 {
			t.Errorf("%d events behind the gap, %v", len(events), err)
		}
		if err := stop(); err != nil {
			t.Error(err)
		}
	})
}

func TestReplayedEntriesAreSkipped(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := &disk{DB: memory.New()}
		b, stop := running(t, d, store.BehindConfig{})
		var m storetest.Mesh
		put(t, b, &m, 5)
		if err := stop(); err != nil {
			t.Fatal(err)
		}
		b, stop = running(t, d, store.BehindConfig{})
		put(t, b, new(storetest.Mesh), 6) // from the beginning of the log
		if err := b.Await(t.Context(), 6); err != nil {
			t.Fatal(err)
		}
		if err := stop(); err != nil {
			t.Fatal(err)
		}
		if tasks, err := d.Tasks(t.Context(), store.Filter{}); err != nil || len(tasks) != 6 {
			t.Errorf("%d tasks, %v", len(tasks), err)
		}
	})
}
