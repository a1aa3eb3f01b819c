package consensus

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/hashicorp/raft"
)

// snapshots are the snapshots on disk. The library keeps a checksum of the state
// in a file beside it; this one keeps a checksum of that file, which says where in
// the log the snapshot belongs and who voted then.
type snapshots struct {
	raft.SnapshotStore
	dir string
}

// Names of the files of a snapshot: the library's, and ours.
const (
	snapshotMeta = "meta.json"
	snapshotSum  = "meta.sum"
)

// Create begins a snapshot.
func (s *snapshots) Create(version raft.SnapshotVersion, index, term uint64, conf raft.Configuration, confIndex uint64, trans raft.Transport) (raft.SnapshotSink, error) {
	sink, err := s.SnapshotStore.Create(version, index, term, conf, confIndex, trans)
	if err != nil {
		return nil, err
	}
	return &snapshotSink{sink, s}, nil
}

type snapshotSink struct {
	raft.SnapshotSink
	store *snapshots
}

// Close finishes the snapshot, and then signs what is written about it. One that
// has no signature is one of before there were any.
func (k *snapshotSink) Close() error {
	if err := k.SnapshotSink.Close(); err != nil {
		return err
	}
	return k.store.sign(k.ID())
}

func (s *snapshots) sign(id string) error {
	meta, err := os.ReadFile(filepath.Join(s.dir, id, snapshotMeta))
	if errors.Is(err, fs.ErrNotExist) {
		return nil // cancelled, or already replaced
	}
	if err != nil {
		return fmt.Errorf("sign snapshot: %w", err)
	}
	sum := sha256.Sum256(meta)
	return writeSynced(filepath.Join(s.dir, id, snapshotSum), []byte(hex.EncodeToString(sum[:])+"\n"))
}

// writeSynced writes a small file whole or not at all, for nobody else's eyes.
func writeSynced(path string, data []byte) error {
	tmp := path + ".tmp"
	f, err := os.OpenFile(tmp, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	err = errors.Join(err, f.Sync(), f.Close())
	if err == nil {
		err = os.Rename(tmp, path)
	}
	if err != nil {
		return errors.Join(err, os.Remove(tmp))
	}
	return syncDir(filepath.Dir(path))
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// Open opens a snapshot that is as it was written.
func (s *snapshots) Open(id string) (*raft.SnapshotMeta, io.ReadCloser, error) {
	if err := s.verify(id); err != nil {
		return nil, nil, err
	}
	return s.SnapshotStore.Open(id)
}

func (s *snapshots) verify(id string) error {
	want, err := os.ReadFile(filepath.Join(s.dir, id, snapshotSum))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("read snapshot %s: %w", id, err)
	}
	meta, err := os.ReadFile(filepath.Join(s.dir, id, snapshotMeta))
	if err != nil {
		return fmt.Errorf("read snapshot %s: %w", id, err)
	}
	if sum := sha256.Sum256(meta); strings.TrimSpace(string(want)) != hex.EncodeToString(sum[:]) {
		return fmt.Errorf("snapshot %s is not as it was written", id)
	}
	return nil
}

// newestSnapshot is the index of the newest snapshot that is whole, 0 for none,
// and what is wrong with those that are newer.
func (s *storage) newestSnapshot() (index uint64, damage error) {
	list, err := s.snaps.List()
	if err != nil {
		return 0, err
	}
	if kept, ok := s.snaps.(*snapshots); ok {
		damage = kept.unlisted(list)
	}
	for _, meta := range list {
		_, r, err := s.snaps.Open(meta.ID) // reads all of it
		if err != nil {
			damage = errors.Join(damage, err)
			continue
		}
		if err := r.Close(); err != nil {
			damage = errors.Join(damage, err)
			continue
		}
		return meta.Index, damage
	}
	return 0, damage
}

// unlisted says which snapshots on disk the library leaves out, because it cannot
// read what is written about them.
func (s *snapshots) unlisted(list []*raft.SnapshotMeta) (damage error) {
	dirs, err := os.ReadDir(s.dir)
	if err != nil {
		return err
	}
	known := map[string]bool{}
	for _, m := range list {
		known[m.ID] = true
	}
	for _, d := range dirs {
		if name := d.Name(); d.IsDir() && !known[name] && !strings.HasSuffix(name, ".tmp") && len(list) < snapshotsKept {
			damage = errors.Join(damage, fmt.Errorf("snapshot %s cannot be read", name))
		}
	}
	return damage
}
