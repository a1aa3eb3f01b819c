package consensus

import (
	"context"
	"maps"
	"sync"
	"time"

	"github.com/hashicorp/raft"

	"labmesh"
)

// nudger tells followers at once what has been committed.
//
// In raft a follower learns that an entry is committed with the next message
// about entries. On a busy log that comes within a millisecond; on an idle one
// the library waits 50 to 100 ms, and making that wait shorter costs CPU all
// day. So when the leader has applied an entry and nothing newer is under way,
// the nudger sends such a message itself.
//
// Why that is sound. The message is an AppendEntries of term T with no entries,
// PrevLogEntry = m, PrevLogTerm = the term of m, and LeaderCommitIndex = min(m, N):
//
//   - This node led in T: everything is copied from messages that raft itself
//     sent in T. Raft allows messages to be delayed, so it does no harm if the
//     leadership has ended meanwhile; a follower in a later term ignores it. (It
//     is not sent on purpose then: leading(T) is asked first.)
//   - m is the end of a message that this follower acknowledged in T, so the
//     follower's log up to m is the leader's. The follower checks that again.
//   - N has been applied here, so it is committed.
//   - The library's follower sets its commit index to min(LeaderCommitIndex, its
//     last entry), not looking at which entries the message covered. As
//     LeaderCommitIndex never exceeds m, all that it commits is what the check
//     of m has vouched for.
//   - The follower counts it as contact with the leader, which it is. The
//     leader's own bookkeeping (next index, lease) never sees the answer: a
//     later term in it is found out by raft's own messages.
//
// It is bounded: one message under way for each follower, of constant size, on
// a stream that is kept. An idle leader sends none.
type nudger struct {
	leads func(term uint64) bool
	wake  chan struct{}

	mu    sync.Mutex
	node  *raft.Raft
	trans *transport
	done  uint64 // N
	peers map[raft.ServerID]*peer
	busy  sync.WaitGroup
}

// peer is a follower as the transport saw it in one term.
type peer struct {
	to       raft.ServerAddress
	head     raft.AppendEntriesRequest // without entries: header, leader and term of this leadership
	match    uint64                    // m
	term     uint64                    // of the entry at m
	told     uint64                    // the commit index that it has been sent, as far as it could use it
	answered time.Time
	nudging  bool
}

// lacks is what the peer could be told.
func (p *peer) lacks(done uint64) bool { return min(p.match, done) > p.told }

func newNudger(leads func(uint64) bool) *nudger {
	return &nudger{leads: leads, wake: make(chan struct{}, 1), peers: map[raft.ServerID]*peer{}}
}

func (n *nudger) start(node *raft.Raft, trans *transport) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.node, n.trans = node, trans
}

// applied is told which entry this node has applied.
func (n *nudger) applied(index uint64) {
	n.mu.Lock()
	n.done = index
	n.mu.Unlock()
	n.poke()
}

func (n *nudger) poke() {
	select {
	case n.wake <- struct{}{}:
	default:
	}
}

// sending sees a message of raft's before it goes out.
func (n *nudger) sending(id raft.ServerID, to raft.ServerAddress, req *raft.AppendEntriesRequest) {
	n.mu.Lock()
	defer n.mu.Unlock()
	p := n.peers[id]
	if p == nil || p.head.Term != req.Term {
		p = &peer{}
		n.peers[id] = p
	}
	p.to, p.head = to, *req
	p.head.Entries = nil
	last, _ := end(req)
	p.told = max(p.told, min(req.LeaderCommitIndex, last))
}

// answered sees the answer to a message of raft's.
func (n *nudger) answered(id raft.ServerID, req *raft.AppendEntriesRequest, resp *raft.AppendEntriesResponse, err error) {
	if err != nil {
		return
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	p := n.peers[id]
	if p == nil || p.head.Term != req.Term {
		return
	}
	p.answered = time.Now()
	if last, term := end(req); resp.Success && last > p.match {
		p.match, p.term = last, term
		if p.lacks(n.done) {
			n.poke()
		}
	}
}

// end is the last entry that a message vouches for.
func end(req *raft.AppendEntriesRequest) (index, term uint64) {
	if k := len(req.Entries); k > 0 {
		return req.Entries[k-1].Index, req.Entries[k-1].Term
	}
	return req.PrevLogEntry, req.PrevLogTerm
}

// run sends nudges until ctx ends, and waits for those under way.
func (n *nudger) run(ctx context.Context) {
	defer n.busy.Wait()
	for {
		select {
		case <-ctx.Done():
			return
		case <-n.wake:
			n.nudgeAll(ctx)
		}
	}
}

// nudgeAll nudges every peer that lacks something, unless entries are under
// way that will tell it.
func (n *nudger) nudgeAll(ctx context.Context) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.node.State() != raft.Leader || n.node.LastIndex() > n.done {
		return
	}
	for id, p := range n.peers {
		if p.lacks(n.done) && !p.nudging && n.leads(p.head.Term) {
			p.nudging = true
			n.busy.Go(func() { n.nudge(ctx, id, p) })
		}
	}
}

// nudge tells one peer, as long as there is something to tell.
func (n *nudger) nudge(ctx context.Context, id raft.ServerID, p *peer) {
	for ctx.Err() == nil {
		n.mu.Lock()
		if !p.lacks(n.done) || n.peers[id] != p || !n.leads(p.head.Term) {
			p.nudging = false
			n.mu.Unlock()
			return
		}
		req := p.head
		req.PrevLogEntry, req.PrevLogTerm = p.match, p.term
		req.LeaderCommitIndex = min(p.match, n.done)
		p.told = req.LeaderCommitIndex // if it is lost, raft's own messages will do
		to := p.to
		n.mu.Unlock()
		var resp raft.AppendEntriesResponse
		_ = n.trans.steadily(id, to, &req, &resp)
	}
}

// progress is what the transport has seen in the present term.
func (n *nudger) progress() map[labmesh.NodeID]Progress {
	n.mu.Lock()
	defer n.mu.Unlock()
	out := map[labmesh.NodeID]Progress{}
	for id, p := range maps.All(n.peers) {
		if n.leads(p.head.Term) {
			out[labmesh.NodeID(id)] = Progress{Node: labmesh.NodeID(id), Match: p.match, Answered: p.answered}
		}
	}
	return out
}
