package pack

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"strings"

	"golang.org/x/sync/errgroup"

	"labmesh"
	"labmesh/content"
)

// readAhead is how many chunks are fetched and checked before they are written.
const readAhead = 2

// Get reads the i-th chunk of a manifest, checked against its hash. It may use
// buf, which is free again at the next call but one.
type Get func(ctx context.Context, i int, buf []byte) ([]byte, error)

// Index reads the list of a tree's entries, checked as [content.DecodeIndex]
// does.
func Index(ctx context.Context, m *content.Manifest, get Get) ([]content.File, error) {
	index := make([]byte, 0, m.Index)
	var at int64
	var buf []byte
	for i, c := range m.Chunks {
		end := at + int64(c.Size)
		if end > m.Bytes {
			data, err := chunk(ctx, m, i, buf, get)
			if err != nil {
				return nil, err
			}
			index = append(index, data[max(m.Bytes-at, 0):]...)
			buf = data[:0]
		}
		at = end
	}
	return content.DecodeIndex(m, index)
}

// chunk gets a chunk of the size that the manifest says.
func chunk(ctx context.Context, m *content.Manifest, i int, buf []byte, get Get) ([]byte, error) {
	data, err := get(ctx, i, buf)
	if err == nil && len(data) != int(m.Chunks[i].Size) {
		err = labmesh.Refuse(labmesh.Invalid, "chunk %d has %d bytes, and the manifest says %d", i, len(data), m.Chunks[i].Size)
	}
	return data, err
}

// Unpack writes the tree into dir, which is made where it does not exist. It
// writes nothing outside dir and over no file that is there; it takes no more
// than lim and no more than the manifest says. What it had written before an
// error stays.
func Unpack(ctx context.Context, m *content.Manifest, dir string, lim content.Limits, get Get) error {
	if err := lim.Check(m); err != nil {
		return fmt.Errorf("unpack: %w", err)
	}
	files, err := Index(ctx, m, get)
	if err != nil {
		return fmt.Errorf("unpack: %w", err)
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return fmt.Errorf("unpack: %w", err)
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return fmt.Errorf("unpack: %w", err)
	}
	w := &writer{dirs: []openDir{{root: root}}}
	err = w.files(ctx, m, files, get)
	if err == nil {
		err = w.links(files) // last: no file is ever written through one
	}
	if err = errors.Join(err, w.close()); err != nil {
		return fmt.Errorf("unpack: %w", err)
	}
	return nil
}

// writer writes entries in order. It holds the directories on the way to where
// it is open, so that each file costs one look-up and no path is followed twice.
type writer struct {
	dirs []openDir
}

type openDir struct {
	path string // of the tree; "" for the first
	root *os.Root
}

func (w *writer) close() error {
	var errs []error
	for _, d := range w.dirs {
		errs = append(errs, d.root.Close())
	}
	return errors.Join(errs...)
}

// enter is the directory at p, made where it does not exist.
func (w *writer) enter(p string) (*os.Root, error) {
	for {
		d := w.dirs[len(w.dirs)-1]
		if d.path == "" || p == d.path || strings.HasPrefix(p, d.path) && p[len(d.path)] == '/' {
			break
		}
		w.dirs = w.dirs[:len(w.dirs)-1]
		if err := d.root.Close(); err != nil {
			return nil, err
		}
	}
	d := w.dirs[len(w.dirs)-1]
	rest := strings.TrimPrefix(strings.TrimPrefix(p, d.path), "/")
	if rest == "" {
		return d.root, nil
	}
	for name := range strings.SplitSeq(rest, "/") {
		err := d.root.Mkdir(name, 0o755)
		if err != nil && !errors.Is(err, fs.ErrExist) {
			return nil, fmt.Errorf("make the directory %q: %w", p, cause(err))
		}
		next, err := d.root.OpenRoot(name)
		if err != nil {
			return nil, fmt.Errorf("enter the directory %q: %w", p, cause(err))
		}
		d = openDir{path.Join(d.path, name), next}
		w.dirs = append(w.dirs, d)
	}
	return d.root, nil
}

// files writes the files and empty directories, while the next chunks are read.
func (w *writer) files(ctx context.Context, m *content.Manifest, files []content.File, get Get) error {
	work, ctx := errgroup.WithContext(ctx)
	full := make(chan []byte, readAhead)
	free := make(chan []byte, readAhead+1)
	for range cap(free) {
		free <- nil
	}
	work.Go(func() error {
		var at int64
		for i := 0; i < len(m.Chunks) && at < m.Bytes; i++ {
			var buf []byte
			select {
			case buf = <-free:
			case <-ctx.Done():
				return ctx.Err()
			}
			data, err := chunk(ctx, m, i, buf, get)
			if err != nil {
				return err
			}
			at += int64(len(data))
			select {
			case full <- data:
			case <-ctx.Done():
				return ctx.Err()
			}
		}
		close(full) // not after an error: that one is to be the one returned
		return nil
	})
	work.Go(func() error {
		s := source{ctx: ctx, full: full, free: free}
		for _, f := range files {
			if err := w.entry(f, &s); err != nil {
				return err
			}
		}
		return ctx.Err()
	})
	return work.Wait()
}

func (w *writer) entry(f content.File, from *source) error {
	switch f.Kind {
	case content.EmptyDir:
		_, err := w.enter(f.Path)
		return err
	case content.Link:
		return nil
	}
	at, name := path.Split(f.Path)
	dir, err := w.enter(strings.TrimSuffix(at, "/"))
	if err != nil {
		return err
	}
	out, err := dir.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, f.Mode())
	if err != nil {
		return fmt.Errorf("write %q: %w", f.Path, cause(err))
	}
	if err := errors.Join(from.copy(out, f.Size), out.Close()); err != nil {
		return fmt.Errorf("write %q: %w", f.Path, cause(err))
	}
	return nil
}

func (w *writer) links(files []content.File) error {
	for _, f := range files {
		if f.Kind != content.Link {
			continue
		}
		if _, err := w.enter(strings.TrimSuffix(dirOf(f.Path), "/")); err != nil {
			return err
		}
		if err := w.dirs[len(w.dirs)-1].root.Symlink(f.Target, path.Base(f.Path)); err != nil {
			return fmt.Errorf("link %q: %w", f.Path, linkCause(err))
		}
	}
	return nil
}

func dirOf(p string) string {
	d, _ := path.Split(p)
	return d
}

func linkCause(err error) error {
	var e *os.LinkError
	if errors.As(err, &e) {
		return e.Err
	}
	return err
}

// source is the stream of a tree, chunk after chunk.
type source struct {
	ctx     context.Context
	full    <-chan []byte
	free    chan<- []byte
	current []byte // the whole chunk
	rest    []byte // what of it was not yet written
}

// copy writes the next n bytes.
func (s *source) copy(out io.Writer, n int64) error {
	for n > 0 {
		if len(s.rest) == 0 {
			if s.current != nil {
				s.free <- s.current[:0] // never waits: there are as many places as buffers
			}
			select {
			case s.current = <-s.full:
			case <-s.ctx.Done():
				return s.ctx.Err()
			}
			if s.rest = s.current; len(s.rest) == 0 {
				return io.ErrUnexpectedEOF
			}
		}
		take := int(min(n, int64(len(s.rest))))
		if _, err := out.Write(s.rest[:take]); err != nil {
			return err
		}
		s.rest = s.rest[take:]
		n -= int64(take)
	}
	return nil
}
