package httpapi

import (
	"context"
	"net/http"
	"time"

	"labmesh"
)

// openStream makes room for one more stream. The context ends when the caller
// leaves or the server shuts down; release gives the room back.
func (a *API) openStream(r *http.Request) (ctx context.Context, release func(), err error) {
	if a.ended.Err() != nil {
		return nil, nil, labmesh.Refuse(labmesh.Unavailable, "This node is shutting down")
	}
	select {
	case a.streams <- struct{}{}:
	default:
		return nil, nil, labmesh.Refuse(labmesh.Exhausted, "%d streams are open here; that is the limit of one node", cap(a.streams))
	}
	a.metrics.streams.Inc()
	ctx, cancel := context.WithCancel(r.Context())
	stop := context.AfterFunc(a.ended, cancel)
	return ctx, func() {
		stop()
		cancel()
		a.metrics.streams.Dec()
		<-a.streams
	}, nil
}

// streamWriter writes to a caller who has a bounded time to take each piece.
type streamWriter struct {
	w    http.ResponseWriter
	rc   *http.ResponseController
	wait time.Duration
}

func newStreamWriter(w http.ResponseWriter, wait time.Duration) *streamWriter {
	return &streamWriter{w, http.NewResponseController(w), wait}
}

func (s *streamWriter) Write(p []byte) (int, error) {
	_ = s.rc.SetWriteDeadline(time.Now().Add(s.wait)) // a recorder in a test has none
	return s.w.Write(p)
}

// send writes p and sees to it that it leaves.
func (s *streamWriter) send(p []byte) error {
	if len(p) > 0 {
		if _, err := s.Write(p); err != nil {
			return err
		}
	}
	return s.rc.Flush()
}
