package node

import (
	"context"
	"errors"
	"net"
	"net/http"
	"sync"
	"time"

	"labmesh"
	"labmesh/node/httpapi"
	"labmesh/node/leaf"
)

// treesWait bounds how long a leaf waits to be told which files are in use. Until
// it is told once more it goes by what it was told last.
const treesWait = 5 * time.Second

// turn makes a node that resumes a leaf or a replica, where its flags ask for another than it was.
func (n *Node) turn(id *identity) error {
	switch {
	case n.cfg.Leaf == nil || *n.cfg.Leaf == id.Leaf:
		return nil
	case *n.cfg.Leaf:
		return labmesh.RefuseField("leaf", "--leaf: the node of data dir %s holds a copy of the log, which the mesh counts on: have a new node join as a leaf, with another --data-dir", n.dir.path)
	}
	id.Leaf, id.Replicas = false, nil
	return n.dir.saveIdentity(*id)
}

// openLeaf readies what a node is that holds no copy of the log.
func (n *Node) openLeaf(context.Context) (err error) {
	worker := n.cfg.workerID(n.host.ID())
	if n.cfg.NoWork {
		worker = ""
	}
	streams := n.host.Streams(leafProtocol)
	n.desk = leaf.New(leaf.Config{
		Worker: worker, Dial: streams.Dial, Replicas: n.members.keep, Alive: n.host.Alive, Known: n.members.newestKnown, Logger: n.cfg.Logger,
		Heard: func(members []labmesh.Member, replicas []labmesh.NodeID) {
			n.members.told(context.Background(), members, replicas)
		},
	})
	n.tie = n.desk
	if n.files, err = openFiles(n.cfg, n.host, n.members, n.leafTrees(), n.calm); err != nil {
		return err
	}
	n.door, err = httpapi.NewLeaf(httpapi.LeafConfig{
		Status: n.leafStatus, Ready: n.leafReady, Dial: n.dialReplica,
		Logger: n.cfg.Logger, Version: n.cfg.Version, LoopbackOnly: n.cfg.loopback(), Collectors: n.files.collectors(),
	})
	return err
}

// leafTrees asks a replica which trees of files are in use.
func (n *Node) leafTrees() func() []string {
	var mu sync.Mutex
	var known []string
	return func() []string {
		mu.Lock()
		defer mu.Unlock()
		ctx, cancel := context.WithTimeout(context.Background(), treesWait)
		defer cancel()
		if trees, err := n.desk.Trees(ctx); err == nil {
			known = trees
		}
		return known
	}
}

// leafStatus is what a leaf knows of the mesh without asking.
func (n *Node) leafStatus() httpapi.Status {
	id := n.members.id()
	s := httpapi.Status{
		Node: n.host.ID(), Mesh: id.Mesh, Role: "leaf", Via: n.desk.Replica(), Replicas: id.Replicas, Applied: n.desk.Index(),
		Uptime: time.Since(n.began), Version: n.cfg.Version,
	}
	if s.Via == "" {
		s.Warnings = append(s.Warnings, "no replica of the mesh can be reached: what runs here goes on, and what is asked of the mesh is refused")
	}
	return s
}

// leafReady is nil when a replica answers for this leaf.
func (n *Node) leafReady() error {
	switch {
	case n.desk.Replica() == "":
		return labmesh.Refuse(labmesh.Unavailable, "no replica of the mesh can be reached")
	case !n.caughtUp.Load():
		return labmesh.Refuse(labmesh.Unavailable, "this node has not caught up yet")
	}
	return nil
}

// dialReplica opens a stream for HTTP to the replica that the desk is read from,
// or else to another.
func (n *Node) dialReplica(ctx context.Context) (net.Conn, error) {
	streams := n.host.Streams(httpProtocol)
	first := n.desk.Replica()
	var errs []error
	for _, alive := range []bool{true, false} {
		for i, node := range append([]labmesh.NodeID{first}, n.members.keep()...) {
			if node == "" || i > 0 && (node == first || n.host.Alive(node) != alive) || i == 0 && !alive {
				continue
			}
			dialing, cancel := context.WithTimeout(ctx, dialWait)
			conn, err := streams.Dial(dialing, node)
			cancel()
			if err == nil {
				return conn, nil
			}
			errs = append(errs, err)
		}
	}
	return nil, errors.Join(append(errs, errors.New("no replica of the mesh can be reached"))...)
}

// dialWait is how long one replica may take to be reached.
const dialWait = 2 * time.Second

// serveLeaves tells leaves what their workers hold, and proposes what they say.
func (n *Node) serveLeaves(ctx context.Context) error {
	l, err := n.host.Streams(leafProtocol).Listen()
	if err != nil {
		return err
	}
	s := leaf.Server{Replica: n.replica, Value: n.vault.Value, Replicas: n.replicas, Trees: n.trees, Logger: n.cfg.Logger}
	return s.Serve(ctx, l)
}

// serveLeafHTTP answers what leaves were asked. Who asks shows by the key, as at the door.
func (n *Node) serveLeafHTTP(ctx context.Context) error {
	l, err := n.host.Streams(httpProtocol).Listen()
	if err != nil {
		return err
	}
	srv := httpapi.NewServer(n.door, n.cfg.Logger)
	srv.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set(httpapi.ReplicaHeader, string(n.host.ID()))
		n.door.ServeHTTP(w, r)
	})
	return serveUntil(ctx, srv, func() error { return srv.Serve(l) })
}
