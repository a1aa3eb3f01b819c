package httpapi

import (
	"encoding/json"
	"errors"
	"net/http"
	"strconv"
	"time"

	"labmesh"
	"labmesh/api"
)

// How long a caller is told to wait before it tries again.
const (
	retryUnavailable = 1 * time.Second // an election takes about half of it
	retryExhausted   = 2 * time.Second // some of the queue has drained
)

// statusOf is the HTTP status of a refusal.
func statusOf(r labmesh.Reason) int {
	switch r {
	case labmesh.Invalid:
		return http.StatusBadRequest
	case labmesh.NotFound:
		return http.StatusNotFound
	case labmesh.Conflict:
		return http.StatusConflict
	case labmesh.Denied:
		return http.StatusForbidden
	case labmesh.TooLarge:
		return http.StatusRequestEntityTooLarge
	case labmesh.Exhausted:
		return http.StatusTooManyRequests
	case labmesh.Unavailable:
		return http.StatusServiceUnavailable
	}
	return http.StatusInternalServerError
}

// fail answers a request with err. What is not a refusal is our fault: the
// caller gets an id, and the log has the rest under it.
func (a *API) fail(w http.ResponseWriter, r *http.Request, err error) {
	if r.Context().Err() != nil && errors.Is(err, r.Context().Err()) {
		a.log.DebugContext(r.Context(), "caller left", "method", r.Method, "path", r.URL.Path)
		err = labmesh.Refuse(labmesh.Unavailable, "the request was given up")
	}
	var refused *labmesh.Error
	if !errors.As(err, &refused) || refused.Reason == labmesh.Internal {
		id := requestID(w)
		a.log.ErrorContext(r.Context(), "request went wrong", "method", r.Method, "path", r.URL.Path, "request_id", id, "err", err)
		writeJSON(w, http.StatusInternalServerError, &api.Error{
			Message: "Internal error", Reason: labmesh.Internal, RequestID: id,
		})
		return
	}
	switch refused.Reason {
	case labmesh.Unavailable:
		w.Header().Set("Retry-After", wholeSeconds(retryUnavailable))
	case labmesh.Exhausted:
		w.Header().Set("Retry-After", wholeSeconds(retryExhausted))
	}
	writeJSON(w, statusOf(refused.Reason), &api.Error{Message: refused.Message, Reason: refused.Reason, Field: refused.Field})
}

// reply answers a request with v. It encodes first, so that a value that cannot
// be encoded is an error and not half a reply.
func (a *API) reply(w http.ResponseWriter, r *http.Request, v any) error {
	data, err := json.Marshal(v)
	if err != nil {
		return err
	}
	writeBody(w, http.StatusOK, data)
	return nil
}

func writeJSON(w http.ResponseWriter, status int, v any) {
	data, err := json.Marshal(v)
	if err != nil { // an api.Error always encodes
		data = []byte(`{"error":"Internal error","reason":"internal"}`)
	}
	writeBody(w, status, data)
}

func writeBody(w http.ResponseWriter, status int, data []byte) {
	h := w.Header()
	h.Set("Content-Type", "application/json")
	h.Set("Content-Length", strconv.Itoa(len(data)+1))
	w.WriteHeader(status)
	_, _ = w.Write(append(data, '\n')) // a caller who has left is not our concern
}

func wholeSeconds(d time.Duration) string {
	return strconv.Itoa(int((d + time.Second - 1) / time.Second))
}

// rename gives a refusal for a missing thing the words of the contract.
func rename(err error, message string) error {
	if labmesh.ReasonOf(err) == labmesh.NotFound {
		return labmesh.Refuse(labmesh.NotFound, "%s", message)
	}
	return err
}
