package node

import (
	"context"

	"labmesh"
	"labmesh/consensus"
	"labmesh/node/leaf"
)

// tie is what holds a worker to the mesh: where it sees what it holds, and the way
// for what it says. A node that has the log has one in it, a leaf one in a replica elsewhere.
type tie interface {
	// Held is what a worker holds, in the order in which to start it.
	Held(labmesh.WorkerID) []*labmesh.Task
	// Registered reports whether the mesh has a worker, and has not lost it.
	Registered(labmesh.WorkerID) bool
	// Secret is the value of a secret that a task asks for which the worker holds.
	Secret(name string) (value string, ok bool)
	// Leader is who leads the log, with the term; "" while nobody is known to.
	Leader() (labmesh.NodeID, uint64)
	// Changed is closed when any of that may have changed. Take the channel, then look.
	Changed() <-chan struct{}
	// Await returns once all of that is as it was at a log index, or newer.
	Await(ctx context.Context, index uint64) error
	// Propose puts commands into the log. Unavailable says that nothing is known of their fate: they are to be repeated.
	Propose(ctx context.Context, cmds ...labmesh.Command) (labmesh.Receipt, error)
}

var (
	_ tie = replicaTie{}
	_ tie = (*leaf.Desk)(nil)
)

// replicaTie is the tie of a node that has the log.
type replicaTie struct {
	*consensus.Replica
	vault *vault
}

// Held is what a worker holds in this node's view.
func (r replicaTie) Held(w labmesh.WorkerID) (held []*labmesh.Task) {
	for t := range r.View().Held(w) {
		held = append(held, t)
	}
	return held
}

// Registered is as this node's view has it.
func (r replicaTie) Registered(id labmesh.WorkerID) bool {
	w, ok := r.View().Worker(id)
	return ok && w.Status != labmesh.WorkerOffline
}

// Secret is the value that this node's view has.
func (r replicaTie) Secret(name string) (string, bool) {
	s, ok := r.View().Secret(name)
	if !ok {
		return "", false
	}
	return r.vault.Value(s)
}
