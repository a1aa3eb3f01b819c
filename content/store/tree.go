package store

import (
	"context"
	"errors"
	"fmt"
	"io"

	"labmesh"
	"labmesh/content"
	"labmesh/content/pack"
)

// Manifest is the manifest of a tree, with reason NotFound where it is not here.
func (s *Store) Manifest(id string) (*content.Manifest, error) {
	m, _, err := s.manifest(id)
	return m, err
}

func (s *Store) manifest(id string) (*content.Manifest, content.Hash, error) {
	h, err := content.ParseID(id)
	if err != nil {
		return nil, h, err
	}
	data, err := s.Get(h, nil)
	if err != nil {
		return nil, h, err
	}
	m, err := content.DecodeManifest(data)
	return m, h, err
}

// PutManifest keeps a manifest, and returns the id of its tree. Its chunks need
// not be here.
func (s *Store) PutManifest(ctx context.Context, m *content.Manifest) (string, error) {
	data := m.Encode()
	if len(data) > content.ManifestBytesMax {
		return "", labmesh.Refuse(labmesh.TooLarge, "a manifest of %d bytes is more than %d", len(data), content.ManifestBytesMax)
	}
	h := content.Sum(data)
	return h.String(), s.keep(ctx, h, data)
}

// Complete says whether a tree is here whole: its manifest and every chunk, by
// name. Whether they are undamaged shows when they are read.
func (s *Store) Complete(id string) bool {
	m, err := s.Manifest(id)
	if err != nil {
		return false
	}
	for _, c := range m.Chunks {
		if !s.Has(c.Hash) {
			return false
		}
	}
	return true
}

// Pack packs a directory into the store, and returns the tree's id.
func (s *Store) Pack(ctx context.Context, root string, opts pack.Options) (string, *content.Manifest, error) {
	p := s.newPin()
	defer p.release()
	m, err := pack.Dir(ctx, root, opts, func(ctx context.Context, c content.Chunk, data []byte) error {
		p.add(c.Hash)
		return s.keep(ctx, c.Hash, data)
	})
	if err != nil {
		return "", nil, err
	}
	id, err := s.PutManifest(ctx, m)
	return id, m, err
}

// Unpack writes a tree that is here into dir, as [pack.Unpack] does.
func (s *Store) Unpack(ctx context.Context, id, dir string, lim content.Limits) error {
	m, release, err := s.open(id)
	if err != nil {
		return fmt.Errorf("unpack %s: %w", id, err)
	}
	defer release()
	return pack.Unpack(ctx, m, dir, lim, s.get(m))
}

// List is what is in a tree, in order. It reads the index and no file.
func (s *Store) List(ctx context.Context, id string) ([]content.File, error) {
	m, release, err := s.open(id)
	if err != nil {
		return nil, fmt.Errorf("list %s: %w", id, err)
	}
	defer release()
	return pack.Index(ctx, m, s.get(m))
}

// open is the manifest of a tree, pinned.
func (s *Store) open(id string) (*content.Manifest, func(), error) {
	release, err := s.Pin(id)
	if err != nil {
		return nil, nil, err
	}
	m, err := s.Manifest(id)
	if err != nil {
		release()
		return nil, nil, err
	}
	return m, release, nil
}

func (s *Store) get(m *content.Manifest) pack.Get {
	return func(ctx context.Context, i int, buf []byte) ([]byte, error) {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		return s.Get(m.Chunks[i].Hash, buf)
	}
}

// OpenFile reads one file of a tree, or any part of it. Only the chunks that
// hold what is read are read. It does not follow links.
func (s *Store) OpenFile(ctx context.Context, id, path string) (io.ReadSeekCloser, content.File, error) {
	m, release, err := s.open(id)
	if err != nil {
		return nil, content.File{}, fmt.Errorf("open %s in %s: %w", path, id, err)
	}
	files, err := pack.Index(ctx, m, s.get(m))
	if err == nil {
		f, ok := content.Find(files, path)
		switch {
		case !ok:
			err = labmesh.Refuse(labmesh.NotFound, "there is no %q in %s", path, id)
		case !f.Regular():
			err = labmesh.Refuse(labmesh.Invalid, "%q is no file", path)
		default:
			r := &file{ctx: ctx, get: s.get(m), m: m, release: release, from: f.Offset, size: f.Size}
			r.seek(0)
			return r, f, nil
		}
	}
	release()
	return nil, content.File{}, err
}

// file reads the bytes of one file out of the chunks of its tree.
type file struct {
	ctx     context.Context
	get     pack.Get
	m       *content.Manifest
	release func()
	from    int64 // where the file begins in the stream
	size    int64
	chunk   int   // the next one to read
	skip    int64 // bytes of it that are before what is read next
	left    int64
	rest    []byte
	buf     []byte
}

// seek goes to a place in the file.
func (f *file) seek(offset int64) {
	f.chunk, f.rest, f.left = 0, nil, max(f.size-offset, 0)
	offset += f.from
	for f.chunk < len(f.m.Chunks) && offset >= int64(f.m.Chunks[f.chunk].Size) {
		offset -= int64(f.m.Chunks[f.chunk].Size)
		f.chunk++
	}
	f.skip = offset
}

// Seek goes to a place for the next read.
func (f *file) Seek(offset int64, whence int) (int64, error) {
	switch whence {
	case io.SeekCurrent:
		offset += f.size - f.left
	case io.SeekEnd:
		offset += f.size
	}
	if offset < 0 {
		return 0, errors.New("seek: before the beginning of the file")
	}
	f.seek(min(offset, f.size))
	return offset, nil
}

func (f *file) Read(p []byte) (int, error) {
	if f.left == 0 {
		return 0, io.EOF
	}
	if len(f.rest) == 0 {
		data, err := f.get(f.ctx, f.chunk, f.buf)
		if err != nil {
			return 0, err
		}
		if len(data) != int(f.m.Chunks[f.chunk].Size) {
			return 0, errors.New("a chunk has not the size that the manifest says")
		}
		f.chunk++
		f.buf, f.rest, f.skip = data, data[f.skip:], 0
	}
	n := copy(p, f.rest[:min(int64(len(f.rest)), f.left)])
	f.rest = f.rest[n:]
	f.left -= int64(n)
	return n, nil
}

func (f *file) Close() error {
	f.release()
	return nil
}
