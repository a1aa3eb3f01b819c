package consensus

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/hashicorp/raft"
)

// A log of damagedEntries entries in small files, with a snapshot in its midst.
const (
	damagedEntries  = 400
	damagedSnapshot = 150
)

func storageConfig(dir string) Config {
	return Config{ID: "a", Dir: dir, Logger: logger(), segmentBytes: 16 << 10}
}

func damagedEntry(i uint64) *raft.Log {
	return &raft.Log{Index: i, Term: 1 + i/100, Type: raft.LogCommand, Data: bytes.Repeat(fmt.Appendf(nil, "entry %d ", i), 20)}
}

// writtenLog is the data dir of a replica that has been closed.
func writtenLog(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	s, err := openStorage(storageConfig(dir))
	if err != nil {
		t.Fatal(err)
	}
	for i := uint64(1); i <= damagedEntries; i++ {
		if err := s.StoreLogs([]*raft.Log{damagedEntry(i)}); err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(s.SetUint64([]byte("CurrentTerm"), 5), s.Set([]byte("LastVoteCand"), []byte("a"))); err != nil {
		t.Fatal(err)
	}
	_, trans := raft.NewInmemTransport("a")
	sink, err := s.snaps.Create(1, damagedSnapshot, 2, raft.Configuration{Servers: []raft.Server{{ID: "a", Address: "a"}}}, 1, trans)
	if err == nil {
		_, err = sink.Write(bytes.Repeat([]byte("state "), 1000))
	}
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(sink.Close(), s.DeleteRange(1, damagedSnapshot-20), s.Close()); err != nil {
		t.Fatal(err)
	}
	return dir
}

// files are the files of the log with what is in them.
func files(t *testing.T, dir string) map[string][]byte {
	t.Helper()
	found := map[string][]byte{}
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		found[path], err = os.ReadFile(path)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return found
}

// stands opens a damaged log. What it takes must be as it was written, and all of it.
func stands(dir string) (taken bool, err error) {
	s, err := openStorage(storageConfig(dir))
	if err != nil {
		if !strings.Contains(err.Error(), "labmesh ban") {
			return false, fmt.Errorf("refused without a word on what to do: %w", err)
		}
		return false, nil
	}
	defer func() { err = errors.Join(err, s.Close()) }()
	last, err := s.LastIndex()
	if err != nil {
		return false, err
	}
	if last != damagedEntries {
		return false, fmt.Errorf("it is taken and ends at %d of %d", last, damagedEntries)
	}
	for i := uint64(damagedSnapshot - 19); i <= last; i++ {
		var got raft.Log
		if err := s.entryStore.GetLog(i, &got); err != nil {
			return false, err
		}
		want := damagedEntry(i)
		if !verify(&got) || got.Index != want.Index || got.Term != want.Term || got.Type != want.Type || !bytes.Equal(got.Data, want.Data) {
			return false, fmt.Errorf("entry %d is taken as %v", i, got)
		}
	}
	if term, err := s.GetUint64([]byte("CurrentTerm")); err != nil || term != 5 {
		return false, fmt.Errorf("term %d, %w", term, err)
	}
	if vote, err := s.Get([]byte("LastVoteCand")); err != nil || string(vote) != "a" {
		return false, fmt.Errorf("vote %q, %w", vote, err)
	}
	index, damage := s.newestSnapshot()
	if index != damagedSnapshot && damage == nil {
		return false, fmt.Errorf("the newest snapshot is at %d", index)
	}
	return true, nil
}

func TestDamageOnDiskIsNeverTakenForTheLog(t *testing.T) {
	t.Parallel()
	dir := writtenLog(t)
	whole := files(t, dir)
	random := rand.New(rand.NewPCG(5, 4))
	for path, data := range whole {
		used := len(bytes.TrimRight(data, "\x00"))
		var took, refused int
		for range 30 {
			at, bit := random.IntN(used), byte(1)<<random.IntN(8)
			harmed := bytes.Clone(data)
			harmed[at] ^= bit
			for p, d := range whole { // opening may have changed any of them
				if err := os.WriteFile(p, d, 0o600); err != nil {
					t.Fatal(err)
				}
			}
			if err := os.WriteFile(path, harmed, 0o600); err != nil {
				t.Fatal(err)
			}
			taken, err := stands(dir)
			if err != nil {
				t.Errorf("%s, bit %#x of byte %d of %d: %v", filepath.Base(path), bit, at, used, err)
			}
			if taken {
				took++
			} else {
				refused++
			}
		}
		t.Logf("%s: %d recovered, %d refused", filepath.Base(path), took, refused)
	}
}
