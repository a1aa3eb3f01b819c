package node

import (
	"cmp"
	"context"
	"slices"
	"sync"

	"labmesh"
	"labmesh/node/httpapi"
	"labmesh/store"
)

// hubEvents is how many events are remembered for those who follow them. Who
// falls behind further reads on from the ledger.
const hubEvents = 4096

// hubBytes bounds the test cases and rows of benchmarks among them: one event may tell of many.
const hubBytes = 16 << 20

// hub passes events on to those who follow them. Publishing never waits.
type hub struct {
	mu      sync.Mutex
	ring    []labmesh.Event // oldest first, at most 2*hubEvents
	bytes   int             // of test cases and rows in ring, at most 2*hubBytes and those of the newest entry
	changed chan struct{}
}

func newHub() *hub { return &hub{changed: make(chan struct{})} }

func (h *hub) publish(events []labmesh.Event) {
	if len(events) == 0 {
		return
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.ring = append(h.ring, events...)
	for i := range events {
		h.bytes += recordedBytes(&events[i])
	}
	if len(h.ring) > 2*hubEvents || h.bytes > 2*hubBytes {
		drop := min(max(0, len(h.ring)-hubEvents), len(h.ring)-len(events))
		for i := range drop {
			h.bytes -= recordedBytes(&h.ring[i])
		}
		for ; h.bytes > hubBytes && drop < len(h.ring)-len(events); drop++ {
			h.bytes -= recordedBytes(&h.ring[drop])
		}
		// An entry is remembered whole: by its first event one sees whether some lack.
		for ; drop > 0 && drop < len(h.ring) && h.ring[drop].Index == h.ring[drop-1].Index && h.ring[drop].Index != events[0].Index; drop++ {
			h.bytes -= recordedBytes(&h.ring[drop])
		}
		kept := copy(h.ring, h.ring[drop:])
		clear(h.ring[kept:]) // what it holds on to
		h.ring = h.ring[:kept]
	}
	close(h.changed)
	h.changed = make(chan struct{})
}

// recordedBytes is about what the test cases or the rows of e take in memory.
func recordedBytes(e *labmesh.Event) (n int) {
	const aCase, aRow = 200, 2500
	if e.Tests != nil {
		for i := range e.Tests.Cases {
			c := &e.Tests.Cases[i]
			n += aCase + len(c.File) + len(c.Name) + len(c.Params) + len(c.Message)
		}
	}
	if e.Bench != nil {
		for i := range e.Bench.Rows {
			n += aRow + len(e.Bench.Rows[i].Env) + len(e.Bench.Rows[i].Reason)
		}
	}
	return n
}

// after is the events that follow id, and a channel that is closed when there
// are more. gap is the log index of the first that is remembered if there may
// have been some in between, else 0.
func (h *hub) after(id httpapi.EventID) (events []labmesh.Event, changed <-chan struct{}, gap uint64) {
	h.mu.Lock()
	defer h.mu.Unlock()
	at, _ := slices.BinarySearchFunc(h.ring, id, func(e labmesh.Event, id httpapi.EventID) int {
		if c := cmp.Compare(e.Index, id.Index); c != 0 {
			return c
		}
		if e.N <= id.N {
			return -1
		}
		return 1
	})
	if at == 0 && len(h.ring) > 0 && h.ring[0].Index > id.Index {
		gap = h.ring[0].Index
	}
	return slices.Clone(h.ring[at:min(len(h.ring), at+hubBatch)]), h.changed, gap
}

// hubBatch is how many events a follower takes at a time.
const hubBatch = 1024

// newest is the place of the last event published.
func (h *hub) newest() httpapi.EventID {
	h.mu.Lock()
	defer h.mu.Unlock()
	if len(h.ring) == 0 {
		return httpapi.EventID{}
	}
	last := &h.ring[len(h.ring)-1]
	return httpapi.EventID{Index: last.Index, N: last.N}
}

// pastEvents is where the events are that the hub remembers no more.
type pastEvents interface {
	Events(ctx context.Context, after store.Position, limit int) ([]store.Event, error)
	Tests(ctx context.Context, after, upto uint64) ([]store.RecordedTests, error)
	Bench(ctx context.Context, f store.BenchFilter) ([]store.RecordedBench, error)
	// await waits until those up to index are there, or for as long as it makes sense.
	await(ctx context.Context, index uint64)
}

// follow sends every event after the given one, in order, until ctx ends or
// send fails. What the hub remembers no more comes from the ledger, in the short
// form that the ledger keeps.
func (h *hub) follow(ctx context.Context, ledger pastEvents, at httpapi.EventID, send func(labmesh.Event) error) error {
	if at == (httpapi.EventID{}) {
		at = h.newest()
	}
	var recorded recordedOf
	for ctx.Err() == nil {
		events, changed, gap := h.after(at)
		fromLedger := false
		if gap > 0 {
			ledger.await(ctx, gap-1)
			old, err := ledger.Events(ctx, store.Position{Index: at.Index, N: at.N}, hubBatch)
			if err != nil {
				return err
			}
			if fromLedger = len(old) > 0; fromLedger {
				events = short(old)
			}
		}
		for _, e := range events {
			if fromLedger {
				if err := recorded.add(ctx, ledger, &e); err != nil {
					return err
				}
			}
			if err := send(e); err != nil {
				return err
			}
			at = httpapi.EventID{Index: e.Index, N: e.N}
		}
		if len(events) > 0 {
			continue
		}
		select {
		case <-changed:
		case <-ctx.Done():
		}
	}
	return nil
}

func short(old []store.Event) []labmesh.Event {
	out := make([]labmesh.Event, len(old))
	for i, e := range old {
		out[i] = labmesh.Event{Index: e.Index, N: e.N, At: e.At, Type: e.Type, Actor: e.Actor, Detail: e.Detail}
		if e.Task != "" {
			out[i].Task = &labmesh.Task{ID: e.Task, Attempt: e.Attempt, Worker: e.Worker}
		}
		if e.Task == "" && e.Worker != "" {
			out[i].Worker = &labmesh.Worker{ID: e.Worker}
		}
		if e.Node != "" {
			out[i].Member = &labmesh.Member{Node: e.Node}
		}
	}
	return out
}

// recordedOf gives events from the ledger their test cases and rows of benchmarks
// back, an entry of the log at a time.
type recordedOf struct {
	testsOf, benchOf uint64                // the entries that these are of
	tests            []store.RecordedTests //
	bench            []store.RecordedBench //
}

func (r *recordedOf) add(ctx context.Context, ledger pastEvents, e *labmesh.Event) error {
	switch e.Type {
	case labmesh.TestsRecorded:
		return r.addTests(ctx, ledger, e)
	case labmesh.BenchRecorded:
		return r.addBench(ctx, ledger, e)
	}
	return nil
}

func (r *recordedOf) addTests(ctx context.Context, ledger pastEvents, e *labmesh.Event) (err error) {
	if r.testsOf != e.Index {
		if r.tests, err = ledger.Tests(ctx, e.Index-1, e.Index); err != nil {
			return err
		}
		r.testsOf = e.Index
	}
	for i := range r.tests {
		if r.tests[i].N == e.N {
			e.Tests = &r.tests[i].Tests
		}
	}
	return nil
}

func (r *recordedOf) addBench(ctx context.Context, ledger pastEvents, e *labmesh.Event) (err error) {
	if r.benchOf != e.Index {
		if r.bench, err = ledger.Bench(ctx, store.BenchFilter{After: e.Index - 1, Upto: e.Index}); err != nil {
			return err
		}
		r.benchOf = e.Index
	}
	for i := range r.bench {
		if r.bench[i].N == e.N {
			e.Bench = &r.bench[i].Bench
		}
	}
	return nil
}
