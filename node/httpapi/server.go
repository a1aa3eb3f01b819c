package httpapi

import (
	"log/slog"
	"net/http"
	"time"
)

// Limits of the HTTP server. A route that needs longer says so itself; see
// patience.
const (
	headerWait     = 10 * time.Second
	requestWait    = 30 * time.Second
	idleWait       = 2 * time.Minute
	headerBytesMax = 64 << 10
)

// NewServer makes a server for a that slow or silent callers cannot hold up. The
// caller serves on it and shuts it down; a shutdown ends the streams.
func NewServer(a *API) *http.Server {
	s := &http.Server{
		Handler:           a,
		ReadHeaderTimeout: headerWait,
		ReadTimeout:       requestWait,
		WriteTimeout:      requestWait,
		IdleTimeout:       idleWait,
		MaxHeaderBytes:    headerBytesMax,
		ErrorLog:          slog.NewLogLogger(a.log.Handler(), slog.LevelDebug),
	}
	s.RegisterOnShutdown(a.EndStreams)
	return s
}
