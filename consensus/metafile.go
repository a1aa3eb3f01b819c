package consensus

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"io/fs"
	"os"
	"path/filepath"
	"sync"

	"github.com/hashicorp/raft-wal/metadb"
	"github.com/hashicorp/raft-wal/types"
)

// Names in the directory of the log.
const (
	metaName = "meta.json" // raft's term and vote, and the list of segments
	lastName = "last"      // how far the log reached; see watermark
)

// metaFile keeps raft's term and vote and the list of the log's segments in one
// small file, written whole or not at all, with a checksum. The library's own
// store believes whatever is in its file: a flipped bit there is another vote.
type metaFile struct {
	mu   sync.Mutex
	path string
	kept metaContent
}

type metaContent struct {
	State  types.PersistentState `json:"segments"`
	Stable map[string][]byte     `json:"stable"`
}

var _ types.MetaStore = (*metaFile)(nil)

// Load reads the file in dir. A log of before there was one brings what the library kept.
func (m *metaFile) Load(dir string) (types.PersistentState, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.path, m.kept = filepath.Join(dir, metaName), metaContent{Stable: map[string][]byte{}}
	data, err := os.ReadFile(m.path)
	if errors.Is(err, fs.ErrNotExist) {
		return m.kept.State, m.inherit(dir)
	}
	if err != nil {
		return types.PersistentState{}, err
	}
	sum, body, ok := bytes.Cut(data, []byte("\n"))
	want := sha256.Sum256(body)
	if !ok || string(sum) != hex.EncodeToString(want[:]) {
		return types.PersistentState{}, &damageError{what: metaName + " is not as it was written"}
	}
	if err := json.Unmarshal(body, &m.kept); err != nil {
		return types.PersistentState{}, fmt.Errorf("read %s: %w", m.path, err)
	}
	return m.kept.State, nil
}

// inherit takes over what the library's own store holds, if there is one.
func (m *metaFile) inherit(dir string) error {
	old := filepath.Join(dir, metadb.FileName)
	if _, err := os.Stat(old); errors.Is(err, fs.ErrNotExist) {
		if segments, _ := filepath.Glob(filepath.Join(dir, "*.wal")); len(segments) > 0 {
			return &damageError{what: metaName + " is gone, and the log is not"}
		}
		return nil
	}
	var db metadb.BoltMetaDB
	state, err := db.Load(dir)
	if err != nil {
		return err
	}
	m.kept.State = state
	for _, key := range []string{"CurrentTerm", "LastVoteTerm", "LastVoteCand"} { // all that raft keeps
		value, gerr := db.GetStable([]byte(key))
		if err = errors.Join(err, gerr); value != nil {
			m.kept.Stable[key] = value
		}
	}
	if err := errors.Join(err, db.Close()); err != nil {
		return err
	}
	if err := m.write(m.kept); err != nil {
		return err
	}
	return os.Remove(old)
}

func (m *metaFile) write(c metaContent) error {
	body, err := json.Marshal(c)
	if err != nil {
		return err
	}
	sum := sha256.Sum256(body)
	return writeSynced(m.path, append([]byte(hex.EncodeToString(sum[:])+"\n"), body...))
}

// CommitState replaces the list of segments.
func (m *metaFile) CommitState(state types.PersistentState) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	next := metaContent{State: state, Stable: m.kept.Stable}
	if err := m.write(next); err != nil {
		return err
	}
	m.kept = next
	return nil
}

// GetStable is a value of raft's, nil where there is none.
func (m *metaFile) GetStable(key []byte) ([]byte, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return bytes.Clone(m.kept.Stable[string(key)]), nil
}

// SetStable replaces a value of raft's.
func (m *metaFile) SetStable(key, value []byte) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	next := metaContent{State: m.kept.State, Stable: map[string][]byte{string(key): bytes.Clone(value)}}
	for k, v := range m.kept.Stable {
		if k != string(key) {
			next.Stable[k] = v
		}
	}
	if err := m.write(next); err != nil {
		return err
	}
	m.kept = next
	return nil
}

// Close has nothing to let go of.
func (m *metaFile) Close() error { return nil }

// watermark remembers how far the log reached, in a file of its own. The library
// takes a batch at the end that it cannot read for one that a power cut tore, and
// drops it; if the watermark lies beyond, it was on disk and has been damaged since.
//
// It is written after each batch and not synced: after a power cut it may lag
// behind the log, which does no harm. It must never be ahead.
type watermark struct{ f *os.File }

func openWatermark(dir string) (*watermark, error) {
	f, err := os.OpenFile(filepath.Join(dir, lastName), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	return &watermark{f}, nil
}

// read is the mark; 0 where there is none that can be believed.
func (w *watermark) read() uint64 {
	var b [12]byte
	if n, _ := w.f.ReadAt(b[:], 0); n != len(b) || crc32.Checksum(b[:8], castagnoli) != binary.BigEndian.Uint32(b[8:]) {
		return 0
	}
	return binary.BigEndian.Uint64(b[:])
}

func (w *watermark) set(index uint64) error {
	b := binary.BigEndian.AppendUint64(make([]byte, 0, 12), index)
	_, err := w.f.WriteAt(binary.BigEndian.AppendUint32(b, crc32.Checksum(b, castagnoli)), 0)
	return err
}

// lower sets the mark before the end of the log is dropped, so that no power cut
// leaves it ahead.
func (w *watermark) lower(index uint64) error {
	if w.read() <= index {
		return nil
	}
	return errors.Join(w.set(index), w.f.Sync())
}
