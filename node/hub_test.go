package node

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	"labmesh"
	"labmesh/node/httpapi"
	"labmesh/store/memory"
)

// told are tests_recorded events of one entry each, the attempts taking turns.
func told(index uint64, n int, message string) (out []labmesh.Event) {
	from := map[labmesh.TaskID]int{}
	ids := int64(index) << 20
	for i := range n {
		task := labmesh.TaskID(fmt.Sprintf("t%d-%d", index, (i/2)%2)) // two of one, two of the other, …
		t := labmesh.Tests{Task: task, Attempt: 1, Worker: "w1", From: from[task], ID: ids}
		for k := range 3 {
			t.Cases = append(t.Cases, labmesh.TestCase{Framework: "go", File: "./x", Name: fmt.Sprint(from[task] + k), Verdict: labmesh.TestPassed, Try: 1, Message: message})
		}
		from[task] += 3
		ids += 3
		out = append(out, labmesh.Event{Index: index, N: i, Type: labmesh.TestsRecorded, Task: &labmesh.Task{ID: task, Attempt: 1, Worker: "w1"}, Tests: &t})
	}
	return out
}

// written is a ledger that is never behind.
type written struct{ *memory.DB }

func (written) await(context.Context, uint64) {}

var errEnough = errors.New("enough")

// TestTestCasesComeBackFromTheLedger: who comes back to the event stream after
// long sees every case once and in order, as who never left it.
func TestTestCasesComeBackFromTheLedger(t *testing.T) {
	t.Parallel()
	h, ledger := newHub(), written{memory.New()}
	const entries = 1300
	for index := uint64(2); index < entries; index++ {
		events := told(index, 7, "")
		if err := ledger.Append(t.Context(), index, events); err != nil {
			t.Fatal(err)
		}
		h.publish(events)
	}
	if len(h.ring) > 2*hubEvents || h.ring[0].Index == 2 {
		t.Fatalf("%d events are remembered", len(h.ring))
	}
	next := map[labmesh.TaskID]int{}
	at := httpapi.EventID{Index: 1, N: 0}
	err := h.follow(t.Context(), ledger, at, func(e labmesh.Event) error {
		if e.Index < at.Index || e.Index == at.Index && e.N <= at.N && at.N > 0 {
			t.Fatalf("%d-%d follows %v", e.Index, e.N, at)
		}
		at = httpapi.EventID{Index: e.Index, N: e.N}
		if e.Tests == nil || e.Tests.From != next[e.Task.ID] || e.Tests.Task != e.Task.ID || e.Tests.Worker != "w1" {
			t.Fatalf("%d-%d of %s: %+v, want from %d", e.Index, e.N, e.Task.ID, e.Tests, next[e.Task.ID])
		}
		for i, c := range e.Tests.Cases {
			if c.Name != fmt.Sprint(e.Tests.From+i) || c.Framework != "go" {
				t.Fatalf("%d-%d: case %d is %+v", e.Index, e.N, i, c)
			}
		}
		next[e.Task.ID] += len(e.Tests.Cases)
		if e.Index == entries-1 && e.N == 6 {
			return errEnough
		}
		return nil
	})
	if !errors.Is(err, errEnough) {
		t.Fatal(err)
	}
	if len(next) != 2*(entries-2) {
		t.Errorf("cases of %d tasks", len(next))
	}
	for id, n := range next {
		if n != 12 && n != 9 {
			t.Errorf("%s has %d cases", id, n)
		}
	}
}

func TestTheHubBoundsTestCases(t *testing.T) {
	t.Parallel()
	h := newHub()
	long := strings.Repeat("x", 10_000)
	for index := range uint64(5000) {
		h.publish(told(index+1, 1, long))
	}
	sum := 0
	for i := range h.ring {
		sum += recordedBytes(&h.ring[i])
	}
	if sum != h.bytes || sum > 2*hubBytes || sum < hubBytes/2 || h.ring[len(h.ring)-1].Index != 5000 {
		t.Errorf("%d events of %d bytes, counted %d", len(h.ring), sum, h.bytes)
	}
	h.publish(told(5001, 4000, long)) // more than all in one entry
	if last := h.ring[len(h.ring)-1]; last.Index != 5001 || len(h.ring) < 4000 {
		t.Errorf("the newest entry is not remembered: %d events", len(h.ring))
	}
	h.publish(told(5002, 1, long))
	if len(h.ring) > 1000 {
		t.Errorf("%d events are remembered", len(h.ring))
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := h.follow(ctx, written{memory.New()}, httpapi.EventID{}, nil); err != nil {
		t.Error(err)
	}
}

// TestRowsOfBenchmarksComeBackFromTheLedger: as for test cases.
func TestRowsOfBenchmarksComeBackFromTheLedger(t *testing.T) {
	t.Parallel()
	h, ledger := newHub(), written{memory.New()}
	next := 0
	const entries = 3 * hubEvents
	for index := uint64(2); index < entries; index++ {
		b := labmesh.Bench{Task: "t1", Attempt: 1, Worker: "w1", From: next, ID: int64(index) << 20, Rows: make([]labmesh.BenchRow, 1+index%3)}
		next += len(b.Rows)
		events := []labmesh.Event{
			{Index: index, Type: labmesh.TaskSubmitted, Task: &labmesh.Task{ID: "t2"}},
			{Index: index, N: 1, Type: labmesh.BenchRecorded, Task: &labmesh.Task{ID: "t1"}, Bench: &b},
		}
		if err := ledger.Append(t.Context(), index, events); err != nil {
			t.Fatal(err)
		}
		h.publish(events)
	}
	if h.ring[0].Index == 2 {
		t.Fatalf("%d events are remembered", len(h.ring))
	}
	seen := 0
	err := h.follow(t.Context(), ledger, httpapi.EventID{Index: 1}, func(e labmesh.Event) error {
		if e.Type != labmesh.BenchRecorded {
			return nil
		}
		if e.Bench == nil || e.Bench.From != seen || e.Bench.Worker != "w1" || len(e.Bench.Rows) != int(1+e.Index%3) {
			t.Fatalf("%d: %+v, want from %d", e.Index, e.Bench, seen)
		}
		if seen += len(e.Bench.Rows); seen == next {
			return errEnough
		}
		return nil
	})
	if !errors.Is(err, errEnough) {
		t.Fatal(err)
	}
	sum := 0
	for i := range h.ring {
		sum += recordedBytes(&h.ring[i])
	}
	if sum != h.bytes || sum == 0 {
		t.Errorf("counted %d bytes, there are %d", h.bytes, sum)
	}
}
