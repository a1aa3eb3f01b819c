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

// Door answers HTTP requests.
type Door interface {
	http.Handler
	// EndStreams ends all that lasts until the caller leaves, and refuses more of it. It is safe twice.
	EndStreams()
}

// NewServer makes a server for d that slow or silent callers cannot hold up. The
// caller serves on it and shuts it down; a shutdown ends the streams.
func NewServer(d Door, logger *slog.Logger) *http.Server {
	s := &http.Server{
		Handler:           d,
		ReadHeaderTimeout: headerWait,
		ReadTimeout:       requestWait,
		WriteTimeout:      requestWait,
		IdleTimeout:       idleWait,
		MaxHeaderBytes:    headerBytesMax,
		ErrorLog:          slog.NewLogLogger(logger.Handler(), slog.LevelDebug),
	}
	s.RegisterOnShutdown(d.EndStreams)
	return s
}
