// Package storetest says what every ledger must hold: one suite for all
// backends, and a mesh that makes events for it.
package storetest

import (
	"bytes"
	"context"
	"encoding/json"
	"reflect"
	"slices"
	"testing"

	"labmesh"
	"labmesh/store"
)

// Run holds the backends that open makes, each empty, to the suite.
func Run(t *testing.T, open func(t *testing.T) store.Backend) {
	for name, test := range map[string]func(*testing.T, store.Backend){
		"A task comes back as it was":            taskComesBack,
		"Replaying the log does nothing":         replayDoesNothing,
		"The applied index moves without events": indexMovesAlone,
		"Tasks are listed by seq and filter":     tasksAreListed,
		"Late word is on record and not history": lateWord,
		"Events are listed after a position":     eventsAreListed,
		"An idempotency key finds its task":      keyFindsTask,
		"Test cases come back as they were":      testsComeBack,
		"Rows of benchmarks come back":           benchComesBack,
		"Closing is safe twice":                  closeTwice,
		"After Close everything is an error":     closedRefuses,
	} {
		t.Run(name, func(t *testing.T) { test(t, opened(t, open)) })
	}
	for name, test := range map[string]func(t *testing.T, from, to store.Backend){
		"A gap is filled from a peer":            gapIsFilled,
		"Importing twice does nothing":           importTwice,
		"A peer refuses to export what it lacks": exportRefuses,
		"A damaged stream leaves nothing behind": damagedStream,
		"Two gaps are filled oldest first":       twoGaps,
		"One log index is never cut":             indexIsNotCut,
		"An imported worker replaces no newer":   workersMerge,
		"A stream that leaves a hole is refused": holeRefused,
	} {
		t.Run(name, func(t *testing.T) { test(t, opened(t, open), opened(t, open)) })
	}
}

func opened(t *testing.T, open func(t *testing.T) store.Backend) store.Backend {
	b := open(t)
	t.Cleanup(func() {
		if err := b.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
	})
	return b
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// appendAll appends each list of events as an entry of its own.
func appendAll(t *testing.T, b store.Backend, entries ...[]labmesh.Event) {
	t.Helper()
	for _, events := range entries {
		must(t, b.Append(t.Context(), events[0].Index, events))
	}
}

func applied(t *testing.T, b store.Backend) uint64 {
	t.Helper()
	index, err := b.Applied()
	must(t, err)
	return index
}

// same compares what encoding/json makes of two values: JSON inside them may be
// written differently.
func same(t *testing.T, got, want any) {
	t.Helper()
	if g, w := canonical(t, got), canonical(t, want); !reflect.DeepEqual(g, w) {
		t.Errorf("got  %v\nwant %v", g, w)
	}
}

func canonical(t *testing.T, v any) any {
	t.Helper()
	data, err := json.Marshal(v)
	must(t, err)
	var out any
	must(t, json.Unmarshal(data, &out))
	return out
}

func taskComesBack(t *testing.T, b store.Backend) {
	var m Mesh
	var want []labmesh.Task
	for range 8 {
		task, events := m.Finish()
		appendAll(t, b, events)
		want = append(want, task)
	}
	for _, w := range want {
		got, ok, err := b.Task(t.Context(), w.ID)
		if err != nil || !ok {
			t.Fatalf("task %s: %v, %v", w.ID, ok, err)
		}
		same(t, got, w)
	}
	if _, ok, err := b.Task(t.Context(), "nobody's"); ok || err != nil {
		t.Errorf("a task that is not there: %v, %v", ok, err)
	}
}

func replayDoesNothing(t *testing.T, b store.Backend) {
	var m Mesh
	_, first := m.Finish()
	_, second := m.Finish()
	appendAll(t, b, first, second, first)
	both := append(slices.Clone(first), second...)
	must(t, b.Append(t.Context(), 2, both))
	_, third := m.Finish()
	must(t, b.Append(t.Context(), 3, append(both, third...))) // part is new
	tasks, err := b.Tasks(t.Context(), store.Filter{})
	must(t, err)
	events, err := b.Events(t.Context(), store.Position{}, 0)
	must(t, err)
	if len(tasks) != 3 || len(events) != 6 || applied(t, b) != 3 {
		t.Errorf("%d tasks, %d events, applied %d; want 3, 6, 3", len(tasks), len(events), applied(t, b))
	}
}

func indexMovesAlone(t *testing.T, b store.Backend) {
	if got := applied(t, b); got != 0 {
		t.Errorf("a new ledger stands at %d", got)
	}
	must(t, b.Append(t.Context(), 7, nil))
	must(t, b.Append(t.Context(), 5, nil))
	if got := applied(t, b); got != 7 {
		t.Errorf("applied %d, want 7", got)
	}
}

func tasksAreListed(t *testing.T, b store.Backend) {
	var m Mesh
	for range 12 {
		_, events := m.Finish()
		appendAll(t, b, events)
	}
	for _, c := range []struct {
		filter store.Filter
		want   []uint64
	}{
		{store.Filter{Limit: 3}, []uint64{1, 2, 3}},
		{store.Filter{After: 10}, []uint64{11, 12}},
		{store.Filter{Phases: []labmesh.Phase{labmesh.Failed}}, []uint64{3, 7, 11}},
		{store.Filter{Phases: []labmesh.Phase{labmesh.Failed, labmesh.Completed}, Limit: 4, After: 2}, []uint64{3, 4, 5, 6}},
		{store.Filter{Worker: "w2"}, []uint64{2, 7, 12}},
		{store.Filter{Kind: labmesh.Test}, nil},
		{store.Filter{Kind: labmesh.Custom, Limit: 1}, []uint64{1}},
	} {
		tasks, err := b.Tasks(t.Context(), c.filter)
		must(t, err)
		var got []uint64
		for _, task := range tasks {
			got = append(got, task.Seq)
		}
		if !slices.Equal(got, c.want) {
			t.Errorf("%+v: %v, want %v", c.filter, got, c.want)
		}
	}
}

func lateWord(t *testing.T, b store.Backend) {
	var m Mesh
	task, events := m.Finish()
	appendAll(t, b, events, m.Late(task))
	attempts, err := b.Attempts(t.Context(), task.ID)
	must(t, err)
	if len(attempts) != 2 || attempts[1].Status != store.Superseded {
		t.Errorf("attempts: %+v", attempts)
	}
	got, _, err := b.Task(t.Context(), task.ID)
	must(t, err)
	same(t, got, task)
}

func eventsAreListed(t *testing.T, b store.Backend) {
	var m Mesh
	_, first := m.Finish()
	appendAll(t, b, first, m.Worker("w1", labmesh.WorkerJoined, labmesh.WorkerActive))
	for _, c := range []struct {
		after store.Position
		limit int
		want  int
	}{{store.Position{}, 0, 3}, {store.Position{}, 2, 2}, {store.Position{Index: 1}, 0, 2}, {store.Position{Index: 1, N: 1}, 0, 1}, {store.Position{Index: 2}, 0, 0}} {
		events, err := b.Events(t.Context(), c.after, c.limit)
		must(t, err)
		if len(events) != c.want {
			t.Errorf("after %v: %d events, want %d", c.after, len(events), c.want)
		}
	}
	events, err := b.Events(t.Context(), store.Position{Index: 1}, 0)
	must(t, err)
	want := []store.Event{
		{Index: 1, N: 1, At: first[1].At, Type: labmesh.TaskEnded, Task: first[1].Task.ID, Attempt: 1, Worker: "w1", Actor: "n1"},
		{Index: 2, N: 0, At: Epoch.Add(2e9), Type: labmesh.WorkerJoined, Worker: "w1", Node: "n1"},
	}
	same(t, events, want)
}

func keyFindsTask(t *testing.T, b store.Backend) {
	var m Mesh
	task, events := m.Finish()
	_, more := m.Finish()
	appendAll(t, b, events, more)
	theirs, events := m.Finish()
	theirs.Project, theirs.Spec.IdempotencyKey = "vision", task.Spec.IdempotencyKey
	events[1].Task = &theirs
	appendAll(t, b, events)
	for project, want := range map[string]labmesh.TaskID{"": task.ID, "vision": theirs.ID} {
		id, ok, err := b.FindKey(t.Context(), project, task.Spec.IdempotencyKey)
		if err != nil || !ok || id != want {
			t.Errorf("in project %q: found %q, %v, %v", project, id, ok, err)
		}
	}
	for _, c := range [][2]string{{"", ""}, {"", "no such key"}, {"", "' OR 1=1 --"}, {"audio", task.Spec.IdempotencyKey}, {"' OR 1=1 --", task.Spec.IdempotencyKey}} {
		if id, ok, err := b.FindKey(t.Context(), c[0], c[1]); ok || err != nil {
			t.Errorf("key %q of project %q found %q, %v", c[1], c[0], id, err)
		}
	}
	listed, err := b.Tasks(t.Context(), store.Filter{Project: "vision"})
	must(t, err)
	if len(listed) != 1 || listed[0].ID != theirs.ID {
		t.Errorf("of the project: %v", listed)
	}
}

func testsComeBack(t *testing.T, b store.Backend) {
	var m Mesh
	_, other := m.Finish()
	first, second := m.Tests(Cases(40)...), m.Tests(Cases(9)...)
	appendAll(t, b, other, first, first, second)
	for _, c := range []struct {
		after, upto uint64
		want        []labmesh.Event
	}{{0, 99, append(slices.Clone(first), second...)}, {1, 2, first}, {2, 3, second}, {3, 9, nil}} {
		got, err := b.Tests(t.Context(), c.after, c.upto)
		must(t, err)
		if len(got) != len(c.want) {
			t.Fatalf("in (%d, %d]: %d, want %d", c.after, c.upto, len(got), len(c.want))
		}
		for i, e := range c.want {
			same(t, got[i], store.RecordedTests{Position: store.Position{Index: e.Index, N: e.N}, Tests: *e.Tests})
		}
	}
	if tasks, err := b.Tasks(t.Context(), store.Filter{}); err != nil || len(tasks) != 1 {
		t.Errorf("%d tasks, %v", len(tasks), err)
	}
}

func benchComesBack(t *testing.T, b store.Backend) {
	var m Mesh
	_, other := m.Finish()
	first, second := m.Bench(BenchRows(20)...), m.Bench(BenchRows(5)...)
	appendAll(t, b, other, first, first, second)
	for _, c := range []struct {
		filter store.BenchFilter
		want   []labmesh.Event
	}{
		{store.BenchFilter{}, append(slices.Clone(first), second...)}, {store.BenchFilter{After: 1, Upto: 2}, first}, {store.BenchFilter{After: 2}, second},
		{store.BenchFilter{Task: first[0].Bench.Task}, first}, {store.BenchFilter{Task: first[0].Bench.Task, Limit: 10}, first[:1]},
		{store.BenchFilter{AfterID: first[1].Bench.ID - 1}, append(first[1:2:2], second...)},
		{store.BenchFilter{After: 3}, nil}, {store.BenchFilter{Task: "other"}, nil}, {store.BenchFilter{Task: first[0].Bench.Task, After: 2}, nil},
	} {
		got, err := b.Bench(t.Context(), c.filter)
		must(t, err)
		if len(got) != len(c.want) {
			t.Fatalf("%+v: %d, want %d", c.filter, len(got), len(c.want))
		}
		for i, e := range c.want {
			same(t, got[i], store.RecordedBench{Position: store.Position{Index: e.Index, N: e.N}, Bench: *e.Bench})
		}
	}
	events, err := b.Events(t.Context(), store.Position{Index: 1, N: 1}, 1)
	must(t, err)
	if len(events) != 1 || events[0].Task != first[0].Bench.Task || events[0].Worker != "w1" || events[0].Attempt != 1 {
		t.Errorf("events: %+v", events)
	}
}

func closeTwice(t *testing.T, b store.Backend) {
	must(t, b.Close())
	must(t, b.Close())
}

func closedRefuses(t *testing.T, b store.Backend) {
	must(t, b.Close())
	ctx := context.Background()
	_, err := b.Applied()
	_, _, taskErr := b.Task(ctx, "x")
	_, _, gapErr := b.Gap(ctx)
	_, exportErr := b.Export(ctx, 0, 1, 1, &bytes.Buffer{})
	for i, err := range []error{err, taskErr, gapErr, exportErr, b.Append(ctx, 1, nil), b.Require(ctx, 2)} {
		if err == nil {
			t.Errorf("call %d on a closed ledger is no error", i)
		}
	}
}
