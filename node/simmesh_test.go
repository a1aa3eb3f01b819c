package node

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"labmesh"
	"labmesh/consensus"
	"labmesh/exec"
	"labmesh/node/httpapi"
	"labmesh/node/simtest"
	"labmesh/scheduler"
	"labmesh/store/memory"
)

// sim is a mesh whose nodes have all that decides and none of what only
// carries: the log, the leader's work, desks, workers and ledgers are the real
// ones; streams and gossip are simulated, and there is no HTTP.
type sim struct {
	flaw       flaw
	dir        string
	net        *simtest.Net
	executions *simtest.Executions
	history    *simtest.History
	trail      *simtest.Trail
	nodes      []*simNode
	began      time.Time
	ending     sync.WaitGroup // lives that were killed

	workers []*simWorker

	mu     sync.Mutex
	random *rand.Rand
}

// simNode is a machine through all its lives.
type simNode struct {
	sim     *sim
	index   int
	id      labmesh.NodeID
	workers []*simWorker

	turn chan struct{} // holds one token while it is brought up or down: a mutex would stop the time
	down int           // faults that hold it down

	mu     sync.Mutex
	life   *simLife        // nil while it is down
	paused <-chan struct{} // closed when it goes on; nil if it never stood still
	lives  int
	log    *consensus.Memory
}

// simWorker is a worker of a machine.
type simWorker struct {
	id    labmesh.WorkerID
	apart bool // from its node, at the other end of a line: its lease goes over that
	disks int  // a machine that lost power has lost what it had not synced: the directory of attempts

	mu     sync.Mutex
	silent int
	back   chan struct{} // closed when its line works again
}

func newSim(t *testing.T, plan simtest.Plan, f flaw) *sim {
	random := simtest.Random(plan.Seed + 1<<32)
	s := &sim{
		flaw: f, dir: simDir(t), net: simtest.NewNet(simtest.Random(plan.Seed + 2<<32)), random: random,
		began:      time.Now(),
		executions: &simtest.Executions{}, history: simtest.NewHistory(), trail: simtest.NewTrail(),
	}
	for i := range plan.Size.Nodes {
		n := &simNode{sim: s, index: i, id: labmesh.NodeID(fmt.Sprint("n", i)), turn: make(chan struct{}, 1), log: consensus.NewMemory()}
		n.log.SyncTakes(syncLeast + time.Duration(random.ExpFloat64()*float64(time.Millisecond)))
		f.disk(i, n.log)
		s.nodes = append(s.nodes, n)
	}
	for w := range plan.Size.Workers {
		n := s.nodes[w%len(s.nodes)]
		worker := &simWorker{id: labmesh.WorkerID(fmt.Sprint("w", w)), apart: w >= len(s.nodes)}
		n.workers, s.workers = append(n.workers, worker), append(s.workers, worker)
	}
	return s
}

// simDir is where attempts have their directories: in memory where that can be,
// since a quarter of the time would go into making them.
func simDir(t *testing.T) string {
	dir, err := os.MkdirTemp("/dev/shm", "labmesh-sim-")
	if err != nil {
		return t.TempDir()
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

// found starts all nodes and waits until they are a mesh of five voters with all workers.
func (s *sim) found(ctx context.Context) error {
	for _, n := range s.nodes {
		n.up()
	}
	ctx, cancel := context.WithTimeout(ctx, simSetUp)
	defer cancel()
	r := s.nodes[0].life.node.replica
	cmds := []labmesh.Command{labmesh.FoundMesh{Mesh: "sim", Founder: labmesh.Member{Node: s.nodes[0].id}, Key: labmesh.Key{ID: "k", Hash: []byte("of a key"), Role: labmesh.RoleAdmin}, Level: labmesh.Feature}}
	for _, n := range s.nodes[1:] {
		cmds = append(cmds, labmesh.PutMember{Member: labmesh.Member{Node: n.id, Role: labmesh.RoleNode}})
	}
	rc, err := r.Propose(ctx, cmds...)
	if err != nil {
		return err
	}
	for _, a := range rc.Answers {
		if a.Refused != nil {
			return a.Refused
		}
	}
	for _, n := range s.nodes[1:] {
		if err := r.Promote(ctx, n.id); err != nil {
			return err
		}
	}
	for _, n := range s.nodes {
		for _, l := range n.life.labours {
			select {
			case <-l.registered:
			case <-ctx.Done():
				return fmt.Errorf("worker %s did not register", l.self.ID)
			}
		}
	}
	return nil
}

// stop stops all nodes that are up, and waits for those that were killed.
func (s *sim) stop() {
	var stopping sync.WaitGroup
	for _, n := range s.nodes {
		stopping.Go(func() { n.Down(simtest.Stop) })
	}
	stopping.Wait()
	s.ending.Wait()
}

// simLife is a node from its start to its end.
type simLife struct {
	n       *simNode
	port    *simtest.Port
	ports   []*simtest.Port // of workers that are apart
	node    *Node
	ears    *simEars
	labours []*labour
	stop    context.CancelFunc
	dead    chan struct{} // closed when it is killed
	done    chan error
	tell    chan struct{}
}

// up starts a life.
func (n *simNode) up() {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.lives++
	life, err := n.open()
	if err != nil {
		panic(err) // in a test
	}
	ctx, stop := context.WithCancel(context.Background())
	life.stop = stop
	n.life = life
	go func() { life.done <- life.run(ctx) }()
}

func (n *simNode) open() (*simLife, error) {
	ctx, logger := context.Background(), slog.New(slog.DiscardHandler)
	if os.Getenv("SIM_LOG") != "" {
		logger = slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelInfo})).With("node", n.index, "life", n.lives)
	}
	l := &simLife{n: n, port: n.sim.net.Port(n.id), ears: newSimEars(n.id), dead: make(chan struct{}), done: make(chan error, 1), tell: make(chan struct{}, 1)}
	cfg := Config{Logger: logger, Version: "sim", Hostname: string(n.id), Parts: Parts{Backend: memory.New(), NoHTTP: true}}.withDefaults()
	l.node = &Node{cfg: cfg, ready: make(chan struct{})}
	var err error
	if l.node.ledger, err = openLedger(ctx, cfg); err != nil {
		return nil, err
	}
	if l.node.replica, err = consensus.Open(ctx, consensus.Config{
		ID: n.id, Memory: n.log, Found: n.index == 0, Raft: l.port.Streams(raftProtocol), Forward: l.port.Streams(forwardProtocol),
		Ledger: &simLedger{l.node.ledger, n}, Logger: logger,
	}); err != nil {
		return nil, err
	}
	l.node.service = newService(l.node)
	for _, w := range n.workers {
		lab, err := l.openLabour(ctx, w)
		if err != nil {
			return nil, err
		}
		l.labours = append(l.labours, lab)
	}
	return l, nil
}

// openLabour makes a worker as [openLabour] does, at a desk at the other end of a line.
func (l *simLife) openLabour(ctx context.Context, w *simWorker) (*labour, error) {
	cfg, r := l.node.cfg, l.node.replica
	t := &tether{worker: w.id, self: l.n.id, mesh: l.n.sim.flaw.tie(replicaTie{Replica: r}), streams: l.port.Streams(leaseProtocol), leads: &l.node.leases, uptime: l.n.sim.uptime, wanted: make(chan struct{}, 1)}
	if t.acked = t.uptime(); w.apart {
		t.self = w.port()
		port := l.n.sim.net.Port(t.self)
		l.ports = append(l.ports, port)
		t.streams = port.Streams(leaseProtocol)
	}
	lab := &labour{
		tether: t,
		desk:   &desk{worker: w.id, mesh: replicaTie{Replica: r}}, mesh: replicaTie{Replica: r}, logger: cfg.Logger, warm: func(context.Context) {}, tell: l.advertNow,
		registered: make(chan struct{}), recheck: make(chan struct{}, 1),
	}
	var err error
	lab.worker, err = exec.Open(ctx, exec.Config{
		Worker: w.id, Dir: filepath.Join(l.n.sim.dir, fmt.Sprint(w.id, "-", w.disks)), Slots: simSlots, Logger: cfg.Logger, Floor: 1,
		Desk: &simLine{Desk: lab.desk, worker: w, replica: r, history: l.n.sim.history, flaw: l.n.sim.flaw}, Lease: l.n.sim.flaw.lease(t), LeaseTime: scheduler.Lease,
		Runners: map[labmesh.Kind]exec.Runner{labmesh.Custom: l.n.sim.flaw.stopped(&simtest.Runner{Executions: l.n.sim.executions, Life: l.n.lives, Dead: l.dead})},
	})
	if err != nil {
		return nil, err
	}
	lab.self = labmesh.Worker{ID: w.id, Node: l.n.id, Hostname: cfg.Hostname, Slots: simSlots, Kinds: lab.worker.Kinds(), Capabilities: labmesh.Capabilities{Platform: "sim"}}
	return lab, nil
}

func (l *simLife) run(ctx context.Context) error {
	work := level{l.lead, l.catchUp}
	for _, lab := range l.labours {
		work = append(work, lab.run)
	}
	err := runLevels(ctx, level{l.node.ledger.run, l.gossip, l.serveLeases}, level{l.node.replica.Run}, level{l.node.handOver}, work)
	for _, lab := range l.labours {
		err = errors.Join(err, lab.Close())
	}
	return errors.Join(err, l.node.replica.Close(), l.node.ledger.Close())
}

func (l *simLife) lead(ctx context.Context) error {
	return l.node.replica.WhileLeader(ctx, func(ctx context.Context) error {
		leases := newLeases(l.node.replica)
		l.node.leases.Store(leases)
		defer l.node.leases.CompareAndSwap(leases, nil)
		leader := newLeader(l.node.replica, leases, l.ears, l.node.cfg)
		leader.led = l.n.sim.flaw.led(leader.led)
		return leader.run(ctx)
	})
}

func (l *simLife) serveLeases(ctx context.Context) error {
	return l.node.serveLeasesOn(ctx, l.port.Streams(leaseProtocol))
}

// catchUp is what a node does before it calls itself ready.
func (l *simLife) catchUp(ctx context.Context) error {
	for ctx.Err() == nil {
		rc, err := l.node.replica.Propose(ctx, labmesh.WakeTasks{})
		if err == nil && l.node.replica.Await(ctx, rc.Index) == nil {
			l.node.caughtUp.Store(true)
			<-ctx.Done()
			break
		}
		select {
		case <-time.After(insistPause):
		case <-ctx.Done():
		}
	}
	return nil
}

// gossip has all that can be reached hear of this node and its workers.
func (l *simLife) gossip(ctx context.Context) error {
	tick := time.NewTicker(simAdvert)
	defer tick.Stop()
	for {
		l.advert()
		select {
		case <-tick.C:
		case <-l.tell:
		case <-ctx.Done():
			return nil
		}
	}
}

func (l *simLife) advertNow() {
	select {
	case l.tell <- struct{}{}:
	default:
	}
}

func (l *simLife) advert() {
	select {
	case <-l.dead:
		return
	default:
	}
	if l.n.isPaused() {
		return
	}
	adverts := []labmesh.Advert{{Node: l.n.id, Feature: labmesh.Feature}}
	for i, lab := range l.labours {
		if lab.desk.open.Load() && !l.n.workers[i].isSilent() {
			a := labmesh.Advert{Node: labmesh.NodeID(lab.self.ID), Worker: lab.self.ID, Feature: labmesh.Feature}
			a.Accepts, a.Reason = lab.worker.Accepts()
			a.Accepts = a.Accepts && !lab.leaving.Load()
			adverts = append(adverts, a)
		}
	}
	for _, to := range l.n.sim.nodes {
		if other := to.now(); other != nil && !to.isPaused() && l.n.sim.net.Open(l.n.id, to.id) {
			other.ears.hear(adverts)
		}
	}
}

// now is the node's present life, nil while it is down.
func (n *simNode) now() *simLife {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.life
}

// uptime is how long all machines have been up.
func (s *sim) uptime() time.Duration { return time.Since(s.began) }

// Submit is what a client asks of node i.
func (s *sim) Submit(ctx context.Context, i int, spec labmesh.Spec) (id labmesh.TaskID, err error) {
	if id, done := s.flaw.submit(s, &spec); done {
		return id, nil
	}
	err = s.ask(i, func(l *simLife) error {
		answers, err := l.node.service.Submit(ctx, httpapi.Caller{Name: "sim"}, []labmesh.Spec{spec})
		if err == nil {
			id = answers[0].Task
		}
		return err
	})
	return id, err
}

// Cancel is what a client asks of node i.
func (s *sim) Cancel(ctx context.Context, i int, id labmesh.TaskID) error {
	if s.flaw == lostCancel {
		return nil
	}
	return s.ask(i, func(l *simLife) error { return l.node.service.Cancel(ctx, id, "sim", "") })
}

// Task is what a client asks of node i.
func (s *sim) Task(ctx context.Context, i int, id labmesh.TaskID) (t labmesh.Task, err error) {
	err = s.ask(s.flaw.reader(i, len(s.nodes)), func(l *simLife) error {
		t, err = l.node.service.Task(ctx, id)
		return err
	})
	return t, err
}

// ask asks a node something. One that is killed before it answers has not answered.
func (s *sim) ask(i int, what func(*simLife) error) error {
	l := s.nodes[i].now()
	if l == nil {
		return labmesh.Refuse(labmesh.Unavailable, "node %d is down", i)
	}
	err := what(l)
	if over := s.nodes[i].standsStill(); over != nil {
		<-over // its answer waits with it
	}
	select {
	case <-l.dead:
		return labmesh.Refuse(labmesh.Unavailable, "node %d was killed", i)
	default:
		return err
	}
}

// Leader is who leads.
func (s *sim) Leader() int {
	for i, n := range s.nodes {
		if l := n.now(); l != nil && l.node.replica.Status().Role == "leader" {
			return i
		}
	}
	return -1
}

// settle waits until every task has ended and all replicas agree, and checks them.
func (s *sim) settle(ctx context.Context) error {
	began := time.Now()
	for !s.ended() && time.Since(began) < simSettle {
		time.Sleep(100 * time.Millisecond)
	}
	var last error
	for range 50 {
		replicas, err := s.replicas(ctx)
		if err == nil {
			return simtest.Settled(ctx, s.history.Acknowledged(), replicas)
		}
		last = err
		time.Sleep(100 * time.Millisecond)
	}
	return last
}

func (s *sim) ended() bool {
	view := s.nodes[0].life.node.replica.View()
	for id := range s.history.Acknowledged() {
		if t, ok := view.Task(id); !ok || !t.Phase.Final() {
			return false
		}
	}
	return s.executions.Running() == 0
}

// replicas are all replicas, if they are at the same entry.
func (s *sim) replicas(ctx context.Context) (out []simtest.Replica, err error) {
	for _, n := range s.nodes {
		node := n.life.node
		view := node.replica.View()
		var state, rows bytes.Buffer
		if err := view.Encode(&state); err != nil {
			return nil, err
		}
		if len(out) > 0 && view.Index() != out[0].Index {
			return nil, fmt.Errorf("node %d is at entry %d and node 0 at %d", n.index, view.Index(), out[0].Index)
		}
		if err := node.ledger.Await(ctx, view.Index()); err != nil {
			return nil, err
		}
		if _, err := node.ledger.Export(ctx, 0, view.Index(), 0, &rows); err != nil {
			return nil, err
		}
		out = append(out, simtest.Replica{Index: view.Index(), State: state.Bytes(), Task: node.service.Task, Attempts: node.ledger.Attempts, Rows: rows.Bytes()})
	}
	return out, nil
}

// executed compares what the mesh says with what really ran.
func (s *sim) executed() error {
	view, all := s.nodes[0].life.node.replica.View(), s.executions.All()
	type run struct {
		task    labmesh.TaskID
		attempt int
		worker  labmesh.WorkerID
	}
	done, starts := map[run]bool{}, map[labmesh.TaskID]int{}
	var errs []error
	for _, e := range all {
		starts[e.Task]++
		done[run{e.Task, e.Attempt, e.Worker}] = done[run{e.Task, e.Attempt, e.Worker}] || e.How == "done"
		if e.Ended.IsZero() {
			errs = append(errs, fmt.Errorf("attempt %d of %s still runs on %s", e.Attempt, e.Task, e.Worker))
		}
	}
	for id, key := range s.history.Acknowledged() {
		t, ok := view.Task(id)
		if !ok {
			continue // said already
		}
		var result struct{ Attempt int }
		if t.Phase == labmesh.Completed && (json.Unmarshal(t.Result, &result) != nil || result.Attempt != t.Attempt || !done[run{id, t.Attempt, t.Worker}]) {
			errs = append(errs, fmt.Errorf("%s (%s) completed with attempt %d on %s, which did not end well there; its result is %s", id, key, t.Attempt, t.Worker, t.Result))
		}
		if t.Spec.MaxAttempts == 1 && starts[id] > 1 {
			errs = append(errs, fmt.Errorf("%s (%s) may start once and started %d times", id, key, starts[id]))
		}
	}
	return errors.Join(errs...)
}
