package node

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"labmesh"
	"labmesh/exec"
	"labmesh/exec/bench/engines"
	"labmesh/exec/probe"
	"labmesh/exec/process"
	"labmesh/exec/quiet"
	"labmesh/exec/runner"
	"labmesh/mesh"
	"labmesh/scheduler"
)

// labour is the worker of this node: what it can do, its desk, and the mesh's
// word that it is registered.
type labour struct {
	tether     *tether // nil for a worker that keeps no lease
	desk       *desk
	worker     *exec.Worker
	processes  *process.Host                              // nil with runners from elsewhere
	machine    *quiet.Machine                             // likewise
	look       func(context.Context) labmesh.Capabilities // at this machine, but for its engines; nil where what it offers is given
	facts      labmesh.Capabilities                       // what it saw first
	finder     *engines.Finder                            // nil with runners from elsewhere
	recheck    chan struct{}                              // somebody wants the machine looked at anew
	sampler    *probe.Sampler
	mesh       tie
	logger     *slog.Logger
	warm       func(context.Context) // readies what the first tasks will need
	tell       func()                // has the others hear of a change at once
	registered chan struct{}         // closed once the mesh knows the worker
	leaving    atomic.Bool           // the node stops: nothing more may be placed here
	gauge      *gauge                // measures how fast the machine is; nil where nothing does

	mu   sync.Mutex
	self labmesh.Worker // its capabilities may change
}

func openLabour(ctx context.Context, cfg Config, processes *process.Host, machine *quiet.Machine, host *mesh.Host, to tie, printed printed, f *files, t *tether) (*labour, error) {
	l := &labour{tether: t, processes: processes, machine: machine, tell: host.AdvertNow, mesh: to, logger: cfg.Logger, sampler: probe.NewSampler(cfg.DataDir), registered: make(chan struct{}), recheck: make(chan struct{}, 1)}
	if cfg.Parts.Runners == nil {
		l.finder = newFinder(cfg)
	}
	runners, err := l.openRunners(cfg)
	if err != nil {
		return nil, err
	}
	l.warm = func(ctx context.Context) {
		if t, ok := runners[labmesh.Test].(*runner.Test); ok && l.worksAs().Capabilities.Tools["pytest"] != "" {
			t.Warm(ctx)
		}
	}
	node, id := host.ID(), cfg.workerID(host.ID())
	l.desk, t.worker = &desk{worker: id, mesh: to}, id
	var programs exec.Programs
	if l.processes != nil {
		programs = l.processes
	}
	if l.worker, err = exec.Open(ctx, exec.Config{
		Worker: id, Dir: filepath.Join(cfg.DataDir, attemptsDir), Slots: cfg.Slots, Desk: l.desk, Runners: runners, Files: f, Secrets: to.Secret, Logger: cfg.Logger,
		Printed: printed, Programs: programs, Detach: cfg.KeepOnStop, Held: machine.Held, Lease: t, LeaseTime: scheduler.Lease,
	}); err != nil {
		return nil, errors.Join(err, l.Close())
	}
	l.self = labmesh.Worker{ID: id, Node: node, Hostname: cfg.Hostname, Slots: cfg.Slots, Kinds: l.worker.Kinds(), Tags: cfg.Tags}
	if c := cfg.Parts.Capabilities; c != nil {
		l.self.Capabilities = *c
	} else {
		l.look = func(ctx context.Context) labmesh.Capabilities { return l.capabilities(ctx, cfg) }
		l.facts = l.look(ctx)
		l.self.Capabilities = copied(l.facts)
		if l.finder != nil {
			equip(&l.self.Capabilities, l.finder.Remembered()) // they are asked once the mesh knows the worker
		}
	}
	l.gauge = openGauge(ctx, l, cfg)
	return l, nil
}

// niceness is added to the priority number of what tasks run, so that a task
// that eats every core does not make the node look dead.
const niceness = 5

// openProcesses readies what runs programs: it takes up what an earlier life left
// with its keeper, and ends whatever else that left running. nil with runners
// from elsewhere.
func openProcesses(ctx context.Context, cfg Config) (*process.Host, error) {
	if cfg.NoWork || cfg.Parts.Runners != nil {
		return nil, nil
	}
	return process.Open(ctx, process.Config{
		Dir: filepath.Join(cfg.DataDir, runningDir), Nice: niceness, Memory: probe.MemoryBytes(ctx), Logger: cfg.Logger, Keeper: cfg.Keeper, Window: scheduler.Lease,
	})
}

// openRunners readies the runners.
func (l *labour) openRunners(cfg Config) (map[labmesh.Kind]exec.Runner, error) {
	if cfg.Parts.Runners != nil {
		return cfg.Parts.Runners, nil
	}
	return runner.New(l.processes, os.Environ(), runner.In(box(cfg)), runner.Benchmarks(l.finder.Find, l.machine))
}

// run registers the worker, then works until ctx ends.
func (l *labour) run(ctx context.Context) error {
	index, err := l.register(ctx)
	if err != nil {
		return err
	}
	// Only now is the view known to be newer than this process: what it showed
	// while the log was replayed may be long over.
	if err := l.mesh.Await(ctx, index); err != nil {
		return err
	}
	l.desk.open.Store(true)
	l.tell()
	close(l.registered)
	defer l.leave()
	defer context.AfterFunc(ctx, func() {
		l.leaving.Store(true)
		l.tell()
	})()
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return l.worker.Run(ctx) })
	if l.tether != nil {
		g.Go(func() error { return l.tether.run(ctx, l.worker) })
	}
	g.Go(func() error { return l.stayRegistered(ctx) })
	g.Go(func() error { return l.tellAccepts(ctx) })
	g.Go(func() error { l.warm(ctx); return nil })
	g.Go(func() error { return l.keepLooking(ctx, l.facts) })
	g.Go(func() error { return l.gauge.run(ctx) })
	return g.Wait()
}

// leaveWait bounds the last word of a worker whose node stops.
const leaveWait = time.Second

// leave tells the mesh that the worker goes and its attempts with it, so that nothing is placed on it
// until its lease has run out. Without a leader the lease has to do.
func (l *labour) leave() {
	if l.worker.Detached() {
		return // what it runs goes on: its lease decides
	}
	ctx, cancel := context.WithTimeout(context.Background(), leaveWait)
	defer cancel()
	if _, err := l.mesh.Propose(ctx, labmesh.LoseWorker{ID: l.self.ID, Reason: "its node was stopped", Stopped: true}); err != nil {
		l.logger.DebugContext(ctx, "the mesh was not told that this worker goes", "err", err)
	}
}

// register proposes the worker until the mesh has it.
func (l *labour) register(ctx context.Context) (uint64, error) {
	for {
		rc, err := l.mesh.Propose(ctx, labmesh.PutWorker{Worker: l.worksAs()})
		switch {
		case ctx.Err() != nil:
			return 0, ctx.Err()
		case err == nil && rc.Answers[0].Refused != nil:
			return 0, fmt.Errorf("register worker: %w", rc.Answers[0].Refused)
		case err == nil:
			return rc.Index, nil
		case labmesh.ReasonOf(err) != labmesh.Unavailable && labmesh.ReasonOf(err) != labmesh.Exhausted:
			return 0, fmt.Errorf("register worker: %w", err)
		}
		select {
		case <-time.After(insistPause):
		case <-ctx.Done():
		}
	}
}

// acceptsEvery is how often it is looked whether the worker still takes work.
const acceptsEvery = 500 * time.Millisecond

// tellAccepts has the others hear at once when the worker takes no work any
// more, as on a full disk, or takes it again.
func (l *labour) tellAccepts(ctx context.Context) error {
	tick := time.NewTicker(acceptsEvery)
	defer tick.Stop()
	for before := true; ; {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return nil
		}
		if now, _ := l.worker.Accepts(); now != before {
			before = now
			l.tell()
		}
	}
}

// stayRegistered comes back when the mesh gave the worker up.
func (l *labour) stayRegistered(ctx context.Context) error {
	for ctx.Err() == nil {
		changed := l.mesh.Changed()
		if !l.mesh.Registered(l.self.ID) {
			l.logger.WarnContext(ctx, "the mesh had lost this worker; it registers again")
			index, err := l.register(ctx)
			if err != nil {
				return err
			}
			if err := l.mesh.Await(ctx, index); err != nil {
				return err
			}
			continue
		}
		select {
		case <-changed:
		case <-ctx.Done():
		}
	}
	return nil
}

// Close releases the worker and what runs its programs. It is safe twice.
func (l *labour) Close() (err error) {
	if l.worker != nil {
		err = l.worker.Close()
	}
	if l.processes != nil {
		err = errors.Join(err, l.processes.Close())
	}
	return err
}

// advert is what this node says of itself now.
func (n *Node) advert() labmesh.Advert {
	a := labmesh.Advert{API: n.URL(), Version: n.cfg.Version, Feature: n.cfg.feature(), Leaf: n.members.id().Leaf}
	l := n.labour.Load()
	if l == nil {
		return a
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	a.Metrics = l.sampler.Sample(ctx)
	a.Metrics.Running = l.worker.Running()
	if l.desk.open.Load() {
		a.Worker = l.self.ID
		a.Accepts, a.Reason = l.worker.Accepts()
		if l.leaving.Load() {
			a.Accepts, a.Reason = false, "its node stops"
		}
	}
	return a
}

// desk is the worker's desk, as what ties it to the mesh shows it.
type desk struct {
	worker labmesh.WorkerID
	mesh   tie
	open   atomic.Bool
}

var _ exec.Desk = (*desk)(nil)

// Assigned is nothing before the view has caught up with this start.
func (d *desk) Assigned() []*labmesh.Task {
	if !d.open.Load() {
		return nil
	}
	return d.mesh.Held(d.worker)
}

// Changed is closed at the next change of the view.
func (d *desk) Changed() <-chan struct{} { return d.mesh.Changed() }

// Report proposes the worker's words.
func (d *desk) Report(ctx context.Context, cmds []labmesh.Command) ([]labmesh.Answer, error) {
	rc, err := d.mesh.Propose(ctx, cmds...)
	return rc.Answers, err
}
