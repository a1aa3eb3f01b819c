package mesh_test

import (
	"crypto/rand"
	"net"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"labmesh"
	"labmesh/mesh"
	"labmesh/mesh/meshtest"
)

func TestNodeThatWasDownTenSecondsIsBackWithinOne(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		sim := meshtest.NewSim(t)
		var nodes []*meshtest.Node
		for i := range 3 {
			nodes = append(nodes, meshtest.Start(t, sim.Config(t, i)))
		}
		meshtest.WaitFull(t, nodes, time.Minute)
		nodes[2].Stop()
		time.Sleep(10 * time.Second)
		began := time.Now()
		nodes[2] = meshtest.Start(t, sim.Config(t, 2))
		meshtest.WaitFull(t, nodes, time.Minute)
		t.Logf("back after %s", time.Since(began))
		if took := time.Since(began); took > time.Second {
			t.Errorf("back only after %s", took)
		}
	})
}

// A node that was cut off, and not restarted, is found again by the others.
func TestNodeThatWasCutOffIsBackSoonAfterHealing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		sim := meshtest.NewSim(t)
		var nodes []*meshtest.Node
		for i := range 3 {
			nodes = append(nodes, meshtest.Start(t, sim.Config(t, i)))
		}
		meshtest.WaitFull(t, nodes, time.Minute)
		sim.Cut(1, 2)
		time.Sleep(time.Minute)
		if !nodes[1].Alive(nodes[2].ID()) || nodes[1].Alive(nodes[0].ID()) {
			t.Error("the two that were cut off together should have each other, and nobody else")
		}
		sim.Heal(1, 2)
		began := time.Now()
		meshtest.WaitFull(t, nodes, time.Minute)
		t.Logf("all met %s after healing", time.Since(began))
		if took := time.Since(began); took > 5*time.Second {
			t.Errorf("all met only %s after healing", took)
		}
	})
}

// restart stops nodes and starts them again from their directories, with the
// peer book and nothing else to go by.
func restart(t *testing.T, lan *meshtest.Net, nodes []*meshtest.Node, change func(i int, cfg *mesh.Config)) []*meshtest.Node {
	t.Helper()
	for _, n := range nodes {
		n.Stop()
	}
	again := make([]*meshtest.Node, len(nodes))
	for i := range nodes {
		cfg := lan.Config(t, i)
		change(i, &cfg)
		again[i] = meshtest.Start(t, cfg)
	}
	return again
}

func startThree(t *testing.T, lan *meshtest.Net) []*meshtest.Node {
	t.Helper()
	var nodes []*meshtest.Node
	for i := range 3 {
		cfg := lan.Config(t, i)
		if i > 0 {
			cfg.Known = nodes[0].Addrs()
		}
		nodes = append(nodes, meshtest.Start(t, cfg))
	}
	meshtest.WaitFull(t, nodes, 10*time.Second)
	return nodes
}

func TestNodesFindEachOtherThroughTheOneThatDidNotMove(t *testing.T) {
	t.Parallel()
	lan := meshtest.NewNet(t)
	nodes := startThree(t, lan)
	stays := nodes[1].Addrs()[0]
	nodes = restart(t, lan, nodes, func(i int, cfg *mesh.Config) {
		if i == 1 {
			cfg.Listen = []string{stays[:len(stays)-len("/p2p/")-len(nodes[1].ID())]}
		}
	})
	meshtest.WaitFull(t, nodes, 10*time.Second)
}

// multicasts says whether this machine has a network to ask.
func multicasts(t *testing.T) bool {
	t.Helper()
	faces, err := net.Interfaces()
	if err != nil {
		t.Fatal(err)
	}
	return slices.ContainsFunc(faces, func(f net.Interface) bool {
		return f.Flags&(net.FlagUp|net.FlagMulticast) == net.FlagUp|net.FlagMulticast
	})
}

func TestNodesFindEachOtherOnTheLocalNetworkAfterAllMoved(t *testing.T) {
	t.Parallel()
	if !multicasts(t) {
		t.Skip("no network interface here does multicast")
	}
	lan := meshtest.NewNet(t)
	lan.Mesh = labmesh.MeshID("m-" + rand.Text()) // of this run alone
	nodes := startThree(t, lan)
	nodes = restart(t, lan, nodes, func(_ int, cfg *mesh.Config) { cfg.NoMDNS = false })
	meshtest.WaitFull(t, nodes, 20*time.Second)
}

// A private DHT of fresh nodes, all of which start at once, often finds nobody.
func TestFreshNodesThatStartAtOnceMeet(t *testing.T) {
	for _, count := range []int{2, 3} {
		synctest.Test(t, func(t *testing.T) {
			sim := meshtest.NewSim(t)
			var cfgs []mesh.Config
			for i := range count {
				cfgs = append(cfgs, sim.Config(t, i))
			}
			var nodes []*meshtest.Node
			for _, cfg := range cfgs {
				nodes = append(nodes, meshtest.Start(t, cfg))
			}
			began := time.Now()
			meshtest.WaitFull(t, nodes, time.Minute)
			t.Logf("%d nodes met after %s", count, time.Since(began))
			meshtest.Wait(t, 10*time.Second, "all are in the DHT's tables and reached by gossip", func() bool {
				for _, n := range nodes {
					if n.Stats().DHT != count-1 || n.Reached() != count-1 {
						return false
					}
				}
				return true
			})
		})
	}
}

func TestAdvertsArriveSoonAfterTheyAreAskedFor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		sim := meshtest.NewSim(t)
		var nodes []*meshtest.Node
		for i := range 3 {
			nodes = append(nodes, meshtest.Start(t, sim.Config(t, i)))
		}
		meshtest.WaitFull(t, nodes, time.Minute)
		time.Sleep(5 * time.Second) // until gossip has grafted
		seq := nodes[0].Heard()[nodes[0].ID()].Advert.Seq
		for range 100 { // all of which are one
			nodes[0].AdvertNow()
		}
		time.Sleep(100 * time.Millisecond)
		if got := nodes[2].Heard()[nodes[0].ID()].Advert.Seq; got <= seq || got > seq+3 {
			t.Errorf("number %d was heard after %d and a hundred calls", got, seq)
		}
		changed := nodes[2].Changed()
		nodes[0].Stop()
		began := time.Now()
		<-changed
		if took := time.Since(began); took < 3*time.Second || took > 7*time.Second {
			t.Errorf("the end of a lease of 6 s was told after %s", took)
		}
		if nodes[2].Alive(nodes[0].ID()) {
			t.Error("a node that stopped is alive after its lease")
		}
	})
}

func TestOpenAndCloseAgainAndAgain(t *testing.T) {
	t.Parallel()
	lan := meshtest.NewNet(t)
	cfg := lan.Config(t, 0)
	for range 5 {
		h, err := mesh.Open(t.Context(), cfg)
		if err != nil {
			t.Fatal(err)
		}
		for range 2 {
			if err := h.Close(); err != nil {
				t.Fatal(err)
			}
		}
	}
}
