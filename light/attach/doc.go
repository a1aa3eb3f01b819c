// Package attach is the light worker of labmesh: it attaches to the WebSocket of a node, runs the
// tasks that it is sent with the same [exec.Worker] as a node, and comes back by another socket, at another
// node if need be, whenever one ends. It is no member of the mesh and keeps nothing of it.
package attach
