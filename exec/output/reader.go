package output

import (
	"context"
	"errors"
	"io"
)

// Query says what to read of an output.
type Query struct {
	Stream Stream // Both gives what there is of each in turn
	Offset int64  // bytes of the stream to skip, counting those not kept
	Follow bool   // wait for more until the attempt ends
}

// Open reads the output. Where bytes were not kept a [Marker] stands. The
// reader ends with the output, with ctx, or, unless it follows, with what there
// is now. It is for one goroutine; Close it.
func (o *Output) Open(ctx context.Context, q Query) io.ReadCloser {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.readers++
	if o.readers == 1 && o.closed { // released, perhaps: open again what is there
		o.reopen()
	}
	r := &reader{o: o, ctx: ctx, follow: q.Follow}
	for _, s := range []Stream{Stdout, Stderr} {
		if q.Stream == Both || q.Stream == s {
			r.at = append(r.at, place{o.of(s), max(q.Offset, 0)})
		}
	}
	return r
}

// reopen opens files that release closed. What cannot be opened reads as an error.
func (o *Output) reopen() {
	for _, s := range []*stream{&o.stdout, &o.stderr} {
		if s.file == nil && s.head > 0 {
			s.file, _, _ = openIfThere(s.path) //nolint:errcheck // a nil file reads as os.ErrInvalid
		}
		if s.ring == nil && s.total > s.head {
			s.ring, _, _ = openIfThere(s.path + ".tail") //nolint:errcheck // as above
		}
	}
}

type place struct {
	s  *stream
	at int64
}

type reader struct {
	o       *Output
	ctx     context.Context
	follow  bool
	at      []place
	pending string // of a marker
	closed  bool
}

func (r *reader) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	for {
		n, wait, err := r.next(p)
		if n > 0 || err != nil {
			return n, err
		}
		select {
		case <-wait:
		case <-r.ctx.Done():
			return 0, context.Cause(r.ctx)
		}
	}
}

// next reads what there is, or gives a channel that is closed when to try again.
func (r *reader) next(p []byte) (n int, wait <-chan struct{}, err error) {
	o := r.o
	o.mu.Lock()
	defer o.mu.Unlock()
	if r.closed {
		return 0, nil, errors.New("read output: it is closed")
	}
	if r.pending != "" {
		n = copy(p, r.pending)
		r.pending = r.pending[n:]
		return n, nil, nil
	}
	for i := range r.at {
		if n, err := r.read(&r.at[i], p); n > 0 || err != nil {
			return n, nil, err
		}
	}
	if o.closed || !r.follow {
		return 0, nil, io.EOF
	}
	if o.changed == nil {
		o.changed = make(chan struct{})
	}
	return 0, o.changed, nil
}

// read reads from one stream; 0 means that there is no more of it now.
func (r *reader) read(pl *place, p []byte) (int, error) {
	s := pl.s
	if pl.at >= s.total {
		return 0, nil
	}
	if tail := s.tailStart(); pl.at >= s.head && pl.at < tail {
		marker := Marker(tail - pl.at)
		n := copy(p, marker)
		r.pending, pl.at = marker[n:], tail
		return n, nil
	}
	n, err := s.readAt(p, pl.at)
	pl.at += int64(n)
	if n > 0 {
		return n, nil
	}
	if err == nil {
		err = io.ErrUnexpectedEOF
	}
	return 0, err
}

func (r *reader) Close() error {
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
