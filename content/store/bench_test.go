package store_test

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"labmesh/content"
	"labmesh/content/pack"
	"labmesh/content/store"
)

// sources are the trees that are measured: one big file, and many small ones.
func sources(b *testing.B) map[string]string {
	b.Helper()
	big, many := b.TempDir(), b.TempDir()
	write(b, big, "big", random(1, 100_000_000))
	for i := range 10_000 {
		write(b, many, fmt.Sprintf("%d/file-%d.py", i/100, i), random(byte(i), 2000))
	}
	return map[string]string{"100MB": big, "10000files": many}
}

// BenchmarkPack is a directory into a store that has nothing of it.
func BenchmarkPack(b *testing.B) {
	for name, dir := range sources(b) {
		b.Run(name, func(b *testing.B) {
			for b.Loop() {
				s := open(b, filepath.Join(b.TempDir(), "blobs"), store.Config{})
				_, m, err := s.Pack(b.Context(), dir, pack.Options{})
				if err != nil {
					b.Fatal(err)
				}
				b.SetBytes(m.Bytes)
			}
		})
	}
}

// BenchmarkPackAgain is the same where the store has all of it.
func BenchmarkPackAgain(b *testing.B) {
	for name, dir := range sources(b) {
		b.Run(name, func(b *testing.B) {
			s := open(b, filepath.Join(b.TempDir(), "blobs"), store.Config{})
			for b.Loop() {
				_, m, err := s.Pack(b.Context(), dir, pack.Options{})
				if err != nil {
					b.Fatal(err)
				}
				b.SetBytes(m.Bytes)
			}
		})
	}
}

// BenchmarkUnpack is out of the store into a new directory: what each attempt
// with a bundle pays. BenchmarkLink is what it would pay for hard links to an
// unpacked copy, which it could then change.
func BenchmarkUnpack(b *testing.B) {
	for name, dir := range sources(b) {
		b.Run(name, func(b *testing.B) {
			s := open(b, filepath.Join(b.TempDir(), "blobs"), store.Config{})
			id, m, err := s.Pack(b.Context(), dir, pack.Options{})
			if err != nil {
				b.Fatal(err)
			}
			b.SetBytes(m.Bytes)
			for b.Loop() {
				if err := s.Unpack(b.Context(), id, filepath.Join(b.TempDir(), "out"), content.Limits{}); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// BenchmarkLink says what [BenchmarkUnpack] could save.
func BenchmarkLink(b *testing.B) {
	for name, dir := range sources(b) {
		b.Run(name, func(b *testing.B) {
			for b.Loop() {
				to := b.TempDir()
				err := filepath.WalkDir(dir, func(p string, d os.DirEntry, err error) error {
					if err != nil || p == dir {
						return err
					}
					rel, err := filepath.Rel(dir, p)
					if err != nil {
						return err
					}
					if d.IsDir() {
						return os.Mkdir(filepath.Join(to, rel), 0o755)
					}
					return os.Link(p, filepath.Join(to, rel))
				})
				if err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
