package mesh

import (
	"context"
	"errors"
	"net"

	"labmesh"
)

// Streams are net.Conns between members over one protocol.
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

// Listen accepts the connections that members open under the protocol.
func (s *Streams) Listen() (net.Listener, error) { return nil, errors.ErrUnsupported }

// Dial opens a connection to a member. It finds the member's address within
// ctx, and libp2p's dial back-off does not hold it up.
func (s *Streams) Dial(ctx context.Context, node labmesh.NodeID) (net.Conn, error) {
	return nil, errors.ErrUnsupported
}
