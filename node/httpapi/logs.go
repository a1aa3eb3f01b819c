package httpapi

import (
	"net/http"
	"net/url"
	"strconv"
	"sync"
	"time"

	"labmesh"
	"labmesh/api"
)

const (
	logPieceWait   = 30 * time.Second // for a caller to take one piece
	attemptNumbers = 1 << 20          // no task has more attempts
)

// logs copies one stream of a task's output to the caller. A reply that ends
// well is whole; where the output broke off, the connection is cut.
func (a *API) logs(w http.ResponseWriter, r *http.Request, c Caller) error {
	req, frames, err := logRequest(r.URL.Query())
	if err != nil {
		return err
	}
	if req.Task, err = a.visibleID(r, c); err != nil {
		return err
	}
	ctx, release, err := a.openStream(r)
	if err != nil {
		return err
	}
	defer release()
	out := &logWriter{sw: newStreamWriter(w, logPieceWait), frames: frames, flush: req.Follow}
	stop := func() {}
	if req.Follow && frames {
		stop = out.stayAlive(a.limits.Heartbeat)
		defer stop()
	}
	err = a.svc.Logs(ctx, req, out.send)
	if stop(); err == nil {
		err = out.send(api.LogFrame{Kind: api.LogEnd})
	}
	switch {
	case err != nil && !out.begun:
		return rename(err, taskNotFound)
	case err != nil:
		if ctx.Err() == nil {
			a.log.WarnContext(ctx, "log broke off", "task", req.Task, "stream", req.Stream, "err", err)
		}
		panic(http.ErrAbortHandler)
	}
	return nil
}

// logWriter writes output to a caller, as text or in frames.
type logWriter struct {
	frames bool
	flush  bool // each piece is to leave at once

	mu    sync.Mutex
	sw    *streamWriter
	begun bool
	buf   []byte
}

func (l *logWriter) send(f api.LogFrame) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.begun {
		l.begun = true
		h := l.sw.w.Header()
		h.Set("Content-Type", "text/plain; charset=utf-8")
		if l.frames {
			h.Set("Content-Type", api.LogFramesType)
		}
		h.Set("Cache-Control", "no-store")
	}
	text := f.Text()
	if l.frames {
		l.buf = f.AppendTo(l.buf[:0])
		text = l.buf
	}
	if l.flush {
		return l.sw.send(text)
	}
	if len(text) == 0 {
		return nil
	}
	_, err := l.sw.Write(text)
	return err
}

// stayAlive sends a sign of life from time to time, once there was a first word.
// What it returns ends and joins that; it is
// safe twice.
func (l *logWriter) stayAlive(every time.Duration) (stop func()) {
	quit := make(chan struct{})
	var beating sync.WaitGroup
	beating.Go(func() {
		tick := time.NewTicker(every)
		defer tick.Stop()
		for {
			select {
			case <-tick.C:
				l.mu.Lock()
				begun := l.begun
				l.mu.Unlock()
				if begun && l.send(api.LogFrame{Kind: api.LogStill}) != nil {
					return // whoever sends output will notice too
				}
			case <-quit:
				return
			}
		}
	})
	return sync.OnceFunc(func() { close(quit); beating.Wait() })
}

// logRequest reads the query parameters of a request for output.
func logRequest(q url.Values) (req LogRequest, frames bool, err error) {
	req.Stream = q.Get("stream")
	orElse(&req.Stream, "stdout")
	if req.Stream != "stdout" && req.Stream != "stderr" {
		return req, false, labmesh.RefuseField("stream", "stream: %.40q is not one of stdout, stderr", req.Stream)
	}
	if q.Has("attempt") {
		req.Attempt, err = strconv.Atoi(q.Get("attempt"))
		if err != nil || req.Attempt < 0 || req.Attempt > attemptNumbers {
			return req, false, labmesh.RefuseField("attempt", "attempt: %.40q is not the number of an attempt", q.Get("attempt"))
		}
	}
	if q.Has("after") {
		if req.After, err = api.ParseLogPosition(q.Get("after")); err != nil {
			return req, false, err
		}
	}
	for name, flag := range map[string]*bool{"follow": &req.Follow, "frames": &frames} {
		if q.Has(name) {
			if *flag, err = strconv.ParseBool(q.Get(name)); err != nil {
				return req, false, labmesh.RefuseField(name, "%s: %.40q is not 1 or 0", name, q.Get(name))
			}
		}
	}
	return req, frames, nil
}
