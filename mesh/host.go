package mesh

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/libp2p/go-libp2p/core/event"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/p2p/host/eventbus"
	"golang.org/x/sync/errgroup"

	"labmesh"
)

// Host is this node's place in the mesh.
type Host struct {
	cfg   Config
	boot  int64
	seq   atomic.Uint64
	alive context.Context // ends with Close
	end   context.CancelFunc
	moved chan struct{} // this node's addresses have changed
	once  sync.Once
	count counters

	guard     *guard
	strangers *strangers
	announcer *announcer
	turnstile *turnstile
	gossip    *gossip
	dht       *directory
	board     *board
	book      *book
	hints     hints
	keeper    *keeper
}

// Path says how a node is reached.
type Path string

// The paths.
const (
	PathNone    Path = ""
	PathDirect  Path = "direct"
	PathRelayed Path = "relayed"
)

// Open takes up the identity, listens, and readies gossip and discovery. From
// then on the node answers; it seeks nobody before [Host.Run].
func Open(ctx context.Context, cfg Config) (_ *Host, err error) {
	cfg = cfg.withDefaults()
	if err := cfg.validate(); err != nil {
		return nil, err
	}
	lib, err := libp2pHost(ctx, cfg)
	if err != nil {
		return nil, err
	}
	h := &Host{
		cfg: cfg, boot: time.Now().UnixNano(), moved: make(chan struct{}, 1),
		turnstile: newTurnstile(), board: newBoard(),
	}
	h.alive, h.end = context.WithCancel(context.WithoutCancel(ctx))
	h.keeper = newKeeper(h.tend)
	bus := eventbus.NewBus()
	h.guard = newGuard(lib, bus, cfg.Admit)
	h.strangers = newStrangers(h.guard)
	defer func() {
		if err != nil {
			err = errors.Join(err, h.Close())
		}
	}()
	if h.book, err = openBook(cfg.Book); err != nil {
		cfg.Logger.WarnContext(ctx, "peer book begun anew", "err", err)
	}
	for _, a := range cfg.Known {
		if err := h.know(a); err != nil {
			return nil, err
		}
	}
	return h, h.openServices(bus)
}

// libp2pHost is the host that cfg brings, or one of our own.
func libp2pHost(ctx context.Context, cfg Config) (host.Host, error) {
	if cfg.Libp2p != nil {
		return cfg.Libp2p, nil
	}
	key := cfg.Key
	if key == nil {
		var mended bool
		var err error
		path := filepath.Join(cfg.Dir, KeyFile)
		if key, mended, err = LoadKey(path); err != nil {
			return nil, err
		}
		if mended {
			cfg.Logger.WarnContext(ctx, "the node's key could be read by others; it is private again, but may be known", "path", path)
		}
	}
	return newLibp2p(ctx, cfg, key)
}

// know takes an address that ends in a node's id into the book.
func (h *Host) know(s string) error {
	info, err := peer.AddrInfoFromString(s)
	if err != nil {
		return labmesh.RefuseField("known", "open mesh: %.200q is no address that ends in /p2p/ and a node's id", s)
	}
	for _, a := range info.Addrs {
		h.book.put(nodeID(info.ID), []string{a.String()}, time.Now())
	}
	return nil
}

// openServices readies all that speaks to others.
func (h *Host) openServices(bus event.Bus) (err error) {
	if h.announcer, err = newAnnouncer(bus); err != nil {
		return err
	}
	if h.gossip, err = openGossip(h.guard, h.cfg.Mesh, h.checkGossip); err != nil {
		return err
	}
	if !h.cfg.NoDHT {
		if h.dht, err = openDirectory(h.guard, h.cfg.Mesh); err != nil {
			return err
		}
	}
	h.guard.Network().Notify(h.strangers)
	h.guard.SetStreamHandler(AdvertProtocol, h.answerGreeting)
	h.guard.SetStreamHandler(PeersProtocol, h.tellWhere)
	h.guard.SetStreamHandler(JoinProtocol, h.serveJoin)
	return nil
}

// Run keeps connections to members, publishes adverts and saves the peer book
// until ctx ends, and joins all it started. Its error is ctx's unless something
// broke.
func (h *Host) Run(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return h.follow(ctx) })
	g.Go(func() error { return h.keeper.run(ctx, h.wanted, h.cfg.KeepInterval) })
	g.Go(func() error { return h.audit(ctx) })
	g.Go(func() error { return h.listenGossip(ctx) })
	g.Go(func() error { return h.publish(ctx) })
	g.Go(func() error { return h.board.run(ctx, h.silent) })
	g.Go(func() error { return h.book.run(ctx, h.cfg.Logger) })
	g.Go(func() error { return h.strangers.run(ctx) })
	if !h.cfg.NoMDNS {
		g.Go(func() error { return h.tellLocal(ctx) })
	}
	return g.Wait()
}

// Close leaves the network. It is safe twice. A Run under way must be ended
// first by its context.
func (h *Host) Close() (err error) {
	h.once.Do(func() {
		h.end()
		if h.book != nil {
			err = errors.Join(err, h.book.save())
		}
		h.guard.Network().StopNotify(h.strangers)
		if h.gossip != nil {
			h.gossip.close()
		}
		err = errors.Join(err, h.dht.close())
		if h.announcer != nil {
			err = errors.Join(err, h.announcer.close())
		}
		if closeErr := h.guard.Host.Close(); closeErr != nil {
			err = errors.Join(err, fmt.Errorf("close libp2p host: %w", closeErr))
		}
	})
	return err
}

// ID is this node's id.
func (h *Host) ID() labmesh.NodeID { return nodeID(h.guard.ID()) }

// Addrs are the full multiaddrs this node can be reached at, most usable first.
func (h *Host) Addrs() []string {
	addrs := rankAddrs(h.guard.Addrs())
	list := make([]string, len(addrs))
	for i, a := range addrs {
		list[i] = a.String() + "/p2p/" + h.guard.ID().String()
	}
	return merge(list, nil, AdvertAddrsMax)
}

// wanted are the members to keep met with.
func (h *Host) wanted() []labmesh.NodeID {
	members := h.cfg.Members()
	trusted := h.guard.trustedPeers()
	if len(trusted) == 0 {
		return members
	}
	all := slices.Clone(members)
	for _, p := range trusted {
		all = append(all, nodeID(p))
	}
	slices.Sort(all)
	return slices.Compact(all)
}

// peers are the members there is a connection to.
func (h *Host) peers() []peer.ID {
	return slices.DeleteFunc(h.guard.Network().Peers(), func(p peer.ID) bool { return !h.guard.member(p) })
}

// Connected are the members this node has a connection to, in order of id.
func (h *Host) Connected() []labmesh.NodeID {
	peers := h.peers()
	nodes := make([]labmesh.NodeID, len(peers))
	for i, p := range peers {
		nodes[i] = nodeID(p)
	}
	slices.Sort(nodes)
	return nodes
}

// PathTo says how a node is reached just now.
func (h *Host) PathTo(node labmesh.NodeID) Path {
	p, err := peerID(node)
	if err != nil {
		return PathNone
	}
	switch h.guard.Network().Connectedness(p) {
	case network.Connected:
		return PathDirect
	case network.Limited:
		return PathRelayed
	}
	return PathNone
}

// Trust admits nodes to every protocol before the mesh's own record of members
// has arrived. Trust lasts until [Host.Drop].
func (h *Host) Trust(nodes ...labmesh.NodeID) {
	for _, n := range nodes {
		if p, err := peerID(n); err == nil && p != h.guard.ID() {
			h.guard.trust(p)
		}
	}
	h.keeper.poke()
}

// Untrust ends the trust in nodes: from now on [Config.Admit] alone decides, and
// [Config.Members] whom to keep connected to.
func (h *Host) Untrust(nodes ...labmesh.NodeID) {
	for _, n := range nodes {
		if p, err := peerID(n); err == nil {
			h.guard.distrust(p)
		}
	}
	h.keeper.poke()
}

// Drop ends a node's trust, closes all connections to it at once and forgets
// where it was. Whether it may come back is for [Config.Admit] to say, which
// must say no by now if it is banned.
func (h *Host) Drop(node labmesh.NodeID) {
	p, err := peerID(node)
	if err != nil {
		return // such a node was never here
	}
	h.guard.distrust(p)
	h.hangUp(p)
	h.dht.drop(p)
	h.book.forget(node)
	h.hints.forget(node)
	h.keeper.forget(node)
	h.board.forget(node)
}

// Learn writes addresses of a node into the peer book.
func (h *Host) Learn(node labmesh.NodeID, addrs ...string) {
	h.book.put(node, addrs, time.Now())
	h.keeper.heardOf(node)
}

// MembersChanged has the members looked at now, and not at the next
// [Config.KeepInterval].
func (h *Host) MembersChanged() { h.keeper.poke() }

// Heard is the last word of every node whose lease holds, this one included. It
// is shared, and not to be written to.
func (h *Host) Heard() map[labmesh.NodeID]Heard { return h.board.snapshot() }

// Changed is closed at the next change of Heard that is more than a node's word
// that it is still there. Take it, then look at Heard, then wait.
func (h *Host) Changed() <-chan struct{} { return h.board.wait() }

// Alive says whether a node's word still holds.
func (h *Host) Alive(node labmesh.NodeID) bool { return h.board.alive(node) }
