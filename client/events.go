package client

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	"labmesh"
	"labmesh/api"
)

// Limits on an event stream.
const (
	eventBytesMax = 4 << 20
	// eventSilenceMax is how long a stream may be silent before it counts as
	// lost. Nodes send a comment more often than that.
	eventSilenceMax = time.Minute
)

// Events calls each with every event after the one with the id after, in order;
// "" means from now on. It blocks until ctx ends or each returns an error, and
// takes the stream up again where it was when the connection is lost. Events
// older than what the node remembers are refused with reason NotFound.
func (c *Client) Events(ctx context.Context, after string, each func(api.Event) error) error {
	s := eventStream{c: c, last: after, each: each}
	return s.run(ctx)
}

// Feed is Events from now on, for whoever must know what was missed: opened is
// called with each connection, before its first event, and says whether events
// may have been missed before it.
func (c *Client) Feed(ctx context.Context, opened func(gap bool), each func(api.Event) error) error {
	s := eventStream{c: c, each: each, opened: opened}
	return s.run(ctx)
}

// eventStream follows the events of a node over as many connections as it takes.
type eventStream struct {
	c    *Client
	last string // id of the last event that was seen
	each func(api.Event) error
	// opened, if set, is told of each connection; gap says that events may have
	// been missed before it.
	opened func(gap bool)
	failed func() // if set, is told of each try that came to nothing
	conns  int
}

// errHandler is an error of the function that takes the events.
type errHandler struct{ error }

func (e errHandler) Unwrap() error { return e.error }

func (s *eventStream) run(ctx context.Context) error {
	lost := time.Now()
	for n := 0; ; n++ {
		alive, err := s.once(ctx)
		if !alive && s.failed != nil {
			s.failed()
		}
		var own errHandler
		switch {
		case errors.As(err, &own):
			return own.error
		case ctx.Err() != nil:
			return context.Cause(ctx)
		case final(err) && (s.conns == 0 || labmesh.ReasonOf(err) != labmesh.Denied):
			return err // but a node that restarts may not know its keys yet
		case alive:
			lost, n = time.Now(), 0
		}
		wait := min(retryWaitMin<<min(n, 6), retryWaitMax)
		if time.Since(lost)+wait > s.c.cfg.Patience {
			return err
		}
		if !sleep(ctx, wait) {
			return context.Cause(ctx)
		}
	}
}

// final says that asking again would give the same answer.
func final(err error) bool {
	switch labmesh.ReasonOf(err) {
	case labmesh.Denied, labmesh.NotFound, labmesh.Invalid, labmesh.Conflict:
		return true
	}
	return false
}

// once follows one connection to its end. alive says that there was one.
func (s *eventStream) once(ctx context.Context) (alive bool, err error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	req, err := s.c.request(ctx, http.MethodGet, "/api/events", nil, nil)
	if err != nil {
		return false, err
	}
	req.Header.Set("Accept", "text/event-stream")
	resumed := s.last != ""
	if resumed {
		req.Header.Set("Last-Event-ID", s.last)
	}
	silence := time.AfterFunc(eventSilenceMax, cancel)
	defer silence.Stop()
	resp, err := s.c.http.Do(req)
	if err != nil {
		return false, s.c.unreached(ctx, err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return false, refusalOf(resp)
	}
	s.conns++
	if s.opened != nil {
		s.opened(s.conns > 1 && !resumed)
	}
	err = s.read(resp.Body, func() { silence.Reset(eventSilenceMax) })
	return true, err
}

// read takes server-sent events from r until it ends.
func (s *eventStream) read(r io.Reader, heard func()) error {
	lines := bufio.NewScanner(r)
	lines.Buffer(make([]byte, 64<<10), eventBytesMax)
	var id, data string
	for lines.Scan() {
		heard()
		line := lines.Text()
		field, value, _ := strings.Cut(line, ":")
		value = strings.TrimPrefix(value, " ")
		switch {
		case line == "":
			if err := s.dispatch(id, data); err != nil {
				return err
			}
			id, data = "", ""
		case field == "id":
			id = value
		case field == "data" && data == "":
			data = value
		case field == "data":
			data += "\n" + value
		}
	}
	if err := lines.Err(); err != nil {
		return labmesh.Refuse(labmesh.Unavailable, "the event stream of %s broke off: %v", s.c.URL(), err)
	}
	return labmesh.Refuse(labmesh.Unavailable, "the event stream of %s ended", s.c.URL())
}

func (s *eventStream) dispatch(id, data string) error {
	if data != "" {
		var ev api.Event
		if err := json.Unmarshal([]byte(data), &ev); err != nil {
			return errHandler{fmt.Errorf("decode an event of %s: %w", s.c.URL(), err)}
		}
		if err := s.each(ev); err != nil {
			return errHandler{err}
		}
	}
	if id != "" {
		s.last = id
	}
	return nil
}
