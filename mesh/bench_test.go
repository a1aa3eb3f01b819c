package mesh_test

import (
	"io"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"labmesh"
	"labmesh/mesh"
	"labmesh/mesh/meshtest"
)

func benchPair(b *testing.B, quic bool) (from, to *meshtest.Node) {
	b.Helper()
	lan := meshtest.NewNet(b)
	var nodes []*meshtest.Node
	for i := range 2 {
		cfg := lan.Config(b, i)
		cfg.NoQUIC = !quic
		if i > 0 {
			cfg.Known = nodes[0].Addrs()
		}
		nodes = append(nodes, meshtest.Start(b, cfg))
	}
	meshtest.WaitFull(b, nodes, 10*time.Second)
	echo(b, nodes[1], echoProtocol)
	return nodes[0], nodes[1]
}

// BenchmarkRoundTrip is one word there and back on an open stream.
func BenchmarkRoundTrip(b *testing.B) {
	from, to := benchPair(b, false)
	c, err := from.Streams(echoProtocol).Dial(b.Context(), to.ID())
	if err != nil {
		b.Fatal(err)
	}
	defer c.Close()
	word := make([]byte, 256)
	for b.Loop() {
		if _, err := c.Write(word); err != nil {
			b.Fatal(err)
		}
		if _, err := io.ReadFull(c, word); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkDial is a new stream, one word there and back, and its end.
func BenchmarkDial(b *testing.B) {
	from, to := benchPair(b, false)
	for b.Loop() {
		if err := say(b.Context(), from, to.ID(), echoProtocol, "word"); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkConnect is a new connection between two hosts, identify included.
func BenchmarkConnect(b *testing.B) {
	from, to := benchPair(b, false)
	here, _ := from.Libp2p()
	there, _ := to.Libp2p()
	info := peer.AddrInfo{ID: there.ID(), Addrs: there.Addrs()}
	for b.Loop() {
		if err := here.Network().ClosePeer(info.ID); err != nil {
			b.Fatal(err)
		}
		if err := here.Connect(b.Context(), info); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkBulk is one stream that is read as fast as it is written.
func BenchmarkBulk(b *testing.B) {
	from, to := benchPair(b, false)
	const sink = "/labmesh/sink/1"
	l, err := to.Streams(sink).Listen()
	if err != nil {
		b.Fatal(err)
	}
	defer l.Close()
	c, err := from.Streams(sink).Dial(b.Context(), to.ID())
	if err != nil {
		b.Fatal(err)
	}
	block := make([]byte, 1<<20)
	if _, err := c.Write(block[:1]); err != nil { // a stream is there when it says something
		b.Fatal(err)
	}
	far, err := l.Accept()
	if err != nil {
		b.Fatal(err)
	}
	read := make(chan int64, 1)
	go func() {
		n, _ := io.CopyBuffer(struct{ io.Writer }{io.Discard}, far, make([]byte, 1<<20))
		read <- n
	}()
	b.SetBytes(int64(len(block)))
	for b.Loop() {
		if _, err := c.Write(block); err != nil {
			b.Fatal(err)
		}
	}
	if err := c.Close(); err != nil {
		b.Fatal(err)
	}
	<-read
}

// BenchmarkJoin is a newcomer from Open to having met the mesh.
func BenchmarkJoin(b *testing.B) {
	lan := meshtest.NewNet(b)
	for i := 0; b.Loop(); i += 2 {
		b.StopTimer() // a server of its own, or its turnstile would, rightly, stop us
		cfg := lan.Config(b, i)
		cfg.Join = &doorkeeper{group: lan}
		server := meshtest.Start(b, cfg)
		b.StartTimer()
		newcomer := meshtest.Start(b, stranger(lan.Stranger(b, i+1)))
		if _, err := newcomer.Join(b.Context(), server.Addrs(), goodInvite, secret, mesh.JoinRequest{}); err != nil {
			b.Fatal(err)
		}
		meshtest.Wait(b, 10*time.Second, "newcomer and mesh have met", func() bool {
			return newcomer.Met(server.ID()) && server.Met(newcomer.ID())
		})
		b.StopTimer()
		newcomer.Stop()
		server.Stop()
		lan.Remove(newcomer.ID())
		lan.Remove(server.ID())
		b.StartTimer()
	}
}

// BenchmarkHear is what an advert costs who hears it, and looks.
func BenchmarkHear(b *testing.B) {
	var r mesh.Roster
	now := time.Unix(1000, 0)
	a := labmesh.Advert{Node: "n", Boot: 1, Lease: time.Second}
	for b.Loop() {
		a.Seq++
		r.Hear(a, now)
	}
}
