package simtest

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"sync"
	"time"

	"labmesh"
)

// The network.
const (
	latencyMin = 200 * time.Microsecond // one way
	latencyMax = 3 * time.Millisecond
	breakAfter = 3 * time.Second // of a cut, as QUIC gives up on a silent line
	dialMax    = 5 * time.Second // for a line that is cut
	backlog    = 64
)

// Net is a network in memory. Each direction between two nodes can be cut by
// itself: what is sent then waits, and arrives if the cut ends before the stream
// is given up. It belongs in a testing/synctest bubble.
type Net struct {
	mu        sync.Mutex
	random    *rand.Rand
	cuts      map[lineKey]int // how many cuts hold a line just now
	listeners map[listenKey]*listener
	conns     map[*conn]struct{} // one end of each stream
	changed   chan struct{}      // closed at the next change of cuts
}

type lineKey struct{ from, to labmesh.NodeID }

type listenKey struct {
	node     labmesh.NodeID
	protocol string
}

// NewNet is a network on which nothing is cut.
func NewNet(random *rand.Rand) *Net {
	return &Net{random: random, cuts: map[lineKey]int{}, listeners: map[listenKey]*listener{}, conns: map[*conn]struct{}{}, changed: make(chan struct{})}
}

// Cut stops what nodes in from send to nodes in to, until as many Heals. Streams
// between them break when that lasts.
func (n *Net) Cut(from, to []labmesh.NodeID) {
	n.change(from, to, 1)
	time.AfterFunc(breakAfter, n.breakCut)
}

// Hold is Cut without the breaking: whoever holds the streams stands still, and has not gone.
func (n *Net) Hold(from, to []labmesh.NodeID) { n.change(from, to, 1) }

// Heal takes back one Cut or Hold.
func (n *Net) Heal(from, to []labmesh.NodeID) { n.change(from, to, -1) }

func (n *Net) change(from, to []labmesh.NodeID, by int) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, f := range from {
		for _, t := range to {
			if f != t {
				n.cuts[lineKey{f, t}] += by
			}
		}
	}
	close(n.changed)
	n.changed = make(chan struct{})
}

// breakCut breaks the streams over lines that are cut. Some may have been cut a
// moment ago, by another cut: a line may break early.
func (n *Net) breakCut() {
	n.breakWhere(func(c *conn) bool { return n.cuts[c.out.line] > 0 || n.cuts[c.in.line] > 0 })
}

// breakWhere resets streams. The lock is held while which is asked.
func (n *Net) breakWhere(which func(*conn) bool) {
	n.mu.Lock()
	var broken []*conn
	for c := range n.conns {
		if which(c) {
			broken = append(broken, c)
			delete(n.conns, c)
		}
	}
	n.mu.Unlock()
	for _, c := range broken {
		c.in.end(errReset)
		c.out.end(errReset)
	}
}

// Open reports whether what from sends now reaches to.
func (n *Net) Open(from, to labmesh.NodeID) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.cuts[lineKey{from, to}] == 0
}

// open is Open, and a channel that is closed when the answer may have changed.
func (n *Net) open(l lineKey) (bool, <-chan struct{}) {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.cuts[l] == 0, n.changed
}

// Port is a node's place on the network for one life of it.
type Port struct {
	net  *Net
	node labmesh.NodeID

	mu   sync.Mutex
	dead bool
}

// Port plugs a node in.
func (n *Net) Port(node labmesh.NodeID) *Port { return &Port{net: n, node: node} }

// Kill unplugs the node, at once and for the rest of this life: its streams
// break, and nobody hears it any more.
func (p *Port) Kill() {
	p.mu.Lock()
	p.dead = true
	p.mu.Unlock()
	p.net.mu.Lock()
	for key, l := range p.net.listeners {
		if l.port == p {
			delete(p.net.listeners, key)
			l.stop()
		}
	}
	p.net.mu.Unlock()
	p.net.breakWhere(func(c *conn) bool { return c.near == p || c.far == p })
}

func (p *Port) alive() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return !p.dead
}

// Streams are the node's streams of one protocol.
func (p *Port) Streams(protocol string) *Streams { return &Streams{p, protocol} }

// Streams is consensus.Streams.
type Streams struct {
	port     *Port
	protocol string
}

var (
	errReset   = errors.New("stream reset")
	errRefused = errors.New("connection refused")
	errSilent  = errors.New("no answer")
)

// Listen takes streams of the protocol.
func (s *Streams) Listen() (net.Listener, error) {
	if !s.port.alive() {
		return nil, errReset
	}
	l := &listener{port: s.port, in: make(chan *conn, backlog), closed: make(chan struct{})}
	s.port.net.mu.Lock()
	defer s.port.net.mu.Unlock()
	s.port.net.listeners[listenKey{s.port.node, s.protocol}] = l
	return l, nil
}

// Dial reaches another node. Over a line that is cut it waits.
func (s *Streams) Dial(ctx context.Context, to labmesh.NodeID) (net.Conn, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, dialMax, errSilent)
	defer cancel()
	from := s.port.node
	for _, l := range []lineKey{{from, to}, {to, from}} {
		if err := s.port.net.awaitOpen(ctx, l); err != nil {
			return nil, fmt.Errorf("dial %s: %w", to, err)
		}
	}
	near, err := s.port.net.connect(s.port, listenKey{to, s.protocol})
	if err != nil {
		return nil, fmt.Errorf("dial %s: %w", to, err)
	}
	return near, nil
}

func (n *Net) awaitOpen(ctx context.Context, l lineKey) error {
	for {
		open, changed := n.open(l)
		if open {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

func (n *Net) connect(from *Port, to listenKey) (net.Conn, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	l := n.listeners[to]
	if l == nil || !from.alive() {
		return nil, errRefused
	}
	delay := latencyMin + time.Duration(n.random.Int64N(int64(latencyMax-latencyMin)))
	there := newHalf(n, lineKey{from.node, to.node}, delay)
	back := newHalf(n, lineKey{to.node, from.node}, delay)
	near := &conn{out: there, in: back, near: from, far: l.port}
	select {
	case l.in <- &conn{out: back, in: there, near: l.port, far: from}:
		n.conns[near] = struct{}{}
		return near, nil
	default:
		return nil, errRefused
	}
}

type listener struct {
	port   *Port
	in     chan *conn
	closed chan struct{}
	once   sync.Once
}

// Accept waits for another node.
func (l *listener) Accept() (net.Conn, error) {
	select {
	case c := <-l.in:
		return c, nil
	case <-l.closed:
		return nil, net.ErrClosed
	}
}

func (l *listener) stop() { l.once.Do(func() { close(l.closed) }) }

// Close ends Accept.
func (l *listener) Close() error {
	n := l.port.net
	n.mu.Lock()
	defer n.mu.Unlock()
	for key, known := range n.listeners {
		if known == l {
			delete(n.listeners, key)
		}
	}
	l.stop()
	return nil
}

// Addr is the node.
func (l *listener) Addr() net.Addr { return addr(l.port.node) }

type addr labmesh.NodeID

func (addr) Network() string  { return "sim" }
func (a addr) String() string { return string(a) }

// conn is one end of a stream.
type conn struct {
	in, out   *half
	near, far *Port
}

func (c *conn) Read(p []byte) (int, error)  { return c.in.read(p) }
func (c *conn) Write(p []byte) (int, error) { return c.out.write(p) }
func (c *conn) LocalAddr() net.Addr         { return addr(c.near.node) }
func (c *conn) RemoteAddr() net.Addr        { return addr(c.far.node) }

// Close ends both directions: the other end reads what was sent, and then the end.
func (c *conn) Close() error {
	c.out.end(io.EOF)
	c.in.end(net.ErrClosed)
	n := c.near.net
	n.mu.Lock()
	defer n.mu.Unlock()
	delete(n.conns, c)
	return nil
}

func (c *conn) SetDeadline(t time.Time) error     { return c.SetReadDeadline(t) }
func (c *conn) SetWriteDeadline(time.Time) error  { return nil } // a write never waits
func (c *conn) SetReadDeadline(t time.Time) error { c.in.expire(t); return nil }

// half is one direction of a stream.
type half struct {
	net   *Net
	line  lineKey
	delay time.Duration

	mu       sync.Mutex
	queue    []parcel
	ended    error // what a reader gets after the queue; a reset goes first
	deadline time.Time
	moved    chan struct{} // has one in it when something above has changed
}

type parcel struct {
	at   time.Time // when it arrives
	data []byte
}

func newHalf(n *Net, l lineKey, delay time.Duration) *half {
	return &half{net: n, line: l, delay: delay, moved: make(chan struct{}, 1)}
}

func (h *half) nudge() {
	select {
	case h.moved <- struct{}{}:
	default:
	}
}

func (h *half) end(err error) {
	h.mu.Lock()
	if h.ended == nil || !errors.Is(err, io.EOF) {
		h.ended = err
	}
	h.mu.Unlock()
	h.nudge()
}

func (h *half) expire(t time.Time) {
	h.mu.Lock()
	h.deadline = t
	h.mu.Unlock()
	h.nudge()
}

func (h *half) write(p []byte) (int, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.ended != nil {
		return 0, errReset
	}
	h.queue = append(h.queue, parcel{time.Now().Add(h.delay), append([]byte(nil), p...)})
	h.nudge()
	return len(p), nil
}

func (h *half) read(p []byte) (int, error) {
	for {
		open, changed := h.net.open(h.line)
		n, wait, err := h.take(p, open)
		if n > 0 || err != nil {
			return n, err
		}
		var due <-chan time.Time
		var timer *time.Timer
		if wait > 0 {
			timer = time.NewTimer(wait)
			due = timer.C
		}
		if open {
			changed = nil // a cut is noticed when something arrives
		}
		select {
		case <-h.moved:
		case <-changed:
		case <-due:
		}
		if timer != nil {
			timer.Stop()
		}
	}
}

// take is what has arrived, or how long to wait at most; 0 for as long as it takes.
func (h *half) take(p []byte, open bool) (n int, wait time.Duration, err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	now := time.Now()
	switch {
	case errors.Is(h.ended, errReset), errors.Is(h.ended, net.ErrClosed):
		return 0, 0, h.ended
	case !h.deadline.IsZero() && !now.Before(h.deadline):
		return 0, 0, os.ErrDeadlineExceeded
	case len(h.queue) == 0 && h.ended != nil && open:
		return 0, 0, h.ended
	}
	if !h.deadline.IsZero() {
		wait = h.deadline.Sub(now)
	}
	if len(h.queue) == 0 || !open {
		return 0, wait, nil
	}
	first := &h.queue[0]
	if d := first.at.Sub(now); d > 0 {
		if wait == 0 || d < wait {
			wait = d
		}
		return 0, wait, nil
	}
	n = copy(p, first.data)
	if first.data = first.data[n:]; len(first.data) == 0 {
		h.queue = h.queue[1:]
	}
	return n, 0, nil
}
