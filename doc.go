// Package labmesh holds the words of the mesh: tasks, workers, attempts, the
// commands that enter the log, the events that leave it, and the reasons for
// which something is refused. It imports the standard library only, starts
// nothing and reads no clock; every other room imports it.
//
// labmesh turns the odd machines of a lab into one fault-tolerant mesh that
// runs tests and benchmarks and keeps every result in SQL. One idea carries it:
// the log is the only way in, the view is the only way out. A node changes the
// mesh by proposing a [Command]; it learns of the mesh by looking at its view.
//
// The rooms, and what each is for:
//
//	state      what all nodes agree on; Apply is a pure function
//	scheduler  what should happen next; pure
//	consensus  the log: hashicorp/raft behind Propose, View, Changed, WhileLeader
//	mesh       who is there and how to reach them: libp2p, discovery, gossip
//	exec       running attempts on this machine
//	store      the ledger: results in DuckDB, for people and SQL
//	security   keys, invites and their proofs: pure
//	node       one node: parts made, joined and run; node/httpapi is its door
//	cmd        the command line
package labmesh
