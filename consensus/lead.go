package consensus

import (
	"context"
	"sync"
	"time"

	"github.com/hashicorp/raft"

	"labmesh"
)

// The pause before work that returned an error is run again, doubled each time.
const (
	workPauseMin = 100 * time.Millisecond
	workPauseMax = 5 * time.Second
)

// tenure is one stretch of leadership of this replica.
type tenure struct {
	ctx  context.Context // ends with the leadership
	end  context.CancelFunc
	term uint64
}

// tenures remembers whether this replica leads. Raft itself only tells of
// changes; whoever asks here need not have been listening at the time.
type tenures struct {
	mu      sync.Mutex
	now     *tenure
	changed chan struct{}
	closed  bool
}

// set begins a tenure, or ends the present one when next is nil.
func (t *tenures) set(next *tenure) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.now != nil {
		t.now.end()
	}
	if t.closed && next != nil {
		next.end()
		next = nil
	}
	t.now = next
	if t.changed != nil {
		close(t.changed)
		t.changed = nil
	}
}

// close ends the present tenure; none begins any more.
func (t *tenures) close() {
	t.mu.Lock()
	t.closed = true
	t.mu.Unlock()
	t.set(nil)
}

// current is the present tenure, nil when there is none, and a channel that is
// closed when that changes.
func (t *tenures) current() (*tenure, <-chan struct{}) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.changed == nil {
		t.changed = make(chan struct{})
	}
	return t.now, t.changed
}

// watchRoles keeps the tenures until raft has halted. Raft waits for its
// messages to be read.
func (r *Replica) watchRoles(node *raft.Raft, roles <-chan bool, halted <-chan struct{}) {
	log := r.cfg.Logger
	for {
		select {
		case leads := <-roles:
			r.pace(node, leads)
			if !leads {
				log.Info("this node leads no more")
				r.tenures.set(nil)
				continue
			}
			ctx, end := context.WithCancel(r.life)
			r.clock.start(r.View().Now())
			term := node.CurrentTerm()
			log.Info("this node leads", "term", term)
			r.tenures.set(&tenure{ctx: ctx, end: end, term: term})
		case <-halted:
			return
		}
	}
}

// pace sets how often a leader is ready to send heartbeats; when it does is the
// beat's affair. Raft waits from a tenth to two tenths of its heartbeat timeout
// between two, which with timeouts as short as ours costs an idle leader some
// percent of a core. Here that is from half a beat to a whole one. The patience of the
// followers is not changed by this, and a heartbeat that is late does no harm:
// pre-vote keeps the others from electing anybody while they hear the leader.
func (r *Replica) pace(node *raft.Raft, leads bool) {
	conf := node.ReloadableConfig()
	conf.HeartbeatTimeout, conf.ElectionTimeout = r.cfg.Profile.Heartbeat, r.cfg.Profile.Election
	if leads {
		conf.HeartbeatTimeout = r.cfg.Profile.beat() / 2 * 10
		conf.ElectionTimeout = max(conf.ElectionTimeout, conf.HeartbeatTimeout)
	}
	if err := node.ReloadConfig(conf); err != nil {
		r.cfg.Logger.Warn("pace of heartbeats not set", "err", err)
	}
}

// WhileLeader runs work each time this replica comes to lead, once it has
// applied all that was committed before. The context of work ends with the
// leadership, and the next leadership waits until work has returned.
//
// Work that returns an error while the leadership lasts is run again after a
// pause, which grows to 5 seconds: another leader would most likely meet the
// same error. Work that returns nil is done for this leadership. WhileLeader
// itself returns nil when ctx ends or the replica has stopped.
func (r *Replica) WhileLeader(ctx context.Context, work func(context.Context) error) error {
	for {
		t, changed := r.tenures.current()
		if t != nil {
			r.lead(ctx, t, work)
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return nil
		case <-r.done:
			return nil
		}
	}
}

// lead runs work until it is done or the tenure ends.
func (r *Replica) lead(ctx context.Context, t *tenure, work func(context.Context) error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(t.ctx, cancel)()
	for pause := workPauseMin; ctx.Err() == nil; pause = min(2*pause, workPauseMax) {
		err := r.Barrier(ctx)
		if err == nil {
			err = work(ctx)
		}
		if err == nil || ctx.Err() != nil {
			return
		}
		r.cfg.Logger.WarnContext(ctx, "the leader's work stopped and begins again", "pause", pause, "err", err)
		select {
		case <-time.After(pause):
		case <-ctx.Done():
		}
	}
}

// Leads is nil when this replica led at some time after the call began: a majority of the voters
// has said so in answer to messages that were at most rpcTimeout old. It writes nothing.
func (r *Replica) Leads(ctx context.Context) error {
	node := r.node.Load()
	if node == nil {
		return labmesh.Refuse(labmesh.Unavailable, "this replica is not running")
	}
	return r.await(ctx, "ask the voters who leads", func() raft.Future { return node.VerifyLeader() })
}

// Barrier returns once this replica, which must lead, has applied everything
// that was committed before the call.
func (r *Replica) Barrier(ctx context.Context) error {
	node := r.node.Load()
	if node == nil {
		return labmesh.Refuse(labmesh.Unavailable, "barrier: this replica is not running")
	}
	return r.await(ctx, "barrier", func() raft.Future { return node.Barrier(0) })
}
