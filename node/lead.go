package node

import (
	"context"
	"slices"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"labmesh"
	"labmesh/consensus"
	"labmesh/mesh"
	"labmesh/scheduler"
)

// How often a leader looks at what time alone changes.
const (
	tendIdle     = time.Second
	membersEvery = time.Second

	// aheadEvery is between two plans that only place tasks ahead of free slots: what
	// comes together makes one entry of the log. Workers have more at hand than that takes them.
	aheadEvery = 8 * time.Millisecond
)

// lead does all that a leader does, whenever this node is one. There is nothing
// to hand over: all of it follows from the view.
func (n *Node) lead(ctx context.Context) error {
	return n.replica.WhileLeader(ctx, func(ctx context.Context) error {
		leases := newLeases(n.replica)
		n.leases.Store(leases)
		defer n.leases.CompareAndSwap(leases, nil)
		g, ctx := errgroup.WithContext(ctx)
		g.Go(func() error { return newLeader(n.replica, leases, n.host, n.cfg).run(ctx) })
		g.Go(func() error { return n.vault.lead(ctx) })
		g.Go(func() error { return n.service.keepTokenKeys(ctx) })
		return g.Wait()
	})
}

// ears is what a leader hears of the mesh. It is *[mesh.Host].
type ears interface {
	ID() labmesh.NodeID
	Heard() map[labmesh.NodeID]mesh.Heard
	Changed() <-chan struct{}
}

// leader is one stretch of leadership.
type leader struct {
	leases  *leases
	replica *consensus.Replica
	host    ears
	cfg     Config
	led     time.Time                    // when it began, on the leader's clock
	since   map[labmesh.NodeID]time.Time // since when each node has been heard without a gap

	mu   sync.Mutex
	last map[labmesh.NodeID]time.Time // until when the word of each node held last, on the leader's clock
}

// leasesLevel is the feature level of builds whose workers renew leases.
const leasesLevel = 3

func newLeader(r *consensus.Replica, leases *leases, host ears, cfg Config) *leader {
	return &leader{leases: leases, replica: r, host: host, cfg: cfg, led: r.Now(), since: map[labmesh.NodeID]time.Time{}, last: map[labmesh.NodeID]time.Time{}}
}

func (l *leader) run(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return l.place(ctx) })
	g.Go(func() error { return l.tend(ctx) })
	g.Go(func() error { return l.keepReplicas(ctx) })
	return g.Wait()
}

// input is all that the scheduler decides by.
func (l *leader) input() scheduler.Input {
	now, here := l.replica.Now(), time.Now()
	in := scheduler.Input{View: l.replica.View(), Now: now, Led: l.led, Renewed: l.leases.seen(), Heard: map[labmesh.WorkerID]scheduler.Heard{}}
	heard := l.host.Heard()
	for _, h := range heard {
		if w := h.Advert.Worker; w != "" {
			in.Heard[w] = scheduler.Heard{Expires: now.Add(h.Expires.Sub(here)), Accepts: h.Advert.Accepts, Renews: h.Advert.Feature >= leasesLevel}
		}
	}
	l.hearLight(&in, heard, here)
	return in
}

// hearLight has light workers be heard of when the node is to which they are attached. What is known
// of a node is remembered when it is heard of no more: they are lost some time after.
func (l *leader) hearLight(in *scheduler.Input, heard map[labmesh.NodeID]mesh.Heard, here time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for node, h := range heard {
		l.last[node] = in.Now.Add(h.Expires.Sub(here))
	}
	for w := range in.View.Workers() {
		if until, ok := l.last[w.Node]; ok && w.Light && w.Status != labmesh.WorkerOffline {
			in.Heard[w.ID] = scheduler.Heard{Expires: until, Accepts: true}
		}
	}
}

// place puts pending tasks on free workers as soon as there are both.
func (l *leader) place(ctx context.Context) error {
	var ahead time.Time // when tasks were last placed ahead of slots
	pause := time.NewTimer(time.Hour)
	defer pause.Stop()
	for ctx.Err() == nil {
		changed, heard := l.replica.Changed(), l.host.Changed()
		in := l.input()
		plan := scheduler.Quarantine(in)
		if len(plan) == 0 {
			plan = scheduler.Plan(in)
		}
		wait := time.Duration(0)
		if allAhead(plan) {
			if wait = aheadEvery - time.Since(ahead); wait <= 0 {
				ahead = time.Now()
			}
		}
		if len(plan) > 0 && wait <= 0 {
			if err := l.propose(ctx, plan); err != nil {
				return err
			}
			continue
		}
		var due <-chan time.Time
		if wait > 0 {
			pause.Reset(wait)
			due = pause.C
		}
		select {
		case <-changed:
		case <-heard:
		case <-due:
		case <-ctx.Done():
		}
	}
	return nil
}

// allAhead reports whether all that a plan does is to place tasks ahead of free slots.
func allAhead(plan []labmesh.Command) bool {
	for _, c := range plan {
		if p, ok := c.(labmesh.PlaceTask); !ok || !p.Ahead {
			return false
		}
	}
	return len(plan) > 0
}

// tend does what has to be done because time has passed.
func (l *leader) tend(ctx context.Context) error {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-timer.C:
		case <-ctx.Done():
			return nil
		}
		if err := l.tendOnce(ctx); err != nil {
			return err
		}
		timer.Reset(scheduler.NextTend(l.input(), tendIdle))
	}
}

func (l *leader) tendOnce(ctx context.Context) error {
	in := l.input()
	todo, settled := l.leases.giveUp(scheduler.Tend(in), in)
	defer settled()
	if len(todo) == 0 {
		return nil
	}
	return l.propose(ctx, todo)
}

// propose hands in what the scheduler wants. That the state refuses some of it
// is in order: it has moved on since.
func (l *leader) propose(ctx context.Context, cmds []labmesh.Command) error {
	rc, err := l.replica.ProposeHere(ctx, cmds...)
	if err != nil {
		return err
	}
	for i, a := range rc.Answers {
		if a.Refused != nil {
			l.cfg.Logger.DebugContext(ctx, "not done: the mesh has moved on", "command", cmds[i].CommandName(), "why", a.Refused.Message)
		}
	}
	return nil
}

// keepReplicas keeps the log on the right nodes.
func (l *leader) keepReplicas(ctx context.Context) error {
	tick := time.NewTicker(membersEvery)
	defer tick.Stop()
	for ctx.Err() == nil {
		changed := l.host.Changed()
		in, err := l.membership()
		if err != nil {
			return err
		}
		plan := consensus.PlanMembership(in)
		for _, c := range plan {
			l.cfg.Logger.InfoContext(ctx, "replicas change", "do", c.Do, "node", c.Node, "why", c.Why)
			if err := l.replica.Make(ctx, c); err != nil && ctx.Err() == nil {
				l.cfg.Logger.WarnContext(ctx, "replicas not changed", "do", c.Do, "node", c.Node, "err", err)
			}
		}
		if err := l.raiseLevel(ctx, in.Servers); err != nil {
			return err
		}
		if len(plan) > 0 {
			changed = nil // what was changed may call for more, but not at once
		}
		select {
		case <-tick.C:
		case <-changed:
		case <-ctx.Done():
		}
	}
	return nil
}

// raiseLevel raises the feature level of the mesh to what every replica knows.
// One that is not heard of may have an old build: it is waited for, or removed as dead.
func (l *leader) raiseLevel(ctx context.Context, replicas []consensus.Server) error {
	if v := l.replica.View(); v.Mesh() == "" || v.Level() >= l.cfg.feature() {
		return nil // being founded it begins at the level of its founder
	}
	heard, level := l.host.Heard(), l.cfg.feature()
	for _, s := range replicas {
		if s.ID == l.host.ID() {
			continue
		}
		h, ok := heard[s.ID]
		if !ok {
			return nil
		}
		level = min(level, h.Advert.Feature)
	}
	if level <= l.replica.View().Level() {
		return nil
	}
	l.cfg.Logger.InfoContext(ctx, "every replica has been upgraded: the mesh rises to their feature level", "level", level)
	return l.propose(ctx, []labmesh.Command{labmesh.RaiseLevel{Level: level}})
}

// zoneTag is the tag of a worker that says what its node may go down together with.
const zoneTag = "zone"

func (l *leader) membership() (consensus.MembershipInput, error) {
	now := time.Now()
	in := consensus.MembershipInput{Self: l.host.ID(), Now: now, MaxReplicas: l.cfg.MaxReplicas, Heard: map[labmesh.NodeID]consensus.Heard{}, Zones: map[labmesh.NodeID]string{}, Leaves: map[labmesh.NodeID]bool{}}
	var err error
	if in.Servers, err = l.replica.Servers(); err != nil {
		return in, err
	}
	for m := range l.replica.View().Members() {
		in.Members = append(in.Members, *m)
	}
	for w := range l.replica.View().Workers() {
		if z := w.Tags[zoneTag]; z != "" {
			in.Zones[w.Node] = z
		}
	}
	progress, heard := l.replica.Progress(), l.host.Heard()
	newest := l.replica.Status().Last
	for node := range l.since {
		if _, ok := heard[node]; !ok {
			delete(l.since, node)
		}
	}
	for node, h := range heard {
		if _, ok := l.since[node]; !ok {
			l.since[node] = h.At
		}
		in.Leaves[node] = h.Advert.Leaf || l.onlyWorks(node, in.Servers)
		p, ok := progress[node]
		last := h.At
		if p.Answered.After(last) {
			last = p.Answered
		}
		in.Heard[node] = consensus.Heard{Since: l.since[node], Last: last, CaughtUp: ok && p.Match+consensus.CaughtUpEntries >= newest}
	}
	return in, nil
}

// onlyWorks reports whether a node came in as a worker and holds no log: it gets none, whatever it says of itself.
func (l *leader) onlyWorks(node labmesh.NodeID, replicas []consensus.Server) bool {
	m, ok := l.replica.View().Member(node)
	return ok && m.Role == labmesh.RoleWorker && !slices.ContainsFunc(replicas, func(s consensus.Server) bool { return s.ID == node })
}
