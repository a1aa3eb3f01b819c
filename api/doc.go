// Package api holds the shapes that the HTTP API speaks, shared by the server
// ([labmesh/node/httpapi]) and by clients, and the rules that every submitted
// task must keep ([ValidateSpec]). It starts nothing and talks to nobody.
//
// A task is submitted as a [labmesh.Spec]. Note that its Priority has no
// "unset": a client that marshals a Spec sends the number it holds, and
// [PriorityDefault] is what a task written without one gets.
//
// Every moment is an RFC 3339 time in UTC with microseconds; what is not known
// or has not happened is null, never left out.
package api
