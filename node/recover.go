package node

import (
	"context"
	"errors"
	"slices"
	"time"

	"labmesh"
	"labmesh/consensus"
)

// askAfter is how long other voters are asked after before a mesh is recovered without them.
const askAfter = 8 * time.Second

// Recovery is what a stopped node knows of the mesh that lost its quorum.
type Recovery struct {
	consensus.Standing
	Node    labmesh.NodeID   `json:"node_id"`
	Mesh    labmesh.MeshID   `json:"mesh_id"`
	Members []labmesh.Member `json:"members"`
	Alive   []labmesh.NodeID `json:"alive"` // replicas that answered just now
	Quorum  int              `json:"quorum"`
}

// Recover looks at the data dir of a stopped node and asks after the other replicas.
// It refuses as long as a quorum of the voters could exist. Then it calls confirm and,
// if that is nil, makes this node the only replica of the mesh: the others are banned.
func Recover(ctx context.Context, cfg Config, confirm func(Recovery) error) (r Recovery, err error) {
	cfg = cfg.withDefaults()
	n := &Node{cfg: cfg}
	if n.dir, err = openDataDir(cfg.DataDir); err != nil {
		return r, err
	}
	defer func() { err = errors.Join(err, n.Close()) }()
	id, ok, err := n.dir.loadIdentity()
	if err != nil {
		return r, err
	}
	if !ok {
		return r, labmesh.Refuse(labmesh.Invalid, "recover: there is no node of any mesh in %s", cfg.DataDir)
	}
	if id.Leaf {
		return r, labmesh.Refuse(labmesh.Conflict, "recover: the node of %s is a leaf and holds no copy of the mesh's log: recover on a node that is a replica", cfg.DataDir)
	}
	if r.Standing, err = consensus.Inspect(cfg.DataDir, cfg.Logger); err != nil {
		return r, err
	}
	if r.Node, err = nodeOf(cfg.DataDir); err != nil {
		return r, err
	}
	r.Mesh, r.Members = id.Mesh, id.Members
	n.members = &members{dir: n.dir, logger: cfg.Logger}
	n.members.set(id)
	if err := n.askAfterReplicas(ctx, &r); err != nil {
		return r, err
	}
	if err := r.refusal(); err != nil {
		return r, err
	}
	if err := confirm(r); err != nil {
		return r, err
	}
	var bans []labmesh.Command
	for _, s := range r.Servers {
		if s.ID != r.Node {
			bans = append(bans, labmesh.BanMember{Node: s.ID, By: "recover"})
		}
	}
	return r, consensus.Alone(cfg.DataDir, r.Node, cfg.Logger, bans...)
}

// askAfterReplicas notes which of the other replicas answer.
func (n *Node) askAfterReplicas(ctx context.Context, r *Recovery) error {
	if err := n.openHost(ctx, r.Mesh); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, askAfter)
	defer cancel()
	stopped := make(chan error, 1)
	go func() { stopped <- n.host.Run(ctx) }()
	voters := 0
	for _, s := range r.Servers {
		if s.Voter {
			voters++
		}
	}
	r.Quorum = voters/2 + 1
	err := <-stopped // it ends when the time is over
	if ctx.Err() != nil {
		err = nil
	}
	connected := n.host.Connected()
	for _, s := range r.Servers {
		if s.ID != r.Node && (slices.Contains(connected, s.ID) || n.host.Alive(s.ID)) {
			r.Alive = append(r.Alive, s.ID)
		}
	}
	return err
}

// refusal says why this mesh is not to be recovered by this node.
func (r Recovery) refusal() error {
	self := slices.IndexFunc(r.Servers, func(s consensus.Server) bool { return s.ID == r.Node })
	if self < 0 {
		return labmesh.Refuse(labmesh.Conflict, "recover: this node holds no copy of the mesh's log that counts (it is no replica): recover on one that does")
	}
	alive := 0
	for _, s := range r.Servers {
		if s.Voter && (s.ID == r.Node || slices.Contains(r.Alive, s.ID)) {
			alive++
		}
	}
	if alive >= r.Quorum {
		return labmesh.Refuse(labmesh.Conflict, "recover: %d voters can be there and %d are enough: the mesh needs no recovery; start this node with `labmesh up`", alive, r.Quorum)
	}
	if len(r.Alive) > 0 {
		return labmesh.Refuse(labmesh.Conflict, "recover: %d other replicas still run (%v), and their logs may hold more than this one: stop all of them, and recover on the one with the highest last term, then the highest last entry", len(r.Alive), r.Alive)
	}
	return nil
}
