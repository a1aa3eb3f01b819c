package consensus

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"

	"github.com/hashicorp/raft"
	wal "github.com/hashicorp/raft-wal"
)

// Memory holds a replica's log in place of a disk. It outlives the replica, so
// that tests can restart one.
type Memory struct {
	log   entryStore
	snaps *raft.InmemSnapshotStore
}

// NewMemory is an empty Memory.
func NewMemory() *Memory {
	return &Memory{log: raft.NewInmemStore(), snaps: raft.NewInmemSnapshotStore()}
}

// entryStore is a log store that also keeps raft's term and vote.
type entryStore interface {
	raft.LogStore
	raft.StableStore
}

// storage is what a replica keeps on disk. It fails closed: after the first
// write that did not succeed nothing is written any more, since a second fsync
// may claim a success that the first one lost.
type storage struct {
	entryStore
	snaps  raft.SnapshotStore
	close  func() error
	failed chan struct{} // closed with the first failure
	closed chan struct{} // closed when raft has stopped

	mu  sync.Mutex
	err error
}

func openStorage(cfg Config) (*storage, error) {
	s := &storage{failed: make(chan struct{}), closed: make(chan struct{})}
	if cfg.Memory != nil {
		s.entryStore, s.snaps = cfg.Memory.log, cfg.Memory.snaps
		s.close = func() error { return nil }
		return s, nil
	}
	dir := filepath.Join(cfg.Dir, "raft")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("open log: %w", err)
	}
	if err := os.Chmod(dir, 0o700); err != nil { // the mesh's secrets are in it, in files that others could read
		return nil, fmt.Errorf("open log: %w", err)
	}
	snaps, err := raft.NewFileSnapshotStoreWithLogger(dir, snapshotsKept, raftLogger(cfg.Logger))
	if err != nil {
		return nil, fmt.Errorf("open snapshots in %s: %w", dir, err)
	}
	w, err := wal.Open(dir, wal.WithSegmentSize(segmentBytes), wal.WithLogger(raftLogger(cfg.Logger)))
	if err != nil {
		return nil, fmt.Errorf("open log %s: %w", dir, err)
	}
	s.entryStore, s.snaps, s.close = w, snaps, w.Close
	return s, nil
}

// IsMonotonic tells raft that the log on disk takes no gaps.
func (s *storage) IsMonotonic() bool {
	m, ok := s.entryStore.(raft.MonotonicLogStore)
	return ok && m.IsMonotonic()
}

// Failure is the first write that did not succeed.
func (s *storage) Failure() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.err
}

// write runs one write, unless an earlier one failed.
func (s *storage) write(what string, f func() error) error {
	if err := s.Failure(); err != nil {
		return err
	}
	err := f()
	if err == nil {
		return nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.err == nil {
		s.err = fmt.Errorf("%s: %w; the disk can be trusted no more", what, err)
		close(s.failed)
	}
	return s.err
}

// StoreLog writes one entry.
func (s *storage) StoreLog(l *raft.Log) error { return s.StoreLogs([]*raft.Log{l}) }

// StoreLogs writes entries and returns when they are on disk.
func (s *storage) StoreLogs(l []*raft.Log) error {
	return s.write("write log", func() error { return s.entryStore.StoreLogs(l) })
}

// DeleteRange drops entries.
func (s *storage) DeleteRange(first, last uint64) error {
	return s.write("truncate log", func() error { return s.entryStore.DeleteRange(first, last) })
}

// Set writes a vote.
func (s *storage) Set(key, val []byte) error {
	return s.write("write vote", func() error { return s.entryStore.Set(key, val) })
}

// SetUint64 writes the term. Raft panics when this returns an error, which
// would take the whole process down instead of the replica alone. So a term
// that cannot be written holds raft still until the replica is stopped; by
// then its streams are closed, and nothing it believes can be heard.
func (s *storage) SetUint64(key []byte, val uint64) error {
	if err := s.write("write term", func() error { return s.entryStore.SetUint64(key, val) }); err != nil {
		<-s.closed
	}
	return nil
}

// release lets go of a raft that SetUint64 holds still.
func (s *storage) release() {
	s.mu.Lock()
	defer s.mu.Unlock()
	select {
	case <-s.closed:
	default:
		close(s.closed)
	}
}

// Close closes the log. It is safe twice.
func (s *storage) Close() error {
	s.release()
	if err := s.close(); err != nil && !errors.Is(err, wal.ErrClosed) {
		return fmt.Errorf("close log: %w", err)
	}
	return nil
}
