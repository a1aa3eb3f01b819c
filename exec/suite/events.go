package suite

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"time"

	"labmesh/exec/process"
)

// Limits on events.
const (
	pollEvery      = 25 * time.Millisecond  // between two looks at the events of an interpreter
	lineBytesMax   = 1 << 20                // of one event; a longer one is left out
	eventsBytesMax = 256 << 20              // of one interpreter, with what its tests print if it is in them
	endMax         = 10 * time.Second       // for an interpreter that has said that it is done to end
	stackDelay     = 200 * time.Millisecond // after a timeout, for the stacks to be written
	stackDelayMax  = 2 * time.Second        // on a machine that is very busy
)

// tailer reads the lines of a file that grows.
type tailer struct {
	path string
	most int // bytes of a line; a longer one is left out
	file *os.File
	part []byte // of a line that is not whole yet
	skip bool   // the line at hand is too long
	read int64
	buf  []byte
}

// next hands all whole lines that are new to f.
func (t *tailer) next(f func(line []byte)) error {
	if t.file == nil {
		file, err := os.Open(t.path)
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil {
			return err
		}
		t.file, t.buf = file, make([]byte, 64<<10)
	}
	for {
		n, err := t.file.Read(t.buf)
		t.read += int64(n)
		t.feed(t.buf[:n], f)
		if err == io.EOF || n == 0 {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

func (t *tailer) feed(p []byte, f func([]byte)) {
	for len(p) > 0 {
		i := bytes.IndexByte(p, '\n')
		if i < 0 {
			if t.skip = t.skip || len(t.part)+len(p) > t.most; t.skip {
				t.part = t.part[:0]
			} else {
				t.part = append(t.part, p...)
			}
			return
		}
		line := p[:i]
		t.skip = t.skip || len(t.part)+i > t.most
		if len(t.part) > 0 && !t.skip {
			t.part = append(t.part, line...)
			line = t.part
		}
		if !t.skip && len(line) > 0 {
			f(line)
		}
		t.part, t.skip, p = t.part[:0], false, p[i+1:]
	}
}

func (t *tailer) close() {
	if t.file != nil {
		t.file.Close()
	}
}

// watcher decides by the events of one interpreter.
type watcher interface {
	// line takes the next event.
	line(line []byte)
	// look is called after each look at the events. It says whether the
	// interpreter is to be killed. It may have more events written.
	look(now time.Time) (kill bool)
}

// launched is a program under way.
type launched struct {
	stop context.CancelCauseFunc
	done chan ended
}

// ended is how a program ended.
type ended struct {
	exit process.Exit
	err  error
}

func (c *chunk) launch(ctx context.Context, p Program) *launched {
	run, stop := context.WithCancelCause(ctx)
	l := &launched{stop, make(chan ended, 1)}
	go func() {
		exit, err := c.m.Launch(run, c.a, p)
		l.done <- ended{exit, err}
	}()
	return l
}

// supervise shows w the events in the file at path while an interpreter runs.
// Events of an earlier life of this worker are shown again. When ctx ends it ends
// the interpreter.
func (c *chunk) supervise(ctx context.Context, l *launched, path string, w watcher) (process.Exit, error) {
	defer l.stop(nil)
	t := &tailer{path: path, most: lineBytesMax}
	defer t.close()
	tick := time.NewTicker(pollEvery)
	defer tick.Stop()
	var failed error
	over := ctx.Done()
	for {
		select {
		case <-over:
			over = nil
			l.stop(context.Cause(ctx))
		case e := <-l.done:
			return e.exit, errors.Join(e.err, failed, t.next(w.line))
		case now := <-tick.C:
			if failed != nil {
				continue
			}
			failed = t.next(w.line)
			if t.read > eventsBytesMax {
				failed = errTooMuch
			}
			if failed != nil || w.look(now) {
				l.stop(errKilled)
			}
		}
	}
}

var (
	errKilled  = errors.New("a test ran past its timeout")
	errTooMuch = fmt.Errorf("more than %d MiB of events and output were written", eventsBytesMax>>20)
)

// appendLine adds an event of the supervisor's own.
func appendLine(path string, line []byte) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_APPEND|os.O_CREATE, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(append(line, '\n'))
	return errors.Join(err, f.Close())
}
