// Package output keeps what attempts print: of each stream the first and the
// last part on disk, whatever is printed in between, with memory bounded and no
// write that can block on anything but the disk. Whoever follows an attempt
// reads from here while it runs, and afterwards until it is swept.
//
// A stream is one plain file, named for it, holding its beginning; what comes
// after goes into a ring beside it, `<name>.tail`. Neither is there while
// nothing was printed. A disk that is full costs output, never the attempt.
package output

import (
	"errors"
	"os"
	"path/filepath"
	"sync"
)

// Limits on what is kept of one stream.
const (
	HeadBytesMax = 1 << 20 // from its beginning
	TailBytesMax = 1 << 20 // from its end

	excerptHeadBytes = 1 << 10 // of its beginning, for the result
	excerptTailBytes = 3 << 10 // of its end, for the result
)

// Stream names one of an attempt's two streams.
type Stream string

// The streams. Both, in a query, means both of them.
const (
	Stdout Stream = "stdout"
	Stderr Stream = "stderr"
	Both   Stream = ""
)

// Output is what one attempt prints. It is safe for use by many goroutines.
type Output struct {
	dir string

	mu      sync.Mutex
	changed chan struct{} // closed at the next change; nil while nobody waits
	closed  bool
	stdout  stream
	stderr  stream
	readers int // open readers: the files stay open for them
}

// New is the output of an attempt about to run, kept in dir. It touches no
// file before something is printed.
func New(dir string) *Output {
	o := &Output{dir: dir}
	o.stdout.path = filepath.Join(dir, string(Stdout))
	o.stderr.path = filepath.Join(dir, string(Stderr))
	return o
}

// Load is the output of an attempt that has ended, as dir keeps it.
func Load(dir string) (*Output, error) {
	o := New(dir)
	o.closed = true
	if err := errors.Join(o.stdout.load(), o.stderr.load()); err != nil {
		o.release()
		return nil, err
	}
	return o, nil
}

// Write takes p as the next bytes of s. It always takes all of them.
func (o *Output) Write(s Stream, p []byte) {
	if len(p) == 0 {
		return
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.closed {
		return
	}
	o.of(s).write(p)
	o.wake()
}

// Writer is Write for one stream as an [io.Writer] that never returns an error.
func (o *Output) Writer(s Stream) Writer { return Writer{o, s} }

// Writer writes one stream of an [Output].
type Writer struct {
	o *Output
	s Stream
}

func (w Writer) Write(p []byte) (int, error) { w.o.Write(w.s, p); return len(p), nil }

// Close says that no more will be printed. Those who follow see the end. It is
// safe twice.
func (o *Output) Close() {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.closed {
		return
	}
	o.closed = true
	o.wake()
	if o.readers == 0 {
		o.release()
	}
}

// Excerpt is the first and last part of s, for a result: valid UTF-8, with a
// marker where something was left out.
func (o *Output) Excerpt(s Stream) Excerpt {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.of(s).excerpt()
}

// Dropped is how many bytes of s were printed and are not kept.
func (o *Output) Dropped(s Stream) int64 {
	o.mu.Lock()
	defer o.mu.Unlock()
	st := o.of(s)
	return st.tailStart() - st.head
}

func (o *Output) of(s Stream) *stream {
	if s == Stderr {
		return &o.stderr
	}
	return &o.stdout
}

func (o *Output) wake() {
	if o.changed != nil {
		close(o.changed)
		o.changed = nil
	}
}

// release closes the files. The caller holds mu, or is alone.
func (o *Output) release() {
	for _, f := range []**os.File{&o.stdout.file, &o.stdout.ring, &o.stderr.file, &o.stderr.ring} {
		if *f != nil {
			(*f).Close() // nothing was buffered: what could be written was
			*f = nil
		}
	}
}
