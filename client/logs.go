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
)

// The streams of a task's output.
const (
	Stdout = "stdout"
	Stderr = "stderr"
)

// logWaitMax is the longest pause before asking again for output that is not
// there yet.
const logWaitMax = time.Second

// LogQuery says which output of a task to read.
type LogQuery struct {
	Stream  string // [Stdout] or [Stderr]
	Attempt int    // 0 for the newest
	Follow  bool   // wait for more until the task ends; also when it has not started yet
}

// Logs reads the output of a task. A reader that follows begins when the task
// does and comes back by itself when its connection is lost, at the byte where
// it was. It is for one goroutine; Close it. It ends with ctx.
func (c *Client) Logs(ctx context.Context, id labmesh.TaskID, q LogQuery) (io.ReadCloser, error) {
	ctx, cancel := context.WithCancel(ctx)
	r := &logReader{c: c, ctx: ctx, cancel: cancel, id: id, q: q, lost: time.Now()}
	if q.Follow { // which attempt it is tells, after a lost connection, whether there is a newer one
		t, err := c.Task(ctx, id)
		if err != nil {
			cancel()
			return nil, err
		}
		r.attempt = max(t.Attempts, 1)
	}
	if err := r.reopen(); err != nil {
		cancel()
		return nil, err
	}
	return r, nil
}

// logReader reads one stream of a task over as many connections as it takes.
type logReader struct {
	c       *Client
	ctx     context.Context
	cancel  context.CancelFunc
	id      labmesh.TaskID
	q       LogQuery
	attempt int

	body   io.ReadCloser // nil between connections
	opened bool          // there was a connection

	at   int64     // bytes of the attempt's output that were read
	lost time.Time // when the last byte came
	done error     // how it ended
}

func (r *logReader) Read(p []byte) (int, error) {
	for r.done == nil {
		if r.body == nil {
			if r.done = r.reopen(); r.done != nil {
				break
			}
		}
		n, err := r.body.Read(p)
		r.at += int64(n)
		if n > 0 {
			r.lost = time.Now()
		}
		switch {
		case errors.Is(err, io.EOF):
			r.done = io.EOF
		case err != nil:
			r.drop()
			if r.ctx.Err() != nil {
				r.done = context.Cause(r.ctx)
			}
		}
		if n > 0 {
			return n, nil
		}
	}
	return 0, r.done
}

// Close ends the reader. It is safe twice.
func (r *logReader) Close() error {
	r.cancel()
	r.drop()
	if r.done == nil {
		r.done = errors.New("read logs: it is closed")
	}
	return nil
}

func (r *logReader) drop() {
	if r.body != nil {
		r.body.Close() // it is being given up
		r.body = nil
	}
}

// reopen asks for the stream until it is there, and goes to where reading was.
func (r *logReader) reopen() error {
	for n := 0; ; n++ {
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
		if !sleep(r.ctx, min(retryWaitMin<<min(n, 6), logWaitMax)) {
			return context.Cause(r.ctx)
		}
	}
}

// again decides whether to ask once more after err. Output that is not there
// may come for as long as the task has not ended.
func (r *logReader) again(err error) (bool, error) {
	patient := time.Since(r.lost) < r.c.cfg.Patience
	switch labmesh.ReasonOf(err) {
	case labmesh.NotFound:
		if !r.q.Follow {
			return false, err
		}
		t, terr := r.c.Task(r.ctx, r.id)
		switch {
		case terr != nil:
			return r.opened && patient, terr
		case t.Status.Final():
			return false, err
		}
		r.lost = time.Now()
		return true, nil
	case labmesh.Denied: // a node that restarts may not know its keys yet
		return r.opened && patient, err
	case labmesh.Unavailable, labmesh.Exhausted, labmesh.Internal:
		return patient && (r.q.Follow || r.at > 0), err
	}
	return false, err
}

// open makes a connection and skips what was read before.
func (r *logReader) open() error {
	if r.at > 0 && r.q.Follow && r.q.Attempt == 0 {
		t, err := r.c.Task(r.ctx, r.id)
		if err != nil {
			return err
		}
		if t.Attempts > r.attempt { // a newer attempt begins anew
			r.attempt, r.at = t.Attempts, 0
		}
	}
	query := url.Values{"stream": {r.q.Stream}}
	if r.q.Attempt > 0 {
		query.Set("attempt", strconv.Itoa(r.q.Attempt))
	}
	if r.q.Follow {
		query.Set("follow", "1")
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
	if _, err := io.CopyN(io.Discard, resp.Body, r.at); err != nil && !errors.Is(err, io.EOF) {
		resp.Body.Close() // it was lost
		return labmesh.Refuse(labmesh.Unavailable, "take up the output of %s at byte %d: %v", r.id, r.at, err)
	}
	r.body, r.opened = resp.Body, true
	return nil
}
