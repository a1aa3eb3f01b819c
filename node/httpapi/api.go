package httpapi

import (
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"path"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"labmesh"
	"labmesh/api"
)

// Config says what an [API] is made of.
type Config struct {
	Service Service
	Logger  *slog.Logger
	Version string
	Limits  Limits

	// LoopbackOnly guards a node that listens on loopback against DNS
	// rebinding: the Host of a request must be localhost, a loopback address,
	// or one of AllowedHosts, with any port.
	LoopbackOnly bool
	AllowedHosts []string

	// Extra answers what no route here takes, outside /api/: a dashboard, a
	// WebSocket. It must see to authentication itself. It may be nil.
	Extra http.Handler
	// Collectors are shown at /metrics beside those of this package.
	Collectors []prometheus.Collector
	// Auditor is told what is done to the mesh; nil where nobody wants to know.
	Auditor Auditor
}

// Limits bound what requests may cost. What is zero is the default.
type Limits struct {
	BodyBytes  int64         // a request's body; [api.BodyBytesMax]
	BatchBytes int64         // a batch's body; [api.BatchBytesMax]
	BatchTasks int           // tasks in a batch; [api.BatchTasksMax]
	Request    time.Duration // to be read and answered, where a route does not take longer; 30 s
	Batches    int           // batches that are read at the same time; 4
	Streams    int           // event streams and followed logs at the same time; 256
	Heartbeat  time.Duration // between signs of life on an idle event stream; 15 s
	SlowReader time.Duration // how long an event stream may stand still before it is dropped; 5 s
}

func (l Limits) withDefaults() Limits {
	orElse(&l.BodyBytes, api.BodyBytesMax)
	orElse(&l.BatchBytes, api.BatchBytesMax)
	orElse(&l.BatchTasks, api.BatchTasksMax)
	orElse(&l.Request, 30*time.Second)
	orElse(&l.Batches, 4)
	orElse(&l.Streams, 256)
	orElse(&l.Heartbeat, 15*time.Second)
	orElse(&l.SlowReader, 5*time.Second)
	return l
}

func orElse[T comparable](p *T, def T) {
	var zero T
	if *p == zero {
		*p = def
	}
}

// API answers HTTP requests. It starts no goroutine that outlives a request.
type API struct {
	svc     Service
	log     *slog.Logger
	auditor Auditor
	wrong   wrongKeys
	limits  Limits
	hosts   hostGuard
	extra   http.Handler
	mux     *http.ServeMux // path patterns to [methods]
	metrics *metrics
	spec    []byte // the OpenAPI document

	batches chan struct{}   // one for each batch that is read
	streams chan struct{}   // one for each open stream
	uploads chan struct{}   // one for each upload that is read
	reports chan struct{}   // one for each report that is made
	ended   context.Context // over when streams are to end
	end     context.CancelFunc
}

// New makes the API of a node.
func New(c Config) (*API, error) {
	if c.Service == nil || c.Logger == nil {
		return nil, fmt.Errorf("make the HTTP API: a service and a logger are needed")
	}
	l := c.Limits.withDefaults()
	a := &API{
		svc: c.Service, log: c.Logger, auditor: c.Auditor, limits: l, extra: c.Extra,
		hosts:   newHostGuard(c.LoopbackOnly, c.AllowedHosts),
		mux:     http.NewServeMux(),
		batches: make(chan struct{}, l.Batches),
		streams: make(chan struct{}, l.Streams),
		uploads: make(chan struct{}, uploadsMax),
		reports: make(chan struct{}, reportsMax),
	}
	a.ended, a.end = context.WithCancel(context.Background())
	var err error
	if a.metrics, err = newMetrics(c.Service, c.Version, c.Collectors); err != nil {
		return nil, fmt.Errorf("make the HTTP API: %w", err)
	}
	routes := a.routes()
	if a.spec, err = document(routes, c.Version); err != nil {
		return nil, fmt.Errorf("make the HTTP API: %w", err)
	}
	byPath := map[string]methods{}
	for i := range routes {
		r := &routes[i]
		if byPath[r.path] == nil {
			byPath[r.path] = methods{}
		}
		byPath[r.path][r.method] = r
	}
	for p, m := range byPath {
		a.mux.Handle(p, m)
	}
	return a, nil
}

// EndStreams ends all event streams and followed logs, and refuses new ones.
// [NewServer] has it called when the server shuts down. It is safe twice.
func (a *API) EndStreams() { a.end() }

// ServeHTTP answers one request: it checks where the request was sent, finds
// the route, checks who sends it, and hands it on.
func (a *API) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	began := time.Now()
	sw := &statusWriter{ResponseWriter: w}
	sw.Header().Set("X-Request-Id", newRequestID())
	sw.Header().Set("X-Content-Type-Options", "nosniff")
	name := "other"
	var rt *route
	r, d := audited(r)
	defer func() {
		p := recover()
		if p != nil && p != http.ErrAbortHandler {
			a.caught(sw, r, p)
			p = nil
		}
		a.observe(r, sw, rt, name, time.Since(began))
		if name != "extra" {
			a.audit(r, sw.status, rt, d)
		}
		if p != nil {
			panic(p) // the server cuts the connection: a reply broke off half-way
		}
	}()
	if !a.hosts.allows(r.Host) {
		a.fail(sw, r, labmesh.Refuse(labmesh.Denied, "the Host %.100q is not allowed here; reach this node by localhost, or allow the host", r.Host))
		return
	}
	if !sameOrigin(r) {
		a.fail(sw, r, labmesh.Refuse(labmesh.Denied, "a page of %.100q may not do this here", r.Header.Get("Origin")))
		return
	}
	m, pattern := a.find(r)
	if m == nil && a.extra != nil && !strings.HasPrefix(r.URL.Path, "/api/") {
		name = "extra"
		sw.status = http.StatusOK // it answers for itself
		a.extra.ServeHTTP(w, r)   // w, so that it can take over the connection
		return
	}
	if m != nil {
		name = pattern
		rt = m.of(r.Method)
	}
	a.answer(sw, r, m, rt)
}

// find is the methods of the path that r asks for, nil where there is none.
func (a *API) find(r *http.Request) (methods, string) {
	if r.URL.Path == "" || path.Clean(r.URL.Path) != r.URL.Path || r.Method == http.MethodConnect {
		return nil, ""
	}
	h, pattern := a.mux.Handler(r)
	m, _ := h.(methods)
	return m, pattern
}

// answer is all that happens to a request for a route of this package: who
// asks comes before what is asked for, so that strangers learn nothing.
func (a *API) answer(w *statusWriter, r *http.Request, m methods, rt *route) {
	var caller Caller
	if rt == nil || rt.may != open {
		var err error
		if caller, err = a.authenticate(r); err != nil {
			if labmesh.ReasonOf(err) == labmesh.Denied {
				if limited := a.wrong.take(r.RemoteAddr, time.Now()); limited != nil {
					err = limited
				}
			}
			a.failAuth(w, r, err)
			return
		}
		doneOf(r).caller = caller
	}
	switch {
	case m == nil:
		a.fail(w, r, labmesh.Refuse(labmesh.NotFound, "There is no %.100s here", r.URL.Path))
		return
	case rt == nil:
		w.Header().Set("Allow", m.allow())
		writeJSON(w, http.StatusMethodNotAllowed, &api.Error{
			Message: "Method not allowed: " + m.allow() + " only", Reason: labmesh.Invalid,
		})
		return
	case !rt.may.has(caller.Role):
		a.fail(w, r, labmesh.Refuse(labmesh.Denied, "The role %s may not do this; it takes one of: %s", caller.Role, rt.may))
		return
	case rt.byKey && caller.Token:
		a.fail(w, r, labmesh.Refuse(labmesh.Denied, "A token makes no keys and no tokens: show the API key itself"))
		return
	}
	rt.patience(w, a.limits.Request)
	if caller.RequireSigned {
		if err := a.proveSigned(w, r, caller); err != nil {
			a.fail(w, r, err)
			return
		}
	}
	a.mux.ServeHTTP(w, r.WithContext(context.WithValue(r.Context(), callKey{}, call{a, rt, caller})))
}

// call is what a route needs to know of a request beyond the request.
type call struct {
	api    *API
	route  *route
	caller Caller
}

type callKey struct{}

func callOf(r *http.Request) call {
	c, _ := r.Context().Value(callKey{}).(call)
	return c
}

// methods are the routes of one path.
type methods map[string]*route

func (m methods) of(method string) *route {
	if rt := m[method]; rt != nil {
		return rt
	}
	if method == http.MethodHead && m[http.MethodGet] != nil && !m[http.MethodGet].stream {
		return m[http.MethodGet]
	}
	return nil
}

// ServeHTTP runs the route that [API.answer] has chosen. It goes through the
// mux so that the request has its path values.
func (m methods) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	c := callOf(r)
	doneOf(r).target = targetOf(r)
	if err := c.route.serve(w, r, c.caller); err != nil {
		c.api.fail(w, r, err)
	}
}
