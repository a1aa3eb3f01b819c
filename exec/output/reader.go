package output

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
)

// Query says what to read of one stream of an output.
type Query struct {
	Stream Stream // "" means stdout
	Offset int64  // bytes of the stream to skip, counting those not kept
	Follow bool   // wait for more until the attempt ends
}

// Piece is the next part of a stream: bytes, or the lack of them. Where the next
// one begins is [Piece.End].
type Piece struct {
	Offset int64  // of its first byte in the stream
	Data   []byte // what is kept there
	Gap    int64  // or, with no data, how many bytes are not
}

// End is the offset after the piece.
func (p Piece) End() int64 { return p.Offset + int64(len(p.Data)) + p.Gap }

// Reader reads one stream of an output, in pieces or, as an [io.Reader], as text
// in which a [Marker] stands where bytes are not kept. It is for one goroutine.
type Reader struct {
	o       *Output
	s       *stream
	ctx     context.Context //nolint:containedctx // it bounds the reader, as that of an HTTP request does
	follow  bool
	at      int64
	pending string // of a marker
	closed  bool
}

var errClosed = errors.New("read output: it is closed")

// Open reads one stream of the output. The reader ends with the output, with
// ctx, or, unless it follows, with what there is now. Close it.
func (o *Output) Open(ctx context.Context, q Query) *Reader {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.readers++
	if o.readers == 1 && o.closed { // released, perhaps: open again what is there
		o.reopen()
	}
	return &Reader{o: o, s: o.of(q.Stream), ctx: ctx, follow: q.Follow, at: max(q.Offset, 0)}
}

// reopen opens files that release closed. What cannot be opened reads as an error.
func (o *Output) reopen() {
	for _, s := range []*stream{&o.stdout, &o.stderr} {
		if s.file == nil && s.head > 0 {
			s.file, _, _ = openIfThere(s.path, os.O_RDONLY) //nolint:errcheck // a nil file reads as os.ErrInvalid
		}
		if s.ring == nil && s.total > s.head {
			s.ring, _, _ = openIfThere(s.path+tailSuffix, os.O_RDONLY) //nolint:errcheck // as above
		}
	}
}

// Next is the next piece, with its data in p. It waits for one if the reader
// follows, and gives [io.EOF] at the end.
func (r *Reader) Next(p []byte) (Piece, error) {
	for {
		piece, wait, err := r.next(p)
		if wait == nil || err != nil {
			r.at = max(r.at, piece.End())
			return piece, err
		}
		select {
		case <-wait:
		case <-r.ctx.Done():
			return Piece{Offset: r.at}, context.Cause(r.ctx)
		}
	}
}

// next reads what there is, or gives a channel that is closed when to try again.
// The disk is read without the lock: whoever prints does not wait for those who
// read. What was overwritten meanwhile is not taken.
func (r *Reader) next(p []byte) (piece Piece, wait <-chan struct{}, err error) {
	o, s := r.o, r.s
	piece = Piece{Offset: r.at}
	o.mu.Lock()
	for {
		tail := s.tailStart()
		switch {
		case r.closed:
			o.mu.Unlock()
			return piece, nil, errClosed
		case r.at >= s.total:
			defer o.mu.Unlock()
			if o.closed || !r.follow {
				return piece, nil, io.EOF
			}
			return piece, o.waitLocked(), nil
		case r.at >= s.head && r.at < tail:
			o.mu.Unlock()
			piece.Gap = tail - r.at
			return piece, nil, nil
		}
		f, at, n := s.place(r.at, len(p))
		o.mu.Unlock()
		n, err = readFull(f, p[:n], at)
		o.mu.Lock()
		if r.at < s.head || r.at >= s.tailStart() {
			o.mu.Unlock()
			piece.Data = p[:n]
			return piece, nil, err
		}
	}
}

func readFull(f *os.File, p []byte, at int64) (int, error) {
	n, err := f.ReadAt(p, at)
	if n == len(p) {
		return n, nil
	}
	if err == nil || errors.Is(err, io.EOF) {
		err = io.ErrUnexpectedEOF
	}
	return n, fmt.Errorf("read output: %w", err)
}

// Read reads the stream as text.
func (r *Reader) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	if r.pending == "" {
		piece, err := r.Next(p)
		if piece.Gap == 0 {
			return len(piece.Data), err
		}
		r.pending = Marker(piece.Gap)
	}
	n := copy(p, r.pending)
	r.pending = r.pending[n:]
	return n, nil
}

// Close ends the reader. It is safe twice.
func (r *Reader) Close() error {
	r.o.mu.Lock()
	defer r.o.mu.Unlock()
	if r.closed {
		return nil
	}
	r.closed = true
	if r.o.readers--; r.o.readers == 0 && r.o.closed {
		r.o.release()
	}
	return nil
}
