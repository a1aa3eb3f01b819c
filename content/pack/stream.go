package pack

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"syscall"

	"labmesh"
	"labmesh/content"
)

// stream reads the bytes of all files and then the index, which tells what was
// read: a file that grows while it is packed is packed as it was read.
type stream struct {
	ctx   context.Context
	trees *trees
	opts  Options

	next    int // of trees.entries
	open    *os.File
	current content.File
	done    []content.File
	bytes   int64
	tail    *bytes.Reader // the index, once all files are read
	index   int64
}

// Read reads on. It is what the chunker calls.
func (s *stream) Read(p []byte) (int, error) {
	for {
		if s.tail != nil {
			return s.tail.Read(p)
		}
		if s.open == nil {
			if err := s.advance(); err != nil {
				return 0, err
			}
			continue
		}
		n, err := s.open.Read(p)
		s.current.Size += int64(n)
		s.bytes += int64(n)
		if s.bytes > s.opts.Bytes {
			return 0, labmesh.Refuse(labmesh.TooLarge, "it has more than the %d bytes allowed, at %q: leave some out with .labmeshignore", s.opts.Bytes, s.current.Path)
		}
		if err == io.EOF {
			s.done = append(s.done, s.current)
			s.close()
			err = nil
		}
		if err != nil {
			return n, err
		}
		if n > 0 {
			return n, nil
		}
	}
}

// advance opens the next file, or the index after the last.
func (s *stream) advance() error {
	if err := s.ctx.Err(); err != nil {
		return err
	}
	if s.next == len(s.trees.entries) {
		index := content.EncodeIndex(s.done)
		if len(index) > content.IndexBytesMax {
			return labmesh.Refuse(labmesh.TooLarge, "the list of its %d files has %d bytes, more than %d", len(s.done), len(index), content.IndexBytesMax)
		}
		s.tail, s.index = bytes.NewReader(index), int64(len(index))
		return nil
	}
	e := s.trees.entries[s.next]
	s.next++
	if !e.Regular() {
		s.done = append(s.done, e.File)
		return nil
	}
	f, mode, err := openRegular(e.root, e.name)
	if err != nil {
		return s.trees.refuse(s.opts, e.Path, err)
	}
	s.open, s.current = f, e.File
	s.current.Kind = content.Plain
	if mode&0o100 != 0 {
		s.current.Kind = content.Executable
	}
	return nil
}

func (s *stream) close() {
	if s.open != nil {
		_ = s.open.Close() // it was only read
		s.open = nil
	}
}

// openRegular opens a file for reading. Between the survey and now somebody may
// have put something else there: a pipe must not make us wait, a link must not
// lead us elsewhere.
func openRegular(root *os.Root, name string) (*os.File, os.FileMode, error) {
	f, err := root.OpenFile(name, os.O_RDONLY|syscall.O_NONBLOCK|syscall.O_NOFOLLOW, 0)
	if err != nil {
		return nil, 0, cause(err)
	}
	info, err := f.Stat()
	if err == nil && !info.Mode().IsRegular() {
		err = special(info.Mode())
	}
	if err != nil {
		return nil, 0, errors.Join(err, f.Close())
	}
	return f, info.Mode(), nil
}

// cause is err without the path that the caller names anyway.
func cause(err error) error {
	var e *os.PathError
	if errors.As(err, &e) {
		return e.Err
	}
	return err
}

// special says why what has this mode cannot be in a tree.
func special(mode os.FileMode) error {
	what := "neither a file, nor a directory, nor a symbolic link"
	switch {
	case mode&os.ModeSocket != 0:
		what = "a socket"
	case mode&os.ModeNamedPipe != 0:
		what = "a named pipe"
	case mode&os.ModeDevice != 0:
		what = "a device file"
	}
	return fmt.Errorf("it is %s, which cannot be packed: leave it out with .labmeshignore", what)
}
