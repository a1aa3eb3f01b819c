package httpapi

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"sync"
	"time"

	"labmesh"
)

const (
	logPieceBytes  = 32 << 10         // read and written at once
	logPieceWait   = 30 * time.Second // for a caller to take one piece
	attemptNumbers = 1 << 20          // no task has more attempts
)

// logs copies the output of an attempt to the caller. A reply that ends well is
// whole; where the output broke off, the connection is cut.
func (a *API) logs(w http.ResponseWriter, r *http.Request, _ Caller) error {
	req, err := logRequest(r.URL.Query())
	if err != nil {
		return err
	}
	if req.Task, err = taskID(r); err != nil {
		return err
	}
	ctx, release, err := a.openStream(r)
	if err != nil {
		return err
	}
	defer release()
	out, err := a.svc.Logs(ctx, req)
	if err != nil {
		return rename(err, taskNotFound)
	}
	closeOut := sync.OnceValue(out.Close)
	defer closeOut() //nolint:errcheck // it was only read
	defer context.AfterFunc(ctx, func() { _ = closeOut() })()

	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.Header().Set("Cache-Control", "no-store")
	sw := newStreamWriter(w, logPieceWait)
	if req.Follow {
		if err := sw.send(nil); err != nil { // so that the caller knows it is attached
			return nil
		}
	}
	if err := copyLog(sw, out, req.Follow); err != nil {
		if ctx.Err() == nil {
			a.log.WarnContext(ctx, "log broke off", "task", req.Task, "stream", req.Stream, "err", err)
		}
		panic(http.ErrAbortHandler)
	}
	return nil
}

// copyLog copies until out ends. With flush each piece is sent when it is there.
func copyLog(sw *streamWriter, out io.Reader, flush bool) error {
	buf := make([]byte, logPieceBytes)
	for {
		n, err := out.Read(buf)
		if n > 0 {
			if _, werr := sw.Write(buf[:n]); werr != nil {
				return werr
			}
			if flush {
				if ferr := sw.rc.Flush(); ferr != nil {
					return ferr
				}
			}
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// logRequest reads the query parameters of a request for output.
func logRequest(q url.Values) (req LogRequest, err error) {
	req.Stream = q.Get("stream")
	orElse(&req.Stream, "stdout")
	if req.Stream != "stdout" && req.Stream != "stderr" {
		return req, labmesh.RefuseField("stream", "stream: %.40q is not one of stdout, stderr", req.Stream)
	}
	if q.Has("attempt") {
		req.Attempt, err = strconv.Atoi(q.Get("attempt"))
		if err != nil || req.Attempt < 0 || req.Attempt > attemptNumbers {
			return req, labmesh.RefuseField("attempt", "attempt: %.40q is not the number of an attempt", q.Get("attempt"))
		}
	}
	if q.Has("follow") {
		if req.Follow, err = strconv.ParseBool(q.Get("follow")); err != nil {
			return req, labmesh.RefuseField("follow", "follow: %.40q is not 1 or 0", q.Get("follow"))
		}
	}
	return req, nil
}
