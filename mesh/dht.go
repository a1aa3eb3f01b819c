package mesh

import (
	"context"
	"fmt"
	"time"

	dht "github.com/libp2p/go-libp2p-kad-dht"
	"github.com/libp2p/go-libp2p/core/peer"

	"labmesh"
)

const (
	dhtRefresh     = 30 * time.Minute
	dhtQuery       = 5 * time.Second
	dhtConcurrency = 3
)

// directory finds members through a DHT of their own. A nil directory finds
// nobody.
type directory struct {
	dht *dht.IpfsDHT
}

// openDirectory joins the mesh's DHT as a server: in a mesh of fresh nodes, all
// of which wait to learn whether they can be reached, nobody would serve. It
// knows no bootstrap nodes but members, and holds no records but their addresses.
func openDirectory(g *guard, mesh labmesh.MeshID) (*directory, error) {
	d, err := dht.New(g,
		dht.Mode(dht.ModeServer),
		dht.ProtocolPrefix(protocolID("/labmesh/"+string(mesh))),
		dht.DisableProviders(),
		dht.DisableValues(),
		dht.Concurrency(dhtConcurrency),
		dht.RoutingTableRefreshPeriod(dhtRefresh),
		dht.RoutingTableRefreshQueryTimeout(dhtQuery),
		dht.RoutingTableFilter(func(_ any, p peer.ID) bool { return g.member(p) }),
		dht.QueryFilter(func(_ any, info peer.AddrInfo) bool { return g.member(info.ID) }),
		dht.BootstrapPeersFunc(func() []peer.AddrInfo { return connectedMembers(g) }))
	if err != nil {
		return nil, fmt.Errorf("open dht: %w", err)
	}
	return &directory{dht: d}, nil
}

func connectedMembers(g *guard) []peer.AddrInfo {
	var infos []peer.AddrInfo
	for _, p := range g.Network().Peers() {
		if g.member(p) {
			infos = append(infos, g.Peerstore().PeerInfo(p))
		}
	}
	return infos
}

// find asks the DHT where p is. What it says may be stale.
func (d *directory) find(ctx context.Context, p peer.ID) []string {
	if d == nil {
		return nil
	}
	info, err := d.dht.FindPeer(ctx, p)
	if err != nil {
		return nil
	}
	addrs := make([]string, len(info.Addrs))
	for i, a := range info.Addrs {
		addrs[i] = a.String()
	}
	return addrs
}

// size is how many members are in the routing table.
func (d *directory) size() int {
	if d == nil {
		return 0
	}
	return d.dht.RoutingTable().Size()
}

// empty says whether the DHT would have to be bootstrapped.
func (d *directory) empty() bool { return d != nil && d.dht.RoutingTable().Size() == 0 }

// drop takes a node out of the routing table.
func (d *directory) drop(p peer.ID) {
	if d != nil {
		d.dht.RoutingTable().RemovePeer(p)
	}
}

func (d *directory) close() error {
	if d == nil {
		return nil
	}
	if err := d.dht.Close(); err != nil {
		return fmt.Errorf("close dht: %w", err)
	}
	return nil
}
