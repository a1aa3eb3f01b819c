package node

import (
	"context"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync/atomic"

	"labmesh"
	"labmesh/consensus"
	"labmesh/mesh"
)

// members keeps the mesh room told of who belongs to the mesh, and writes it
// down for the next start, when no log speaks yet.
type members struct {
	dir      *dataDir
	logger   *slog.Logger
	host     *mesh.Host
	identity atomic.Pointer[identity]
	replica  atomic.Pointer[consensus.Replica] // nil until there is one
}

func (m *members) set(id identity) { m.identity.Store(&id) }

func (m *members) id() identity { return *m.identity.Load() }

func (m *members) follow(r *consensus.Replica) { m.replica.Store(r) }

// admit says whether a node may speak a protocol with this one. Before the log
// has spoken, those trusted since the last start are let in by the mesh room.
func (m *members) admit(node labmesh.NodeID, protocol string) bool {
	r := m.replica.Load()
	if r == nil {
		return m.id().Leaf && slices.ContainsFunc(m.id().Members, func(k labmesh.Member) bool { return k.Node == node && !k.Banned })
	}
	member, ok := r.View().Member(node)
	return ok && !member.Banned && (maySpeak(member.Role, protocol) || holdsLog(r, node))
}

// forReplicas are the protocols of those that hold the log: who speaks them sees or
// decides what is everybody's. What a leaf says comes over leafProtocol, where each command is looked at,
// and over httpProtocol, with a key.
var forReplicas = map[string]bool{raftProtocol: true, forwardProtocol: true, ledgerProtocol: true, sealProtocol: true}

// maySpeak reports whether a member with a role may speak a protocol with a node that holds the log.
func maySpeak(role labmesh.Role, protocol string) bool {
	return role == labmesh.RoleNode || role == labmesh.RoleWorker && !forReplicas[protocol]
}

// holdsLog reports whether a node has a copy of the log: one with the role worker that
// joined before such nodes became leaves has, and goes on until it is banned.
func holdsLog(r *consensus.Replica, node labmesh.NodeID) bool {
	s := r.Status()
	return slices.Contains(s.Learners, node) || slices.Contains(s.Voters, node)
}

// keep are the members to keep connected to: all, or for a leaf those that hold the log. Whoever else is
// wanted is reached when it is.
func (m *members) keep() []labmesh.NodeID {
	if id := m.id(); id.Leaf && len(id.Replicas) > 0 {
		return id.Replicas
	}
	return m.nodes()
}

// nodes are the members that are not banned.
func (m *members) nodes() (out []labmesh.NodeID) {
	for _, member := range m.list() {
		if !member.Banned {
			out = append(out, member.Node)
		}
	}
	return out
}

// list is the members as the log has them, or as they were written down while
// the log is silent.
func (m *members) list() (out []labmesh.Member) {
	if r := m.replica.Load(); r != nil {
		for member := range r.View().Members() {
			out = append(out, *member)
		}
	}
	if len(out) == 0 {
		out = m.id().Members
	}
	return out
}

// run follows the members in the log: newcomers are sought, the banned are
// shut out at once, and all are written down.
func (m *members) run(ctx context.Context) error {
	r := m.replica.Load()
	var seen uint64
	for ctx.Err() == nil {
		changed := r.Changed()
		if newest := m.newest(r); newest > seen {
			seen = newest
			m.changed(ctx)
		}
		select {
		case <-changed:
		case <-ctx.Done():
		}
	}
	return nil
}

func (m *members) newest(r *consensus.Replica) (index uint64) {
	for member := range r.View().Members() {
		index = max(index, member.Index)
	}
	return index
}

// told takes in what a leaf is told of members: those that came or changed, and who the replicas are.
func (m *members) told(ctx context.Context, came []labmesh.Member, replicas []labmesh.NodeID) {
	id := m.id()
	if len(came) == 0 && (len(replicas) == 0 || slices.Equal(replicas, id.Replicas)) {
		return
	}
	byNode := map[labmesh.NodeID]labmesh.Member{}
	for _, member := range slices.Concat(id.Members, came) {
		byNode[member.Node] = member
	}
	id.Members = slices.SortedFunc(maps.Values(byNode), func(a, b labmesh.Member) int { return strings.Compare(string(a.Node), string(b.Node)) })
	if len(replicas) > 0 {
		id.Replicas = replicas
	}
	m.set(id)
	m.changed(ctx)
}

// newestKnown is the log index of the newest member that a leaf knows of.
func (m *members) newestKnown() (index uint64) {
	for _, member := range m.id().Members {
		index = max(index, member.Index)
	}
	return index
}

func (m *members) changed(ctx context.Context) {
	list := slices.Clone(m.list())
	heard := m.host.Heard()
	for i := range list {
		member := &list[i]
		switch h, ok := heard[member.Node]; {
		case member.Node == m.host.ID():
		case member.Banned:
			m.host.Drop(member.Node)
		case ok:
			member.Addrs = h.Advert.Addrs
		default:
			m.host.Learn(member.Node, member.Addrs...)
		}
	}
	m.host.MembersChanged()
	id := m.id()
	id.Members = list
	m.set(id)
	if err := m.dir.saveIdentity(id); err != nil {
		m.logger.WarnContext(ctx, "members not written down for the next start", "err", err)
	}
}
