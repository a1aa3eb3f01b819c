package mesh

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"sync"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"

	"labmesh"
)

// acceptQueue is how many connections may wait to be accepted.
const acceptQueue = 64

// Streams are net.Conns between members over one protocol. The address of a
// node is its id.
type Streams struct {
	h              *Host
	protocol       string
	closeOnSilence bool
}

// Streams are connections under the given protocol, e.g. /labmesh/raft/1, the
// word by which [Config.Admit] is asked.
func (h *Host) Streams(protocol string) *Streams {
	return &Streams{h: h, protocol: protocol}
}

// CloseOnSilence is s with a mend for silent partitions: when a read deadline
// passes on one of its connections, all connections to that node are closed, so
// that the next dial makes a new one. It is for protocols whose read deadlines
// pass only when something is wrong.
func (s *Streams) CloseOnSilence() *Streams {
	c := *s
	c.closeOnSilence = true
	return &c
}

// Listen accepts the connections that members open under the protocol, until
// the listener is closed. A protocol has one listener at a time.
func (s *Streams) Listen() (net.Listener, error) {
	l := &listener{streams: s, incoming: make(chan net.Conn, acceptQueue), done: make(chan struct{})}
	s.h.guard.SetStreamHandler(protocolID(s.protocol), l.handle)
	return l, nil
}

// Dial opens a connection to a member. It finds the member's address within
// ctx, and libp2p's dial back-off does not hold it up. That the member serves
// the protocol shows at the first read.
func (s *Streams) Dial(ctx context.Context, node labmesh.NodeID) (net.Conn, error) {
	p, err := peerID(node)
	if err != nil {
		return nil, err
	}
	if !s.h.guard.may(p, s.protocol) {
		return nil, labmesh.Refuse(labmesh.Denied, "dial %s: it may not speak %s", node, s.protocol)
	}
	if err := s.h.connect(ctx, p, dialTimeout, true); err != nil {
		return nil, fmt.Errorf("dial %s: %w", node, err)
	}
	st, err := s.h.guard.NewStream(network.WithNoDial(ctx, "connected"), p, protocolID(s.protocol))
	if err != nil {
		return nil, fmt.Errorf("dial %s: %w", node, err)
	}
	return s.conn(st), nil
}

func (s *Streams) conn(st network.Stream) net.Conn {
	return &conn{Stream: st, streams: s}
}

func protocolID(s string) protocol.ID { return protocol.ID(s) }

// addr is a node's id as a net.Addr.
type addr peer.ID

func (addr) Network() string  { return "labmesh" }
func (a addr) String() string { return peer.ID(a).String() }

// conn is a stream as a net.Conn.
type conn struct {
	network.Stream
	streams *Streams
}

var _ net.Conn = (*conn)(nil)

func (c *conn) LocalAddr() net.Addr  { return addr(c.Conn().LocalPeer()) }
func (c *conn) RemoteAddr() net.Addr { return addr(c.Conn().RemotePeer()) }

// Read reads, and where it is asked for takes silence for a broken connection.
func (c *conn) Read(b []byte) (int, error) {
	n, err := c.Stream.Read(b)
	if timedOut(err) {
		err = os.ErrDeadlineExceeded // the muxers each have their own
		if c.streams.closeOnSilence {
			c.streams.h.hangUp(c.Conn().RemotePeer())
		}
	}
	return n, err
}

// Write writes, with the errors of a net.Conn.
func (c *conn) Write(b []byte) (int, error) {
	n, err := c.Stream.Write(b)
	if timedOut(err) {
		err = os.ErrDeadlineExceeded
	}
	return n, err
}

// timedOut says whether err is that time ran out, in any library's words.
func timedOut(err error) bool {
	var e net.Error
	return errors.Is(err, os.ErrDeadlineExceeded) || errors.Is(err, context.DeadlineExceeded) ||
		errors.As(err, &e) && e.Timeout()
}

// Close ends both directions at once. A stream that was only closed would keep
// a read of its own waiting.
func (c *conn) Close() error {
	err := c.Stream.Close() // flushes and says so to the other side
	_ = c.CloseRead()       // wakes our own reader; it may be closed already
	return err
}

// listener hands incoming streams to Accept.
type listener struct {
	streams  *Streams
	incoming chan net.Conn
	done     chan struct{}
	close    sync.Once
}

func (l *listener) handle(st network.Stream) {
	select {
	case l.incoming <- l.streams.conn(st):
	case <-l.done:
		_ = st.Reset() // nobody will serve it
	}
}

// Accept waits for the next connection.
func (l *listener) Accept() (net.Conn, error) {
	select {
	case c := <-l.incoming:
		return c, nil
	case <-l.done:
		return nil, fmt.Errorf("accept %s: %w", l.streams.protocol, net.ErrClosed)
	}
}

// Close stops serving the protocol and drops what was not accepted.
func (l *listener) Close() error {
	l.close.Do(func() {
		l.streams.h.guard.RemoveStreamHandler(protocolID(l.streams.protocol))
		close(l.done)
		for {
			select {
			case c := <-l.incoming:
				_ = c.Close() // it was never served
			default:
				return
			}
		}
	})
	return nil
}

// Addr is this node's id.
func (l *listener) Addr() net.Addr { return addr(l.streams.h.guard.ID()) }
