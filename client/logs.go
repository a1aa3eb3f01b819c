package client

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"labmesh"
	"labmesh/api"
)

// The streams of a task's output.
const (
	Stdout = "stdout"
	Stderr = "stderr"
)

// Bounds of reading output.
const (
	logWaitMax    = time.Second      // the longest pause before asking again
	logSilenceMax = 60 * time.Second // without a sign of life, a followed output counts as lost
)

// LogQuery says which output of a task to read.
type LogQuery struct {
	Stream  string          // [Stdout] or [Stderr]
	Attempt int             // this one and no other; 0 for the newest and, when following, those that come
	Follow  bool            // wait for more until the task ends; also when it has not started yet
	After   api.LogPosition // go on from here, with this attempt and those after it; zero for the beginning
}

// LogReader reads one stream of a task's output over as many connections as it
// takes: when one is lost it goes on at the byte where it was. It is for one
// goroutine, but for Close.
type LogReader struct {
	c      *Client
	ctx    context.Context //nolint:containedctx // it bounds the reader, as that of an HTTP request does
	cancel context.CancelFunc
	id     labmesh.TaskID
	q      LogQuery

	body    io.ReadCloser // nil between connections
	frames  *api.LogFrames
	silence *time.Timer // closes body
	heard   bool        // this connection has said something
	opened  bool        // there was a connection

	lost    time.Time // since when there is none
	pending []byte    // text that Read has not given yet
	done    error     // how it ended
}

// Logs reads one stream of a task's output. A reader that follows begins when the
// task does, and ends with it or with ctx. Close it.
func (c *Client) Logs(ctx context.Context, id labmesh.TaskID, q LogQuery) (*LogReader, error) {
	ctx, cancel := context.WithCancel(ctx)
	r := &LogReader{c: c, ctx: ctx, cancel: cancel, id: id, q: q, lost: time.Now()}
	if err := r.reopen(); err != nil {
		cancel()
		return nil, err
	}
	return r, nil
}

// Position is where the next byte will be from.
func (r *LogReader) Position() api.LogPosition { return r.q.After }

// Next is the next frame with something in it: output, word of what is missing,
// that another attempt begins, or a note. Its data are good until the next call.
// At the end it gives [io.EOF].
func (r *LogReader) Next() (api.LogFrame, error) {
	for r.done == nil {
		if r.body == nil {
			if r.done = r.reopen(); r.done != nil {
				break
			}
		}
		f, err := r.frames.Next()
		switch {
		case err != nil:
			r.drop()
			if r.ctx.Err() != nil {
				r.done = context.Cause(r.ctx)
			}
			continue
		case f.Kind == api.LogEnd:
			r.drop()
			r.done = io.EOF
			continue
		}
		r.heard = true
		if r.silence != nil {
			r.silence.Reset(logSilenceMax)
		}
		if f.Kind != api.LogStill {
			r.q.After = f.After()
			return f, nil
		}
	}
	return api.LogFrame{}, r.done
}

// Read reads the output as text, in which marks stand for what is missing and
// between attempts.
func (r *LogReader) Read(p []byte) (int, error) {
	for len(r.pending) == 0 {
		f, err := r.Next()
		if err != nil {
			return 0, err
		}
		r.pending = f.Text()
	}
	n := copy(p, r.pending)
	r.pending = r.pending[n:]
	return n, nil
}

// Close ends the reader. It is safe twice.
func (r *LogReader) Close() error {
	r.cancel()
	r.drop()
	if r.done == nil {
		r.done = errors.New("read logs: it is closed")
	}
	return nil
}

func (r *LogReader) drop() {
	if r.body == nil {
		return
	}
	if r.silence != nil {
		r.silence.Stop()
	}
	r.body.Close() // it is being given up
	r.body = nil
	if r.heard {
		r.lost = time.Now()
	}
}

// reopen asks for the stream until it is there.
func (r *LogReader) reopen() error {
	for n := 0; ; n++ {
		if r.opened && !sleep(r.ctx, min(retryWaitMin<<min(n, 6), logWaitMax)) {
			return context.Cause(r.ctx)
		}
		err := r.open()
		if err == nil {
			return nil
		}
		if r.ctx.Err() != nil {
			return context.Cause(r.ctx)
		}
		again, mine := r.again(err)
		if !again {
			return mine
		}
		if !r.opened && !sleep(r.ctx, min(retryWaitMin<<min(n, 6), logWaitMax)) {
			return context.Cause(r.ctx)
		}
	}
}

// again decides whether to ask once more after err.
func (r *LogReader) again(err error) (bool, error) {
	patient := time.Since(r.lost) < r.c.cfg.Patience
	switch labmesh.ReasonOf(err) {
	case labmesh.NotFound, labmesh.Denied: // a node that restarts may not know its tasks and its keys yet
		return r.opened && patient, err
	case labmesh.Unavailable, labmesh.Exhausted, labmesh.Internal:
		return patient && (r.q.Follow || r.opened), err
	}
	return false, err
}

// open makes a connection that goes on where the reader is.
func (r *LogReader) open() error {
	query := url.Values{"stream": {r.q.Stream}, "frames": {"1"}}
	if r.q.Attempt > 0 {
		query.Set("attempt", strconv.Itoa(r.q.Attempt))
	}
	if r.q.Follow {
		query.Set("follow", "1")
	}
	if r.q.After != (api.LogPosition{}) {
		query.Set("after", r.q.After.String())
	}
	req, err := r.c.request(r.ctx, http.MethodGet, taskPath(r.id)+"/logs", query, nil)
	if err != nil {
		return err
	}
	resp, err := r.c.http.Do(req)
	if err != nil {
		return r.c.unreached(r.ctx, err)
	}
	if resp.StatusCode != http.StatusOK {
		defer resp.Body.Close()
		return refusalOf(resp)
	}
	if got := resp.Header.Get("Content-Type"); got != api.LogFramesType {
		resp.Body.Close()
		return labmesh.Refuse(labmesh.Invalid, "the node answers with output as %q and not in frames: it is of another version than this program", got)
	}
	r.body, r.frames, r.opened, r.heard = resp.Body, api.NewLogFrames(resp.Body), true, false
	if r.q.Follow {
		r.silence = time.AfterFunc(logSilenceMax, func() { resp.Body.Close() })
	}
	return nil
}
