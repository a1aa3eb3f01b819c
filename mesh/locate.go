package mesh

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/p2p/net/swarm"
	ma "github.com/multiformats/go-multiaddr"

	"labmesh"
)

// PeersProtocol asks a member where others can be reached.
const PeersProtocol = "/labmesh/peers/1"

const (
	askBytesMax  = 256 << 10
	askNodesMax  = 64 // nodes one question may be about
	askMembers   = 3  // members asked at once
	askWait      = time.Second
	searchWait   = 2 * time.Second
	hintAddrsMax = 8
)

type whereQuestion struct {
	Want []labmesh.NodeID `json:"want"`
}

type whereAnswer struct {
	Addrs map[labmesh.NodeID][]string `json:"addrs"`
}

// hints are addresses that somebody said a node has: the local network, other
// members. They are tried and not written down.
type hints struct {
	mu    sync.Mutex
	addrs map[labmesh.NodeID][]string
}

func (h *hints) put(node labmesh.NodeID, addrs []string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.addrs == nil {
		h.addrs = map[labmesh.NodeID][]string{}
	}
	h.addrs[node] = merge(addrs, h.addrs[node], hintAddrsMax)
}

func (h *hints) of(node labmesh.NodeID) []string {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.addrs[node]
}

func (h *hints) forget(node labmesh.NodeID) {
	h.mu.Lock()
	defer h.mu.Unlock()
	delete(h.addrs, node)
}

// addrsAtHand is where node may be, by what this node knows itself: the freshest
// word first.
func (h *Host) addrsAtHand(node labmesh.NodeID) []string {
	advert, _ := h.board.of(node)
	addrs := merge(advert.Addrs, h.hints.of(node), bookAddrsMax)
	return merge(addrs, h.book.addrs(node), bookAddrsMax)
}

// connect makes sure there is a connection to a member. With search it asks
// others when the addresses at hand lead nowhere.
func (h *Host) connect(ctx context.Context, p peer.ID, dial time.Duration, search bool) error {
	if h.connected(p) {
		return nil
	}
	node := nodeID(p)
	known := h.addrsAtHand(node)
	err := h.dial(ctx, p, known, dial)
	if err == nil || !search || ctx.Err() != nil {
		return err
	}
	found := slices.DeleteFunc(h.search(ctx, p), func(a string) bool { return slices.Contains(known, a) })
	if h.connected(p) { // it came to us meanwhile
		return nil
	}
	if len(found) == 0 {
		return err
	}
	return h.dial(ctx, p, found, dial)
}

// dial tries addresses of p, all of them, libp2p's back-off notwithstanding.
func (h *Host) dial(ctx context.Context, p peer.ID, addrs []string, limit time.Duration) error {
	infos := multiaddrs(addrs)
	if len(infos) == 0 {
		return labmesh.Refuse(labmesh.Unavailable, "connect: no address of %s is known", p)
	}
	if deadline, ok := ctx.Deadline(); ok { // leave half for the search
		limit = min(limit, max(time.Until(deadline)/2, 100*time.Millisecond))
	}
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	clearBackoff(h.guard.Network(), p)
	h.guard.Peerstore().ClearAddrs(p) // what is stale is not dialed along
	if err := h.guard.Connect(ctx, peer.AddrInfo{ID: p, Addrs: infos}); err != nil {
		return fmt.Errorf("connect to %s: %w", p, err)
	}
	return nil
}

// clearBackoff lets p be dialed at once after dials that came to nothing.
func clearBackoff(n network.Network, p peer.ID) {
	if s, ok := n.(interface{ Backoff() *swarm.DialBackoff }); ok {
		s.Backoff().Clear(p)
	}
}

func multiaddrs(addrs []string) []ma.Multiaddr {
	list := make([]ma.Multiaddr, 0, len(addrs))
	for _, s := range addrs {
		a, err := ma.NewMultiaddr(s)
		if err != nil {
			continue // somebody's word; the others may be better
		}
		if a, _ = peer.SplitAddr(a); a != nil {
			list = append(list, a)
		}
	}
	return list
}

func (h *Host) connected(p peer.ID) bool {
	return h.guard.Network().Connectedness(p) == network.Connected
}

// search asks a few connected members, and when they do not know, the DHT, where
// p can be reached.
func (h *Host) search(ctx context.Context, p peer.ID) []string {
	ctx, cancel := context.WithTimeout(ctx, searchWait)
	defer cancel()
	found := h.askAround(ctx, p)
	if len(found) == 0 {
		found = h.dht.find(ctx, p)
	}
	if len(found) > 0 {
		h.hints.put(nodeID(p), found)
	}
	return found
}

// askAround asks some members, any of them, at once. The first to know will do.
func (h *Host) askAround(ctx context.Context, p peer.ID) []string {
	ctx, cancel := context.WithTimeout(ctx, askWait)
	defer cancel()
	members := h.peers()
	rand.Shuffle(len(members), func(i, j int) { members[i], members[j] = members[j], members[i] })
	members = members[:min(askMembers, len(members))]

	answers := make(chan []string, len(members))
	var asking sync.WaitGroup
	defer asking.Wait()
	defer cancel() // before the wait
	for _, m := range members {
		asking.Go(func() { answers <- h.ask(ctx, m, p) })
	}
	for range members {
		if addrs := <-answers; len(addrs) > 0 {
			return addrs
		}
	}
	return nil
}

// ask asks one member where p can be reached.
func (h *Host) ask(ctx context.Context, m, p peer.ID) []string {
	node := nodeID(p)
	answer, err := h.where(ctx, m, []labmesh.NodeID{node})
	if err != nil {
		return nil
	}
	return merge(answer[node], nil, bookAddrsMax)
}

// askMissing asks one member, just met, where all those are that this node has
// no address of: a newcomer knows one address and wants all.
func (h *Host) askMissing(ctx context.Context, m peer.ID) {
	var missing []labmesh.NodeID
	for _, node := range h.wanted() {
		if len(missing) < askNodesMax && !h.keeper.met(node) && node != h.ID() && len(h.addrsAtHand(node)) == 0 {
			missing = append(missing, node)
		}
	}
	if len(missing) == 0 {
		return
	}
	answer, err := h.where(ctx, m, missing)
	if err != nil {
		return // others will be asked, one by one
	}
	for _, node := range missing {
		if addrs := answer[node]; len(addrs) > 0 {
			h.hints.put(node, addrs)
			h.keeper.heardOf(node)
		}
	}
}

// where puts one question to a member.
func (h *Host) where(ctx context.Context, m peer.ID, nodes []labmesh.NodeID) (map[labmesh.NodeID][]string, error) {
	s, err := h.open(ctx, m, PeersProtocol, askWait)
	if err != nil {
		return nil, err
	}
	defer s.Close()
	stop := context.AfterFunc(ctx, func() { _ = s.Reset() })
	defer stop()
	var answer whereAnswer
	err = errors.Join(writeFrame(s, whereQuestion{Want: nodes}, askBytesMax), readFrame(s, &answer, askBytesMax))
	if err != nil {
		return nil, fmt.Errorf("ask %s where others are: %w", m, err)
	}
	return answer.Addrs, nil
}

// tellWhere answers where members can be reached.
func (h *Host) tellWhere(s network.Stream) {
	defer s.Close()
	_ = s.SetDeadline(time.Now().Add(askWait)) // a stream that cannot have one fails on use
	var q whereQuestion
	if err := readFrame(s, &q, askBytesMax); err != nil || len(q.Want) > askNodesMax {
		_ = s.Reset()
		return
	}
	answer := whereAnswer{Addrs: map[labmesh.NodeID][]string{}}
	for _, node := range q.Want {
		if p, err := peerID(node); err == nil && h.guard.member(p) {
			answer.Addrs[node] = h.addrsAtHand(node)
		}
	}
	if err := writeFrame(s, answer, askBytesMax); err != nil {
		_ = s.Reset()
	}
}

// open opens a stream to a member there is a connection to, to be done with in time.
func (h *Host) open(ctx context.Context, p peer.ID, proto string, limit time.Duration) (network.Stream, error) {
	ctx, cancel := context.WithTimeout(network.WithNoDial(ctx, "members only, and connected"), limit)
	defer cancel()
	s, err := h.guard.NewStream(ctx, p, protocolID(proto))
	if err != nil {
		return nil, fmt.Errorf("open %s to %s: %w", proto, p, err)
	}
	if err := s.SetDeadline(time.Now().Add(limit)); err != nil {
		return nil, errors.Join(fmt.Errorf("open %s to %s: %w", proto, p, err), s.Reset())
	}
	return s, nil
}
