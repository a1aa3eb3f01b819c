// Package security makes and checks what lets people and nodes in: API keys and
// invites, signs messages, and seals the secrets of the mesh. Its functions are pure but for the
// source of randomness, which they are given (sealing draws its nonces itself);
// what they check against is in the replicated state.
package security
