package node

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"labmesh"
	"labmesh/mesh"
	"labmesh/node/httpapi"
	"labmesh/security"
)

// newMeshID names a new mesh.
func newMeshID() labmesh.MeshID {
	var b [8]byte
	rand.Read(b[:])
	return labmesh.MeshID("m" + hex.EncodeToString(b[:]))
}

// checkInvites refuses to resume in one mesh when asked into another.
func (n *Node) checkInvites(in labmesh.MeshID) error {
	for _, s := range n.cfg.Join {
		inv, err := security.ParseInvite(s)
		if err != nil {
			return err
		}
		if inv.Mesh != in {
			return labmesh.Refuse(labmesh.Invalid, "the invite is for mesh %s, and data dir %s belongs to a node of mesh %s: give this node another --data-dir", inv.Mesh, n.dir.path, in)
		}
	}
	return nil
}

// join comes in by the first invite that opens.
func (n *Node) join(ctx context.Context) error {
	invites := make([]security.Invite, len(n.cfg.Join))
	for i, s := range n.cfg.Join {
		inv, err := security.ParseInvite(s)
		if err != nil {
			return err
		}
		invites[i] = inv
	}
	var errs []error
	for _, inv := range invites {
		err := n.joinBy(ctx, inv)
		if err == nil {
			return nil
		}
		errs = append(errs, err)
		if n.host != nil {
			errs = append(errs, n.host.Close())
			n.host = nil
		}
	}
	return errors.Join(errs...)
}

func (n *Node) joinBy(ctx context.Context, inv security.Invite) error {
	if time.Now().After(inv.Expires) {
		return labmesh.Refuse(labmesh.Denied, "the invite expired at %s: ask for a new one (labmesh invite)", inv.Expires.Local().Format(time.DateTime))
	}
	id := identity{Mesh: inv.Mesh, Role: inv.Role}
	n.members.set(id)
	if err := n.openHost(ctx, inv.Mesh); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, joinTimeout)
	defer cancel()
	wish, err := json.Marshal(joinWords{Leaf: n.cfg.Leaf != nil && *n.cfg.Leaf})
	if err != nil {
		return err
	}
	reply, err := n.host.Join(ctx, inv.Addrs, inv.ID, inv.Secret, mesh.JoinRequest{
		Hostname: n.cfg.Hostname, Version: n.cfg.Version, Feature: n.cfg.feature(), Payload: wish,
	})
	if err != nil {
		return err
	}
	var verdict joinWords
	if len(reply.Payload) > 0 {
		if err := json.Unmarshal(reply.Payload, &verdict); err != nil {
			return fmt.Errorf("join: %w", err)
		}
	}
	id.Role, id.Members, id.Leaf, id.Replicas = reply.Role, reply.Members, verdict.Leaf, verdict.Replicas
	n.members.set(id)
	if id.Leaf {
		n.host.Untrust(n.members.nodes()...)
	}
	for _, m := range reply.Members {
		if m.Node == n.host.ID() {
			continue
		}
		n.host.Learn(m.Node, m.Addrs...)
		if !id.Leaf { // a leaf has the members from its replica
			n.host.Trust(m.Node)
		}
	}
	return n.dir.saveIdentity(id)
}

// gate lets strangers in.
type gate Node

var _ mesh.JoinHandler = (*gate)(nil)

// InviteKey finds the key of an invite that still opens.
func (g *gate) InviteKey(_ context.Context, id string) ([]byte, error) {
	replica := g.members.replica.Load()
	if replica == nil {
		return nil, labmesh.Refuse(labmesh.Unavailable, "this node has only just started, or holds no copy of the log: try again, or another")
	}
	inv, ok := replica.View().Invite(id)
	switch {
	case !ok:
		return nil, labmesh.Refuse(labmesh.Denied, "this mesh knows no such invite: ask for a new one (labmesh invite)")
	case time.Now().After(inv.Expires):
		return nil, labmesh.Refuse(labmesh.Denied, "the invite expired at %s: ask for a new one (labmesh invite)", inv.Expires.UTC().Format(time.RFC3339))
	case inv.Uses < 1:
		return nil, labmesh.Refuse(labmesh.Denied, "the invite is used up: ask for a new one (labmesh invite --uses N)")
	}
	return inv.Key, nil
}

// Admit makes the stranger a member, if the mesh agrees.
func (g *gate) Admit(ctx context.Context, req mesh.JoinRequest) (mesh.JoinReply, error) {
	replica := g.members.replica.Load()
	if level := replica.View().Level(); max(req.Feature, 1) < level {
		return mesh.JoinReply{}, labmesh.Refuse(labmesh.Denied, "the mesh is at feature level %d, and labmesh %s on this machine knows %d: install a newer one", level, req.Version, max(req.Feature, 1))
	}
	if refused := g.room(req.Node); refused != nil {
		return mesh.JoinReply{}, refused
	}
	var wish joinWords
	if len(req.Payload) > 0 && json.Unmarshal(req.Payload, &wish) != nil {
		return mesh.JoinReply{}, labmesh.Refuse(labmesh.Invalid, "join: malformed request")
	}
	rc, err := replica.Propose(ctx, labmesh.PutMember{
		Member: labmesh.Member{Node: req.Node, Hostname: req.Hostname, Addrs: req.Addrs}, Invite: req.InviteID,
	})
	if err != nil {
		return mesh.JoinReply{}, err
	}
	if refused := rc.Answers[0].Refused; refused != nil {
		return mesh.JoinReply{}, refused
	}
	if err := replica.Await(ctx, rc.Index); err != nil {
		return mesh.JoinReply{}, err
	}
	member, _ := replica.View().Member(req.Node)
	verdict := joinWords{Replicas: (*Node)(g).replicas()}
	verdict.Leaf = wish.Leaf || member.Role == labmesh.RoleWorker || g.full(member, verdict.Replicas)
	words, err := json.Marshal(verdict)
	if err != nil {
		return mesh.JoinReply{}, err
	}
	reply := mesh.JoinReply{Mesh: g.members.id().Mesh, Role: member.Role, Payload: words}
	heard := g.host.Heard()
	for m := range replica.View().Members() {
		if m.Banned {
			continue
		}
		known := *m
		if h, ok := heard[m.Node]; ok {
			known.Addrs = h.Advert.Addrs
		}
		if m.Node == g.host.ID() {
			known.Addrs = g.host.Addrs()
		}
		reply.Members = append(reply.Members, known)
	}
	return reply, nil
}

// membersMax bounds how many nodes a mesh may have: each is known to all, and
// every replica keeps in touch with each.
const membersMax = 1000

// joinWords are what newcomer and gate say to each other beside what mesh does.
type joinWords struct {
	// Leaf is the newcomer's wish to hold no copy of the log, or the gate's word that it shall not.
	Leaf     bool             `json:"leaf,omitempty"`
	Replicas []labmesh.NodeID `json:"replicas,omitempty"` // who holds the log
}

// room refuses a newcomer to a mesh that has as many members as it can have.
func (g *gate) room(newcomer labmesh.NodeID) *labmesh.Error {
	members := 0
	for m := range g.members.replica.Load().View().Members() {
		if m.Node != newcomer && !m.Banned {
			members++
		}
	}
	if members >= membersMax {
		return labmesh.Refuse(labmesh.Denied, "the mesh has %d nodes, as many as it can have: ban those that are gone for good (labmesh ban)", members)
	}
	return nil
}

// onTheWay is how long a node that joined and is not heard of yet has a place
// among the replicas kept.
const onTheWay = time.Minute

// full reports whether the places for replicas are taken by those that are
// replicas and those that joined before the newcomer and are to be. By the order of the log two that
// come at the same time through different nodes are not both given the last place.
func (g *gate) full(newcomer *labmesh.Member, replicas []labmesh.NodeID) bool {
	if slices.Contains(replicas, newcomer.Node) {
		return false
	}
	heard, view := g.host.Heard(), g.members.replica.Load().View()
	taken := len(replicas)
	for m := range view.Members() {
		if m.Banned || m.Index >= newcomer.Index || slices.Contains(replicas, m.Node) {
			continue
		}
		h, ok := heard[m.Node]
		if ok && !h.Advert.Leaf || !ok && view.Now().Sub(m.Joined) < onTheWay {
			taken++
		}
	}
	return taken >= g.cfg.MaxReplicas
}

// makeKnown founds the mesh in the log if this node is its founder, and gives
// the person at this machine a key, once.
func (n *Node) makeKnown(ctx context.Context) error {
	access, err := n.dir.loadAPI()
	if err != nil {
		return err
	}
	id := n.members.id()
	var key labmesh.Key
	if access.APIKey == "" && id.Role == labmesh.RoleNode {
		if access.APIKey, key, err = security.MintKey(rand.Reader, labmesh.RoleAdmin, "admin@"+n.cfg.Hostname); err != nil {
			return err
		}
	}
	access.URL, access.Node, access.Mesh = n.URL(), n.host.ID(), id.Mesh
	var cmds []labmesh.Command
	if id.Founder {
		self := labmesh.Member{Node: n.host.ID(), Hostname: n.cfg.Hostname, Addrs: n.host.Addrs()}
		cmds = append(cmds, labmesh.FoundMesh{Mesh: id.Mesh, Founder: self, Key: key, Level: n.cfg.feature()})
	}
	if key.ID != "" {
		cmds = append(cmds, labmesh.PutKey{Key: key})
	}
	if len(cmds) == 0 {
		cmds = append(cmds, labmesh.WakeTasks{}) // what comes back tells how far to catch up
	}
	index, err := n.insist(ctx, cmds...)
	if err != nil || ctx.Err() != nil {
		return err
	}
	if err := n.tie.Await(ctx, index); err != nil {
		return err
	}
	n.caughtUp.Store(true)
	return n.dir.saveAPI(access)
}

// insist proposes until the mesh has taken the commands or ctx ends.
func (n *Node) insist(ctx context.Context, cmds ...labmesh.Command) (uint64, error) {
	var told time.Time
	for {
		rc, err := n.tie.Propose(ctx, cmds...)
		switch {
		case ctx.Err() != nil:
			return 0, ctx.Err()
		case err == nil:
			for _, a := range rc.Answers {
				if a.Refused != nil && a.Refused.Reason != labmesh.Invalid {
					return 0, a.Refused
				}
			}
			return rc.Index, nil
		case labmesh.ReasonOf(err) != labmesh.Unavailable:
			return 0, err
		}
		if time.Since(told) > insistTell {
			told = time.Now()
			n.cfg.Logger.WarnContext(ctx, "waiting for a leader: a majority of the voters must be up and reachable, and a node that is to hold the log needs a place under --max-replicas", "connected", len(n.host.Connected()), "err", err)
		}
		select {
		case <-time.After(insistPause):
		case <-ctx.Done():
		}
	}
}

// How often a proposal that must get through is repeated, and talked about.
const (
	insistPause = 100 * time.Millisecond
	insistTell  = 10 * time.Second
)

// Invite mints an invite that names this node and others.
func (s *service) Invite(ctx context.Context, r httpapi.InviteRequest) (string, error) {
	n := s.n
	if r.TTL <= 0 || r.TTL > security.InviteTTLMax {
		return "", labmesh.RefuseField("ttl_seconds", "ttl_seconds: %s is not between 1s and %s", r.TTL, security.InviteTTLMax)
	}
	addrs := n.host.Addrs()
	for node, h := range n.host.Heard() {
		if node != n.host.ID() && len(h.Advert.Addrs) > 0 && !h.Advert.Leaf { // a leaf lets nobody in
			addrs = append(addrs, h.Advert.Addrs[0])
		}
	}
	inv, kept, err := security.MintInvite(rand.Reader, n.members.id().Mesh, r.Role, time.Now().Add(r.TTL), r.Uses, r.By, addrs)
	if err != nil {
		return "", err
	}
	rc, err := n.replica.Propose(ctx, labmesh.PutInvite{Invite: kept})
	if err != nil {
		return "", err
	}
	if err := n.replica.Await(ctx, rc.Index); err != nil {
		return "", err
	}
	return inv.String(), nil
}
