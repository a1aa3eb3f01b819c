package meshtest

import (
	"crypto/rand"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p"
	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/x/simlibp2p"
	"github.com/marcopolo/simnet"

	"labmesh"
	"labmesh/mesh"
)

// The simulated network.
const (
	simLatency = time.Millisecond // one way
	simBits    = 1_000_000_000    // per second, each way
	simPort    = 8000
	simNever   = 10 * 365 * 24 * time.Hour // a packet that arrives then is lost
	simMoves   = 100                       // addresses a node may have one after the other
)

// Sim is a simulated network of hosts that speak QUIC. It belongs in a
// testing/synctest bubble.
type Sim struct {
	Group
	net *simnet.Simnet

	mu    sync.Mutex
	keys  map[int]crypto.PrivKey
	moves map[int]int     // how often a host has moved
	cut   map[string]bool // by IP
	lines map[line]int    // how many one-way cuts hold each
}

// line is what one IP sends to another.
type line struct{ from, to string }

// NewSim starts a network without hosts. The test's cleanup ends it, after that
// of all hosts started later.
func NewSim(t testing.TB) *Sim {
	t.Helper()
	s := &Sim{keys: map[int]crypto.PrivKey{}, moves: map[int]int{}, cut: map[string]bool{}, lines: map[line]int{}}
	s.net = &simnet.Simnet{LatencyFunc: s.latency, Logger: slog.New(slog.DiscardHandler)}
	s.net.Start()
	t.Cleanup(s.net.Close)
	return s
}

// latency is how long a packet takes: for ever where an end is cut off.
func (s *Sim) latency(p *simnet.Packet) time.Duration {
	s.mu.Lock()
	defer s.mu.Unlock()
	from, to := hostOf(p.From), hostOf(p.To)
	if s.cut[from] != s.cut[to] || s.lines[line{from, to}] > 0 {
		return simNever
	}
	return simLatency
}

func hostOf(a net.Addr) string {
	if u, ok := a.(*net.UDPAddr); ok {
		return u.IP.String()
	}
	return a.String()
}

// ip is the address of the i-th host. The lock is held.
func (s *Sim) ip(i int) string {
	return simnet.IntToPublicIPv4(i*simMoves + s.moves[i]).String()
}

// Cut loses all packets between the i-th hosts and all others that are not cut.
// Those that are cut still reach each other: that is how a mesh is split in two.
func (s *Sim) Cut(hosts ...int) { s.set(true, hosts) }

// Heal ends a cut.
func (s *Sim) Heal(hosts ...int) { s.set(false, hosts) }

func (s *Sim) set(cut bool, hosts []int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, i := range hosts {
		s.cut[s.ip(i)] = cut
	}
}

// CutLine loses what the hosts in from send to those in to, and nothing that comes back, until heal is called.
// Two of them, one for each way, between all but one host make that one a bridge.
func (s *Sim) CutLine(from, to []int) (heal func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	var cut []line
	for _, f := range from {
		for _, t := range to {
			if f != t {
				cut = append(cut, line{s.ip(f), s.ip(t)})
			}
		}
	}
	for _, l := range cut {
		s.lines[l]++
	}
	return func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		for _, l := range cut {
			s.lines[l]--
		}
	}
}

// Move gives the i-th host another address from its next Config on.
func (s *Sim) Move(i int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.moves[i]++
}

// Addr is the full multiaddr of the i-th host, for Config.Known and joins.
func (s *Sim) Addr(t testing.TB, i int) string {
	t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.listen(i) + "/p2p/" + string(keyID(t, s.key(t, i)))
}

func (s *Sim) listen(i int) string {
	return fmt.Sprintf("/ip4/%s/udp/%d/quic-v1", s.ip(i), simPort)
}

// key is the identity of the i-th host. The lock is held.
func (s *Sim) key(t testing.TB, i int) crypto.PrivKey {
	t.Helper()
	if key, ok := s.keys[i]; ok {
		return key
	}
	key, _, err := crypto.GenerateEd25519Key(rand.Reader)
	if err != nil {
		t.Fatalf("key of host %d: %v", i, err)
	}
	s.keys[i] = key
	return key
}

func keyID(t testing.TB, key crypto.PrivKey) labmesh.NodeID {
	t.Helper()
	id, err := mesh.KeyID(key)
	if err != nil {
		t.Fatalf("id of host: %v", err)
	}
	return id
}

// Config makes the i-th host and a Config with it; whoever opens the Config
// closes the host. The host is a member and knows the address of host 0.
func (s *Sim) Config(t testing.TB, i int) mesh.Config {
	t.Helper()
	cfg := s.Stranger(t, i)
	s.mu.Lock()
	id := keyID(t, s.keys[i])
	s.mu.Unlock()
	s.Add(id)
	if i != 0 {
		cfg.Known = []string{s.Addr(t, 0)}
	}
	return cfg
}

// Stranger is a Config for a host that is no member and knows nobody.
func (s *Sim) Stranger(t testing.TB, i int) mesh.Config {
	t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	link := simnet.LinkSettings{BitsPerSecond: simBits}
	h, err := libp2p.New(
		libp2p.Identity(s.key(t, i)),
		libp2p.ListenAddrStrings(s.listen(i)),
		simlibp2p.QUICSimnet(s.net, simnet.NodeBiDiLinkSettings{Downlink: link, Uplink: link}),
		libp2p.ResourceManager(&network.NullResourceManager{}),
		libp2p.DisableIdentifyAddressDiscovery(), // it stalls a bubble
		libp2p.DisableRelay(),
		libp2p.DisableMetrics(),
		libp2p.UDPBlackHoleSuccessCounter(nil), // it would give up on hosts that were cut off
	)
	if err != nil {
		t.Fatalf("host %d: %v", i, err)
	}
	return mesh.Config{
		Mesh: MeshID, Libp2p: h,
		Admit: s.Admit, Members: s.Members,
		NoMDNS: true,
	}
}
