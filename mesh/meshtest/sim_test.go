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
