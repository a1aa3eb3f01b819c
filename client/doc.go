// Package client talks to a labmesh node over its HTTP API. Any node of a mesh
// will do: each answers the same.
//
// [Discover] finds the node of this machine, or the one that flags and
// environment name; [New] makes a client of what it found. Refusals are
// *labmesh.Error with the reason that the status code stands for. While a mesh
// is without a leader requests are repeated, for as long as [Config].Patience
// allows; a submit carries an idempotency key, so that repeating it is safe.
//
// Three things outlive a lost connection: [Client.Logs] takes up at the byte
// where it was, [Client.Events] after the event it had last, and a [Watch]
// misses no verdict.
package client
