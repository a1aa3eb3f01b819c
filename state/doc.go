// Package state is what all nodes agree on: the live tasks, the workers, the
// members, invites and keys. Cluster.Apply is a pure function of the state and
// one entry of the log; it reads no clock, draws nothing at random and touches
// nothing outside, so every replica that applies the same entries holds the
// same state.
//
// Reading goes through a View, an immutable copy that costs the same however
// many tasks there are. RAM holds what decisions need: live tasks, and of those
// that ended the newest few. All the rest is in the ledger.
package state
