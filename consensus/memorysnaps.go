package consensus

import (
	"bytes"
	"fmt"
	"io"
	"slices"
	"sync"

	"github.com/hashicorp/raft"
)

// memorySnapshots are the snapshots of a Memory: the newest that was finished.
// Like a file that is renamed when all of it is written, one is there whole or not
// at all, and none is finished on a machine without power.
type memorySnapshots struct {
	disk   *memoryDisk
	newest *memorySnapshot // shared with the lives before and after
}

// memorySnapshot is a finished snapshot; one without an id is none.
type memorySnapshot struct {
	mu   sync.Mutex
	meta raft.SnapshotMeta
	data []byte
}

// Create begins a snapshot.
func (s *memorySnapshots) Create(version raft.SnapshotVersion, index, term uint64, conf raft.Configuration, confIndex uint64, _ raft.Transport) (raft.SnapshotSink, error) {
	return &memorySink{store: s, meta: raft.SnapshotMeta{
		Version: version, ID: fmt.Sprintf("%d-%d", term, index), Index: index, Term: term,
		Configuration: conf.Clone(), ConfigurationIndex: confIndex,
	}}, nil
}

// List lists the newest snapshot, if there is one.
func (s *memorySnapshots) List() ([]*raft.SnapshotMeta, error) {
	s.newest.mu.Lock()
	defer s.newest.mu.Unlock()
	if s.newest.meta.ID == "" {
		return nil, nil
	}
	meta := s.newest.meta
	return []*raft.SnapshotMeta{&meta}, nil
}

// Open reads a snapshot.
func (s *memorySnapshots) Open(id string) (*raft.SnapshotMeta, io.ReadCloser, error) {
	s.newest.mu.Lock()
	defer s.newest.mu.Unlock()
	if id == "" || s.newest.meta.ID != id {
		return nil, nil, fmt.Errorf("open snapshot %s: there is none", id)
	}
	meta := s.newest.meta
	return &meta, io.NopCloser(bytes.NewReader(s.newest.data)), nil
}

// memorySink takes a snapshot in.
type memorySink struct {
	store *memorySnapshots
	meta  raft.SnapshotMeta
	bytes.Buffer
	over bool
}

// ID names the snapshot.
func (k *memorySink) ID() string { return k.meta.ID }

// Close finishes the snapshot.
func (k *memorySink) Close() error {
	if k.over {
		return nil
	}
	k.over = true
	defer k.store.disk.turn()()
	return k.store.disk.write(1, func(int) error {
		newest := k.store.newest
		newest.mu.Lock()
		defer newest.mu.Unlock()
		k.meta.Size = int64(k.Len())
		newest.meta, newest.data = k.meta, slices.Clone(k.Bytes())
		return nil
	})
}

// Cancel drops the snapshot.
func (k *memorySink) Cancel() error {
	k.over = true
	return nil
}
