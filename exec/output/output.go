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
	HeadBytesMax = 8 << 20 // from its beginning
	TailBytesMax = 8 << 20 // from its end

	excerptHeadBytes = 1 << 10 // of its beginning, for the result
	excerptTailBytes = 3 << 10 // of its end, for the result
)

// Stream names one of an attempt's two streams. They are two pipes: in which
// order something was printed to the one and to the other nobody can know, so
// each is kept and read by itself.
type Stream string

// The streams.
const (
	Stdout Stream = "stdout"
	Stderr Stream = "stderr"
)

// Streams are both of them.
func Streams() []Stream { return []Stream{Stdout, Stderr} }

// Output is what one attempt prints. It is safe for use by many goroutines.
type Output struct {
	dir string

	mu      sync.Mutex
	changed chan struct{} // closed at the next change; nil while nobody waits
	closed  bool
	veils   *veils // hide values in what is written; nil where there are none
	printed func() // called once, when something is printed first; may be nil
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
	return o, o.load(os.O_RDONLY)
}

// Resume is the output of an attempt that goes on, after what dir keeps of it
// already. Nobody else may write to dir.
func Resume(dir string) (*Output, error) {
	o := New(dir)
	return o, o.load(os.O_RDWR)
}

func (o *Output) load(flag int) error {
	if err := errors.Join(o.stdout.load(flag), o.stderr.load(flag)); err != nil {
		o.release()
		return err
	}
	return nil
}

// OnPrint has f called once, as soon as something has been printed: now, if it
// has been already. f must not block.
func (o *Output) OnPrint(f func()) {
	o.mu.Lock()
	printed := o.stdout.total+o.stderr.total > 0
	if !printed {
		o.printed = f
	}
	o.mu.Unlock()
	if printed {
		f()
	}
}

// Write takes p as the next bytes of s. It always takes all of them.
func (o *Output) Write(s Stream, p []byte) {
	if len(p) > 0 {
		o.change(func() { o.put(s, p) })
	}
}

// Skip says that what was printed to s before the given offset, and is not here
// yet, is not to be had. What comes next is the tail.
func (o *Output) Skip(s Stream, upto int64) {
	o.change(func() { o.unveil(s); o.of(s).skip(upto) })
}

// change makes a change to what is kept, and has those who wait see it.
func (o *Output) change(do func()) {
	o.mu.Lock()
	if o.closed {
		o.mu.Unlock()
		return
	}
	do()
	o.wake()
	printed := o.printed
	o.printed = nil
	o.mu.Unlock()
	if printed != nil {
		printed()
	}
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
	o.unveil(Streams()...)
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

// Size is how many bytes of s have been printed.
func (o *Output) Size(s Stream) int64 {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.of(s).total
}

// Ended reports whether the output is closed.
func (o *Output) Ended() bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.closed
}

// Changed is closed at the next change: take it, then look, then wait.
func (o *Output) Changed() <-chan struct{} {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.waitLocked()
}

func (o *Output) waitLocked() <-chan struct{} {
	if o.changed == nil {
		o.changed = make(chan struct{})
	}
	return o.changed
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
