// Package consensus is the log of the mesh: hashicorp/raft behind a few words.
//
// A [Replica] takes commands ([Replica.Propose]), agrees on their order with
// the other replicas, applies them to package state and shows the outcome
// ([Replica.View], [Replica.Changed], [Replica.Await]). Whatever only the leader
// may do runs inside [Replica.WhileLeader].
//
// How a command travels:
//
//	Propose ─ follower: one hop over a forward stream (forward.go, serve.go) ─┐
//	        └ leader ──────────────────────────────────────────────────────── ┴► ProposeHere
//	ProposeHere ─► committer: what arrives together is one entry (commit.go) ─► raft
//	raft ─► machine: state.Apply ─► Ledger.Append ─► one new view (machine.go)
//	     └► nudger: idle followers learn at once that it is committed (nudge.go)
//
// What the package promises:
//
//   - A receipt means that the commands are on the disks of a majority of the
//     voters and have been applied here or at the leader.
//   - Commands proposed in one call stand in one entry, in their order.
//   - A command is forwarded once at most: a replica that is asked to propose
//     here does so or refuses, it never passes the request on.
//   - A refusal with reason Unavailable is safe to repeat. Where the fate of the
//     commands is not known, its message says so; every command may be sent twice.
//   - An entry that this build cannot read stops the replica: Run returns the
//     error, and no later entry is applied. The same holds for a disk that has
//     once refused a write.
//
// The package knows neither libp2p nor the ledger's database nor the scheduler;
// it is given [Streams] and a [Ledger].
package consensus
