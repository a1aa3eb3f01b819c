// Package chaos proves with real processes what labmesh promises when machines
// and lines fail. It starts meshes of package lab, has them run work that keeps
// a diary of its own outside labmesh, does to them what a seed says, and then
// compares what was acknowledged, what the mesh recorded and what really ran.
//
//	net, err := chaos.NewNetwork()                  // an Ethernet of network namespaces
//	m, err := lab.Start(ctx, lab.Config{…, Place: net.Place})
//	err = net.Host(2).Deaf(net.Host(0))             // it no longer hears the founder
//	err = chaos.Verify(ctx, m, work, submitted)     // after all has been healed
//
// A [Plan] is all faults of one run, made from a seed alone: the same seed gives
// the same faults at the same times, so a failure is repeated by its number.
//
// Networks and small disks need Linux and root; the rest does without. Nothing has
// a name in the system: namespaces, lines and rules belong to processes that the
// system kills with the program that started them, however that one ends.
package chaos
