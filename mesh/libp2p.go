package mesh

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/libp2p/go-libp2p"
	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	rcmgr "github.com/libp2p/go-libp2p/p2p/host/resource-manager"
	"github.com/libp2p/go-libp2p/p2p/net/connmgr"
	libp2ptls "github.com/libp2p/go-libp2p/p2p/security/tls"
	libp2pquic "github.com/libp2p/go-libp2p/p2p/transport/quic"
	"github.com/libp2p/go-libp2p/p2p/transport/tcp"
	"github.com/libp2p/go-libp2p/x/rate"
	ma "github.com/multiformats/go-multiaddr"
	manet "github.com/multiformats/go-multiaddr/net"

	"labmesh"
)

// Limits on connections and streams. libp2p's own are for hosts among
// strangers on the open internet; a lab is a few hundred members, many of them
// behind one address, with many streams each.
const (
	connsLow        = 512  // the connection manager trims to this
	connsHigh       = 1024 // when there are more than this
	connsPerPeer    = 16
	connsPerIP      = 512
	connRatePerIP   = 20 // per second
	connBurstPerIP  = 512
	streamsPerPeer  = 8192
	streamsInSystem = 1 << 16
	streamMemory    = 512 << 20 // bytes of stream windows a peer may make us hold
	systemMemory    = 4 << 30

	listenTimeout = time.Second
	dialTimeout   = 5 * time.Second // one address, handshake included
	dialStagger   = 20 * time.Millisecond
	quicDelay     = 250 * time.Millisecond
)

// newLibp2p makes a libp2p host that listens: TCP with TLS and yamux first, QUIC
// beside it. It contacts nobody.
func newLibp2p(ctx context.Context, cfg Config, key crypto.PrivKey) (host.Host, error) {
	limits, err := newLimits()
	if err != nil {
		return nil, err
	}
	conns, err := connmgr.NewConnManager(connsLow, connsHigh)
	if err != nil {
		return nil, errors.Join(err, limits.Close())
	}
	opts := []libp2p.Option{
		libp2p.Identity(key),
		libp2p.NoListenAddrs,
		// Without reuseport a port that is taken is an error, and a redial never
		// meets the remains of the connection before.
		libp2p.Transport(tcp.NewTCPTransport, tcp.DisableReuseport(), tcp.WithConnectionTimeout(dialTimeout)),
		libp2p.Security(libp2ptls.ID, libp2ptls.New),
		libp2p.DefaultMuxers,
		libp2p.ResourceManager(limits),
		libp2p.ConnectionManager(conns),
		libp2p.DialRanker(rankDials),
		libp2p.WithDialTimeout(dialTimeout),
		libp2p.UserAgent("labmesh"),
		libp2p.DisableRelay(),
		libp2p.DisableIdentifyAddressDiscovery(),
		libp2p.DisableMetrics(),
		libp2p.Ping(false),
		// The detectors would stop trying UDP or IPv6 after members were down for a while.
		libp2p.UDPBlackHoleSuccessCounter(nil),
		libp2p.IPv6BlackHoleSuccessCounter(nil),
	}
	if !cfg.NoQUIC {
		opts = append(opts, libp2p.Transport(libp2pquic.NewTransport))
	}
	if cfg.NATPortMap {
		opts = append(opts, libp2p.NATPortMap())
	}
	h, err := libp2p.New(opts...)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("make libp2p host: %w", err), conns.Close(), limits.Close())
	}
	if err := listen(ctx, h.Network(), cfg.Listen, !cfg.NoQUIC); err != nil {
		return nil, errors.Join(err, h.Close())
	}
	return h, nil
}

func newLimits() (network.ResourceManager, error) {
	scaling := rcmgr.DefaultLimits
	libp2p.SetDefaultServiceLimits(&scaling)
	streams := rcmgr.ResourceLimits{
		Streams: streamsPerPeer, StreamsInbound: streamsPerPeer, StreamsOutbound: streamsPerPeer, Memory: streamMemory,
	}
	peers := streams
	peers.Conns, peers.ConnsInbound, peers.ConnsOutbound, peers.FD = connsPerPeer, connsPerPeer, connsPerPeer, connsPerPeer
	system := rcmgr.ResourceLimits{
		Streams: streamsInSystem, StreamsInbound: streamsInSystem, StreamsOutbound: streamsInSystem, Memory: systemMemory,
		Conns: 2 * connsHigh, ConnsInbound: 2 * connsHigh, ConnsOutbound: 2 * connsHigh, FD: 2 * connsHigh,
	}
	transient := rcmgr.ResourceLimits{
		Streams: streamsPerPeer, StreamsInbound: streamsPerPeer, StreamsOutbound: streamsPerPeer, Memory: streamMemory,
		Conns: connsHigh, ConnsInbound: connsHigh, ConnsOutbound: connsHigh, FD: connsHigh,
	}
	concrete := rcmgr.PartialLimitConfig{
		System: system, Transient: transient, PeerDefault: peers,
		ProtocolDefault:     rcmgr.ResourceLimits{Streams: streamsInSystem, StreamsInbound: streamsInSystem, StreamsOutbound: streamsInSystem, Memory: systemMemory},
		ProtocolPeerDefault: streams,
	}.Build(scaling.AutoScale())

	perIP := rate.Limit{RPS: connRatePerIP, Burst: connBurstPerIP}
	unlimited := []rate.PrefixLimit{{Prefix: netip.MustParsePrefix("127.0.0.0/8")}, {Prefix: netip.MustParsePrefix("::1/128")}}
	m, err := rcmgr.NewResourceManager(rcmgr.NewFixedLimiter(concrete),
		rcmgr.WithMetricsDisabled(),
		rcmgr.WithLimitPerSubnet(
			[]rcmgr.ConnLimitPerSubnet{{PrefixLength: 32, ConnCount: connsPerIP}},
			[]rcmgr.ConnLimitPerSubnet{{PrefixLength: 64, ConnCount: connsPerIP}}),
		rcmgr.WithConnRateLimiters(&rate.Limiter{
			NetworkPrefixLimits: unlimited,
			SubnetRateLimiter: rate.SubnetLimiter{
				IPv4SubnetLimits: []rate.SubnetLimit{{PrefixLength: 32, Limit: perIP}},
				IPv6SubnetLimits: []rate.SubnetLimit{{PrefixLength: 64, Limit: perIP}},
				GracePeriod:      time.Minute,
			},
		}))
	if err != nil {
		return nil, fmt.Errorf("set libp2p limits: %w", err)
	}
	return m, nil
}

// rankDials tries TCP before QUIC, which moves a third of the bytes.
func rankDials(addrs []ma.Multiaddr) []network.AddrDelay {
	ranked := make([]network.AddrDelay, 0, len(addrs))
	var tcps time.Duration
	for _, a := range addrs {
		if _, err := a.ValueForProtocol(ma.P_TCP); err == nil {
			ranked = append(ranked, network.AddrDelay{Addr: a, Delay: tcps})
			tcps += dialStagger
		}
	}
	var later time.Duration
	if len(ranked) > 0 {
		later = tcps + quicDelay
	}
	for _, a := range addrs {
		if _, err := a.ValueForProtocol(ma.P_TCP); err != nil {
			ranked = append(ranked, network.AddrDelay{Addr: a, Delay: later})
			later += dialStagger
		}
	}
	return ranked
}

// listen listens on addrs and, for each TCP port, on the UDP port of the same
// number for QUIC. Where the port was ours to choose and its UDP twin is taken,
// QUIC gets another.
func listen(ctx context.Context, n network.Network, addrs []string, quic bool) error {
	for _, s := range addrs {
		a, err := ma.NewMultiaddr(s)
		if err != nil {
			return labmesh.RefuseField("listen", "listen on %q: it is no multiaddr such as %s", s, DefaultListen)
		}
		if err := listenOne(ctx, n, a); err != nil {
			return err
		}
		port, err := a.ValueForProtocol(ma.P_TCP)
		if err != nil || !quic {
			continue
		}
		twin, err := quicTwin(a, listenPort(n, a, port))
		if err != nil {
			return err
		}
		if err = n.Listen(twin); err != nil && port == "0" {
			twin, _ = quicTwin(a, "0") // it was made from the same parts a line ago
			err = n.Listen(twin)
		}
		if err != nil {
			return listenError(twin, err)
		}
	}
	return nil
}

// listenOne waits a moment for a port to come free: the process before may
// still be going.
func listenOne(ctx context.Context, n network.Network, a ma.Multiaddr) error {
	ctx, cancel := context.WithTimeout(ctx, listenTimeout)
	defer cancel()
	for {
		err := n.Listen(a)
		if err == nil || !inUse(err) {
			return listenError(a, err)
		}
		select {
		case <-ctx.Done():
			return listenError(a, err)
		case <-time.After(100 * time.Millisecond):
		}
	}
}

func inUse(err error) bool {
	return errors.Is(err, syscall.EADDRINUSE) || strings.Contains(err.Error(), "address already in use")
}

func listenError(a ma.Multiaddr, err error) error {
	switch {
	case err == nil:
		return nil
	case inUse(err):
		return labmesh.Refuse(labmesh.Unavailable, "listen on %s: another process has this port: stop it, or choose another port", a)
	}
	return fmt.Errorf("listen on %s: %w", a, err)
}

// listenPort is the port that was really taken for a.
func listenPort(n network.Network, a ma.Multiaddr, port string) string {
	if port != "0" {
		return port
	}
	host, _ := ma.SplitFirst(a)
	listening := n.ListenAddresses()
	for _, l := range slices.Backward(listening) {
		if first, _ := ma.SplitFirst(l); first != nil && host != nil && first.Equal(host) {
			if p, err := l.ValueForProtocol(ma.P_TCP); err == nil {
				return p
			}
		}
	}
	return "0"
}

func quicTwin(a ma.Multiaddr, port string) (ma.Multiaddr, error) {
	before, _ := ma.SplitFunc(a, func(c ma.Component) bool { return c.Protocol().Code == ma.P_TCP })
	twin, err := ma.NewMultiaddr("/udp/" + port + "/quic-v1")
	if err != nil {
		return nil, fmt.Errorf("quic address beside %s: %w", a, err)
	}
	return before.Encapsulate(twin), nil
}

// rankAddrs puts the addresses that are of most use to others first: those of a
// network before loopback, TCP before QUIC.
func rankAddrs(addrs []ma.Multiaddr) []ma.Multiaddr {
	sorted := slices.Clone(addrs)
	weight := func(a ma.Multiaddr) int {
		w := 0
		if manet.IsIPLoopback(a) {
			w += 4
		}
		if manet.IsIP6LinkLocal(a) {
			w += 2
		}
		if _, err := a.ValueForProtocol(ma.P_TCP); err != nil {
			w++
		}
		return w
	}
	slices.SortStableFunc(sorted, func(a, b ma.Multiaddr) int { return cmp.Compare(weight(a), weight(b)) })
	return sorted
}

// ipOf is the IP of a remote address, for limits by address.
func ipOf(a ma.Multiaddr) netip.Addr {
	ip, err := manet.ToIP(a)
	if err != nil {
		return netip.Addr{}
	}
	addr, _ := netip.AddrFromSlice(net.IP(ip))
	return addr.Unmap()
}
