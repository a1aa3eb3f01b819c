package mesh

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/p2p/discovery/mdns"

	"labmesh"
)

// mdnsRetry is how long to wait when the local network does not let us ask.
const mdnsRetry = 30 * time.Second

// mdnsService is the name under which the nodes of a mesh find each other on the
// local network: a short one, whatever the mesh's id is.
func mdnsService(mesh labmesh.MeshID) string {
	sum := sha256.Sum256([]byte("labmesh mdns " + mesh))
	return "_lm" + hex.EncodeToString(sum[:5]) + "._udp"
}

// mdnsEar hears of nodes on the local network. Anybody there can say anything:
// it is heard of members only, and is no more than a hint.
type mdnsEar struct{ h *Host }

// HandlePeerFound takes a hint.
func (e mdnsEar) HandlePeerFound(info peer.AddrInfo) {
	if !e.h.guard.member(info.ID) || info.ID == e.h.guard.ID() {
		return
	}
	node := nodeID(info.ID)
	addrs := make([]string, len(info.Addrs))
	for i, a := range info.Addrs {
		addrs[i] = a.String()
	}
	e.h.hints.put(node, addrs)
	if !e.h.keeper.met(node) {
		e.h.keeper.heardOf(node)
	}
}

// tellLocal asks and answers on the local network until ctx ends, anew each time
// this node's addresses change.
func (h *Host) tellLocal(ctx context.Context) error {
	for {
		service := mdns.NewMdnsService(h.guard, mdnsService(h.cfg.Mesh), mdnsEar{h})
		var retry <-chan time.Time
		if err := service.Start(); err != nil {
			h.cfg.Logger.WarnContext(ctx, "no mdns: nodes on the local network will not find each other by it", "err", err)
			retry = time.After(mdnsRetry)
		}
		var ended error
		select {
		case <-ctx.Done():
			ended = ctx.Err()
		case <-retry:
		case <-h.moved:
		}
		if err := service.Close(); err != nil {
			h.cfg.Logger.WarnContext(ctx, "mdns not closed", "err", err)
		}
		if ended != nil {
			return ended
		}
	}
}
