package mesh

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	pubsub "github.com/libp2p/go-libp2p-pubsub"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"

	"labmesh"
)

// AdvertProtocol exchanges adverts face to face. Gossip loses what is published
// before a newcomer is grafted; this does not.
const AdvertProtocol = "/labmesh/advert/1"

const (
	advertDebounce  = 50 * time.Millisecond
	gossipQueue     = 256     // messages waiting for one peer
	gossipBytesMax  = 1 << 20 // of one RPC, which may hold several adverts
	gossipTopicTail = "/adverts/1"
)

// gossip spreads adverts among members.
type gossip struct {
	ps     *pubsub.PubSub
	topic  *pubsub.Topic
	sub    *pubsub.Subscription
	cancel context.CancelFunc
	now    chan struct{} // publish soon
}

// openGossip joins the mesh's topic. check sees each message before it is passed
// on: its author is proved by signature, from is who passed it on.
func openGossip(h *guard, mesh labmesh.MeshID, check pubsub.ValidatorEx) (_ *gossip, err error) {
	ctx, cancel := context.WithCancel(context.Background()) // ends with close
	defer func() {
		if err != nil {
			cancel()
		}
	}()
	name := "/labmesh/" + string(mesh) + gossipTopicTail
	ps, err := pubsub.NewGossipSub(ctx, h,
		pubsub.WithMessageSignaturePolicy(pubsub.StrictSign),
		pubsub.WithMaxMessageSize(gossipBytesMax),
		pubsub.WithPeerOutboundQueueSize(gossipQueue),
		pubsub.WithSubscriptionFilter(pubsub.NewAllowlistSubscriptionFilter(name)),
		pubsub.WithPeerFilter(func(p peer.ID, _ string) bool { return h.member(p) }))
	if err != nil {
		return nil, fmt.Errorf("open gossip: %w", err)
	}
	if err := ps.RegisterTopicValidator(name, check, pubsub.WithValidatorInline(true)); err != nil {
		return nil, fmt.Errorf("open gossip: %w", err)
	}
	topic, err := ps.Join(name)
	if err != nil {
		return nil, fmt.Errorf("open gossip: %w", err)
	}
	sub, err := topic.Subscribe(pubsub.WithBufferSize(gossipQueue))
	if err != nil {
		return nil, fmt.Errorf("open gossip: %w", err)
	}
	return &gossip{ps: ps, topic: topic, sub: sub, cancel: cancel, now: make(chan struct{}, 1)}, nil
}

func (g *gossip) close() {
	g.sub.Cancel()
	g.cancel()
}

// reaches says whether gossip has a way to p.
func (g *gossip) reaches() map[peer.ID]bool {
	there := map[peer.ID]bool{}
	for _, p := range g.ps.ListPeers("") {
		there[p] = true
	}
	return there
}

// checkGossip lets through adverts of members that speak for themselves.
func (h *Host) checkGossip(_ context.Context, _ peer.ID, m *pubsub.Message) pubsub.ValidationResult {
	author := m.GetFrom()
	a, err := decodeAdvert(m.Data, nodeID(author))
	if err != nil {
		h.count.advertsRefused.Add(1)
		return pubsub.ValidationReject
	}
	if !h.guard.may(author, AdvertProtocol) {
		h.count.advertsRefused.Add(1)
		return pubsub.ValidationIgnore // it may be a member we have not heard of yet
	}
	m.ValidatorData = a
	return pubsub.ValidationAccept
}

// listen hears what is gossiped until ctx ends.
func (h *Host) listenGossip(ctx context.Context) error {
	for {
		m, err := h.gossip.sub.Next(ctx)
		if err != nil {
			if ctx.Err() != nil {
				return ctx.Err()
			}
			return fmt.Errorf("hear gossip: %w", err)
		}
		if a, ok := m.ValidatorData.(labmesh.Advert); ok && m.GetFrom() != h.guard.ID() {
			h.hear(a, false)
		}
	}
}

// hear takes in an advert that is known to be its author's.
func (h *Host) hear(a labmesh.Advert, faceToFace bool) {
	taken, news := h.board.hear(a, faceToFace)
	if !taken {
		return
	}
	h.count.advertsHeard.Add(1)
	if news {
		h.book.put(a.Node, a.Addrs, time.Now())
		if !h.keeper.met(a.Node) {
			h.keeper.heardOf(a.Node)
		}
	}
}

// say is this node's next advert.
func (h *Host) say() labmesh.Advert {
	return completeAdvert(h.cfg.Advert(), h.ID(), h.boot, h.seq.Add(1), h.cfg.Lease, h.Addrs())
}

// publish publishes adverts until ctx ends: again and again, and soon after
// somebody asked for it.
func (h *Host) publish(ctx context.Context) error {
	tick := time.NewTicker(h.cfg.AdvertInterval)
	defer tick.Stop()
	for {
		if err := h.publishOnce(ctx); err != nil && ctx.Err() == nil {
			h.cfg.Logger.WarnContext(ctx, "advert not published", "err", err)
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		case <-h.gossip.now:
			select {
			case <-ctx.Done():
				return ctx.Err()
			case <-time.After(advertDebounce):
			}
			select { // what was asked for meanwhile is done with this one
			case <-h.gossip.now:
			default:
			}
		}
	}
}

func (h *Host) publishOnce(ctx context.Context) error {
	a := h.say()
	data, err := json.Marshal(a)
	if err != nil {
		return fmt.Errorf("publish advert: %w", err)
	}
	if _, err := decodeAdvert(data, h.ID()); err != nil {
		return fmt.Errorf("publish advert: %w", err)
	}
	h.board.hear(a, true)
	if err := h.gossip.topic.Publish(ctx, data); err != nil {
		return fmt.Errorf("publish advert: %w", err)
	}
	return nil
}

// AdvertNow has the advert published within 50 ms.
func (h *Host) AdvertNow() {
	select {
	case h.gossip.now <- struct{}{}:
	default:
	}
}

// greet exchanges adverts with a connected member. That it comes about says that
// each admits the other.
func (h *Host) greet(ctx context.Context, p peer.ID) error {
	s, err := h.open(ctx, p, AdvertProtocol, greetWait)
	if err != nil {
		return fmt.Errorf("greet: %w", err)
	}
	defer s.Close()
	stop := context.AfterFunc(ctx, func() { _ = s.Reset() })
	defer stop()
	if err := writeFrame(s, h.say(), AdvertBytesMax); err != nil {
		return fmt.Errorf("greet %s: %w", p, err)
	}
	if err := h.hearFrom(s); err != nil {
		return fmt.Errorf("greet %s: %w", p, err)
	}
	h.meet(s.Conn())
	return nil
}

// answerGreeting is the other end of greet.
func (h *Host) answerGreeting(s network.Stream) {
	defer s.Close()
	_ = s.SetDeadline(time.Now().Add(greetWait)) // a stream that cannot have one fails on use
	if err := h.hearFrom(s); err != nil {
		h.count.advertsRefused.Add(1)
		_ = s.Reset()
		return
	}
	if err := writeFrame(s, h.say(), AdvertBytesMax); err != nil {
		_ = s.Reset()
		return
	}
	h.meet(s.Conn())
}

// hearFrom reads the advert of the node at the other end.
func (h *Host) hearFrom(s network.Stream) error {
	var data json.RawMessage
	if err := readFrame(s, &data, AdvertBytesMax); err != nil {
		return err
	}
	a, err := decodeAdvert(data, nodeID(s.Conn().RemotePeer()))
	if err != nil {
		return err
	}
	h.hear(a, true)
	return nil
}
