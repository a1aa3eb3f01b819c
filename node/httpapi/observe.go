package httpapi

import (
	"log/slog"
	"math/rand/v2"
	"net/http"
	"runtime/debug"
	"strconv"
	"time"

	"labmesh"
	"labmesh/api"
)

// statusWriter remembers what was answered.
type statusWriter struct {
	http.ResponseWriter
	status int
}

// Unwrap lets http.ResponseController reach the connection.
func (w *statusWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }

func (w *statusWriter) WriteHeader(status int) {
	if w.status == 0 || w.status < 200 {
		w.status = status
	}
	w.ResponseWriter.WriteHeader(status)
}

func (w *statusWriter) Write(p []byte) (int, error) {
	if w.status == 0 {
		w.status = http.StatusOK
	}
	return w.ResponseWriter.Write(p)
}

// newRequestID names a request in the log. It need not be hard to guess.
func newRequestID() string { return strconv.FormatUint(rand.Uint64(), 36) }

func requestID(w http.ResponseWriter) string { return w.Header().Get("X-Request-Id") }

// caught answers a request whose handler panicked: one request is lost, the node is not.
func (a *API) caught(w *statusWriter, r *http.Request, p any) {
	id := requestID(w)
	a.log.ErrorContext(r.Context(), "request panicked", "method", r.Method, "path", r.URL.Path,
		"request_id", id, "panic", p, "stack", string(debug.Stack()))
	if w.status == 0 {
		writeJSON(w, http.StatusInternalServerError, &api.Error{Message: "Internal error", Reason: labmesh.Internal, RequestID: id})
	}
}

// observe counts a request that was answered, and notes it for whoever debugs.
func (a *API) observe(r *http.Request, w *statusWriter, rt *route, name string, took time.Duration) {
	a.metrics.count(name, r.Method, w.status, took, rt != nil && rt.stream)
	if a.log.Enabled(r.Context(), slog.LevelDebug) {
		a.log.DebugContext(r.Context(), "answered", "method", r.Method, "path", r.URL.Path,
			"status", w.status, "took", took, "request_id", requestID(w))
	}
}
