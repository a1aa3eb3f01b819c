// Package pack turns a directory into a tree and back.
//
// [Dir] reads a directory and hands out its chunks; the same files make the
// same tree on any machine, whatever their times, owners and umask. [Unpack]
// writes a tree, and nothing outside the directory that it is given, also when
// the tree was made by an enemy.
package pack

import (
	"context"
	"errors"
	"fmt"
	"io"
	"runtime"

	chunkers "github.com/PlakarKorp/go-cdc-chunkers"
	_ "github.com/PlakarKorp/go-cdc-chunkers/chunkers/jc" // registers its algorithms
	"golang.org/x/sync/errgroup"

	"labmesh/content"
)

// Where the stream is cut. These and the algorithm are part of what makes the
// same tree the same id: changed, old trees stay readable, but equal ones get
// new ids.
const (
	chunkAlgorithm = "jc-v1.0.0"
	chunkBytesMin  = 128 << 10
	chunkBytes     = 512 << 10 // the usual size
	chunkBytesMax  = content.ChunkBytesMax
)

// hashers is how many chunks are hashed and put at the same time, at most.
const hashers = 4

// Options say what is packed.
type Options struct {
	// Paths are what is taken of the directory: files, or directories with all
	// below them. Without any it is the whole directory. What is named here is
	// taken also where it is ignored; what is below it is not.
	Paths []string
	// NoIgnore takes also what .gitignore and .labmeshignore leave out. A
	// directory .git is left out in any case.
	NoIgnore bool
	// Also are further directories, packed whole below a path of the tree:
	// {".labmesh": dir}. They take the place of what the first has there, and
	// one that does not exist is no error.
	Also map[string]string
	// Refused is called for each path that cannot be in a tree, such as a
	// socket or a link that leads out, which is then left out. Without it the
	// first such path is an error.
	Refused func(path string, why error)

	content.Limits
}

// Put takes a chunk. It is called by several goroutines, in any order, and may
// be called twice for the same chunk; data is valid until it returns.
type Put func(ctx context.Context, c content.Chunk, data []byte) error

// Dir packs the directory root. Every chunk has been put when it returns; the
// manifest is for the caller to keep.
func Dir(ctx context.Context, root string, opts Options, put Put) (*content.Manifest, error) {
	opts.Limits = opts.Or()
	trees, err := survey(ctx, root, opts)
	if err != nil {
		return nil, fmt.Errorf("pack %s: %w", root, err)
	}
	defer trees.close()
	s := &stream{ctx: ctx, trees: trees, opts: opts}
	defer s.close()
	chunks, err := cut(ctx, s, put)
	if err != nil {
		return nil, fmt.Errorf("pack %s: %w", root, err)
	}
	return &content.Manifest{Files: len(s.done), Bytes: s.bytes, Index: s.index, Chunks: chunks}, nil
}

// cut cuts a stream into chunks and puts them, several at a time.
func cut(ctx context.Context, r io.Reader, put Put) ([]content.Chunk, error) {
	c, err := chunkers.NewChunker(chunkAlgorithm, r, &chunkers.ChunkerOpts{
		MinSize: chunkBytesMin, NormalSize: chunkBytes, MaxSize: chunkBytesMax,
	})
	if err != nil {
		return nil, err
	}
	work, ctx := errgroup.WithContext(ctx)
	free := make(chan []byte, min(hashers, runtime.GOMAXPROCS(0)))
	for range cap(free) {
		free <- nil
	}
	var chunks []*content.Chunk
	for end := false; !end; {
		data, err := c.Next()
		end = errors.Is(err, io.EOF)
		if err != nil && !end {
			return nil, errors.Join(err, work.Wait())
		}
		if len(data) == 0 {
			break
		}
		var buf []byte
		select {
		case buf = <-free:
		case <-ctx.Done():
			return nil, work.Wait()
		}
		buf = append(buf[:0], data...) // Next reuses its own
		chunk := &content.Chunk{Size: uint32(len(buf))}
		chunks = append(chunks, chunk)
		work.Go(func() error {
			chunk.Hash = content.Sum(buf)
			err := put(ctx, *chunk, buf)
			free <- buf
			return err
		})
	}
	if err := work.Wait(); err != nil {
		return nil, err
	}
	out := make([]content.Chunk, len(chunks))
	for i, c := range chunks {
		out[i] = *c
	}
	return out, nil
}
