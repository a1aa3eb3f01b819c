package mesh

import (
	"context"
	"sync"
	"sync/atomic"

	"github.com/libp2p/go-libp2p/core/event"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"

	"labmesh"
)

// anyProtocol asks [Config.Admit] whether a node may be connected at all.
const anyProtocol = ""

// guard is a libp2p host that lets members speak and strangers join, and
// nothing else. All that speaks to other nodes, the DHT and gossip included, is
// built on it and so passes it.
//
// Its event bus is its own: what is built on it hears of a peer when the two
// nodes have greeted each other, and not when a stranger connects.
type guard struct {
	host.Host
	bus   event.Bus
	admit func(labmesh.NodeID, string) bool

	mu      sync.RWMutex
	trusted map[peer.ID]struct{}

	refusedIn, refusedOut atomic.Uint64 // streams
}

var _ host.Host = (*guard)(nil)

func newGuard(h host.Host, bus event.Bus, admit func(labmesh.NodeID, string) bool) *guard {
	return &guard{Host: h, bus: bus, admit: admit, trusted: map[peer.ID]struct{}{}}
}

// permits is the whole of admission: who may speak what.
func permits(proto string, self, trusted bool, admitted func() bool) bool {
	return proto == JoinProtocol || self || trusted || admitted()
}

// may says whether this node and p may speak a protocol.
func (g *guard) may(p peer.ID, proto string) bool {
	return permits(proto, p == g.ID(), g.trusts(p), func() bool { return g.admit(nodeID(p), proto) })
}

// member says whether p may be connected to this node for longer than a join.
func (g *guard) member(p peer.ID) bool { return g.may(p, anyProtocol) }

func (g *guard) trusts(p peer.ID) bool {
	g.mu.RLock()
	defer g.mu.RUnlock()
	_, ok := g.trusted[p]
	return ok
}

func (g *guard) trust(p peer.ID) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.trusted[p] = struct{}{}
}

func (g *guard) distrust(p peer.ID) {
	g.mu.Lock()
	defer g.mu.Unlock()
	delete(g.trusted, p)
}

// trustedPeers are the peers that are trusted on this host's own word.
func (g *guard) trustedPeers() []peer.ID {
	g.mu.RLock()
	defer g.mu.RUnlock()
	ids := make([]peer.ID, 0, len(g.trusted))
	for p := range g.trusted {
		ids = append(ids, p)
	}
	return ids
}

// guarded is handler behind the guard.
func (g *guard) guarded(handler network.StreamHandler) network.StreamHandler {
	return func(s network.Stream) {
		if !g.may(s.Conn().RemotePeer(), string(s.Protocol())) {
			g.refusedIn.Add(1)
			_ = s.ResetWithError(network.StreamGated) // the stranger's loss
			return
		}
		handler(s)
	}
}

// SetStreamHandler serves a protocol to those who may speak it.
func (g *guard) SetStreamHandler(id protocol.ID, handler network.StreamHandler) {
	g.Host.SetStreamHandler(id, g.guarded(handler))
}

// SetStreamHandlerMatch serves matching protocols to those who may speak them.
func (g *guard) SetStreamHandlerMatch(id protocol.ID, match func(protocol.ID) bool, handler network.StreamHandler) {
	g.Host.SetStreamHandlerMatch(id, match, g.guarded(handler))
}

// NewStream opens a stream under those of the protocols that p may speak.
func (g *guard) NewStream(ctx context.Context, p peer.ID, ids ...protocol.ID) (network.Stream, error) {
	may := make([]protocol.ID, 0, len(ids))
	for _, id := range ids {
		if g.may(p, string(id)) {
			may = append(may, id)
		}
	}
	if len(may) == 0 {
		g.refusedOut.Add(1)
		return nil, labmesh.Refuse(labmesh.Denied, "open stream: %s may not speak %v in this mesh", p, ids)
	}
	return g.Host.NewStream(ctx, p, may...)
}

// Connect connects to members.
func (g *guard) Connect(ctx context.Context, info peer.AddrInfo) error {
	if !g.member(info.ID) {
		g.refusedOut.Add(1)
		return labmesh.Refuse(labmesh.Denied, "connect: %s is not a member of this mesh", info.ID)
	}
	return g.Host.Connect(ctx, info)
}

// EventBus is the guard's own bus.
func (g *guard) EventBus() event.Bus { return g.bus }
