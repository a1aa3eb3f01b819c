// Package meshtest builds the hosts of a mesh for tests: over loopback with
// [Net], or over a simulated network in virtual time with [Sim].
//
// In virtual time everything is made and closed inside the bubble:
//
//	synctest.Test(t, func(t *testing.T) {
//		sim := meshtest.NewSim(t)               // closed by t's cleanup, in the bubble
//		var nodes []*meshtest.Node
//		for i := range 3 {
//			nodes = append(nodes, meshtest.Start(t, sim.Config(t, i)))
//		}
//		meshtest.WaitFull(t, nodes, time.Minute) // all are connected to all
//		sim.Cut(0)                               // its packets are lost, both ways
//		time.Sleep(30 * time.Second)             // of virtual time
//		sim.Heal(0)
//	})
//
// [Sim.Config] brings a ready libp2p host in Config.Libp2p, so a test that opens
// the mesh.Host itself, inside a node, takes the Config, sets Admit, Members,
// Advert and Join as it likes, and passes it to mesh.Open, whose Close closes the
// libp2p host too. Asking for the Config of the same number again, after the
// first host was closed, is a restart: the same identity and, unless [Sim.Move]
// came between, the same address.
//
// Admit and Members of a Config are those of a [Group]: every node whose Config
// was made belongs, until it is removed.
package meshtest

import (
	"slices"
	"sync"

	"labmesh"
)

// MeshID is the mesh of every [Group].
const MeshID labmesh.MeshID = "m-test"

// Group is a membership that the nodes of a test share, in place of replicated
// state. It may be used concurrently.
type Group struct {
	mu      sync.Mutex
	members map[labmesh.NodeID]bool
}

// Add makes nodes members.
func (g *Group) Add(nodes ...labmesh.NodeID) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.members == nil {
		g.members = map[labmesh.NodeID]bool{}
	}
	for _, n := range nodes {
		g.members[n] = true
	}
}

// Remove ends the membership of a node.
func (g *Group) Remove(node labmesh.NodeID) {
	g.mu.Lock()
	defer g.mu.Unlock()
	delete(g.members, node)
}

// Admit admits members to every protocol.
func (g *Group) Admit(node labmesh.NodeID, _ string) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.members[node]
}

// Members are the members, in order.
func (g *Group) Members() []labmesh.NodeID {
	g.mu.Lock()
	defer g.mu.Unlock()
	list := make([]labmesh.NodeID, 0, len(g.members))
	for n := range g.members {
		list = append(list, n)
	}
	slices.Sort(list)
	return list
}
