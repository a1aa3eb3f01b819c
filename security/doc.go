// Package security makes and checks what lets people and nodes in: API keys
// and invites. Its functions are pure but for the source of randomness, which
// they are given; what they check against is in the replicated state.
package security
