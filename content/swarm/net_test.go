package swarm_test

import (
	"context"
	"errors"
	"log/slog"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"golang.org/x/time/rate"

	"labmesh"
	"labmesh/content/pack"
	"labmesh/content/store"
	"labmesh/content/swarm"
)

// segment is how much of a stream passes at once.
const segment = 16 << 10

// network is nodes in memory, each with a line of its own to all others.
type network struct {
	mu    sync.Mutex
	nodes map[labmesh.NodeID]*node
	order []labmesh.NodeID
}

// node is one of them, with a store and a swarm.
type node struct {
	net      *network
	id       labmesh.NodeID
	store    *store.Store
	swarm    *swarm.Swarm
	up, down *rate.Limiter
	incoming chan net.Conn
	spoil    func([]byte) []byte // what it makes of what it sends

	mu    sync.Mutex
	conns []net.Conn
	cut   bool
	stop  func()
}

func newNetwork() *network { return &network{nodes: map[labmesh.NodeID]*node{}} }

// add starts a node whose line carries so many bytes a second each way; 0 is
// without a limit.
func (n *network) add(t testing.TB, id labmesh.NodeID, line int) *node {
	t.Helper()
	s, err := store.Open(filepath.Join(t.TempDir(), "blobs"), store.Config{BytesMax: 1 << 30})
	if err != nil {
		t.Fatal(err)
	}
	x := &node{net: n, id: id, store: s, incoming: make(chan net.Conn)}
	if line > 0 {
		x.up, x.down = rate.NewLimiter(rate.Limit(line), segment), rate.NewLimiter(rate.Limit(line), segment)
	}
	x.swarm = swarm.New(s, x, x.peers, slog.New(slog.DiscardHandler))
	n.mu.Lock()
	n.nodes[id] = x
	n.order = append(n.order, id)
	n.mu.Unlock()
	x.start(t)
	t.Cleanup(func() { x.stop() })
	return x
}

// start runs the swarm of a node.
func (x *node) start(t testing.TB) {
	ctx, cancel := context.WithCancel(t.Context())
	ran := make(chan error, 1)
	go func() { ran <- x.swarm.Run(ctx) }()
	x.stop = sync.OnceFunc(func() {
		cancel()
		if err := <-ran; !errors.Is(err, context.Canceled) {
			t.Errorf("run %s: %v", x.id, err)
		}
	})
}

func (x *node) peers() (out []labmesh.NodeID) {
	x.net.mu.Lock()
	defer x.net.mu.Unlock()
	for _, id := range x.net.order {
		if id != x.id {
			out = append(out, id)
		}
	}
	return out
}

// leave takes a node off the network for good.
func (x *node) leave() {
	x.mu.Lock()
	x.cut = true
	conns := x.conns
	x.mu.Unlock()
	for _, c := range conns {
		_ = c.Close()
	}
}

// keep remembers a connection, and closes it where the node is off.
func (x *node) keep(c net.Conn) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.conns = append(x.conns, c)
	if x.cut {
		_ = c.Close()
	}
}

func (x *node) Listen() (net.Listener, error) {
	return &listener{x, make(chan struct{}), sync.Once{}}, nil
}

func (x *node) Dial(ctx context.Context, to labmesh.NodeID) (net.Conn, error) {
	x.net.mu.Lock()
	y := x.net.nodes[to]
	x.net.mu.Unlock()
	y.mu.Lock()
	off := y.cut
	y.mu.Unlock()
	if off {
		return nil, errors.New("it cannot be reached")
	}
	here, there := net.Pipe()
	a, b := &conn{here, x, y}, &conn{there, y, x}
	select {
	case y.incoming <- b:
		x.keep(a)
		y.keep(b)
		return a, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

type listener struct {
	*node
	closed chan struct{}
	once   sync.Once
}

func (l *listener) Accept() (net.Conn, error) {
	select {
	case c := <-l.incoming:
		return c, nil
	case <-l.closed:
		return nil, net.ErrClosed
	}
}

func (l *listener) Close() error { l.once.Do(func() { close(l.closed) }); return nil }

func (l *listener) Addr() net.Addr { return addr(l.id) }

type addr labmesh.NodeID

func (addr) Network() string  { return "memory" }
func (a addr) String() string { return string(a) }

// conn passes bytes no faster than the lines of both ends.
type conn struct {
	net.Conn
	from, to *node
}

func (c *conn) RemoteAddr() net.Addr { return addr(c.to.id) }

func (c *conn) Write(p []byte) (int, error) {
	if c.from.spoil != nil {
		p = c.from.spoil(p)
	}
	done := 0
	for done < len(p) {
		n := min(segment, len(p)-done)
		for _, l := range []*rate.Limiter{c.from.up, c.to.down} {
			if l != nil {
				_ = l.WaitN(context.Background(), n)
			}
		}
		m, err := c.Conn.Write(p[done : done+n])
		if done += m; err != nil {
			return done, err
		}
	}
	return done, nil
}

// tree packs n random bytes at a node.
func (x *node) tree(t testing.TB, seed byte, n int) string {
	t.Helper()
	dir := t.TempDir()
	data := make([]byte, n)
	r := rand.NewChaCha8([32]byte{seed})
	_, _ = r.Read(data)
	if err := os.WriteFile(filepath.Join(dir, "data"), data, 0o644); err != nil {
		t.Fatal(err)
	}
	id, _, err := x.store.Pack(t.Context(), dir, pack.Options{})
	if err != nil {
		t.Fatal(err)
	}
	return id
}
