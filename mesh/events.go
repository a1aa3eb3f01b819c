package mesh

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/libp2p/go-libp2p/core/event"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/p2p/host/eventbus"

	"labmesh"
)

const (
	eventsQueue = 1024

	searchEager = 4 // so many tries at first ask others too
	searchEvery = 8 // and then one in so many
)

// announcer tells what is built on the guard, gossip and the DHT, of members
// this node has met. Before that they would speak to nodes that do not yet admit
// us, be refused, and give up on them.
type announcer struct {
	met, conns, addrs event.Emitter
}

func newAnnouncer(bus event.Bus) (*announcer, error) {
	var a announcer
	for _, e := range []struct {
		emitter *event.Emitter
		kind    any
	}{
		{&a.met, new(event.EvtPeerIdentificationCompleted)},
		{&a.conns, new(event.EvtPeerConnectednessChanged)},
		{&a.addrs, new(event.EvtLocalAddressesUpdated)},
	} {
		var err error
		if *e.emitter, err = bus.Emitter(e.kind); err != nil {
			return nil, fmt.Errorf("make event emitter: %w", err)
		}
	}
	return &a, nil
}

func (a *announcer) close() error {
	return errors.Join(a.met.Close(), a.conns.Close(), a.addrs.Close())
}

// announce says that there is a member to speak to at the other end of c.
func (h *Host) announce(c network.Conn) {
	protocols, err := h.guard.Peerstore().GetProtocols(c.RemotePeer())
	if err != nil {
		return // it has left and is forgotten
	}
	err = h.announcer.met.Emit(event.EvtPeerIdentificationCompleted{Peer: c.RemotePeer(), Conn: c, Protocols: protocols})
	if err != nil && h.alive.Err() == nil {
		h.cfg.Logger.Warn("met a node and nobody was told", "node", c.RemotePeer(), "err", err)
	}
}

// meet takes note of a member whose advert came, and ours got, over c.
func (h *Host) meet(c network.Conn) {
	node := nodeID(c.RemotePeer())
	if c.Stat().Direction == network.DirOutbound {
		h.book.put(node, []string{c.RemoteMultiaddr().String()}, time.Now())
	}
	if h.keeper.meet(node) {
		h.cfg.Logger.Info("node met", "node", node, "at", c.RemoteMultiaddr())
		h.announce(c)
	}
}

// tend makes one try at meeting a member. Others are asked from the second try
// on, and less often when that has not helped: a member that is down for good
// must not cost much, and one that comes back calls.
func (h *Host) tend(ctx context.Context, node labmesh.NodeID, tries int) error {
	p, err := peerID(node)
	if err != nil {
		return err
	}
	if p == h.guard.ID() {
		h.keeper.meet(node)
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, keepTimeout)
	defer cancel()
	search := tries < searchEager && (tries > 0 || len(h.addrsAtHand(node)) == 0) || tries%searchEvery == searchEager
	if err := h.connect(ctx, p, keepDial, search); err != nil {
		return err
	}
	err = h.greet(ctx, p)
	if timedOut(err) {
		h.hangUp(p) // connected in name only
	}
	if err == nil {
		h.askMissing(ctx, p)
	}
	return err
}

// silent is told of nodes whose lease ran out. One that seems connected is
// looked at: the connection may be dead.
func (h *Host) silent(node labmesh.NodeID) {
	if h.keeper.met(node) {
		h.keeper.lost(node)
	}
}

// hangUp closes all connections to a peer.
func (h *Host) hangUp(p peer.ID) {
	h.count.hungUp.Add(1)
	if err := h.guard.Network().ClosePeer(p); err != nil {
		h.cfg.Logger.Debug("connection not closed cleanly", "node", p, "err", err)
	}
}

// follow passes libp2p's events on until ctx ends.
func (h *Host) follow(ctx context.Context) error {
	sub, err := h.guard.Host.EventBus().Subscribe(
		[]any{new(event.EvtPeerConnectednessChanged), new(event.EvtLocalAddressesUpdated)}, eventbus.BufSize(eventsQueue))
	if err != nil {
		return fmt.Errorf("follow libp2p events: %w", err)
	}
	defer sub.Close()
	for {
		var e any
		var open bool
		select {
		case <-ctx.Done():
			return ctx.Err()
		case e, open = <-sub.Out():
		}
		if !open {
			return errors.New("follow libp2p events: the host was closed under us")
		}
		if err := h.pass(e); err != nil && ctx.Err() == nil {
			return fmt.Errorf("follow libp2p events: %w", err)
		}
	}
}

// pass acts on one event, and passes it on to gossip and the DHT.
func (h *Host) pass(e any) error {
	switch e := e.(type) {
	case event.EvtPeerConnectednessChanged:
		if e.Connectedness != network.Connected {
			h.keeper.lost(nodeID(e.Peer))
		} else {
			h.keeper.poke()
		}
		return h.announcer.conns.Emit(e)
	case event.EvtLocalAddressesUpdated:
		h.AdvertNow()
		select {
		case h.moved <- struct{}{}:
		default:
		}
		return h.announcer.addrs.Emit(e)
	}
	return nil
}

// audit compares what is believed of members with what is so, until ctx ends:
// that those who were met are still connected, are reached by gossip, and are in
// the DHT's table.
func (h *Host) audit(ctx context.Context) error {
	tick := time.NewTicker(h.cfg.KeepInterval)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
			h.auditOnce()
		}
	}
}

func (h *Host) auditOnce() {
	reached, bootstrap := h.gossip.reaches(), h.dht.empty()
	conns := map[labmesh.NodeID]network.Conn{}
	for _, c := range h.guard.Network().Conns() {
		node := nodeID(c.RemotePeer())
		if _, seen := conns[node]; seen {
			continue
		}
		conns[node] = c
		if h.keeper.met(node) && (bootstrap || !reached[c.RemotePeer()]) {
			h.announce(c)
		}
	}
	for _, node := range h.keeper.allMet() {
		if _, ok := conns[node]; !ok && node != h.ID() {
			h.keeper.lost(node)
		}
	}
}
