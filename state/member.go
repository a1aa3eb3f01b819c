package state

import (
	"strconv"
	"time"

	"labmesh"
)

func (x *change) found(cmd labmesh.FoundMesh) *labmesh.Error {
	if x.v.mesh == cmd.Mesh {
		return nil // sent twice
	}
	if x.v.mesh != "" {
		return labmesh.Refuse(labmesh.Conflict, "found mesh %s: this is mesh %s already", cmd.Mesh, x.v.mesh)
	}
	x.v.mesh, x.v.level = cmd.Mesh, cmd.Level
	m := cmd.Founder
	m.Role, m.Joined, m.Index, m.Banned = labmesh.RoleNode, x.at, x.v.index, false
	x.v.members.Set(m.Node, &m)
	x.tell(labmesh.Event{Type: labmesh.MeshFounded, Member: &m, Detail: string(cmd.Mesh)})
	return x.putKey(labmesh.PutKey{Key: cmd.Key})
}

func (x *change) raiseLevel(cmd labmesh.RaiseLevel) *labmesh.Error {
	if cmd.Level <= x.v.Level() {
		return nil // sent twice
	}
	x.v.level = cmd.Level
	x.tell(labmesh.Event{Type: labmesh.LevelRaised, Detail: strconv.Itoa(cmd.Level)})
	return nil
}

func (x *change) putMember(cmd labmesh.PutMember) *labmesh.Error {
	m := cmd.Member
	old, known := x.v.members.Get(m.Node)
	if known && old.Banned {
		return labmesh.Refuse(labmesh.Denied, "node %s is banned from this mesh", m.Node)
	}
	if known && old.Role == m.Role && cmd.Invite != "" {
		return nil // it is in already: a repeat uses up nothing
	}
	if cmd.Invite != "" {
		inv, ok := x.v.invites.Get(cmd.Invite)
		switch {
		case !ok:
			return labmesh.Refuse(labmesh.Denied, "this mesh knows no such invite: ask for a new one (labmesh invite)")
		case !x.at.Before(inv.Expires):
			return labmesh.Refuse(labmesh.Denied, "the invite expired at %s: ask for a new one (labmesh invite)", inv.Expires.UTC().Format(time.RFC3339))
		case inv.Uses < 1:
			return labmesh.Refuse(labmesh.Denied, "the invite is used up: ask for a new one (labmesh invite --uses N)")
		}
		used := *inv
		used.Uses--
		x.v.invites.Set(used.ID, &used)
		m.Role = inv.Role
	}
	if m.Role != labmesh.RoleNode && m.Role != labmesh.RoleWorker {
		return labmesh.Refuse(labmesh.Invalid, "put member %s: no role %q", m.Node, m.Role)
	}
	m.Joined, m.Index, m.Banned = x.at, x.v.index, false
	if known {
		m.Joined = old.Joined
	}
	x.v.members.Set(m.Node, &m)
	x.tell(labmesh.Event{Type: labmesh.MemberJoined, Member: &m})
	return nil
}

func (x *change) banMember(cmd labmesh.BanMember) *labmesh.Error {
	old, ok := x.v.members.Get(cmd.Node)
	if !ok {
		return labmesh.Refuse(labmesh.NotFound, "ban: no node %s", cmd.Node)
	}
	if old.Banned {
		return nil // sent twice
	}
	m := *old
	m.Banned, m.Index = true, x.v.index
	x.v.members.Set(m.Node, &m)
	x.tell(labmesh.Event{Type: labmesh.MemberBanned, Member: &m, Actor: cmd.By})
	var lost []labmesh.WorkerID
	for w := range x.v.Workers() {
		if w.Node == m.Node {
			lost = append(lost, w.ID)
		}
	}
	for _, id := range lost {
		if refused := x.loseWorker(labmesh.LoseWorker{ID: id, Reason: "its node was banned", Stopped: true}); refused != nil {
			return refused
		}
	}
	return nil
}
