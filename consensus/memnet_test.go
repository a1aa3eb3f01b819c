package consensus

import (
	"context"
	"errors"
	"net"
	"sync"

	"labmesh"
)

// memnet is a network in memory, whose nodes can be cut off and healed. It
// serves several protocols, each with Streams of its own.
type memnet struct {
	mu        sync.Mutex
	listeners map[string]*memListener // by protocol and node
	cut       map[labmesh.NodeID]bool
	conns     map[*memConn]struct{}
}

func newMemnet() *memnet {
	return &memnet{listeners: map[string]*memListener{}, cut: map[labmesh.NodeID]bool{}, conns: map[*memConn]struct{}{}}
}

// streams are the streams of one node for one protocol.
func (n *memnet) streams(self labmesh.NodeID, protocol string) Streams {
	return memStreams{n, self, protocol}
}

// Cut takes a node off the network: its streams break, and none can be made.
func (n *memnet) Cut(id labmesh.NodeID) {
	n.mu.Lock()
	n.cut[id] = true
	var broken []*memConn
	for c := range n.conns {
		if c.from == id || c.to == id {
			broken = append(broken, c)
		}
	}
	n.mu.Unlock()
	for _, c := range broken {
		_ = c.Close()
	}
}

// Heal puts a node back.
func (n *memnet) Heal(id labmesh.NodeID) {
	n.mu.Lock()
	defer n.mu.Unlock()
	delete(n.cut, id)
}

type memStreams struct {
	net      *memnet
	self     labmesh.NodeID
	protocol string
}

func (s memStreams) Listen() (net.Listener, error) {
	l := &memListener{net: s.net, key: s.protocol + "/" + string(s.self), self: s.self,
		in: make(chan net.Conn), closed: make(chan struct{})}
	s.net.mu.Lock()
	defer s.net.mu.Unlock()
	s.net.listeners[l.key] = l
	return l, nil
}

func (s memStreams) Dial(ctx context.Context, to labmesh.NodeID) (net.Conn, error) {
	s.net.mu.Lock()
	l := s.net.listeners[s.protocol+"/"+string(to)]
	cut := s.net.cut[to] || s.net.cut[s.self]
	s.net.mu.Unlock()
	if l == nil || cut {
		return nil, errors.New("no route to " + string(to))
	}
	near, far := net.Pipe()
	out := &memConn{Conn: near, net: s.net, from: s.self, to: to, remote: to}
	in := &memConn{Conn: far, net: s.net, from: s.self, to: to, remote: s.self}
	select {
	case l.in <- in:
	case <-l.closed:
		return nil, errors.New("connection refused")
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	s.net.mu.Lock()
	cut = s.net.cut[to] || s.net.cut[s.self] // meanwhile
	if !cut {
		s.net.conns[out], s.net.conns[in] = struct{}{}, struct{}{}
	}
	s.net.mu.Unlock()
	if cut {
		_ = out.Close()
		_ = in.Close()
		return nil, errors.New("no route to " + string(to))
	}
	return out, nil
}

type memListener struct {
	net    *memnet
	key    string
	self   labmesh.NodeID
	in     chan net.Conn
	closed chan struct{}
	once   sync.Once
}

func (l *memListener) Accept() (net.Conn, error) {
	select {
	case c := <-l.in:
		return c, nil
	case <-l.closed:
		return nil, net.ErrClosed
	}
}

func (l *memListener) Close() error {
	l.once.Do(func() { close(l.closed) })
	return nil
}

func (l *memListener) Addr() net.Addr { return nodeAddr(l.self) }

type memConn struct {
	net.Conn
	net      *memnet
	from, to labmesh.NodeID
	remote   labmesh.NodeID
}

func (c *memConn) RemoteAddr() net.Addr { return nodeAddr(c.remote) }

func (c *memConn) Close() error {
	c.net.mu.Lock()
	delete(c.net.conns, c)
	c.net.mu.Unlock()
	return c.Conn.Close()
}
