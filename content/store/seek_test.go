package store_test

import (
	"bytes"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"

	"pgregory.net/rapid"

	"labmesh/content/pack"
	"labmesh/content/store"
)

// TestFilesAreReadFromAnyPlace compares reads after seeks with those of the bytes themselves.
func TestFilesAreReadFromAnyPlace(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	noise := rand.NewChaCha8([32]byte{7})
	text := make([]byte, 3<<20)
	_, _ = noise.Read(text)
	for name, data := range map[string][]byte{"a": text[:1<<20], "b": text, "c": text[:10]} {
		if err := os.WriteFile(filepath.Join(dir, name), data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	s, err := store.Open(t.TempDir(), store.Config{})
	if err != nil {
		t.Fatal(err)
	}
	id, _, err := s.Pack(t.Context(), dir, pack.Options{})
	if err != nil {
		t.Fatal(err)
	}
	got, _, err := s.OpenFile(t.Context(), id, "b")
	if err != nil {
		t.Fatal(err)
	}
	defer got.Close()
	want := bytes.NewReader(text)
	rapid.Check(t, func(r *rapid.T) {
		whence := rapid.IntRange(io.SeekStart, io.SeekEnd).Draw(r, "whence")
		offset := rapid.Int64Range(-4<<20, 4<<20).Draw(r, "offset")
		at, err := got.Seek(offset, whence)
		wantAt, wantErr := want.Seek(offset, whence)
		if (err != nil) != (wantErr != nil) {
			r.Fatalf("seek: %v, want %v", err, wantErr)
		}
		if err == nil && at != wantAt {
			r.Fatalf("at %d, want %d", at, wantAt)
		}
		if wantAt > int64(len(text)) { // beyond the end there is nothing to compare but that it is the end
			if n, err := got.Read(make([]byte, 1)); n != 0 || err != io.EOF {
				r.Fatalf("beyond the end: %d, %v", n, err)
			}
			_, _ = want.Seek(0, io.SeekEnd)
			return
		}
		n := rapid.IntRange(1, 100_000).Draw(r, "n")
		a, b := make([]byte, n), make([]byte, n)
		an, aerr := io.ReadFull(got, a)
		bn, berr := io.ReadFull(want, b)
		if an != bn || aerr != berr || !bytes.Equal(a[:an], b[:bn]) {
			r.Fatalf("read %d, %v; want %d, %v", an, aerr, bn, berr)
		}
	})
}
