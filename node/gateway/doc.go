// Package gateway is the WebSocket of a node, /ws: light workers in any language attach to it and are given
// tasks like any other worker. What is said to them, and what the mesh is told of them, is decided
// by [light.Session]; this package has the sockets, the clock and the goroutines.
//
// A light worker is registered by the node that it is attached to, and moves when it attaches to
// another. The log knows who holds which attempt, so that nothing is lost with a node, a leader or a socket.
package gateway
