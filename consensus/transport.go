package consensus

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"

	"labmesh"
)

const (
	steadyStreams = 2                      // kept open to each follower: heartbeats and nudges
	staleWithin   = 100 * time.Millisecond // a kept stream that fails faster than this was stale
	backWithin    = 30 * time.Second       // entries wait so long for a follower to be heard again before they count as failed
)

// transport is raft's way to other replicas. Votes, entries and snapshots each
// have a stream of their own, which a cut cannot leave stale; heartbeats, of
// which there are dozens a second, and nudges share a few that are kept.
//
// It also watches what the leader sends and what the followers answer, which
// is all that the nudger goes by.
type transport struct {
	*raft.NetworkTransport
	steady *raft.NetworkTransport
	nudger *nudger
	beat   time.Duration // heartbeats go to all followers at once, at multiples of this
	begun  time.Time
	closed context.Context //nolint:containedctx // it ends with the transport
	end    context.CancelFunc

	mu   sync.Mutex
	back map[raft.ServerID]chan struct{} // closed when the follower answers a heartbeat
}

func newTransport(l *layer, n *nudger, beat time.Duration, log hclog.Logger) *transport {
	closed, end := context.WithCancel(context.Background())
	config := func(s raft.StreamLayer, pool int) *raft.NetworkTransportConfig {
		return &raft.NetworkTransportConfig{Stream: s, MaxPool: pool, Timeout: rpcTimeout, Logger: log}
	}
	return &transport{
		NetworkTransport: raft.NewNetworkTransportWithConfig(config(l, 0)),
		steady:           raft.NewNetworkTransportWithConfig(config(&dialOnly{layer: l, closed: make(chan struct{})}, steadyStreams)),
		nudger:           n,
		beat:             beat,
		begun:            time.Now(),
		closed:           closed,
		end:              end,
		back:             map[raft.ServerID]chan struct{}{},
	}
}

// Close closes all streams. It is safe twice.
func (t *transport) Close() error {
	t.end()
	t.steady.CloseStreams()
	return errors.Join(t.steady.Close(), t.NetworkTransport.Close())
}

// AppendEntries sends entries, or a heartbeat.
func (t *transport) AppendEntries(id raft.ServerID, to raft.ServerAddress, req *raft.AppendEntriesRequest, resp *raft.AppendEntriesResponse) error {
	if isHeartbeat(req) {
		t.awaitBeat()
		err := t.steadily(id, to, req, resp)
		t.nudger.answered(id, req, resp, err)
		if err == nil {
			t.isBack(id)
		}
		return err
	}
	trim(req)
	err := t.entries(id, to, req, resp)
	if err != nil && t.awaitBack(id) {
		*resp = raft.AppendEntriesResponse{}
		err = t.entries(id, to, req, resp)
	}
	return err
}

func (t *transport) entries(id raft.ServerID, to raft.ServerAddress, req *raft.AppendEntriesRequest, resp *raft.AppendEntriesResponse) error {
	t.nudger.sending(id, to, req)
	err := t.NetworkTransport.AppendEntries(id, to, req, resp)
	t.nudger.answered(id, req, resp, err)
	return err
}

// awaitBack returns true once a follower answers a heartbeat. Raft would wait after each failure twice as long as
// after the one before, up to 10 s, in which a follower that is back hears heartbeats and gets no entries.
func (t *transport) awaitBack(id raft.ServerID) bool {
	t.mu.Lock()
	back := t.back[id]
	if back == nil {
		back = make(chan struct{})
		t.back[id] = back
	}
	t.mu.Unlock()
	limit := time.NewTimer(backWithin)
	defer limit.Stop()
	select {
	case <-back:
		return true
	case <-limit.C:
	case <-t.closed.Done():
	}
	return false
}

func (t *transport) isBack(id raft.ServerID) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if back := t.back[id]; back != nil {
		close(back)
		delete(t.back, id)
	}
}

// awaitBeat returns at the next beat. To wake for one follower at a time would
// cost an idle leader about twice as much.
func (t *transport) awaitBeat() {
	timer := time.NewTimer(t.beat - time.Since(t.begun)%t.beat)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-t.closed.Done():
	}
}

// steadily sends on a stream that is kept. One that was kept and fails at once
// was stale: the message goes again, on the next or on a new one.
func (t *transport) steadily(id raft.ServerID, to raft.ServerAddress, req *raft.AppendEntriesRequest, resp *raft.AppendEntriesResponse) error {
	begun := time.Now()
	err := t.steady.AppendEntries(id, to, req, resp)
	for range steadyStreams {
		if err == nil || t.steady.IsShutdown() || time.Since(begun) > staleWithin {
			break
		}
		err = t.steady.AppendEntries(id, to, req, resp)
	}
	return err
}

// AppendEntriesPipeline opens a stream for entries.
func (t *transport) AppendEntriesPipeline(id raft.ServerID, to raft.ServerAddress) (raft.AppendPipeline, error) {
	inner, err := t.NetworkTransport.AppendEntriesPipeline(id, to)
	if err != nil {
		return nil, err
	}
	p := &pipeline{AppendPipeline: inner, id: id, to: to, nudger: t.nudger,
		out: make(chan raft.AppendFuture), closed: make(chan struct{}), ended: make(chan struct{})}
	go p.watch() // until Close, which waits for it
	return p, nil
}

// pipeline is a stream of entries whose answers the nudger sees first.
type pipeline struct {
	raft.AppendPipeline
	id     raft.ServerID
	to     raft.ServerAddress
	nudger *nudger
	out    chan raft.AppendFuture
	closed chan struct{}
	ended  chan struct{}
}

// AppendEntries sends entries without waiting for the answer.
func (p *pipeline) AppendEntries(req *raft.AppendEntriesRequest, resp *raft.AppendEntriesResponse) (raft.AppendFuture, error) {
	trim(req)
	p.nudger.sending(p.id, p.to, req)
	return p.AppendPipeline.AppendEntries(req, resp)
}

// Consumer gives the answers.
func (p *pipeline) Consumer() <-chan raft.AppendFuture { return p.out }

// Close closes the stream.
func (p *pipeline) Close() error {
	select {
	case <-p.closed:
	default:
		close(p.closed)
	}
	err := p.AppendPipeline.Close()
	<-p.ended
	return err
}

func (p *pipeline) watch() {
	defer close(p.ended)
	for {
		select {
		case <-p.closed:
			return
		case f := <-p.AppendPipeline.Consumer():
			p.nudger.answered(p.id, f.Request(), f.Response(), f.Error())
			select {
			case p.out <- f:
			case <-p.closed:
				return
			}
		}
	}
}

// isHeartbeat recognises the message by which a leader says no more than that
// it is there; the library's receiver does so in the same way.
func isHeartbeat(req *raft.AppendEntriesRequest) bool {
	return req.PrevLogEntry == 0 && req.PrevLogTerm == 0 && len(req.Entries) == 0 && req.LeaderCommitIndex == 0
}

// trim cuts a message down to appendBytesMax. Raft counts entries only: a
// thousand large ones would be a message of a gigabyte. It goes by what is left
// in req when it computes what to send next.
func trim(req *raft.AppendEntriesRequest) {
	size := 0
	for i, e := range req.Entries {
		size += len(e.Data)
		if size > appendBytesMax && i > 0 {
			req.Entries = req.Entries[:i]
			return
		}
	}
}

// Progress is what the leader knows of another replica.
type Progress struct {
	Match    uint64    // the newest entry that it is known to hold
	Answered time.Time // when it last answered
	Node     labmesh.NodeID
}
