package mesh_test

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"testing"
	"testing/synctest"
	"time"

	"labmesh/mesh/meshtest"
)

func TestStreamsAreNetConns(t *testing.T) {
	t.Parallel()
	lan := meshtest.NewNet(t)
	a, b := meshtest.Start(t, lan.Config(t, 0)), meshtest.Start(t, lan.Config(t, 1))
	a.Learn(b.ID(), b.Addrs()...)
	l, err := b.Streams(echoProtocol).Listen()
	if err != nil {
		t.Fatal(err)
	}
	c, err := a.Streams(echoProtocol).Dial(t.Context(), b.ID())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(c, "ping"); err != nil {
		t.Fatal(err)
	}
	far, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	if far.RemoteAddr().String() != string(a.ID()) || c.RemoteAddr().String() != string(b.ID()) ||
		c.LocalAddr().String() != string(a.ID()) || l.Addr().String() != string(b.ID()) {
		t.Errorf("addresses: %s sees %s, %s sees %s", c.LocalAddr(), c.RemoteAddr(), far.LocalAddr(), far.RemoteAddr())
	}
	buf := make([]byte, 8)
	if n, err := far.Read(buf); err != nil || string(buf[:n]) != "ping" {
		t.Fatalf("read %q, %v", buf[:n], err)
	}
	if err := far.SetReadDeadline(time.Now().Add(20 * time.Millisecond)); err != nil {
		t.Fatal(err)
	}
	if _, err := far.Read(buf); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("read past the deadline: %v", err)
	}
	var timeout net.Error
	if _, err := far.Read(buf); !errors.As(err, &timeout) || !timeout.Timeout() {
		t.Errorf("the error is no timeout: %v", err)
	}
	if len(b.Connected()) != 1 {
		t.Error("a read deadline closed the connection, and nobody asked for that")
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := l.Accept(); !errors.Is(err, net.ErrClosed) {
		t.Errorf("accept after close: %v", err)
	}
}

// A reader of a conn that is closed beside it must wake, as with TCP.
func TestCloseWakesTheReader(t *testing.T) {
	t.Parallel()
	lan := meshtest.NewNet(t)
	a, b := meshtest.Start(t, lan.Config(t, 0)), meshtest.Start(t, lan.Config(t, 1))
	a.Learn(b.ID(), b.Addrs()...)
	echo(t, b, echoProtocol)
	c, err := a.Streams(echoProtocol).Dial(t.Context(), b.ID())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(c, "x"); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(c, make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
	woke := make(chan error, 1)
	go func() {
		_, err := c.Read(make([]byte, 1))
		woke <- err
	}()
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	select {
	case err := <-woke:
		if err == nil {
			t.Error("a closed conn was read from")
		}
	case <-time.After(5 * time.Second):
		t.Error("the reader sleeps on")
	}
}

func TestSilentPartitionHealsWithinASecond(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		sim := meshtest.NewSim(t)
		a, b := meshtest.Start(t, sim.Config(t, 0)), meshtest.Start(t, sim.Config(t, 1))
		meshtest.WaitFull(t, []*meshtest.Node{a, b}, time.Minute)
		echo(t, b, echoProtocol)
		raftLike := a.Streams(echoProtocol).CloseOnSilence()
		ask := func() error {
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			defer cancel()
			c, err := raftLike.Dial(ctx, b.ID())
			if err != nil {
				return err
			}
			defer c.Close()
			_ = c.SetDeadline(time.Now().Add(time.Second))
			if _, err := io.WriteString(c, "x"); err != nil {
				return err
			}
			_, err = io.ReadFull(c, make([]byte, 1))
			return err
		}
		if err := ask(); err != nil {
			t.Fatal(err)
		}
		sim.Cut(1)
		for began := time.Now(); time.Since(began) < 15*time.Second; {
			if ask() == nil {
				t.Fatal("answered across the cut")
			}
			time.Sleep(50 * time.Millisecond)
		}
		sim.Heal(1)
		began := time.Now()
		for ask() != nil {
			time.Sleep(50 * time.Millisecond)
		}
		took := time.Since(began)
		t.Logf("answered %s after healing", took)
		if took > time.Second {
			t.Errorf("answered only %s after the partition healed", took)
		}
	})
}

// Dialing a member that was down must not wait for libp2p's back-off, and a
// member whose address is not known is found through another.
func TestDialFindsTheMember(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		sim := meshtest.NewSim(t)
		var nodes []*meshtest.Node
		for i := range 3 {
			nodes = append(nodes, meshtest.Start(t, sim.Config(t, i)))
		}
		meshtest.WaitFull(t, nodes, time.Minute)
		nodes[2].Stop()
		for range 20 { // fill the back-off
			ctx, cancel := context.WithTimeout(t.Context(), 500*time.Millisecond)
			if _, err := nodes[1].Streams(echoProtocol).Dial(ctx, nodes[2].ID()); err == nil {
				t.Fatal("dialed a node that is down")
			}
			cancel()
		}
		sim.Move(2)
		cfg := sim.Config(t, 2)
		back := meshtest.Start(t, cfg)
		echo(t, back, echoProtocol)
		meshtest.Wait(t, 5*time.Second, "the node that moved is back with one", func() bool { return nodes[0].Alive(back.ID()) })
		began := time.Now()
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := say(ctx, nodes[1], back.ID(), echoProtocol, "hello"); err != nil {
			t.Fatalf("after %s: %v", time.Since(began), err)
		}
	})
}
