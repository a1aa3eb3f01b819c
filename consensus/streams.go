package consensus

import (
	"context"
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/raft"

	"labmesh"
)

// layer gives raft its streams. A server's address is its node's id: where that
// node can be reached just now is for the streams to know.
type layer struct {
	net.Listener
	self  labmesh.NodeID
	dial  func(context.Context, labmesh.NodeID) (net.Conn, error)
	life  context.Context
	conns *connSet
}

func listen(life context.Context, self labmesh.NodeID, s Streams) (*layer, error) {
	l, err := s.Listen()
	if err != nil {
		return nil, fmt.Errorf("listen for raft: %w", err)
	}
	return &layer{Listener: l, self: self, dial: s.Dial, life: life, conns: &connSet{}}, nil
}

// Accept waits for another replica.
func (l *layer) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return l.conns.add(c), nil
}

// Dial reaches another replica.
func (l *layer) Dial(to raft.ServerAddress, timeout time.Duration) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(l.life, timeout)
	defer cancel()
	c, err := l.dial(ctx, labmesh.NodeID(to))
	if err != nil {
		return nil, err
	}
	return l.conns.add(c), nil
}

// Addr is this node's id.
func (l *layer) Addr() net.Addr { return nodeAddr(l.self) }

// Close closes the listener and every stream, those that raft has forgotten, too.
func (l *layer) Close() error {
	l.conns.close()
	return l.Listener.Close()
}

// dialOnly is a layer for a transport that nobody calls.
type dialOnly struct {
	*layer
	closed chan struct{}
	once   sync.Once
}

// Accept waits until the layer is closed.
func (l *dialOnly) Accept() (net.Conn, error) {
	<-l.closed
	return nil, net.ErrClosed
}

// Close ends Accept.
func (l *dialOnly) Close() error {
	l.once.Do(func() { close(l.closed) })
	return nil
}

type nodeAddr labmesh.NodeID

func (nodeAddr) Network() string  { return "labmesh" }
func (a nodeAddr) String() string { return string(a) }

// connSet remembers open streams, to close them together.
type connSet struct {
	mu     sync.Mutex
	open   map[*patientConn]struct{}
	closed bool
}

func (s *connSet) add(c net.Conn) net.Conn {
	p := &patientConn{Conn: c, set: s}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		_ = c.Close()
		return p
	}
	if s.open == nil {
		s.open = map[*patientConn]struct{}{}
	}
	s.open[p] = struct{}{}
	return p
}

func (s *connSet) forget(p *patientConn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.open, p)
}

func (s *connSet) close() {
	s.mu.Lock()
	open := s.open
	s.open, s.closed = nil, true
	s.mu.Unlock()
	for p := range open {
		_ = p.Conn.Close()
	}
}

// patientConn turns raft's deadline for a whole message into one for silence:
// each piece of a large message that gets through moves the deadline on.
// Otherwise an entry that takes more than a second on a slow line would be sent
// again and again and never arrive.
type patientConn struct {
	net.Conn
	set     *connSet
	patient atomic.Int64 // how long a piece may take, in ns; 0 without a limit
}

// SetDeadline limits the silence before the next answer.
func (c *patientConn) SetDeadline(t time.Time) error {
	c.allow(t)
	return c.Conn.SetDeadline(t)
}

// SetWriteDeadline limits the silence while writing.
func (c *patientConn) SetWriteDeadline(t time.Time) error {
	c.allow(t)
	return c.Conn.SetWriteDeadline(t)
}

func (c *patientConn) allow(t time.Time) {
	if t.IsZero() {
		c.patient.Store(0)
		return
	}
	c.patient.Store(int64(max(time.Until(t), 1)))
}

// Write writes p in pieces, each with the full time.
func (c *patientConn) Write(p []byte) (int, error) {
	limit := time.Duration(c.patient.Load())
	if limit == 0 || len(p) <= chunkBytes {
		return c.Conn.Write(p)
	}
	done := 0
	for done < len(p) {
		if err := c.Conn.SetDeadline(time.Now().Add(limit)); err != nil {
			return done, err
		}
		n, err := c.Conn.Write(p[done:min(done+chunkBytes, len(p))])
		done += n
		if err != nil {
			return done, err
		}
	}
	return done, c.Conn.SetDeadline(time.Now().Add(limit))
}

// Close closes the stream.
func (c *patientConn) Close() error {
	c.set.forget(c)
	return c.Conn.Close()
}
