package mesh_test

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/libp2p/go-libp2p"
	dht "github.com/libp2p/go-libp2p-kad-dht"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"

	"labmesh"
	"labmesh/mesh"
	"labmesh/mesh/meshtest"
)

const echoProtocol = "/labmesh/echo/1"

// echo answers all that comes in on a protocol with the same.
func echo(t testing.TB, n *meshtest.Node, protocol string) {
	t.Helper()
	l, err := n.Streams(protocol).Listen()
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				_, _ = io.Copy(c, c)
				_ = c.Close()
			}()
		}
	}()
	t.Cleanup(func() {
		_ = l.Close()
		<-done
	})
}

// say sends words over a new connection and reads them back.
func say(ctx context.Context, from *meshtest.Node, to labmesh.NodeID, protocol, words string) error {
	c, err := from.Streams(protocol).Dial(ctx, to)
	if err != nil {
		return err
	}
	defer c.Close()
	if err := c.SetDeadline(time.Now().Add(5 * time.Second)); err != nil {
		return err
	}
	if _, err := io.WriteString(c, words); err != nil {
		return err
	}
	_, err = io.ReadFull(c, make([]byte, len(words)))
	return err
}

// bare is a libp2p host without any guard: what an intruder would bring.
func bare(t *testing.T) host.Host {
	t.Helper()
	h, err := libp2p.New(libp2p.NoListenAddrs)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = h.Close() })
	return h
}

// refused says whether the node at the other end refuses a protocol to h.
func refused(t *testing.T, h host.Host, to peer.ID, id protocol.ID) bool {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	s, err := h.NewStream(ctx, to, id)
	if err != nil {
		return true
	}
	defer s.Close()
	_ = s.SetDeadline(time.Now().Add(5 * time.Second))
	_, _ = s.Write([]byte{0, 0, 0, 2, '{', '}'})
	_, err = s.Read(make([]byte, 1))
	var timeout net.Error
	return err != nil && !errors.Is(err, io.EOF) && !(errors.As(err, &timeout) && timeout.Timeout())
}

func TestStrangersAreRefusedEveryProtocol(t *testing.T) {
	t.Parallel()
	lan := meshtest.NewNet(t)
	node := meshtest.Start(t, lan.Config(t, 0))
	echo(t, node, echoProtocol)
	_, served := node.Libp2p()

	intruder, member := bare(t), bare(t)
	lan.Add(labmesh.NodeID(member.ID().String()))
	info := peer.AddrInfo{ID: served.ID(), Addrs: served.Addrs()}
	for _, h := range []host.Host{intruder, member} {
		if err := h.Connect(t.Context(), info); err != nil {
			t.Fatal(err)
		}
	}
	protocols := served.Mux().Protocols()
	for _, want := range []protocol.ID{echoProtocol, mesh.AdvertProtocol, mesh.PeersProtocol,
		"/labmesh/m-test/kad/1.0.0", "/meshsub/1.1.0", "/floodsub/1.0.0"} {
		if !slices.Contains(protocols, want) {
			t.Errorf("the node does not serve %s: %v", want, protocols)
		}
	}
	below := []protocol.ID{"/ipfs/id/1.0.0", "/ipfs/id/push/1.0.0"} // identify: how libp2p hosts say hello
	checked := 0
	for _, id := range protocols {
		if slices.Contains(below, id) || id == mesh.JoinProtocol {
			continue
		}
		checked++
		if !refused(t, intruder, served.ID(), id) {
			t.Errorf("a stranger may speak %s", id)
		}
	}
	if refused(t, member, served.ID(), echoProtocol) {
		t.Error("a member may not speak", echoProtocol)
	}
	if n := node.Stats().RefusedIn; n < uint64(checked) || checked < 6 {
		t.Errorf("%d streams were refused to strangers and %d counted", checked, n)
	}
	if refused(t, intruder, served.ID(), mesh.JoinProtocol) {
		t.Error("a stranger may not even join")
	}
}

func TestNothingIsSpokenToStrangers(t *testing.T) {
	t.Parallel()
	lan := meshtest.NewNet(t)
	node, other := meshtest.Start(t, lan.Config(t, 0)), meshtest.Start(t, lan.Stranger(t, 1))
	guarded, unguarded := node.Libp2p()
	far, _ := other.Libp2p()
	info := peer.AddrInfo{ID: far.ID(), Addrs: far.Addrs()}
	if err := guarded.Connect(t.Context(), info); labmesh.ReasonOf(err) != labmesh.Denied {
		t.Errorf("connect to a stranger: %v", err)
	}
	if err := unguarded.Connect(t.Context(), info); err != nil {
		t.Fatal(err)
	}
	if _, err := guarded.NewStream(t.Context(), far.ID(), echoProtocol); labmesh.ReasonOf(err) != labmesh.Denied {
		t.Errorf("stream to a stranger: %v", err)
	}
	if _, err := node.Streams(echoProtocol).Dial(t.Context(), other.ID()); labmesh.ReasonOf(err) != labmesh.Denied {
		t.Errorf("dial a stranger: %v", err)
	}
}

// The library's own DHT, in a host without a guard, is answered when the host is
// a member's, and only then.
func TestStrangersCannotEnterTheDHT(t *testing.T) {
	t.Parallel()
	lan := meshtest.NewNet(t)
	node := meshtest.Start(t, lan.Config(t, 0))
	_, served := node.Libp2p()
	for _, admitted := range []bool{false, true} {
		h := bare(t)
		if admitted {
			lan.Add(labmesh.NodeID(h.ID().String()))
		}
		d, err := dht.New(h, dht.Mode(dht.ModeServer), dht.ProtocolPrefix("/labmesh/m-test"), dht.DisableProviders(), dht.DisableValues())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = d.Close() })
		if err := h.Connect(t.Context(), peer.AddrInfo{ID: served.ID(), Addrs: served.Addrs()}); err != nil {
			t.Fatal(err)
		}
		if err := d.Ping(t.Context(), served.ID()); (err == nil) != admitted {
			t.Errorf("member %v: ping answered with %v", admitted, err)
		}
	}
}

func TestStrangersWhoStayAreShownOut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		sim := meshtest.NewSim(t)
		node := meshtest.Start(t, sim.Config(t, 0))
		other := meshtest.Start(t, sim.Stranger(t, 1))
		_, door := node.Libp2p()
		_, h := other.Libp2p()
		if err := h.Connect(t.Context(), peer.AddrInfo{ID: door.ID(), Addrs: door.Addrs()}); err != nil {
			t.Fatal(err)
		}
		time.Sleep(10 * time.Second)
		if door.Network().Connectedness(h.ID()) == network.Connected {
			t.Error("a stranger is still connected after ten seconds")
		}
		if s := node.Stats(); s.StrangersSeen != 1 || s.Strangers != 0 {
			t.Errorf("stats: %+v", s)
		}
	})
}

func TestBanHoldsAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		sim := meshtest.NewSim(t)
		nodes := []*meshtest.Node{meshtest.Start(t, sim.Config(t, 0)), meshtest.Start(t, sim.Config(t, 1))}
		meshtest.WaitFull(t, nodes, time.Minute)
		echo(t, nodes[0], echoProtocol)
		banned := nodes[1]
		c, err := banned.Streams(echoProtocol).Dial(t.Context(), nodes[0].ID())
		if err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(c, "x"); err != nil {
			t.Fatal(err)
		}
		sim.Remove(banned.ID()) // by everybody's view, its own too: it is the other that must refuse
		banned.Trust(nodes[0].ID())
		nodes[0].Drop(banned.ID())
		_ = c.SetReadDeadline(time.Now().Add(5 * time.Second))
		if _, err := io.ReadAll(c); err == nil {
			t.Error("a stream of a banned node lives on")
		}
		if err := say(t.Context(), banned, nodes[0].ID(), echoProtocol, "let me in"); err == nil {
			t.Error("a banned node was served")
		}
		time.Sleep(20 * time.Second)
		if nodes[0].Alive(banned.ID()) || len(nodes[0].Connected()) != 0 {
			t.Error("a banned node is still among the living")
		}
	})
}

func TestForgedGossipIsDroppedAndCounted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		sim := meshtest.NewSim(t)
		var nodes []*meshtest.Node
		for i := range 3 {
			nodes = append(nodes, meshtest.Start(t, sim.Config(t, i)))
		}
		meshtest.WaitFull(t, nodes, time.Minute)
		time.Sleep(5 * time.Second) // until gossip has grafted
		victim, forger := nodes[0], nodes[1]

		forged := victim.Say()
		forged.Seq += 1000
		forged.API = "http://forged.invalid"
		insane := forger.Say()
		insane.Seq += 2000
		insane.Lease = 1000 * time.Hour
		before := nodes[2].Stats().AdvertsRefused
		if err := forger.Unchecked(); err != nil {
			t.Fatal(err)
		}
		for _, a := range []labmesh.Advert{forged, insane} {
			data, err := json.Marshal(a)
			if err != nil {
				t.Fatal(err)
			}
			if err := forger.Gossip(t.Context(), data); err != nil {
				t.Fatal(err)
			}
		}
		time.Sleep(2 * time.Second)
		if got := nodes[2].Heard()[victim.ID()].Advert; got.API == forged.API || got.Seq >= forged.Seq {
			t.Errorf("a forged advert was believed: %+v", got)
		}
		if got := nodes[2].Heard()[forger.ID()].Advert; got.Lease == insane.Lease {
			t.Errorf("an insane lease was believed: %+v", got)
		}
		if n := nodes[2].Stats().AdvertsRefused - before; n < 2 {
			t.Errorf("%d forged adverts were counted, there were 2", n)
		}
	})
}
