package node

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"maps"
	"math"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"labmesh"
	"labmesh/consensus"
	"labmesh/exec"
	"labmesh/scheduler"
	"labmesh/state"
)

// How a worker renews its lease. Between two words of its own there is time for several tries.
const (
	renewEvery   = 500 * time.Millisecond
	renewTimeout = time.Second            // for one try
	renewPause   = 100 * time.Millisecond // after one that came to nothing
	verifyWithin = 700 * time.Millisecond // for the leader to hear from a majority that it leads: less than renewTimeout
	fenceEvery   = 250 * time.Millisecond // a machine that slept is found out by then
	leaseIdle    = time.Minute            // a stream on which nothing is asked is given up
	leasesServed = 1024                   // streams at once
)

// renewal is what a worker asks of the leader, one line each.
type renewal struct {
	Worker labmesh.WorkerID `json:"worker_id"`
	N      uint64           `json:"n"`
}

// renewed is the answer. Without OK the node that was asked does not lead, or cannot know that it does.
type renewed struct {
	N  uint64 `json:"n"`
	OK bool   `json:"ok"`
	// Index is how far the leader had come in the log: what it took away from the worker before stands up to there.
	Index uint64 `json:"index,omitempty"` // 0 from builds that did not say
}

// leases are the leases of workers, as the leader keeps them during one stretch of leadership.
type leases struct {
	replica *consensus.Replica

	mu      sync.Mutex
	renewed map[labmesh.WorkerID]time.Time // on the leader's clock
	leaving map[labmesh.WorkerID]int       // given up in entries that are under way
	next    *vote
	asking  bool
}

// vote is one question to the voters, for all who came before it was asked.
type vote struct {
	over chan struct{}
	err  error
}

func newLeases(r *consensus.Replica) *leases {
	return &leases{replica: r, renewed: map[labmesh.WorkerID]time.Time{}, leaving: map[labmesh.WorkerID]int{}}
}

var errGivenUp = errors.New("the mesh is giving this worker up")

// renew notes that a worker was heard, and returns once it is known that this node led
// after it was: then no other leader can have begun to count before. What was taken away from the
// worker until then stands in the log up to index.
func (l *leases) renew(ctx context.Context, w labmesh.WorkerID) (index uint64, err error) {
	if err := l.verify(ctx); err != nil {
		return 0, err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.leaving[w] > 0 {
		return 0, errGivenUp
	}
	if now := l.replica.Now(); now.After(l.renewed[w]) {
		l.renewed[w] = now
	}
	return l.replica.View().Index(), nil
}

// giveUp holds back the answers to workers that todo takes attempts from, until settled is called.
// It leaves out what was planned for a worker that has renewed its lease since the plan was made.
func (l *leases) giveUp(todo []labmesh.Command, in scheduler.Input) (still []labmesh.Command, settled func()) {
	l.mu.Lock()
	defer l.mu.Unlock()
	var held []labmesh.WorkerID
	for _, c := range todo {
		w := loses(c, in.View)
		if w != "" && l.renewed[w].After(in.Renewed[w]) {
			continue
		}
		if still = append(still, c); w != "" {
			l.leaving[w]++
			held = append(held, w)
		}
	}
	return still, func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		for _, w := range held {
			if l.leaving[w]--; l.leaving[w] == 0 {
				delete(l.leaving, w)
			}
		}
	}
}

// loses is the worker that a command takes attempts from because it was not heard of, or "".
func loses(c labmesh.Command, v state.View) labmesh.WorkerID {
	switch c := c.(type) {
	case labmesh.LoseWorker:
		return c.ID
	case labmesh.ExpireTask:
		if t, ok := v.Task(c.ID); ok && c.Cause == labmesh.CauseWorkerLost {
			return t.Worker
		}
	}
	return ""
}

// verify asks the voters. Those who call while they are being asked share the next question.
func (l *leases) verify(ctx context.Context) error {
	l.mu.Lock()
	if l.next == nil {
		l.next = &vote{over: make(chan struct{})}
	}
	v := l.next
	if !l.asking {
		l.asking = true
		go l.ask() // ends when nobody waits
	}
	l.mu.Unlock()
	select {
	case <-v.over:
		return v.err
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

func (l *leases) ask() {
	for {
		l.mu.Lock()
		v := l.next
		if l.next = nil; v == nil {
			l.asking = false
			l.mu.Unlock()
			return
		}
		l.mu.Unlock()
		ctx, cancel := context.WithTimeout(context.Background(), verifyWithin)
		v.err = l.replica.Leads(ctx)
		cancel()
		close(v.over)
	}
}

// seen is when each worker renewed its lease last.
func (l *leases) seen() map[labmesh.WorkerID]time.Time {
	l.mu.Lock()
	defer l.mu.Unlock()
	return maps.Clone(l.renewed)
}

// serveLeases answers workers that renew their lease, while this node leads.
func (n *Node) serveLeases(ctx context.Context) error {
	return n.serveLeasesOn(ctx, n.host.Streams(leaseProtocol))
}

func (n *Node) serveLeasesOn(ctx context.Context, s consensus.Streams) error {
	return serveStreamsUpTo(ctx, s, leasesServed, func(ctx context.Context, conn net.Conn, r renewal) error {
		in := bufio.NewReaderSize(conn, requestMax)
		for {
			answer := renewed{N: r.N}
			if l := n.leases.Load(); l != nil {
				vctx, cancel := context.WithTimeout(ctx, verifyWithin)
				index, err := l.renew(vctx, r.Worker)
				answer.OK, answer.Index = err == nil, index
				cancel()
			}
			if err := answerHead(conn, answer); err != nil {
				return err
			}
			_ = conn.SetReadDeadline(time.Now().Add(leaseIdle))
			line, err := readLine(in)
			if err != nil {
				return err
			}
			r = renewal{}
			if err := json.Unmarshal(line, &r); err != nil {
				return err
			}
		}
	})
}

// tether is the lease of this node's worker.
type tether struct {
	worker  labmesh.WorkerID
	self    labmesh.NodeID
	mesh    tie // which knows who leads
	streams consensus.Streams
	leads   *atomic.Pointer[leases]
	uptime  func() time.Duration // on a clock that nobody sets, and that goes on while the machine sleeps
	tell    func(time.Duration)  // hears of each renewal, to end programs if this process cannot; may be nil
	wanted  chan struct{}

	mu    sync.Mutex
	acked time.Duration // when the newest word was sent that was answered
	seen  time.Duration // likewise, and the desk shows all that the leader had taken away by then
	ever  bool          // there was one

	// Of the loop that renews alone.
	conn   net.Conn
	in     *bufio.Reader
	to     labmesh.NodeID
	n      uint64
	unseen *answered // the desk has yet to catch up with it
}

// answered is a word that was answered: when it was sent, and the index of the answer.
type answered struct {
	sent  time.Duration
	index uint64
}

var _ exec.Lease = (*tether)(nil)

func newTether(n *Node) *tether {
	t := &tether{self: n.host.ID(), mesh: n.tie, streams: n.host.Streams(leaseProtocol).CloseOnSilence(), leads: &n.leases, uptime: n.cfg.Parts.Uptime, wanted: make(chan struct{}, 1)}
	if t.uptime == nil {
		t.uptime = uptime
	}
	t.acked = t.uptime()
	if p := n.processes; p != nil {
		t.tell = p.Renewed
		if was := p.WasRenewed(); was > 0 {
			t.acked = min(t.acked, was)
		}
	}
	return t
}

// Silent is how long ago the newest word was sent that the mesh has answered, by an answer that the
// desk has caught up with: one who was cut off may be answered before it hears that what it holds is another's.
func (t *tether) Silent() time.Duration {
	t.mu.Lock()
	defer t.mu.Unlock()
	if !t.ever {
		return math.MaxInt64
	}
	return t.uptime() - t.seen
}

// Wanted has the lease be renewed.
func (t *tether) Wanted() {
	select {
	case t.wanted <- struct{}{}:
	default: // it is about to be
	}
}

// run renews the lease while w needs it, and stops what w runs when that cannot be done in time.
func (t *tether) run(ctx context.Context, w *exec.Worker) error {
	fence := make(chan struct{}, 1)
	var watching sync.WaitGroup
	defer watching.Wait()
	watching.Go(func() { t.watch(ctx, w, fence) })
	defer t.hangUp()
	for ctx.Err() == nil {
		if !w.Engaged() {
			select {
			case <-t.wanted:
			case <-time.After(leaseIdle):
				t.hangUp()
				select {
				case <-t.wanted:
				case <-ctx.Done():
				}
			case <-ctx.Done():
			}
		}
		select {
		case fence <- struct{}{}:
		default:
		}
		sent, pause := t.uptime(), time.After(renewPause)
		if index, err := t.renew(ctx); err == nil {
			pause = time.After(renewEvery)
			t.count(w, sent)
			t.see(ctx, w, answered{sent, index})
		}
		select {
		case <-pause:
		case <-ctx.Done():
		}
	}
	return nil
}

// count takes the lease for renewed by a word that was sent then.
func (t *tether) count(w *exec.Worker, sent time.Duration) {
	t.fence(w) // what had run out by now does not come back
	t.mu.Lock()
	defer t.mu.Unlock()
	t.acked = max(t.acked, sent)
	if t.tell != nil {
		t.tell(t.acked)
	}
}

// see waits for the desk to catch up with an answer, for as long as there is until the next word. Then the worker
// may begin what it holds. An answer that it has not caught up with is waited for again, until its lease is over.
func (t *tether) see(ctx context.Context, w *exec.Worker, a answered) {
	if t.unseen == nil || a.sent-t.unseen.sent > scheduler.Lease {
		t.unseen = &a
	}
	ctx, cancel := context.WithTimeout(ctx, renewEvery)
	defer cancel()
	if t.mesh.Await(ctx, t.unseen.index) != nil {
		return
	}
	t.mu.Lock()
	t.seen, t.ever = max(t.seen, t.unseen.sent), true
	t.mu.Unlock()
	t.unseen = nil
	w.InTouch()
}

// fence stops what must not go on. What an earlier life of the node left has the lease of that.
func (t *tether) fence(w *exec.Worker) {
	t.mu.Lock()
	silent := t.uptime() - t.acked
	t.mu.Unlock()
	w.Fence(silent)
}

// watch looks, while the worker needs its lease, whether that has run out. It does not wait for answers.
func (t *tether) watch(ctx context.Context, w *exec.Worker, engaged <-chan struct{}) {
	tick := time.NewTicker(fenceEvery)
	defer tick.Stop()
	for ctx.Err() == nil {
		if !w.Engaged() {
			tick.Stop()
			select {
			case <-engaged:
			case <-ctx.Done():
				return
			}
			tick.Reset(fenceEvery)
		}
		t.fence(w)
		select {
		case <-tick.C:
		case <-ctx.Done():
		}
	}
}

// renew has the leader hear of this worker. Without an error it has, and it led then.
func (t *tether) renew(ctx context.Context) (index uint64, err error) {
	ctx, cancel := context.WithTimeout(ctx, renewTimeout)
	defer cancel()
	leader, _ := t.mesh.Leader()
	switch leader {
	case "":
		return 0, errors.New("no leader is known")
	case t.self:
		if l := t.leads.Load(); l != nil {
			return l.renew(ctx, t.worker)
		}
		return 0, errors.New("this node does not lead yet")
	}
	if index, err = t.exchange(ctx, leader); err != nil {
		t.hangUp()
	}
	return index, err
}

var errNotRenewed = errors.New("the node asked does not lead, or cannot know that it does")

// exchange sends one word to the leader and reads the answer.
func (t *tether) exchange(ctx context.Context, leader labmesh.NodeID) (index uint64, err error) {
	if t.conn == nil || t.to != leader {
		t.hangUp()
		conn, err := t.streams.Dial(ctx, leader)
		if err != nil {
			return 0, err
		}
		t.conn, t.in, t.to = conn, bufio.NewReaderSize(conn, requestMax), leader
	}
	conn := t.conn
	deadline, _ := ctx.Deadline()
	if err := conn.SetDeadline(deadline); err != nil {
		return 0, err
	}
	defer context.AfterFunc(ctx, func() { _ = conn.Close() })() // wakes the read
	t.n++
	if err := answerHead(t.conn, renewal{Worker: t.worker, N: t.n}); err != nil {
		return 0, err
	}
	for {
		line, err := readLine(t.in)
		if err != nil {
			return 0, err
		}
		var r renewed
		if err := json.Unmarshal(line, &r); err != nil {
			return 0, err
		}
		switch {
		case r.N != t.n:
			continue // an answer to an earlier word, which was given up
		case !r.OK:
			return 0, errNotRenewed
		}
		return r.Index, nil
	}
}

func (t *tether) hangUp() {
	if t.conn != nil {
		_ = t.conn.Close()
		t.conn = nil
	}
}
