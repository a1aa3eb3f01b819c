// Package simtest is what it takes to torture a mesh in virtual time and to
// judge it afterwards: a plan of work and faults that follows from a seed, a
// network in memory whose every direction can be cut, runners that keep a record
// of their own of what really ran, clients that remember what they asked and were
// told, and the checks.
//
// It knows nothing of how the mesh is made: package node's tests run it over
// consensus, scheduler and workers without libp2p, thousands of seeds; package
// nodetest's over whole nodes, some dozens.
//
// A seed fixes the work and the faults. It does not fix in which order the
// runtime runs goroutines that are ready at the same instant, nor raft's own
// random timeouts: a failure that does not come back at once comes back with
// -count.
package simtest
