package node

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"labmesh"
	"labmesh/consensus"
	"labmesh/exec/process"
	"labmesh/exec/quiet"
	"labmesh/mesh"
	"labmesh/node/gateway"
	"labmesh/node/httpapi"
	"labmesh/node/leaf"
	"labmesh/scheduler"
)

// The protocols that members speak with each other, besides those of mesh.
const (
	raftProtocol    = "/labmesh/raft/1"
	forwardProtocol = "/labmesh/forward/1"
	logsProtocol    = "/labmesh/logs/2"
	mirrorProtocol  = "/labmesh/mirror/1"
	ledgerProtocol  = "/labmesh/ledger/1"
	contentProtocol = "/labmesh/content/1"
	clockProtocol   = "/labmesh/clock/1"
	leaseProtocol   = "/labmesh/lease/1"
	leafProtocol    = "/labmesh/leaf/1"
	sealProtocol    = "/labmesh/seal/1"
	httpProtocol    = "/labmesh/http/1"
)

// Limits of a node's start and stop.
const (
	joinTimeout     = 30 * time.Second
	handOverTimeout = 2 * time.Second // for leadership to pass on before this node leaves
	httpStopTimeout = 3 * time.Second // for requests under way when the node stops
	trimAfter       = 3 * time.Second // until what only the start needed is given back
	trimAgain       = 5 * time.Second // and then what only the coming of the next nodes needed
)

// Node is one node of a mesh. Open makes it, Run runs it, Close releases it. It
// has either a replica, and with it a ledger and a service, or the desk of a leaf.
type Node struct {
	cfg       Config
	dir       *dataDir
	members   *members
	host      *mesh.Host
	ledger    *ledger
	files     *files
	replica   *consensus.Replica
	vault     *vault   // of a node with a replica
	audit     *auditor // likewise
	desk      *leaf.Desk
	tie       tie // of the two the one that there is
	copies    *copies
	processes *process.Host          // nil on a node that runs no programs
	machine   *quiet.Machine         // nil likewise
	labour    atomic.Pointer[labour] // nil on a node that takes no work; the host asks for it before Open is done
	leases    atomic.Pointer[leases] // of this leadership; nil while this node does not lead
	service   *service
	gateway   *gateway.Gateway // nil on a leaf, which passes light workers on
	door      httpapi.Door     // answers HTTP
	listener  net.Listener
	began     time.Time
	caughtUp  atomic.Bool // it has seen the mesh as it was after the node had started, or later
	ready     chan struct{}
}

// Open takes the data dir and the HTTP address, joins or founds a mesh if this
// node is in none, and readies all parts. It leaves nothing behind on error.
func Open(ctx context.Context, cfg Config) (_ *Node, err error) {
	cfg = cfg.withDefaults()
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	n := &Node{cfg: cfg, began: time.Now(), ready: make(chan struct{})}
	defer func() {
		if err != nil {
			if n.processes != nil {
				n.processes.Detach() // what an earlier life left is not to end for it
			}
			err = errors.Join(err, n.Close())
		}
	}()
	if n.dir, err = openDataDir(cfg.DataDir); err != nil {
		return nil, err
	}
	if err := n.listen(); err != nil {
		return nil, err
	}
	if n.processes, err = openProcesses(ctx, cfg); err != nil { // early: they wait for it
		return nil, err
	}
	n.machine = openMachine(cfg, n.processes)
	if err := n.enter(ctx); err != nil {
		return nil, err
	}
	openTie := n.openReplica
	if n.members.id().Leaf {
		openTie = n.openLeaf
	}
	if err := openTie(ctx); err != nil {
		return nil, err
	}
	if n.copies, err = openCopies(n); err != nil {
		return nil, err
	}
	if !cfg.NoWork {
		l, err := openLabour(ctx, cfg, n.processes, n.machine, n.host, n.tie, n.copies.sender.Watch, n.files, newTether(n))
		if err != nil {
			return nil, err
		}
		n.labour.Store(l)
	}
	return n, nil
}

// openReplica readies what a node is that holds the log.
func (n *Node) openReplica(ctx context.Context) (err error) {
	if n.ledger, err = openLedger(ctx, n.cfg); err != nil {
		return err
	}
	if n.files, err = openFiles(n.cfg, n.host, n.members, n.trees, n.calm); err != nil {
		return err
	}
	if n.replica, err = consensus.Open(ctx, consensus.Config{
		ID: n.host.ID(), Dir: n.cfg.DataDir, Memory: n.cfg.Parts.Log, Found: n.members.id().Founder, Profile: n.cfg.Profile, SumEvery: n.cfg.Parts.SumEvery,
		Raft: n.host.Streams(raftProtocol).CloseOnSilence(), Forward: n.host.Streams(forwardProtocol),
		Ledger: n.ledger, Logger: n.cfg.Logger,
	}); err != nil {
		return err
	}
	n.members.follow(n.replica)
	if n.vault, err = openVault(n); err != nil {
		return err
	}
	n.tie = replicaTie{n.replica, n.vault}
	n.service = newService(n)
	n.gateway, n.audit = newGateway(n), newAuditor(n)
	n.door, err = httpapi.New(httpapi.Config{
		Extra: http.HandlerFunc(n.besides), Service: n.service, Auditor: n.audit, Logger: n.cfg.Logger, Version: n.cfg.Version,
		LoopbackOnly: n.cfg.loopback(), Collectors: n.files.collectors(),
	})
	return err
}

// trees are the trees of files that tasks use, as this node's view has them.
func (n *Node) trees() []string {
	if r := n.members.replica.Load(); r != nil {
		return treesOf(r.View())
	}
	return nil
}

// replicas are the nodes that hold the log, as far as this one knows.
func (n *Node) replicas() []labmesh.NodeID {
	if n.replica == nil {
		return n.members.id().Replicas
	}
	status := n.replica.Status()
	return slices.Concat(status.Voters, status.Learners)
}

// listen takes the HTTP address, so that a port in use is known before anything else happens.
func (n *Node) listen() (err error) {
	if n.cfg.Parts.NoHTTP {
		return nil
	}
	addr := net.JoinHostPort(n.cfg.Host, strconv.Itoa(n.cfg.Port))
	if n.listener, err = net.Listen("tcp", addr); err != nil {
		return labmesh.Refuse(labmesh.Invalid, "listen for the HTTP API on %s: %v: choose another with --port, or --port 0 to have one picked", addr, err)
	}
	return nil
}

// enter takes up the node's place in its mesh: the one it was in, the one an
// invite opens, or a new one.
func (n *Node) enter(ctx context.Context) error {
	id, resume, err := n.dir.loadIdentity()
	if err != nil {
		return err
	}
	n.members = &members{dir: n.dir, logger: n.cfg.Logger}
	if resume {
		if err := n.checkInvites(id.Mesh); err != nil {
			return err
		}
		if err := n.turn(&id); err != nil {
			return err
		}
		n.members.set(id)
		if id.Format < formatVersion { // before anything is written that an older build would not find
			if err := n.dir.saveIdentity(id); err != nil {
				return err
			}
		}
		return n.openHost(ctx, id.Mesh)
	}
	if len(n.cfg.Join) > 0 {
		return n.join(ctx)
	}
	if n.cfg.Leaf != nil && *n.cfg.Leaf {
		return labmesh.RefuseField("leaf", "--leaf: a mesh cannot be founded by a node that holds no copy of its log: give an invite with --join")
	}
	id = identity{Mesh: newMeshID(), Role: labmesh.RoleNode, Founder: true}
	n.members.set(id)
	if err := n.openHost(ctx, id.Mesh); err != nil {
		return err
	}
	return n.dir.saveIdentity(id)
}

func (n *Node) openHost(ctx context.Context, id labmesh.MeshID) (err error) {
	n.host, err = mesh.Open(ctx, mesh.Config{
		Mesh: id, Dir: n.cfg.DataDir, Listen: n.cfg.MeshListen, Libp2p: n.cfg.Parts.Libp2p,
		Admit: n.members.admit, Members: n.members.keep, Advert: n.advert, Join: (*gate)(n),
		Lease: scheduler.Lease, Logger: n.cfg.Logger,
		NoMDNS: n.cfg.Parts.NoDiscovery, NoDHT: n.cfg.Parts.NoDiscovery,
	})
	if err != nil {
		return err
	}
	n.members.host = n.host
	for _, m := range n.members.id().Members {
		if m.Node != n.host.ID() && !m.Banned {
			n.host.Learn(m.Node, m.Addrs...)
			if !n.members.id().Leaf { // which goes by what was written down until it hears more
				n.host.Trust(m.Node)
			}
		}
	}
	return nil
}

// Run takes part in the mesh until ctx ends. Then it stops taking requests,
// ends its attempts and says so, passes leadership on, and leaves.
func (n *Node) Run(ctx context.Context) error {
	infra := level{n.host.Run, n.serveLogs, n.serveClock, n.copies.serve}
	last := level{n.copies.sender.Run, n.files.run} // words of attempts, which may be those of their end, and their files
	log, way, work := level{}, level{}, level{n.announce}
	if n.replica != nil {
		infra = append(infra, n.ledger.run, n.serveLedger, n.serveLeases, n.vault.serve)
		log = append(log, n.replica.Run)
		way = append(way, n.handOver)
		work = append(work, n.lead, n.vault.run, n.audit.run, n.service.tellUses, n.fillLedger, n.members.run, n.serveLeaves, n.serveLeafHTTP)
	} else {
		log = append(log, n.desk.Run)
	}
	if l := n.labour.Load(); l != nil {
		work = append(work, l.run)
	}
	door := level{}
	if n.gateway != nil {
		door = append(door, n.gateway.Run)
	}
	if n.listener != nil {
		door = append(door, n.serveHTTP)
	}
	return runLevels(ctx, infra, last, log, way, work, door)
}

// Close releases everything, in reverse. It is safe twice.
func (n *Node) Close() (err error) {
	if l := n.labour.Load(); l != nil {
		err = errors.Join(err, l.Close())
	}
	if n.replica != nil {
		err = errors.Join(err, n.replica.Close())
	}
	if n.ledger != nil {
		err = errors.Join(err, n.ledger.Close())
	}
	if n.host != nil {
		err = errors.Join(err, n.host.Close())
	}
	if n.listener != nil {
		if cerr := n.listener.Close(); cerr != nil && !errors.Is(cerr, net.ErrClosed) {
			err = errors.Join(err, cerr)
		}
	}
	err = errors.Join(err, n.machine.Close())
	if n.processes != nil {
		err = errors.Join(err, n.processes.Close())
	}
	if n.dir != nil {
		err = errors.Join(err, n.dir.Close())
	}
	return err
}

// ID is this node's id.
func (n *Node) ID() labmesh.NodeID { return n.host.ID() }

// Mesh is the mesh that this node is in.
func (n *Node) Mesh() labmesh.MeshID { return n.members.id().Mesh }

// Role is what the mesh took this node in as.
func (n *Node) Role() labmesh.Role { return n.members.id().Role }

// URL is where the HTTP API is.
func (n *Node) URL() string {
	if n.listener == nil {
		return ""
	}
	scheme := "http"
	if n.cfg.TLSCert != "" {
		scheme = "https"
	}
	return scheme + "://" + n.listener.Addr().String()
}

// Running is how many attempts run here.
func (n *Node) Running() int {
	if l := n.labour.Load(); l != nil {
		return l.worker.Running()
	}
	return 0
}

// Keeps reports whether what runs here can go on without the node.
func (n *Node) Keeps() bool { return n.processes != nil && n.processes.Keeps() }

// Leaf reports whether the node holds no copy of the log.
func (n *Node) Leaf() bool { return n.replica == nil }

// Handler answers HTTP requests, as at [Node.URL].
func (n *Node) Handler() http.Handler { return n.door }

// Status is the mesh as this node sees it.
func (n *Node) Status(ctx context.Context) httpapi.Status {
	if n.Leaf() {
		return n.leafStatus()
	}
	return n.service.Status(ctx)
}

// Service is what a node that holds the log does for its users; nil on a leaf.
func (n *Node) Service() httpapi.Service { return n.service }

// Ready is closed when the node knows a leader, has caught up, and has
// registered its worker.
func (n *Node) Ready() <-chan struct{} { return n.ready }

// announce waits until the node is of use, writes down how the command line
// finds it, and says that it is ready.
func (n *Node) announce(ctx context.Context) error {
	if err := n.makeKnown(ctx); err != nil {
		return err
	}
	if l := n.labour.Load(); l != nil {
		select {
		case <-l.registered:
		case <-ctx.Done():
			return nil
		}
	}
	close(n.ready)
	for _, wait := range []time.Duration{trimAfter, trimAgain} {
		select {
		case <-time.After(wait):
			if err := trim(); err != nil {
				n.cfg.Logger.DebugContext(ctx, "memory of the start not given back", "err", err)
			}
		case <-ctx.Done():
		}
	}
	<-ctx.Done()
	return nil
}

// handOver passes leadership on when the node stops, so that nobody has to
// notice its absence first.
func (n *Node) handOver(ctx context.Context) error {
	<-ctx.Done()
	if s := n.replica.Status(); s.Role != "leader" || len(s.Voters) < 2 {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), handOverTimeout)
	defer cancel()
	if err := n.replica.TransferLeadership(ctx); err != nil {
		n.cfg.Logger.WarnContext(ctx, "leadership not passed on; the others elect a leader", "err", err)
	}
	return nil
}

func (n *Node) serveHTTP(ctx context.Context) error {
	srv := httpapi.NewServer(n.door, n.cfg.Logger)
	serve := func() error { return srv.Serve(n.listener) }
	if n.cfg.TLSCert != "" {
		serve = func() error { return srv.ServeTLS(n.listener, n.cfg.TLSCert, n.cfg.TLSKey) }
	}
	return serveUntil(ctx, srv, serve)
}

// serveUntil has srv serve until ctx ends, and then end what it answers within a bounded time.
func serveUntil(ctx context.Context, srv *http.Server, serve func() error) error {
	var stopped sync.WaitGroup
	defer stopped.Wait()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	srv.BaseContext = func(net.Listener) context.Context { return ctx }
	stopped.Go(func() {
		<-ctx.Done()
		grace, cancel := context.WithTimeout(context.WithoutCancel(ctx), httpStopTimeout)
		defer cancel()
		if srv.Shutdown(grace) != nil {
			_ = srv.Close() // whoever still talks is cut off
		}
	})
	err := serve()
	if errors.Is(err, http.ErrServerClosed) {
		return nil
	}
	return fmt.Errorf("serve the HTTP API: %w", err)
}
