package node

import (
	"context"

	"labmesh"
	"labmesh/state"
)

// HoldWorker has a worker take no new work, or take it again.
func (s *service) HoldWorker(ctx context.Context, id labmesh.WorkerID, status labmesh.WorkerStatus, reason, by string) error {
	return s.propose(ctx, labmesh.HoldWorker{ID: id, Status: status, Reason: reason, By: by})
}

// Ban shuts out a node for ever.
func (s *service) Ban(ctx context.Context, name, by string) (labmesh.NodeID, error) {
	if w, ok := s.n.replica.View().Worker(labmesh.WorkerID(name)); ok && w.Light {
		return "", labmesh.Refuse(labmesh.Conflict, "worker %s is a light one: it comes in by an API key, which can be revoked (labmesh key revoke); to ban the node that it is attached to, name that: %s", name, w.Node)
	}
	node, ok := nodeNamed(s.n.replica.View(), name)
	if !ok && s.freshen(ctx) {
		node, ok = nodeNamed(s.n.replica.View(), name)
	}
	switch {
	case !ok:
		return "", labmesh.Refuse(labmesh.NotFound, "no node or worker %s", name)
	case node == s.n.host.ID():
		return "", labmesh.Refuse(labmesh.Conflict, "node %s is the one that you are asking: ban it through another one", node)
	}
	return node, s.propose(ctx, labmesh.BanMember{Node: node, By: by})
}

// nodeNamed finds a node by its id or by that of its worker.
func nodeNamed(v state.View, name string) (labmesh.NodeID, bool) {
	if w, ok := v.Worker(labmesh.WorkerID(name)); ok {
		return w.Node, true
	}
	for m := range v.Members() {
		if m.Node == labmesh.NodeID(name) {
			return m.Node, true
		}
	}
	return "", false
}
