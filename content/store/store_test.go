package store_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"labmesh"
	"labmesh/content"
	"labmesh/content/pack"
	"labmesh/content/store"
)

func open(t testing.TB, dir string, cfg store.Config) *store.Store {
	t.Helper()
	s, err := store.Open(dir, cfg)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func random(seed byte, n int) []byte {
	b := make([]byte, n)
	r := rand.NewChaCha8([32]byte{seed})
	_, _ = r.Read(b)
	return b
}

func write(t testing.TB, dir, name string, data []byte) {
	t.Helper()
	p := filepath.Join(dir, name)
	if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(p, data, 0o644); err != nil {
		t.Fatal(err)
	}
}

// packed is a tree with a big file and a small one.
func packed(t testing.TB, s *store.Store, seed byte, n int) string {
	t.Helper()
	src := t.TempDir()
	write(t, src, "big", random(seed, n))
	write(t, src, "dir/small", []byte{seed})
	id, _, err := s.Pack(t.Context(), src, pack.Options{})
	if err != nil {
		t.Fatal(err)
	}
	return id
}

func TestATreeGoesInAndComesOut(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s := open(t, dir, store.Config{})
	id := packed(t, s, 1, 5<<20)
	again := open(t, dir, store.Config{}) // as after a restart
	if !again.Complete(id) {
		t.Fatal("it is not complete")
	}
	out := filepath.Join(t.TempDir(), "out")
	if err := again.Unpack(t.Context(), id, out, content.Limits{}); err != nil {
		t.Fatal(err)
	}
	if got, err := os.ReadFile(filepath.Join(out, "big")); err != nil || !bytes.Equal(got, random(1, 5<<20)) {
		t.Error(err)
	}
	files, err := again.List(t.Context(), id)
	if err != nil || len(files) != 2 || files[0].Path != "big" || files[1].Path != "dir/small" {
		t.Errorf("%v, %v", files, err)
	}
	for p, want := range map[string][]byte{"big": random(1, 5<<20), "dir/small": {1}} {
		r, f, err := again.OpenFile(t.Context(), id, p)
		if err != nil {
			t.Fatal(err)
		}
		got, err := io.ReadAll(r)
		if err != nil || !bytes.Equal(got, want) || f.Size != int64(len(want)) {
			t.Errorf("%s: %d bytes, %v", p, len(got), err)
		}
		if err := r.Close(); err != nil {
			t.Error(err)
		}
	}
	if _, _, err := again.OpenFile(t.Context(), id, "none"); labmesh.ReasonOf(err) != labmesh.NotFound {
		t.Error(err)
	}
	if _, _, err := again.OpenFile(t.Context(), content.Sum(nil).String(), "big"); labmesh.ReasonOf(err) != labmesh.NotFound {
		t.Error(err)
	}
	if _, err := again.List(t.Context(), "../../etc/passwd"); labmesh.ReasonOf(err) != labmesh.Invalid {
		t.Error(err)
	}
}

func TestOnlyWhatItIs(t *testing.T) {
	t.Parallel()
	s := open(t, t.TempDir(), store.Config{})
	h := content.Sum([]byte("a"))
	if err := s.Put(t.Context(), h, []byte("b")); labmesh.ReasonOf(err) != labmesh.Invalid || s.Has(h) {
		t.Error(err)
	}
	if err := s.Put(t.Context(), h, []byte("a")); err != nil {
		t.Fatal(err)
	}
	if got, err := s.Get(h, nil); err != nil || string(got) != "a" {
		t.Errorf("%q, %v", got, err)
	}
	if got := s.Missing([]content.Hash{h, content.Sum(nil)}); len(got) != 1 || got[0] != content.Sum(nil) {
		t.Errorf("missing %v", got)
	}
}

// What a crash, a bad disk or a person did to the files never gives wrong bytes.
func TestDamageIsFound(t *testing.T) {
	t.Parallel()
	for name, spoil := range map[string]func(path string) error{
		"changed": func(p string) error { return os.WriteFile(p, []byte("hellO"), 0o600) },
		"short":   func(p string) error { return os.Truncate(p, 2) },
		"empty":   func(p string) error { return os.Truncate(p, 0) },
		"gone":    os.Remove,
	} {
		dir := t.TempDir()
		s := open(t, dir, store.Config{})
		h := content.Sum([]byte("hello"))
		if err := s.Put(t.Context(), h, []byte("hello")); err != nil {
			t.Fatal(err)
		}
		if err := spoil(filepath.Join(dir, h.String()[:1], h.String()[1:])); err != nil {
			t.Fatal(err)
		}
		for range 2 {
			if got, err := s.Get(h, nil); labmesh.ReasonOf(err) != labmesh.NotFound {
				t.Errorf("%s: %q, %v", name, got, err)
			}
		}
		if s.Has(h) {
			t.Errorf("%s: it is still there", name)
		}
		if err := s.Put(t.Context(), h, []byte("hello")); err != nil {
			t.Fatal(err)
		}
		if got, err := s.Get(h, nil); err != nil || string(got) != "hello" {
			t.Errorf("%s: after it was put again: %q, %v", name, got, err)
		}
	}
}

func TestWhatACrashLeftIsSweptAway(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	open(t, dir, store.Config{})
	write(t, dir, "a/new-123", []byte("half"))
	write(t, dir, "README", []byte("not ours"))
	s := open(t, dir, store.Config{})
	if bytes, _ := s.Usage(); bytes != 0 {
		t.Errorf("it holds %d bytes", bytes)
	}
	if list, err := os.ReadDir(filepath.Join(dir, "a")); err != nil || len(list) != 0 {
		t.Errorf("%v, %v", list, err)
	}
	if _, err := os.Stat(filepath.Join(dir, "README")); err != nil {
		t.Error(err)
	}
}

func TestTheOldestGoesAndWhatIsUsedStays(t *testing.T) {
	t.Parallel()
	const limit = 10 << 20
	var inUse []string
	s := open(t, t.TempDir(), store.Config{BytesMax: limit, InUse: func() []string { return inUse }})
	old, pinned, used := packed(t, s, 1, 2<<20), packed(t, s, 2, 2<<20), packed(t, s, 3, 2<<20)
	inUse = []string{used}
	release, err := s.Pin(pinned)
	if err != nil {
		t.Fatal(err)
	}
	var last string
	for seed := range byte(5) {
		last = packed(t, s, 10+seed, 2<<20)
		if bytes, _ := s.Usage(); bytes > limit {
			t.Fatalf("it holds %d bytes", bytes)
		}
	}
	for id, want := range map[string]bool{old: false, pinned: true, used: true, last: true} {
		if s.Complete(id) != want {
			t.Errorf("%s: complete %t, want %t", id, !want, want)
		}
	}
	src := t.TempDir()
	write(t, src, "f", random(99, 8<<20))
	if _, _, err := s.Pack(t.Context(), src, pack.Options{}); labmesh.ReasonOf(err) != labmesh.Exhausted {
		t.Errorf("more than there is room for: %v", err)
	}
	release()
	release()
	inUse = nil
	if _, _, err := s.Pack(t.Context(), src, pack.Options{}); err != nil {
		t.Errorf("once nothing is in use: %v", err)
	}
}

func TestTheOrderOfLeavingOutlivesARestart(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s := open(t, dir, store.Config{})
	var hashes []content.Hash
	for i := range byte(4) {
		data := random(i, 1<<20)
		h := content.Sum(data)
		if err := s.Put(t.Context(), h, data); err != nil {
			t.Fatal(err)
		}
		at := time.Now().Add(time.Duration(i) * time.Hour)
		if i == 2 {
			at = time.Now().Add(-time.Hour)
		}
		if err := os.Chtimes(filepath.Join(dir, h.String()[:1], h.String()[1:]), at, at); err != nil {
			t.Fatal(err)
		}
		hashes = append(hashes, h)
	}
	s = open(t, dir, store.Config{BytesMax: 4 << 20})
	if err := s.Put(t.Context(), content.Sum([]byte("x")), []byte("x")); err != nil {
		t.Fatal(err)
	}
	if s.Has(hashes[2]) || !s.Has(hashes[3]) {
		t.Error("the oldest is still there, or the newest is not")
	}
}

func TestManyAtOnce(t *testing.T) {
	t.Parallel()
	s := open(t, t.TempDir(), store.Config{BytesMax: 3 << 20})
	var all sync.WaitGroup
	for w := range byte(8) {
		all.Go(func() {
			for i := range byte(40) {
				data := random(i%20, 100<<10)
				h := content.Sum(data)
				if err := s.Put(context.Background(), h, data); err != nil {
					t.Error(err)
				}
				if got, err := s.Get(h, nil); err == nil && !bytes.Equal(got, data) {
					t.Error("wrong bytes")
				} else if err != nil && labmesh.ReasonOf(err) != labmesh.NotFound {
					t.Error(err)
				}
				_ = w
			}
		})
	}
	all.Wait()
	if bytes, limit := s.Usage(); bytes > limit+8*100<<10 {
		t.Error(fmt.Sprint(bytes, limit))
	}
}
