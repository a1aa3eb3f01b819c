package httpapi

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httputil"
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"labmesh"
	"labmesh/api"
)

// ReplicaHeader names the replica that answered for a leaf.
const ReplicaHeader = "X-Labmesh-Replica"

// Limits of the way to a replica.
const (
	leafIdleConns  = 32
	leafIdleWait   = time.Minute
	leafStatusSize = 4 << 20 // of the status that a replica gives
)

// LeafConfig says what a [Leaf] is made of.
type LeafConfig struct {
	Status func() Status                               // what the leaf knows itself
	Ready  func() error                                // nil when a replica answers for it
	Dial   func(ctx context.Context) (net.Conn, error) // opens a stream to a replica, for HTTP

	Logger       *slog.Logger
	Version      string
	LoopbackOnly bool // as in [Config]
	Collectors   []prometheus.Collector
}

// Leaf answers HTTP requests on a node that holds no copy of the log: it has a
// replica answer them, which finds out who asks as well. Whether the node is alive and ready,
// and its figures, it says itself.
type Leaf struct {
	cfg       LeafConfig
	hosts     hostGuard
	metrics   *metrics
	transport *http.Transport
	proxy     *httputil.ReverseProxy
	ended     context.Context // over when streams are to end
	end       context.CancelFunc
}

// NewLeaf makes the API of a leaf.
func NewLeaf(c LeafConfig) (*Leaf, error) {
	l := &Leaf{cfg: c, hosts: newHostGuard(c.LoopbackOnly, nil)}
	l.ended, l.end = context.WithCancel(context.Background())
	var err error
	if l.metrics, err = newMetrics(leafStatus(c.Status), c.Version, c.Collectors); err != nil {
		return nil, fmt.Errorf("make the HTTP API: %w", err)
	}
	l.transport = &http.Transport{
		DialContext:         func(ctx context.Context, _, _ string) (net.Conn, error) { return c.Dial(ctx) },
		MaxIdleConnsPerHost: leafIdleConns, IdleConnTimeout: leafIdleWait, DisableCompression: true,
	}
	l.proxy = &httputil.ReverseProxy{
		Rewrite:        rewrite,
		Transport:      l.transport,
		FlushInterval:  -1, // events and logs are read as they come
		ModifyResponse: l.amend,
		ErrorHandler:   l.fail,
		ErrorLog:       slog.NewLogLogger(c.Logger.Handler(), slog.LevelDebug),
	}
	return l, nil
}

// leafStatus shows a leaf's status to its figures.
type leafStatus func() Status

// Status is what the leaf knows itself.
func (f leafStatus) Status(context.Context) Status { return f() }

// rewrite sends a request to whichever replica is dialled.
func rewrite(r *httputil.ProxyRequest) {
	r.Out.URL.Scheme, r.Out.URL.Host, r.Out.Host = "http", "localhost", "localhost"
	r.SetXForwarded()
}

// EndStreams ends what is passed on, and refuses more.
func (l *Leaf) EndStreams() {
	l.end()
	l.transport.CloseIdleConnections()
}

// ServeHTTP answers one request.
func (l *Leaf) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	began := time.Now()
	sw := &statusWriter{ResponseWriter: w}
	name := "forwarded"
	defer func() { l.metrics.count(name, r.Method, sw.status, time.Since(began), name == "forwarded") }()
	if !l.hosts.allows(r.Host) {
		refuse(sw, labmesh.Refuse(labmesh.Denied, "the Host %.100q is not allowed here; reach this node by localhost", r.Host))
		return
	}
	if get := r.Method == http.MethodGet || r.Method == http.MethodHead; get && r.URL.Path == "/healthz" {
		name = r.URL.Path
		writeJSON(sw, http.StatusOK, api.Health{OK: true})
		return
	} else if get && r.URL.Path == "/readyz" {
		name = r.URL.Path
		l.readyz(sw)
		return
	} else if get && r.URL.Path == "/metrics" && !l.permits(sw, r) {
		return
	} else if get && r.URL.Path == "/metrics" {
		name = r.URL.Path
		_ = l.metrics.serve(sw, r, Caller{}) // it never errs
		return
	}
	l.forward(sw, r)
}

func (l *Leaf) readyz(w http.ResponseWriter) {
	if err := l.cfg.Ready(); err != nil {
		w.Header().Set("Retry-After", wholeSeconds(retryUnavailable))
		writeJSON(w, http.StatusServiceUnavailable, api.Health{Reason: err.Error()})
		return
	}
	writeJSON(w, http.StatusOK, api.Health{OK: true})
}

// forward has a replica answer. How long that may take is for the replica to
// say: it reads and writes under its own limits.
func (l *Leaf) forward(w http.ResponseWriter, r *http.Request) {
	rc := http.NewResponseController(w)
	_ = rc.SetReadDeadline(time.Time{}) // a recorder in a test has none
	_ = rc.SetWriteDeadline(time.Time{})
	ctx, cancel := context.WithCancel(r.Context())
	defer cancel()
	defer context.AfterFunc(l.ended, cancel)()
	l.proxy.ServeHTTP(w, r.WithContext(ctx))
}

// permits asks a replica whether whoever sends r may see figures, and answers r
// when it may not.
func (l *Leaf) permits(w http.ResponseWriter, r *http.Request) bool {
	ask, err := http.NewRequestWithContext(r.Context(), http.MethodHead, "http://localhost/metrics", http.NoBody)
	if err != nil {
		l.fail(w, r, err)
		return false
	}
	ask.Header.Set("X-API-Key", credentialOf(r))
	reply, err := l.transport.RoundTrip(ask)
	if err != nil {
		l.fail(w, r, err)
		return false
	}
	_ = reply.Body.Close() // of a HEAD there is none
	switch reply.StatusCode {
	case http.StatusOK:
		return true
	case http.StatusForbidden:
		refuse(w, labmesh.Refuse(labmesh.Denied, "The role of this key may not see figures"))
	case http.StatusUnauthorized:
		w.Header().Set("WWW-Authenticate", `Bearer realm="labmesh"`)
		writeJSON(w, http.StatusUnauthorized, &api.Error{Message: "Authentication required", Reason: labmesh.Denied})
	default:
		refuse(w, labmesh.Refuse(labmesh.Unavailable, "the replica that was asked cannot tell who you are just now"))
	}
	return false
}

// amend makes a replica's status that of this leaf.
func (l *Leaf) amend(r *http.Response) error {
	replica := r.Header.Get(ReplicaHeader)
	if r.Request.URL.Path != "/status" || r.Request.Method != http.MethodGet || r.StatusCode != http.StatusOK {
		return nil
	}
	body, err := io.ReadAll(io.LimitReader(r.Body, leafStatusSize))
	err = errors.Join(err, r.Body.Close())
	var s api.Status
	if err == nil {
		err = json.Unmarshal(body, &s)
	}
	if err != nil {
		return fmt.Errorf("read the status of a replica: %w", err)
	}
	own := l.cfg.Status()
	s.Node, s.Role, s.Version, s.Uptime, s.Via = own.Node, own.Role, own.Version, own.Uptime.Seconds(), labmesh.NodeID(replica)
	if body, err = json.Marshal(s); err != nil {
		return err
	}
	r.Body = io.NopCloser(bytes.NewReader(append(body, '\n')))
	r.ContentLength = int64(len(body) + 1)
	r.Header.Set("Content-Length", strconv.Itoa(len(body)+1))
	return nil
}

// fail answers a request that no replica answered.
func (l *Leaf) fail(w http.ResponseWriter, r *http.Request, err error) {
	l.cfg.Logger.DebugContext(r.Context(), "a request was not answered by a replica", "method", r.Method, "path", r.URL.Path, "err", err)
	refuse(w, labmesh.Refuse(labmesh.Unavailable, "no replica of the mesh answered; it is not known whether what was asked for was done: try again"))
}

// refuse answers a request with a refusal.
func refuse(w http.ResponseWriter, e *labmesh.Error) {
	if e.Reason == labmesh.Unavailable {
		w.Header().Set("Retry-After", wholeSeconds(retryUnavailable))
	}
	writeJSON(w, statusOf(e.Reason), &api.Error{Message: e.Message, Reason: e.Reason})
}
