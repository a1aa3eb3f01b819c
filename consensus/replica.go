package consensus

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/raft"
	"golang.org/x/sync/errgroup"

	"labmesh"
	"labmesh/state"
)

// Replica is this node's copy of the log and of the state that follows from it.
type Replica struct {
	cfg       Config
	storage   *storage
	machine   *machine
	committer *committer
	asks      asks
	forward   *forwarder
	nudger    *nudger
	clock     clock
	tenures   tenures

	node   atomic.Pointer[raft.Raft] // nil until Run
	life   context.Context           // ends when the replica begins to stop
	stop   context.CancelFunc
	done   chan struct{} // closed when Run has settled everything
	ending sync.Once
}

// Open opens the log in cfg.Dir. The replica takes part once [Replica.Run] runs.
func Open(_ context.Context, cfg Config) (*Replica, error) {
	if err := cfg.validate(); err != nil {
		return nil, err
	}
	if cfg.Profile == (Profile{}) {
		cfg.Profile = Fast
	}
	if err := undiverged(cfg.Dir); err != nil {
		return nil, err
	}
	s, err := openStorage(cfg)
	if err != nil {
		return nil, err
	}
	r := &Replica{cfg: cfg, storage: s, done: make(chan struct{})}
	r.life, r.stop = context.WithCancel(context.Background())
	decoded := &decodedEntries{}
	r.nudger = newNudger(r.leading)
	r.machine = newMachine(r.life, cfg.Ledger, decoded, r.nudger.applied)
	r.machine.sums = newSums(cfg, r.voters, r.machine.fail)
	s.damaged = func(err error) { _ = r.machine.fail(err) } // nothing is applied beyond it
	r.committer = newCommitter(r.Now, decoded)
	r.forward = newForwarder(cfg.Forward)
	return r, nil
}

// Run takes part in the mesh until ctx ends, and then returns nil. It returns
// an error when this replica can take part no more: an entry cannot be read by
// this build, or the disk has refused a write. It is called once.
func (r *Replica) Run(ctx context.Context) error {
	defer r.finish()
	roles := make(chan bool, 8)
	conf := r.cfg.raft(roles)
	layer, err := listen(r.life, r.cfg.ID, r.cfg.Raft)
	if err != nil {
		return fmt.Errorf("run replica: %w", err)
	}
	trans := newTransport(layer, r.nudger, r.cfg.Profile.beat(), conf.Logger)
	defer trans.Close()
	if err := r.bootstrap(conf, trans); err != nil {
		return err
	}
	logs, err := raft.NewLogCache(cachedEntries, r.storage)
	if err != nil {
		return fmt.Errorf("run replica: %w", err)
	}
	node, err := raft.NewRaft(conf, r.machine, logs, r.storage, r.storage.snaps, trans)
	if err != nil {
		return fmt.Errorf("start raft: %w", errors.Join(err, r.machine.Failure()))
	}
	r.nudger.start(node, trans)
	r.node.Store(node)
	return r.serve(ctx, node, trans, roles)
}

// bootstrap writes the first configuration of a mesh that is being founded.
func (r *Replica) bootstrap(conf *raft.Config, trans raft.Transport) error {
	if !r.cfg.Found {
		return nil
	}
	self := raft.Server{Suffrage: raft.Voter, ID: conf.LocalID, Address: raft.ServerAddress(r.cfg.ID)}
	err := raft.BootstrapCluster(conf, r.storage, r.storage, r.storage.snaps, trans,
		raft.Configuration{Servers: []raft.Server{self}})
	if err != nil && !errors.Is(err, raft.ErrCantBootstrap) {
		return fmt.Errorf("found mesh: %w", err)
	}
	return nil
}

// serve runs the loops around raft and stops them in order: first whoever
// brings commands, then raft, which settles what it was given, then the rest.
func (r *Replica) serve(ctx context.Context, node *raft.Raft, trans *transport, roles <-chan bool) error {
	leaders := make(chan raft.Observation, 8)
	observer := raft.NewObserver(leaders, false, func(o *raft.Observation) bool {
		_, ok := o.Data.(raft.LeaderObservation)
		return ok
	})
	node.RegisterObserver(observer)
	defer node.DeregisterObserver(observer)

	settled, answered, halted := make(chan struct{}), make(chan struct{}), make(chan struct{})
	var around sync.WaitGroup
	around.Go(func() { defer close(settled); r.committer.settle() })
	around.Go(func() { r.watchRoles(node, roles, halted) })

	loops, ending := errgroup.WithContext(ctx)
	loops.Go(func() error { r.committer.run(ending, node); return nil })
	loops.Go(func() error { r.nudger.run(ending); return nil })
	loops.Go(func() error { r.watchLeader(ending, leaders); return nil })
	loops.Go(func() error { return r.serveForwards(ending) })
	loops.Go(func() error { r.machine.sums.run(ending, r.reportState); return nil })
	loops.Go(func() error { return r.watchFailure(ending) })
	<-ending.Done()
	r.stop()
	err := loops.Wait()
	close(r.committer.sent)
	go func() { defer close(answered); r.asks.settle() }() // not waited for longer than for raft
	r.halt(node, trans, settled, answered)
	close(halted)
	around.Wait()
	r.committer.drain()
	return err
}

// halt stops raft. It first lets raft settle the entries and questions under way, since raft
// forgets to answer for those that it holds when it is shut down; when they do
// not settle, closing the streams makes a leader step down, which settles them.
func (r *Replica) halt(node *raft.Raft, trans *transport, settled ...<-chan struct{}) {
	await := func(limit time.Duration) {
		over := time.After(limit)
		for _, s := range settled {
			select {
			case <-s:
			case <-over:
				return
			}
		}
	}
	if r.machine.Failure() == nil && r.storage.Failure() == nil {
		await(settleTimeout)
	}
	trans.Close() // nobody hears this replica any more
	// A state machine that is far behind would reach what is under way too late.
	_ = r.machine.fail(raft.ErrRaftShutdown)
	await(stopTimeout)
	stopped := node.Shutdown()
	r.storage.release()
	_ = stopped.Error() // always nil; returns when raft's goroutines have
}

// watchFailure returns the error that makes it impossible to go on.
func (r *Replica) watchFailure(ctx context.Context) error {
	select {
	case <-ctx.Done():
		return nil
	case <-r.machine.failed:
		return r.machine.Failure()
	case <-r.storage.failed:
		return r.storage.Failure()
	}
}

// reportState says in the log what this replica's state was.
func (r *Replica) reportState(ctx context.Context, report labmesh.ReportState) error {
	_, err := r.Propose(ctx, report)
	return err
}

// voters are those of the newest configuration; none while it is not known.
func (r *Replica) voters() (ids []labmesh.NodeID) {
	servers, err := r.Servers()
	if err != nil {
		return nil
	}
	for _, s := range servers {
		if s.Voter {
			ids = append(ids, s.ID)
		}
	}
	return ids
}

// watchLeader gives up the stream to a leader that has been replaced.
func (r *Replica) watchLeader(ctx context.Context, seen <-chan raft.Observation) {
	for {
		select {
		case <-ctx.Done():
			return
		case o := <-seen:
			if l := o.Data.(raft.LeaderObservation).LeaderID; l != "" {
				r.forward.follow(labmesh.NodeID(l))
			}
		}
	}
}

// finish releases all who wait for this replica.
func (r *Replica) finish() {
	r.ending.Do(func() {
		r.stop()
		r.tenures.close()
		r.forward.close()
		close(r.done)
	})
}

// Close closes the log. Run must have returned, if it was called. It is safe twice.
func (r *Replica) Close() error {
	r.finish()
	return r.storage.Close()
}

// View is the state as this replica knows it. It is a value: it never changes.
func (r *Replica) View() state.View { return r.machine.current.Load().view }

// Changed is closed when the next view is published. Take it first and then
// look at the view, or a change between the two goes unseen.
func (r *Replica) Changed() <-chan struct{} { return r.machine.current.Load().changed }

// Await returns once this replica has applied the entry at index.
func (r *Replica) Await(ctx context.Context, index uint64) error {
	if r.View().Index() >= index {
		return nil
	}
	reached := r.machine.waiting.add(index)
	defer r.machine.waiting.remove(reached)
	if r.View().Index() >= index {
		return nil
	}
	select {
	case <-reached:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("await log index %d: %w", index, context.Cause(ctx))
	case <-r.done:
		return labmesh.Refuse(labmesh.Unavailable, "await log index %d: the replica has stopped", index)
	}
}

// Now is the time for entries and for those who plan: on the leader a clock
// that neither jumps nor goes back.
func (r *Replica) Now() time.Time { return r.clock.now(r.View().Now()) }

// Leader is the leader as this replica knows it, "" when it knows none, and the term.
func (r *Replica) Leader() (labmesh.NodeID, uint64) {
	node := r.node.Load()
	if node == nil {
		return "", 0
	}
	_, id := node.LeaderWithID()
	return labmesh.NodeID(id), node.CurrentTerm()
}

// leading tells whether this replica leads in term.
func (r *Replica) leading(term uint64) bool {
	node := r.node.Load()
	return node != nil && node.State() == raft.Leader && node.CurrentTerm() == term
}
