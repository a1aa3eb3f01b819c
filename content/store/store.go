// Package store keeps chunks and manifests on disk, each in a file named for
// its hash.
//
// It is a cache with a limit: what was not used for longest goes first, and
// what is pinned stays. A file appears whole or not at all, and is checked
// against its name whenever it is read for use, so that a crash or a bad disk
// costs a fetch and never gives wrong bytes.
package store

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"labmesh"
	"labmesh/content"
)

// The limit where none is set: 10 GiB, or a tenth of the disk if that is less.
const (
	defaultBytesMax = 10 << 30
	defaultShare    = 10 // 1/10
)

const (
	dirMode   = 0o700
	fileMode  = 0o600
	tempName  = "new-"           // begins the name of a file that is being written
	fanOut    = 1                // hex digits that name the directory of a blob: a store has tens of thousands
	touchStep = 10 * time.Minute // how exactly the time of the last use outlives a restart
	hexDigits = "0123456789abcdef"
	evictTo   = 95 // percent of the limit that an eviction leaves
)

// Config says how much the store may hold.
type Config struct {
	BytesMax int64 // 0: 10 GiB, or a tenth of the disk if that is less
	// InUse are ids of trees that must stay, such as those of tasks that have
	// not ended. It is asked when something has to go, and may be nil.
	InUse func() []string
}

// Store is a directory of chunks and manifests. It may be used concurrently.
// One process at a time may have a directory open.
type Store struct {
	dir string
	cfg Config

	mu    sync.Mutex
	blobs map[content.Hash]*blob
	bytes int64
	pins  map[content.Hash]int // how often a blob is pinned
}

// blob is what is known of a file.
type blob struct {
	size    int64
	used    time.Time
	touched time.Time // what the file says of used
}

// Open opens the store in dir, which is made where it does not exist, and
// sweeps away what a crash left half written.
func Open(dir string, cfg Config) (*Store, error) {
	s := &Store{dir: dir, cfg: cfg, blobs: map[content.Hash]*blob{}, pins: map[content.Hash]int{}}
	if err := os.MkdirAll(dir, dirMode); err != nil {
		return nil, fmt.Errorf("open store: %w", err)
	}
	for _, digit := range hexDigits {
		if err := os.Mkdir(filepath.Join(dir, string(digit)), dirMode); err != nil && !errors.Is(err, fs.ErrExist) {
			return nil, fmt.Errorf("open store: %w", err)
		}
	}
	if s.cfg.BytesMax == 0 {
		s.cfg.BytesMax = defaultBytesMax
		var fs unix.Statfs_t
		if err := unix.Statfs(dir, &fs); err == nil {
			s.cfg.BytesMax = min(s.cfg.BytesMax, int64(fs.Blocks)*int64(fs.Bsize)/defaultShare)
		}
	}
	if err := s.scan(); err != nil {
		return nil, fmt.Errorf("open store: %w", err)
	}
	return s, nil
}

// scan learns what is there, and removes what was being written at a crash.
func (s *Store) scan() error {
	return filepath.WalkDir(s.dir, func(p string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		if strings.HasPrefix(d.Name(), tempName) && filepath.Dir(p) != s.dir {
			return os.Remove(p)
		}
		rel, err := filepath.Rel(s.dir, p)
		if err != nil {
			return err
		}
		h, err := content.ParseID(strings.ReplaceAll(rel, string(filepath.Separator), ""))
		if err != nil || p != s.path(h) {
			return nil // it is not ours
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		s.blobs[h] = &blob{size: info.Size(), used: info.ModTime(), touched: info.ModTime()}
		s.bytes += info.Size()
		return nil
	})
}

func (s *Store) path(h content.Hash) string {
	name := h.String()
	return filepath.Join(s.dir, name[:fanOut], name[fanOut:])
}

// Has says whether a blob is there, without reading it.
func (s *Store) Has(h content.Hash) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	_, ok := s.blobs[h]
	return ok
}

// Missing are those of the hashes that are not there.
func (s *Store) Missing(hashes []content.Hash) []content.Hash {
	s.mu.Lock()
	defer s.mu.Unlock()
	var out []content.Hash
	for _, h := range hashes {
		if _, ok := s.blobs[h]; !ok {
			out = append(out, h)
		}
	}
	return out
}

// Usage is what the store holds and may hold, in bytes.
func (s *Store) Usage() (bytes, limit int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.bytes, s.cfg.BytesMax
}

// Put keeps data under its hash. Data that is not what h says is refused, with
// reason Invalid.
func (s *Store) Put(ctx context.Context, h content.Hash, data []byte) error {
	if content.Sum(data) != h {
		return labmesh.Refuse(labmesh.Invalid, "store %s: these are not its bytes", h)
	}
	return s.keep(ctx, h, data)
}

// keep writes data that was checked.
func (s *Store) keep(ctx context.Context, h content.Hash, data []byte) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if s.use(h) {
		return nil
	}
	if err := s.room(int64(len(data))); err != nil {
		return err
	}
	err := s.write(h, data)
	if errors.Is(err, unix.ENOSPC) { // others fill the disk: we hold what can be fetched again
		s.shrink()
		err = s.write(h, data)
	}
	if err != nil {
		return fmt.Errorf("store %s: %w", h, err)
	}
	now := time.Now()
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, twice := s.blobs[h]; !twice {
		s.blobs[h] = &blob{size: int64(len(data)), used: now, touched: now}
		s.bytes += int64(len(data))
	}
	return nil
}

// write makes the file of a blob at once. It does not sync: after a power
// failure a file may be short, which shows when it is read, and it is fetched
// again.
func (s *Store) write(h content.Hash, data []byte) error {
	f, err := os.CreateTemp(filepath.Dir(s.path(h)), tempName) // beside where it will be: cheaper than from another directory
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	if err = errors.Join(err, f.Close()); err == nil {
		err = os.Rename(f.Name(), s.path(h))
	}
	if err != nil {
		return errors.Join(err, os.Remove(f.Name()))
	}
	return nil
}

// use notes that a blob was used, and says whether it is there.
func (s *Store) use(h content.Hash) bool {
	now := time.Now()
	s.mu.Lock()
	b, ok := s.blobs[h]
	stale := ok && now.Sub(b.touched) > touchStep
	if ok {
		b.used = now
		if stale {
			b.touched = now
		}
	}
	s.mu.Unlock()
	if stale {
		_ = os.Chtimes(s.path(h), now, now) // the order of leaving, no more
	}
	return ok
}

// Get reads a blob into buf, or into more where that is too small, and checks
// it. What is damaged is dropped, and as if it were not there.
func (s *Store) Get(h content.Hash, buf []byte) ([]byte, error) {
	data, err := s.read(h, buf)
	if err == nil && content.Sum(data) != h {
		s.drop(h)
		err = missing(h)
	}
	if err != nil {
		return nil, err
	}
	return data, nil
}

// Reader opens a blob for who hands the bytes on to somebody who checks them.
func (s *Store) Reader(h content.Hash) (io.ReadCloser, error) {
	f, _, err := s.reader(h)
	if err != nil {
		return nil, err
	}
	return f, nil
}

func (s *Store) reader(h content.Hash) (*os.File, int64, error) {
	s.mu.Lock()
	b, ok := s.blobs[h]
	s.mu.Unlock()
	if !ok || !s.use(h) {
		return nil, 0, missing(h)
	}
	f, err := os.Open(s.path(h))
	if errors.Is(err, fs.ErrNotExist) {
		s.drop(h)
		return nil, 0, missing(h)
	}
	if err != nil {
		return nil, 0, fmt.Errorf("read %s: %w", h, err)
	}
	return f, b.size, nil
}

// read reads a whole blob, unchecked.
func (s *Store) read(h content.Hash, buf []byte) ([]byte, error) {
	f, size, err := s.reader(h)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	if int64(cap(buf)) < size {
		buf = make([]byte, size)
	}
	buf = buf[:size]
	n, err := io.ReadFull(f, buf)
	if err != nil && err != io.ErrUnexpectedEOF && err != io.EOF { // a short one shows when it is checked
		return nil, fmt.Errorf("read %s: %w", h, err)
	}
	return buf[:n], nil
}

func missing(h content.Hash) error {
	return labmesh.Refuse(labmesh.NotFound, "%s is not in the store of this node", h)
}

// Check reads a blob, and drops it where it is damaged. It says whether it is
// there and whole.
func (s *Store) Check(h content.Hash) bool {
	_, err := s.Get(h, nil)
	return err == nil
}

// drop removes a blob.
func (s *Store) drop(h content.Hash) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.remove(h)
}

// remove removes a blob. The lock is held.
func (s *Store) remove(h content.Hash) {
	b, ok := s.blobs[h]
	if !ok {
		return
	}
	delete(s.blobs, h)
	s.bytes -= b.size
	_ = os.Remove(s.path(h)) // if it stays, the next start finds it again
}
