package mesh

import (
	"log/slog"
	"path/filepath"
	"time"

	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/host"

	"labmesh"
)

// Defaults of [Config].
const (
	DefaultListen         = "/ip4/0.0.0.0/tcp/4080"
	DefaultAdvertInterval = 2 * time.Second
	DefaultLease          = 6 * time.Second
	DefaultKeepInterval   = time.Second
)

// Files in [Config.Dir].
const (
	KeyFile  = "node.key"
	BookFile = "peers.json"
)

// Config is what a [Host] needs to know. Mesh, Admit and Members must be set,
// and one of Dir, Key and Libp2p.
type Config struct {
	Mesh labmesh.MeshID
	Dir  string         // holds node.key and peers.json
	Key  crypto.PrivKey // the identity, in place of the one in Dir
	Book string         // where the peer book is kept; "" means in Dir, or in memory without one

	// Listen are multiaddrs, e.g. /ip4/0.0.0.0/tcp/4080; port 0 means any. For
	// each TCP port QUIC listens on the UDP port of the same number.
	Listen []string
	// Known are addresses of other nodes, ending in /p2p/ and their id, that are
	// tried in addition to those of the peer book.
	Known []string

	// Admit says whether a node may speak a protocol with this one, either way.
	// Protocol "" asks whether it may be connected at all: whether it is a
	// member. It is called for every stream and must not block.
	Admit func(node labmesh.NodeID, protocol string) bool
	// Members are the nodes to keep connected to; this node may be among them.
	Members func() []labmesh.NodeID
	// Advert is what this node says of itself now. The host fills in Node, Seq,
	// and, where they are empty, Boot, Lease and Addrs. Without it the node says
	// nothing but that it is there.
	Advert func() labmesh.Advert
	// Join lets strangers in. Without it this node lets nobody in.
	Join JoinHandler

	NoMDNS     bool // neither look for nodes on the local network nor be found there
	NoDHT      bool
	NoQUIC     bool
	NATPortMap bool // ask the router for a port

	AdvertInterval time.Duration // how often the advert is published
	Lease          time.Duration // how long an advert of ours holds
	KeepInterval   time.Duration // how often connections are looked over

	// Libp2p is a host to use in place of one of our own, e.g. on a simulated
	// network. It must be listening; Key, Listen, NoQUIC and NATPortMap are then
	// without effect, and Close closes it.
	Libp2p host.Host

	Logger *slog.Logger
}

// withDefaults is c with everything filled in that has a default.
func (c Config) withDefaults() Config {
	if len(c.Listen) == 0 {
		c.Listen = []string{DefaultListen}
	}
	if c.Book == "" && c.Dir != "" {
		c.Book = filepath.Join(c.Dir, BookFile)
	}
	if c.Advert == nil {
		c.Advert = func() labmesh.Advert { return labmesh.Advert{} }
	}
	if c.AdvertInterval <= 0 {
		c.AdvertInterval = DefaultAdvertInterval
	}
	if c.Lease <= 0 {
		c.Lease = DefaultLease
	}
	if c.KeepInterval <= 0 {
		c.KeepInterval = DefaultKeepInterval
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	return c
}

// validate says what is wrong with c.
func (c Config) validate() error {
	switch {
	case c.Mesh == "":
		return labmesh.RefuseField("mesh_id", "open mesh: the mesh has no id")
	case c.Admit == nil:
		return labmesh.RefuseField("admit", "open mesh: nothing says who is admitted")
	case c.Members == nil:
		return labmesh.RefuseField("members", "open mesh: nothing says who the members are")
	case c.Dir == "" && c.Key == nil && c.Libp2p == nil:
		return labmesh.RefuseField("dir", "open mesh: there is neither a directory nor a key")
	case c.Lease < LeaseMin || c.Lease > LeaseMax:
		return labmesh.RefuseField("lease", "open mesh: a lease of %s is not between %s and %s", c.Lease, LeaseMin, LeaseMax)
	}
	return nil
}
