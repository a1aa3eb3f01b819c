package mesh

import (
	"bytes"
	"context"

	"github.com/libp2p/go-libp2p/core/host"

	"labmesh"
)

// What tests of the room from outside must reach into.

// Libp2p is the guarded host and the bare one below it.
func (h *Host) Libp2p() (guarded, bare host.Host) { return h.guard, h.guard.Host }

// Unchecked takes away this node's own checks of what it gossips.
func (h *Host) Unchecked() error {
	return h.gossip.ps.UnregisterTopicValidator(h.gossip.topic.String())
}

// Gossip publishes bytes as they are under this node's signature.
func (h *Host) Gossip(ctx context.Context, data []byte) error {
	return h.gossip.topic.Publish(ctx, data)
}

// Say is this node's next advert.
func (h *Host) Say() labmesh.Advert { return h.say() }

// Reached counts those whom gossip has a way to.
func (h *Host) Reached() int { return len(h.gossip.reaches()) }

// Met says whether adverts were exchanged with a node.
func (h *Host) Met(node labmesh.NodeID) bool { return h.keeper.met(node) }

// DecodeJoin reads every kind of join frame from data.
func DecodeJoin(data []byte) (errs []error) {
	for _, v := range []any{&joinHello{}, &joinChallenge{}, &joinProof{}, &joinVerdict{}, &JoinRequest{}, &JoinReply{}} {
		errs = append(errs, readFrame(bytes.NewReader(data), v, joinFrameMax))
	}
	return errs
}

// DecodeAdvert reads an advert.
var DecodeAdvert = decodeAdvert
