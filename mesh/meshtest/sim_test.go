package meshtest_test

import (
	"testing"
	"testing/synctest"
	"time"

	"labmesh/mesh/meshtest"
)

func TestFiveNodesMeetAreCutAndMeetAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		sim := meshtest.NewSim(t)
		var nodes []*meshtest.Node
		for i := range 5 {
			nodes = append(nodes, meshtest.Start(t, sim.Config(t, i)))
		}
		began := time.Now()
		meshtest.WaitFull(t, nodes, time.Minute)
		t.Logf("all met after %s", time.Since(began))

		sim.Cut(4)
		time.Sleep(15 * time.Second)
		if nodes[0].Alive(nodes[4].ID()) {
			t.Error("a node that was cut off is still held for alive after its lease")
		}
		if !nodes[0].Alive(nodes[3].ID()) {
			t.Error("a node that was not cut off is not alive")
		}
		sim.Heal(4)
		began = time.Now()
		meshtest.WaitFull(t, nodes, 10*time.Second)
		t.Logf("all met again %s after the cut", time.Since(began))
	})
}

// TestOneWayCutsAndBridges: a host that is not heard, one that does not hear, and one that alone reaches two
// halves: adverts go where there is a way, and all meet again after each.
func TestOneWayCutsAndBridges(t *testing.T) {
	for name, c := range map[string]struct {
		cuts [][2][]int // from, to
		deaf [2]int     // the first does not hear of the second
		hear [2]int     // the first still hears of the second
	}{
		"mute":   {[][2][]int{{{4}, {0, 1, 2, 3}}}, [2]int{0, 4}, [2]int{0, 3}},
		"deaf":   {[][2][]int{{{0, 1, 2, 3}, {4}}}, [2]int{4, 0}, [2]int{0, 3}},
		"bridge": {[][2][]int{{{1, 2}, {3, 4}}, {{3, 4}, {1, 2}}}, [2]int{}, [2]int{1, 4}},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				sim := meshtest.NewSim(t)
				var nodes []*meshtest.Node
				for i := range 5 {
					nodes = append(nodes, meshtest.Start(t, sim.Config(t, i)))
				}
				meshtest.WaitFull(t, nodes, time.Minute)
				var heals []func()
				for _, cut := range c.cuts {
					heals = append(heals, sim.CutLine(cut[0], cut[1]))
				}
				time.Sleep(30 * time.Second)
				if a, b := c.deaf[0], c.deaf[1]; a != b && nodes[a].Alive(nodes[b].ID()) {
					t.Errorf("%d takes %d for alive, which it cannot hear", a, b)
				}
				if a, b := c.hear[0], c.hear[1]; !nodes[a].Alive(nodes[b].ID()) {
					t.Errorf("%d does not hear of %d, to which there is a way", a, b)
				}
				for _, heal := range heals {
					heal()
				}
				began := time.Now()
				meshtest.WaitFull(t, nodes, time.Minute)
				t.Logf("all met again after %s", time.Since(began))
			})
		})
	}
}
