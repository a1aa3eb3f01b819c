package consensus

import (
	"context"
	"fmt"
	"io"
	"sync"
	"sync/atomic"

	"github.com/hashicorp/raft"

	"labmesh"
	"labmesh/state"
)

// machine is raft's state machine: it applies entries to the state, hands their
// events to the ledger and publishes one view for each batch.
//
// Events are handed over before the view is published: a reader that does not
// find a task in a view finds it in the ledger, once the ledger has reached the
// index of that view.
type machine struct {
	life    context.Context // ends when the replica stops
	ledger  Ledger
	decoded *decodedEntries
	applied func(index uint64) // told after each batch, never blocks
	sums    *sums

	cluster *state.Cluster // touched by raft's goroutine only
	current atomic.Pointer[published]
	waiting waiters

	mu     sync.Mutex
	err    error
	failed chan struct{} // closed with the first entry that could not be applied
}

// published is a view, and the channel that closes when the next one is there.
type published struct {
	view    state.View
	changed chan struct{}
}

func newMachine(life context.Context, ledger Ledger, decoded *decodedEntries, applied func(uint64)) *machine {
	m := &machine{life: life, ledger: ledger, decoded: decoded, applied: applied, cluster: state.New(), failed: make(chan struct{})}
	m.current.Store(&published{view: m.cluster.View(), changed: make(chan struct{})})
	return m
}

// Failure is why the machine has stopped.
func (m *machine) Failure() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.err
}

// fail stops the machine for good.
func (m *machine) fail(err error) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.err == nil {
		m.err = err
		close(m.failed)
	}
	return m.err
}

// Apply applies one entry.
func (m *machine) Apply(l *raft.Log) any { return m.ApplyBatch([]*raft.Log{l})[0] }

// ApplyBatch applies entries in order and answers each with its
// []labmesh.Answer, or with the error that has stopped the machine.
func (m *machine) ApplyBatch(logs []*raft.Log) []any {
	answers := make([]any, len(logs))
	for i, l := range logs {
		if l.Type != raft.LogCommand {
			continue
		}
		if a, err := m.apply(l); err != nil {
			answers[i] = err
		} else {
			answers[i] = a
		}
	}
	m.publish()
	m.applied(logs[len(logs)-1].Index)
	return answers
}

func (m *machine) apply(l *raft.Log) ([]labmesh.Answer, error) {
	if err := m.Failure(); err != nil {
		return nil, err
	}
	e, ok := m.decoded.take(l.Data)
	if !ok {
		var err error
		if e, err = labmesh.DecodeEntry(l.Data); err != nil {
			return nil, m.fail(fmt.Errorf("apply log entry %d: %w", l.Index, err))
		}
	}
	before, _ := m.cluster.Size()
	events, answers := m.cluster.Apply(l.Index, e)
	m.ledger.Append(l.Index, events)
	m.sums.applied(before, m.cluster, e)
	return answers, nil
}

// publish makes the state visible.
func (m *machine) publish() {
	next := &published{view: m.cluster.View(), changed: make(chan struct{})}
	if last := m.current.Load(); last.view.Index() == next.view.Index() {
		return // nothing but changes of the configuration
	}
	last := m.current.Swap(next)
	close(last.changed)
	m.waiting.reached(next.view.Index())
}

// Snapshot captures the state as it is.
func (m *machine) Snapshot() (raft.FSMSnapshot, error) {
	if err := m.Failure(); err != nil {
		return nil, err
	}
	return &snapshot{life: m.life, view: m.cluster.View(), ledger: m.ledger}, nil
}

// Restore replaces the state with that of a snapshot.
func (m *machine) Restore(r io.ReadCloser) error {
	c, err := state.Decode(r)
	if err != nil {
		return m.fail(fmt.Errorf("restore snapshot: %w", err))
	}
	m.cluster = c
	m.ledger.Require(c.View().Index())
	m.publish()
	return nil
}

// snapshot is a view on its way to disk.
type snapshot struct {
	life   context.Context // ends when the replica stops
	view   state.View
	ledger Ledger
}

// Persist writes the view, once the ledger holds all that the log will drop.
func (s *snapshot) Persist(sink raft.SnapshotSink) error {
	if err := s.ledger.Await(s.life, s.view.Index()); err != nil {
		_ = sink.Cancel()
		return fmt.Errorf("snapshot at %d: wait for the ledger: %w", s.view.Index(), err)
	}
	if err := s.view.Encode(sink); err != nil {
		_ = sink.Cancel()
		return fmt.Errorf("snapshot at %d: %w", s.view.Index(), err)
	}
	return sink.Close()
}

// Release has nothing to let go of: a view is a value.
func (s *snapshot) Release() {}
