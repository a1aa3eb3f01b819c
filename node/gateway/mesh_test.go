package gateway_test

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/coder/websocket"

	"labmesh"
	"labmesh/light"
	"labmesh/node/gateway"
	"labmesh/scheduler"
	"labmesh/state"
)

// fakeMesh is a log with the real state machine and scheduler, on one node and in memory.
type fakeMesh struct {
	mu      sync.Mutex
	c       *state.Cluster
	index   uint64
	changed chan struct{}
	down    bool // there is no leader
	n       int
}

func newFakeMesh() *fakeMesh {
	m := &fakeMesh{c: state.New(), changed: make(chan struct{})}
	m.must(labmesh.RaiseLevel{Level: labmesh.Feature})
	return m
}

func (m *fakeMesh) apply(cmds []labmesh.Command) []labmesh.Answer {
	m.index++
	_, answers := m.c.Apply(m.index, labmesh.Entry{At: time.Now(), Commands: cmds})
	close(m.changed)
	m.changed = make(chan struct{})
	return answers
}

var errNoLeader = labmesh.Refuse(labmesh.Unavailable, "no leader")

// Propose applies, and then does what the leader would.
func (m *fakeMesh) Propose(_ context.Context, cmds ...labmesh.Command) (labmesh.Receipt, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.down {
		return labmesh.Receipt{}, errNoLeader
	}
	rc := labmesh.Receipt{Answers: m.apply(cmds)}
	m.lead()
	rc.Index = m.index
	return rc, nil
}

func (m *fakeMesh) lead() {
	in := scheduler.Input{View: m.c.View(), Now: time.Now(), Led: time.Now().Add(-time.Hour), Heard: map[labmesh.WorkerID]scheduler.Heard{}}
	for w := range in.View.Workers() {
		in.Heard[w.ID] = scheduler.Heard{Expires: in.Now.Add(time.Minute), Accepts: true}
	}
	if plan := scheduler.Plan(in); len(plan) > 0 {
		m.apply(plan)
	}
}

func (m *fakeMesh) must(cmds ...labmesh.Command) {
	rc, err := m.Propose(context.Background(), cmds...)
	for _, a := range rc.Answers {
		if a.Refused != nil {
			err = a.Refused
		}
	}
	if err != nil {
		panic(err)
	}
}

func (m *fakeMesh) lose(down bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.down = down
}

func (m *fakeMesh) view() state.View {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.c.View()
}

func (m *fakeMesh) task(id labmesh.TaskID) labmesh.Task {
	t, ok := m.view().Task(id)
	if !ok {
		return labmesh.Task{}
	}
	return *t
}

// at is the mesh as one of its nodes sees it.
type at struct {
	*fakeMesh
	node labmesh.NodeID
}

func (m at) Facts(id labmesh.WorkerID) light.Facts {
	view := m.view()
	f := light.Facts{Cancelled: func(id labmesh.TaskID) bool { t, ok := view.Task(id); return ok && !t.Cancelled.IsZero() }}
	if w, ok := view.Worker(id); ok && w.Light {
		f.Known, f.Offline, f.Mine = true, w.Status == labmesh.WorkerOffline, w.Node == m.node
	}
	for t := range view.Held(id) {
		f.Held = t
		break
	}
	return f
}

func (m at) Worker(id labmesh.WorkerID) (*labmesh.Worker, bool) { return m.view().Worker(id) }

func (m at) Attached() (ids []labmesh.WorkerID) {
	for w := range m.view().Workers() {
		if w.Light && w.Node == m.node && w.Status != labmesh.WorkerOffline {
			ids = append(ids, w.ID)
		}
	}
	return ids
}

func (m at) Task(id labmesh.TaskID) (*labmesh.Task, bool, bool) {
	t, ok := m.view().Task(id)
	return t, ok, m.view().Known(id)
}

func (m at) Changed() <-chan struct{} {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.changed
}
func (m at) Refresh(context.Context)             {}
func (m at) Await(context.Context, uint64) error { return nil }

// fakeGuard knows the keys good and strict, and tokens that name a worker.
type fakeGuard struct{}

func (fakeGuard) Authenticate(credential string) (gateway.Caller, error) {
	switch {
	case credential == "good":
		return gateway.Caller{Key: "k"}, nil
	case credential == "strict":
		return gateway.Caller{Key: "s", RequireSigned: true}, nil
	case strings.HasPrefix(credential, "token."):
		return gateway.Caller{Key: "k", Worker: labmesh.WorkerID(strings.TrimPrefix(credential, "token."))}, nil
	}
	return gateway.Caller{}, labmesh.Refuse(labmesh.Denied, "")
}

func (fakeGuard) Mint(_ context.Context, _ gateway.Caller, w labmesh.WorkerID) (string, error) {
	return "token." + string(w), nil
}

func (fakeGuard) Verify(_ gateway.Caller, message []byte) error {
	var m struct{ Signature string }
	if json.Unmarshal(message, &m) != nil || m.Signature != "proper" {
		return errors.New("bad signature")
	}
	return nil
}

// door is a gateway that listens where the test alone can dial.
type door struct {
	g     *gateway.Gateway
	conns chan net.Conn
	stop  func()
}

// open makes a gateway of a node and runs it until the test ends, or stop is called.
func open(t testing.TB, m *fakeMesh, node labmesh.NodeID) *door {
	d := &door{conns: make(chan net.Conn)}
	d.g = gateway.New(gateway.Config{Node: node, Mesh: at{m, node}, Guard: fakeGuard{}, NewID: func() string { return "new" }, Logger: slog.New(slog.DiscardHandler)})
	ctx, cancel := context.WithCancel(context.Background())
	srv := &http.Server{Handler: d.g, ReadTimeout: 30 * time.Second, WriteTimeout: 30 * time.Second, ReadHeaderTimeout: time.Second}
	var running sync.WaitGroup
	running.Go(func() { _ = d.g.Run(ctx) })
	running.Go(func() { _ = srv.Serve(d) })
	d.stop = sync.OnceFunc(func() {
		cancel()
		_ = srv.Close()
		running.Wait()
	})
	t.Cleanup(d.stop)
	return d
}

// Accept, Close and Addr make door a listener of pipes.
func (d *door) Accept() (net.Conn, error) {
	c, ok := <-d.conns
	if !ok {
		return nil, net.ErrClosed
	}
	return c, nil
}
func (d *door) Close() error   { close(d.conns); return nil }
func (d *door) Addr() net.Addr { return &net.IPAddr{} }

func (d *door) dial(t testing.TB, path string) *websocket.Conn {
	t.Helper()
	hc := &http.Client{Transport: &http.Transport{DisableKeepAlives: true, DialContext: func(context.Context, string, string) (net.Conn, error) {
		here, there := net.Pipe()
		d.conns <- there
		return here, nil
	}}}
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	c, _, err := websocket.Dial(ctx, "ws://node"+path, &websocket.DialOptions{HTTPClient: hc})
	if err != nil {
		t.Fatal(err)
	}
	c.SetReadLimit(light.FrameOutMax)
	return c
}
