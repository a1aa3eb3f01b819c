// Package light is the protocol of light workers: programs in any language that attach to
// the WebSocket of a node, run tasks, and are no members of the mesh. It holds the messages
// of both sides ([Decode], [Encode]) and [Session], which decides what a node says to one such
// worker and what it tells the mesh of it.
//
// Such workers are taken as they are. They close a socket as soon as they have opened it, stop
// reading, have two sockets open at once, and do not say that they cancelled something. What
// comes in is read liberally, what goes out is exact. The package opens no socket, reads no clock
// and starts nothing: node/gateway does.
package light
