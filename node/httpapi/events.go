package httpapi

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sync/semaphore"

	"labmesh"
	"labmesh/api"
)

const (
	eventQueueMax   = 1024     // events that wait for one reader
	eventQueueBytes = 8 << 20  // the same in bytes
	eventBytesMax   = 2 << 20  // of one event; clients take twice that
	eventMessages   = 1 << 20  // bytes of the messages of test cases in an event that would be larger
	eventPieceBytes = 64 << 10 // written at once
	reconnectAfter  = "1000"   // ms that a browser waits before it comes back
	// refusalWait is how long the first word may take on whether the events
	// asked for are still remembered, so that a refusal has its status code.
	refusalWait = 200 * time.Millisecond
)

var errSlowReader = errors.New("the reader is too slow")

// events streams what happens. Whoever reads too slowly is dropped and may come
// back with the last id it saw; the mesh waits for nobody.
func (a *API) events(w http.ResponseWriter, r *http.Request, c Caller) error {
	after, err := lastEventID(r)
	if err != nil {
		return err
	}
	ctx, release, err := a.openStream(r)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	q := &eventQueue{
		ctx: ctx, ready: make(chan []byte, eventQueueMax), room: semaphore.NewWeighted(eventQueueBytes),
		ended: make(chan struct{}), wait: a.limits.SlowReader,
	}
	if c.Confined() {
		q.only = newScope(a.svc, c)
	}
	go q.fill(a.svc, after)
	defer func() {
		cancel()
		<-q.ended
		release()
	}()
	first, err := q.first(after)
	if err != nil {
		return err
	}
	h := w.Header()
	h.Set("Content-Type", "text/event-stream")
	h.Set("Cache-Control", "no-store")
	h.Set("X-Accel-Buffering", "no")
	err = q.drain(newStreamWriter(w, a.limits.SlowReader), first, a.limits.Heartbeat)
	if err != nil && (ctx.Err() == nil || tooSlow(err)) { // a caller who leaves is no news
		a.log.WarnContext(ctx, "event stream cut", "remote", r.RemoteAddr, "err", err)
	}
	return nil
}

// tooSlow reports whether err says that a reader stood still. The server ends
// the context of a request whose reply it cannot write, so that does not tell.
func tooSlow(err error) bool {
	return errors.Is(err, errSlowReader) || errors.Is(err, os.ErrDeadlineExceeded)
}

// eventQueue stands between the mesh, which tells, and one reader.
type eventQueue struct {
	ctx   context.Context
	ready chan []byte         // events in the form of the wire
	room  *semaphore.Weighted // bytes that may wait
	ended chan struct{}
	err   error // why there are no more events; read it after ended is closed
	wait  time.Duration
	only  *scope // what the reader may see; nil for all
}

// fill puts events into the queue until there are no more.
func (q *eventQueue) fill(svc Service, after EventID) {
	defer close(q.ended)
	q.err = svc.Events(q.ctx, after, q.put)
}

// put waits for room no longer than a reader may stand still.
func (q *eventQueue) put(e labmesh.Event) error {
	if q.only != nil {
		if ok, err := q.only.holds(q.ctx, &e); !ok {
			return err
		}
	}
	data, err := encodeEvent(&e)
	if err != nil {
		return err
	}
	if q.room.TryAcquire(int64(len(data))) {
		select {
		case q.ready <- data:
			return nil
		default:
			q.room.Release(int64(len(data)))
		}
	}
	ctx, cancel := context.WithTimeoutCause(q.ctx, q.wait, errSlowReader)
	defer cancel()
	if err := q.room.Acquire(ctx, int64(len(data))); err != nil {
		return context.Cause(ctx)
	}
	select {
	case q.ready <- data:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// taken makes room for more events once data has left the queue.
func (q *eventQueue) taken(data []byte) []byte {
	q.room.Release(int64(len(data)))
	return data
}

// first waits a moment for a refusal, where there may be one. It gives the
// event that came in its place, if one did.
func (q *eventQueue) first(after EventID) ([]byte, error) {
	if after == (EventID{}) {
		return nil, nil
	}
	t := time.NewTimer(refusalWait)
	defer t.Stop()
	select {
	case data := <-q.ready:
		return q.taken(data), nil
	case <-t.C:
		return nil, nil
	case <-q.ended:
		if len(q.ready) > 0 {
			return nil, nil
		}
		return nil, q.err
	}
}

// drain writes what is in the queue until the reader or the events end.
func (q *eventQueue) drain(sw *streamWriter, first []byte, every time.Duration) error {
	var piece bytes.Buffer
	piece.WriteString("retry: " + reconnectAfter + "\n\n")
	piece.Write(first)
	beat := time.NewTicker(every)
	defer beat.Stop()
	for {
		q.gather(&piece)
		if err := sw.send(piece.Bytes()); err != nil {
			return fmt.Errorf("write events: %w", err)
		}
		piece.Reset()
		select {
		case data := <-q.ready:
			piece.Write(q.taken(data))
		case <-beat.C:
			piece.WriteString(": heartbeat\n\n")
		case <-q.ctx.Done():
			return nil
		case <-q.ended:
			if q.gather(&piece); piece.Len() > 0 {
				continue
			}
			return q.err
		}
	}
}

// gather adds to piece what is ready, up to the size of one write.
func (q *eventQueue) gather(piece *bytes.Buffer) {
	for piece.Len() < eventPieceBytes {
		select {
		case data := <-q.ready:
			piece.Write(q.taken(data))
		default:
			return
		}
	}
}

// encodeEvent is e in the form of the wire. JSON has no line breaks here, so
// one data line holds it.
func encodeEvent(e *labmesh.Event) ([]byte, error) {
	out := eventData(e)
	data, err := json.Marshal(out)
	switch {
	case err != nil || len(data) <= eventBytesMax:
	case out.Tests != nil:
		data, err = encodeFewer(out)
	case out.Bench != nil:
		data, err = encodeFewerRows(out)
	}
	if err != nil {
		return nil, fmt.Errorf("encode event %s: %w", eventID(e.Index, e.N), err)
	}
	return fmt.Appendf(nil, "id: %s\nevent: %s\ndata: %s\n\n", eventID(e.Index, e.N), e.Type, data), nil
}

// encodeFewer is an event whose test cases are too large for one: their messages
// are cut, and if that does not do the last of them are left out.
func encodeFewer(e api.Event) ([]byte, error) {
	t := *e.Tests
	e.Tests = &t
	t.Cases = slices.Clone(t.Cases)
	each := eventMessages / len(t.Cases)
	for i := range t.Cases {
		if m := &t.Cases[i].Message; len(*m) > each {
			*m = strings.ToValidUTF8((*m)[:each], "") + " …"
		}
	}
	for {
		data, err := json.Marshal(e)
		if err != nil || len(data) <= eventBytesMax || len(t.Cases) == 0 {
			return data, err
		}
		left := len(t.Cases) / 2
		t.Omitted += len(t.Cases) - left
		t.Cases = t.Cases[:left]
	}
}

// encodeFewerRows is an event whose rows of a benchmark are too large for one:
// they go without their fingerprints, and if that does not do the last of them
// are left out.
func encodeFewerRows(e api.Event) ([]byte, error) {
	b := *e.Bench
	e.Bench = &b
	b.Rows = slices.Clone(b.Rows)
	b.EnvOmitted = true
	for i := range b.Rows {
		b.Rows[i].Env = nil
	}
	for {
		data, err := json.Marshal(e)
		if err != nil || len(data) <= eventBytesMax || len(b.Rows) == 0 {
			return data, err
		}
		left := len(b.Rows) / 2
		b.Omitted += len(b.Rows) - left
		b.Rows = b.Rows[:left]
	}
}

// lastEventID is the event after which r wants to go on.
func lastEventID(r *http.Request) (EventID, error) {
	s := r.Header.Get("Last-Event-ID")
	orElse(&s, r.URL.Query().Get("last_event_id")) // for what cannot set a header
	if s == "" {
		return EventID{}, nil
	}
	index, n, _ := strings.Cut(s, "-")
	i, err := strconv.ParseUint(index, 10, 64)
	k, err2 := strconv.ParseUint(n, 10, 31)
	if err != nil || err2 != nil {
		return EventID{}, labmesh.RefuseField("Last-Event-ID", "Last-Event-ID: %.40q is not <log index>-<n>", s)
	}
	return EventID{Index: i, N: int(k)}, nil
}
