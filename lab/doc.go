// Package lab runs whole meshes of real labmesh processes on this machine, over
// loopback, and does to them what happens to machines: it kills them with -9,
// stops, pauses and restarts them, and damages their files. Tests, benchmarks
// and the demo are built on it.
//
//	dir := t.TempDir()
//	bin, err := lab.Build(ctx, dir)
//	m, err := lab.Start(ctx, lab.Config{Bin: bin, Dir: dir, Nodes: 3})
//	defer m.Close()
//	leader, err := m.Leader(ctx)
//	err = leader.Kill()
//
// Nothing outlives its mesh: [Mesh.Close] ends every node and every process of
// every attempt, and where the program that made the mesh dies without a Close,
// the system ends the nodes, which end their attempts. Only processes that the
// mesh started are ever signalled.
//
// The lab knows a node as a user does: by its command line, its HTTP API and
// its data dir. It shares no code with it but the shapes of the API.
package lab
