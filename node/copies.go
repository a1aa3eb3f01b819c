package node

import (
	"context"
	"hash/fnv"
	"path/filepath"
	"strconv"

	"labmesh"
	"labmesh/exec/mirror"
	"labmesh/exec/output"
)

// printed is told of attempts that print.
type printed func(labmesh.TaskID, int, *output.Output)

// copies are the copies of what attempts print: those that this node keeps for
// others, and those that others keep for it.
type copies struct {
	n      *Node
	keeper *mirror.Keeper
	sender *mirror.Sender
}

func openCopies(n *Node) (*copies, error) {
	c := &copies{n: n}
	var err error
	if c.keeper, err = mirror.OpenKeeper(mirror.KeeperConfig{Dir: filepath.Join(n.cfg.DataDir, mirrorDir), Logger: n.cfg.Logger}); err != nil {
		return nil, err
	}
	c.sender = mirror.NewSender(mirror.SenderConfig{
		Streams: n.host.Streams(mirrorProtocol), Choose: c.choose, Alive: n.host.Alive, Changed: n.host.Changed, Logger: n.cfg.Logger,
	})
	return c, nil
}

// serve keeps what others send.
func (c *copies) serve(ctx context.Context) error {
	l, err := c.n.host.Streams(mirrorProtocol).Listen()
	if err != nil {
		return err
	}
	return c.keeper.Serve(ctx, l)
}

// choose names the node that keeps a copy of an attempt's output: a replica if
// one is there, for it is likelier to stay, and for each attempt another, so that no
// node has all of it.
func (c *copies) choose(task labmesh.TaskID, attempt int, avoid func(labmesh.NodeID) bool) labmesh.NodeID {
	if best := c.rank(task, attempt, c.n.replicas(), avoid); best != "" {
		return best
	}
	return c.rank(task, attempt, c.n.members.nodes(), avoid)
}

// rank gives each node that is there a number for the attempt; the highest wins.
// When a node comes or goes only those change their place that were there, or
// are to be.
func (c *copies) rank(task labmesh.TaskID, attempt int, nodes []labmesh.NodeID, avoid func(labmesh.NodeID) bool) (best labmesh.NodeID) {
	var most uint64
	for _, node := range nodes {
		if node == c.n.host.ID() || avoid(node) || !c.n.host.Alive(node) {
			continue
		}
		h := fnv.New64a()
		_, _ = h.Write([]byte(string(task) + "/" + strconv.Itoa(attempt) + "/" + string(node))) // never errs
		if sum := h.Sum64(); best == "" || sum > most {
			best, most = node, sum
		}
	}
	return best
}
