package mesh

import (
	"context"
	"errors"

	"labmesh"
)

// Host is this node's place in the mesh.
type Host struct {
	cfg Config
}

// Path says how a node is reached.
type Path string

// The paths.
const (
	PathNone    Path = ""
	PathDirect  Path = "direct"
	PathRelayed Path = "relayed"
)

// Bounds of an advert's lease.
const (
	LeaseMin = 0
	LeaseMax = 1 << 40
)

// Stats count what happened since the host was opened.
type Stats struct {
	Connected int // members connected now
}

// Open takes up the identity, listens and readies gossip and discovery. It
// starts no loop of its own: that is [Host.Run].
func Open(ctx context.Context, cfg Config) (*Host, error) { return nil, errors.ErrUnsupported }

// Run keeps connections, publishes adverts and saves the peer book until ctx
// ends, and joins all it started.
func (h *Host) Run(ctx context.Context) error { return nil }

// Close leaves the network. It is safe twice.
func (h *Host) Close() error { return nil }

// ID is this node's id.
func (h *Host) ID() labmesh.NodeID { return "" }

// Addrs are the full multiaddrs this node can be reached at, most usable first.
func (h *Host) Addrs() []string { return nil }

// Connected are the members this node has a connection to, in order of id.
func (h *Host) Connected() []labmesh.NodeID { return nil }

// PathTo says how a node is reached just now.
func (h *Host) PathTo(node labmesh.NodeID) Path { return PathNone }

// Stats counts what happened.
func (h *Host) Stats() Stats { return Stats{} }

// Trust admits nodes before the mesh's own record of members has arrived. Trust
// lasts until [Host.Drop].
func (h *Host) Trust(nodes ...labmesh.NodeID) {}

// Drop closes all connections to a node and ends its trust.
func (h *Host) Drop(node labmesh.NodeID) {}

// Learn puts addresses of a node into the peer book.
func (h *Host) Learn(node labmesh.NodeID, addrs ...string) {}

// Join proves an invite to one of the nodes at addrs and becomes a member.
func (h *Host) Join(ctx context.Context, addrs []string, inviteID string, secret []byte, req JoinRequest) (JoinReply, error) {
	return JoinReply{}, errors.ErrUnsupported
}

// Heard is the last word of every node whose lease holds, this one included.
func (h *Host) Heard() map[labmesh.NodeID]Heard { return nil }

// Changed is closed at the next change of Heard that is more than a renewal.
func (h *Host) Changed() <-chan struct{} { return nil }

// Alive says whether a node's word still holds.
func (h *Host) Alive(node labmesh.NodeID) bool { return false }

// AdvertNow publishes the advert within 50 ms.
func (h *Host) AdvertNow() {}

// SendAdvert exchanges adverts with one member face to face.
func (h *Host) SendAdvert(ctx context.Context, to labmesh.NodeID) error { return nil }
