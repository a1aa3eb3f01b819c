package consensus

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime/debug"
	"sync"
	"syscall"

	"github.com/hashicorp/raft"
	wal "github.com/hashicorp/raft-wal"
)

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
	mark   *watermark // nil without a disk
	snaps  raft.SnapshotStore
	close  func() error
	failed chan struct{}     // closed with the first failure
	spoil  func([]*raft.Log) // see Memory.Spoil; nil on a disk
	// damaged is told of an entry that is not as it was written.
	damaged func(error)
	closed  chan struct{} // closed when raft has stopped

	mu  sync.Mutex
	err error
}

func openStorage(cfg Config) (*storage, error) {
	s := &storage{failed: make(chan struct{}), closed: make(chan struct{}), damaged: func(error) {}}
	if cfg.Memory != nil {
		s.entryStore, s.snaps, s.spoil = cfg.Memory.log, cfg.Memory.snaps, cfg.Memory.disk.spoiled
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
	s.snaps = &snapshots{SnapshotStore: snaps, dir: filepath.Join(dir, "snapshots")}
	err = guard(func() error {
		w, err := wal.Open(dir, wal.WithSegmentSize(cfg.segment()), wal.WithLogger(raftLogger(cfg.Logger)), wal.WithMetaStore(&metaFile{}))
		if err != nil {
			return unreadable(err)
		}
		s.entryStore, s.close = w, w.Close
		if s.mark, err = openWatermark(dir); err != nil {
			return errors.Join(err, s.Close())
		}
		if err := s.scrub(); err != nil {
			return errors.Join(err, s.Close())
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("open log %s: %w", dir, err)
	}
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
	if err := f(); err != nil {
		return s.fail(fmt.Errorf("%s: %w; the disk can be trusted no more", what, err))
	}
	return nil
}

// fail keeps the first failure, which stops the replica.
func (s *storage) fail(err error) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.err == nil {
		s.err = err
		close(s.failed)
	}
	return s.err
}

// StoreLog writes one entry.
func (s *storage) StoreLog(l *raft.Log) error { return s.StoreLogs([]*raft.Log{l}) }

// StoreLogs writes entries, each with a checksum, and returns when they are on disk.
func (s *storage) StoreLogs(logs []*raft.Log) error {
	if s.spoil != nil {
		s.spoil(logs)
	}
	signed := make([]*raft.Log, len(logs))
	for i, l := range logs {
		signed[i] = sign(l)
	}
	return s.write("write log", func() error {
		if err := s.entryStore.StoreLogs(signed); err != nil || s.mark == nil || len(logs) == 0 {
			return err
		}
		return s.mark.set(logs[len(logs)-1].Index)
	})
}

// GetLog reads an entry. One that is not as it was written stops the replica, as
// a write that fails does: raft would panic or, worse, send it on. So whoever asks
// for it is held until nobody can hear this replica any more.
func (s *storage) GetLog(index uint64, l *raft.Log) error {
	err := s.read(index, l)
	var damage *damageError
	if err == nil || !errors.As(err, &damage) {
		return err
	}
	s.damaged(s.fail(err))
	<-s.closed
	*l = raft.Log{Index: index, Type: raft.LogNoop}
	return nil
}

// read reads an entry and holds it against its checksum.
func (s *storage) read(index uint64, l *raft.Log) error {
	switch err := s.entryStore.GetLog(index, l); {
	case errors.Is(err, raft.ErrLogNotFound):
		return err
	case err != nil:
		return &damageError{what: fmt.Sprintf("entry %d of the log cannot be read: %v", index, err)}
	case l.Index != index || !verify(l):
		return &damageError{what: fmt.Sprintf("entry %d of the log is not as it was written", index)}
	}
	return nil
}

// unreadable says what to do about a log that cannot be opened. That the disk is
// full or files may not be read is no damage.
func unreadable(err error) error {
	var errno syscall.Errno
	var damage *damageError
	if errors.As(err, &errno) || errors.As(err, &damage) {
		return err
	}
	return &damageError{what: err.Error()}
}

// guard turns a panic over what a file holds into an error.
func guard(f func() error) (err error) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		if p := recover(); p != nil {
			err = &damageError{what: fmt.Sprint(p)}
		}
	}()
	return f()
}

// scrub reads the whole log once, before anything is made of it, and sees that
// it goes on where a snapshot ends.
func (s *storage) scrub() error {
	base, damage := s.newestSnapshot()
	first, err := s.FirstIndex()
	if err != nil {
		return fmt.Errorf("read log: %w", err)
	}
	last, err := s.LastIndex()
	if err != nil {
		return fmt.Errorf("read log: %w", err)
	}
	if reached := s.mark.read(); last < reached && base < reached {
		return &damageError{what: fmt.Sprintf("the log ends at entry %d, and reached %d", last, reached)}
	}
	if first > base+1 || last == 0 && damage != nil {
		if damage == nil {
			damage = fmt.Errorf("the log begins at entry %d, and the newest snapshot ends at %d", first, base)
		}
		return &damageError{what: damage.Error()}
	}
	for index := first; index <= last && last > 0; index++ {
		var l raft.Log
		if err := s.read(index, &l); err != nil {
			return err
		}
	}
	return nil
}

// DeleteRange drops entries.
func (s *storage) DeleteRange(first, last uint64) error {
	return s.write("truncate log", func() error {
		if end, err := s.LastIndex(); err != nil {
			return err
		} else if s.mark != nil && last >= end {
			if err := s.mark.lower(first - 1); err != nil {
				return err
			}
		}
		return s.entryStore.DeleteRange(first, last)
	})
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
	err := s.close()
	if errors.Is(err, wal.ErrClosed) {
		err = nil
	}
	if s.mark != nil {
		if cerr := s.mark.f.Close(); !errors.Is(cerr, os.ErrClosed) {
			err = errors.Join(err, cerr)
		}
	}
	if err != nil {
		return fmt.Errorf("close log: %w", err)
	}
	return nil
}
