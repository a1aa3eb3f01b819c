package storetest

import (
	"bytes"
	"math"
	"testing"

	"labmesh"
	"labmesh/store"
)

// history appends n finished tasks and two changes of a worker to b.
func history(t *testing.T, b store.Backend, m *Mesh, n int) {
	t.Helper()
	appendAll(t, b, m.Worker("w1", labmesh.WorkerJoined, labmesh.WorkerActive))
	for range n {
		_, events := m.Finish()
		appendAll(t, b, events)
	}
	appendAll(t, b, m.Tests(Cases(n)...), m.Bench(BenchRows(n)...))
	appendAll(t, b, m.Worker("w1", labmesh.WorkerGone, labmesh.WorkerOffline))
}

// copyGap fills the oldest gap of to, limit rows at a time.
func copyGap(t *testing.T, from, to store.Backend, limit int) (rounds int) {
	t.Helper()
	for ; ; rounds++ {
		gap, ok, err := to.Gap(t.Context())
		must(t, err)
		if !ok {
			return rounds
		}
		var stream bytes.Buffer
		next, err := from.Export(t.Context(), gap.After, gap.Upto, limit, &stream)
		must(t, err)
		must(t, to.Import(t.Context(), &stream, next))
	}
}

// equal compares all that two ledgers hold, as they export it.
func equal(t *testing.T, a, b store.Backend) {
	t.Helper()
	tasksA, err := a.Tasks(t.Context(), store.Filter{})
	must(t, err)
	tasksB, err := b.Tasks(t.Context(), store.Filter{})
	must(t, err)
	same(t, tasksB, tasksA)
	eventsA, err := a.Events(t.Context(), store.Position{}, 0)
	must(t, err)
	eventsB, err := b.Events(t.Context(), store.Position{}, 0)
	must(t, err)
	same(t, eventsB, eventsA)
	testsA, err := a.Tests(t.Context(), 0, math.MaxInt64)
	must(t, err)
	testsB, err := b.Tests(t.Context(), 0, math.MaxInt64)
	must(t, err)
	same(t, testsB, testsA)
	benchA, err := a.Bench(t.Context(), store.BenchFilter{})
	must(t, err)
	benchB, err := b.Bench(t.Context(), store.BenchFilter{})
	must(t, err)
	same(t, benchB, benchA)
	if x, y := applied(t, a), applied(t, b); x != y {
		t.Errorf("applied %d and %d", x, y)
	}
}

func gapIsFilled(t *testing.T, from, to store.Backend) {
	var m Mesh
	history(t, from, &m, 40)
	must(t, to.Require(t.Context(), m.Index))
	must(t, to.Require(t.Context(), m.Index)) // said twice
	if gap, ok, err := to.Gap(t.Context()); err != nil || !ok || gap != (store.Gap{After: 0, Upto: m.Index}) {
		t.Fatalf("gap %v, %v, %v", gap, ok, err)
	}
	_, events := m.Finish() // the log goes on while the gap is open
	appendAll(t, from, events)
	appendAll(t, to, events)
	if rounds := copyGap(t, from, to, 25); rounds < 4 {
		t.Errorf("filled in %d rounds of 25 rows", rounds)
	}
	equal(t, from, to)
}

func importTwice(t *testing.T, from, to store.Backend) {
	var m Mesh
	history(t, from, &m, 10)
	must(t, to.Require(t.Context(), m.Index))
	var stream bytes.Buffer
	next, err := from.Export(t.Context(), 0, m.Index, 12, &stream)
	must(t, err)
	if next >= m.Index {
		t.Fatalf("12 rows reach up to %d", next)
	}
	for range 3 {
		must(t, to.Import(t.Context(), bytes.NewReader(stream.Bytes()), next))
	}
	stream.Reset() // more than is missing
	next, err = from.Export(t.Context(), 0, m.Index, 0, &stream)
	must(t, err)
	must(t, to.Import(t.Context(), bytes.NewReader(stream.Bytes()), next))
	must(t, to.Import(t.Context(), bytes.NewReader(stream.Bytes()), next))
	equal(t, from, to)
}

func exportRefuses(t *testing.T, from, to store.Backend) {
	var m Mesh
	history(t, from, &m, 5)
	first := m.Index
	must(t, from.Require(t.Context(), first+10)) // rows that from lacks
	m.Index = first + 10
	_, events := m.Finish()
	appendAll(t, from, events)
	var stream bytes.Buffer
	next, err := from.Export(t.Context(), 0, first+11, 0, &stream)
	if err != nil || next != first {
		t.Errorf("exported up to %d, %v; want up to the gap at %d", next, err, first)
	}
	for _, after := range []uint64{first, first + 5, first + 11, first + 100} {
		stream.Reset()
		next, err := from.Export(t.Context(), after, after+1, 0, &stream)
		if labmesh.ReasonOf(err) != labmesh.Unavailable || stream.Len() > 0 {
			t.Errorf("export after %d: next %d, %d bytes, %v; want a refusal", after, next, stream.Len(), err)
		}
	}
	if _, err := from.Export(t.Context(), 5, 5, 0, &stream); labmesh.ReasonOf(err) != labmesh.Invalid {
		t.Errorf("export of nothing: %v", err)
	}
	if next, err := from.Export(t.Context(), first+10, first+11, 0, &stream); err != nil || next != first+11 {
		t.Errorf("export behind the gap: %d, %v", next, err)
	}
	_ = to
}

func damagedStream(t *testing.T, from, to store.Backend) {
	var m Mesh
	history(t, from, &m, 5)
	must(t, to.Require(t.Context(), m.Index))
	var stream bytes.Buffer
	next, err := from.Export(t.Context(), 0, m.Index, 0, &stream)
	must(t, err)
	whole := stream.Bytes()
	for _, n := range []int{0, 5, len(whole) / 2, len(whole) - 1} {
		if err := to.Import(t.Context(), bytes.NewReader(whole[:n]), next); err == nil {
			t.Errorf("the first %d of %d bytes were imported", n, len(whole))
		}
	}
	flipped := bytes.Clone(whole)
	flipped[len(flipped)/2] ^= 0x20
	if err := to.Import(t.Context(), bytes.NewReader(flipped), next); err == nil {
		t.Error("a flipped bit was imported")
	}
	tasks, err := to.Tasks(t.Context(), store.Filter{})
	must(t, err)
	if len(tasks) > 0 {
		t.Errorf("%d tasks were left behind", len(tasks))
	}
	must(t, to.Import(t.Context(), bytes.NewReader(whole), next))
	equal(t, from, to)
}

func twoGaps(t *testing.T, from, to store.Backend) {
	var m Mesh
	history(t, from, &m, 5)
	must(t, to.Require(t.Context(), m.Index))
	_, events := m.Finish()
	appendAll(t, from, events)
	appendAll(t, to, events)
	history(t, from, &m, 5)
	must(t, to.Require(t.Context(), m.Index))
	_, events = m.Finish()
	appendAll(t, from, events)
	appendAll(t, to, events)
	copyGap(t, from, to, 8)
	equal(t, from, to)
}

func indexIsNotCut(t *testing.T, from, to store.Backend) {
	var m Mesh
	appendAll(t, from, m.FinishBatch(50), m.FinishBatch(50))
	must(t, to.Require(t.Context(), m.Index))
	if rounds := copyGap(t, from, to, 1); rounds != 2 {
		t.Errorf("two entries were copied in %d rounds", rounds)
	}
	equal(t, from, to)
}

func workersMerge(t *testing.T, from, to store.Backend) {
	var m Mesh
	appendAll(t, from, m.Worker("w1", labmesh.WorkerJoined, labmesh.WorkerActive))
	must(t, to.Require(t.Context(), m.Index))
	newer := m.Worker("w1", labmesh.WorkerUpdated, labmesh.WorkerDraining)
	appendAll(t, to, newer)
	copyGap(t, from, to, 0)
	var stream bytes.Buffer
	_, err := to.Export(t.Context(), 1, 2, 0, &stream) // the row is where the newer one is
	must(t, err)
	dec, err := store.NewDecoder(&stream)
	must(t, err)
	i, row, err := dec.Row()
	must(t, err)
	if table := store.Tables()[i]; table != &store.WorkersTable || row[table.Index("status")] != "draining" {
		t.Errorf("a row of %s: %v", table.Name, row)
	}
}

func holeRefused(t *testing.T, from, to store.Backend) {
	var m Mesh
	history(t, from, &m, 5)
	must(t, to.Require(t.Context(), m.Index))
	var stream bytes.Buffer
	next, err := from.Export(t.Context(), 3, m.Index, 0, &stream)
	must(t, err)
	if err := to.Import(t.Context(), &stream, next); err == nil {
		t.Error("rows after 3 were imported while those before are missing")
	}
}
