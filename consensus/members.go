package consensus

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/hashicorp/raft"

	"labmesh"
)

// Server is a replica as raft's configuration has it.
type Server struct {
	ID    labmesh.NodeID `json:"node_id"`
	Voter bool           `json:"voter"` // a learner otherwise
}

// Status says where this replica stands.
type Status struct {
	Role        string           `json:"role"` // leader, follower, candidate or stopped
	Term        uint64           `json:"term"`
	Leader      labmesh.NodeID   `json:"leader,omitempty"`
	Applied     uint64           `json:"applied"`               // index of the newest entry in the view
	Commit      uint64           `json:"commit"`                // raft's commit index, which counts more than entries
	Last        uint64           `json:"last"`                  // index of the newest entry in the log
	LastContact time.Time        `json:"last_contact,omitzero"` // when the leader was last heard; now, on the leader
	Voters      []labmesh.NodeID `json:"voters"`
	Learners    []labmesh.NodeID `json:"learners"`
}

// Status is answered with no leader, too.
func (r *Replica) Status() Status {
	s := Status{Role: "stopped", Applied: r.View().Index()}
	node := r.node.Load()
	if node == nil {
		return s
	}
	s.Leader, s.Term = r.Leader()
	s.Commit, s.Last = node.CommitIndex(), node.LastIndex()
	switch node.State() {
	case raft.Leader:
		s.Role, s.LastContact = "leader", time.Now()
	case raft.Follower:
		s.Role, s.LastContact = "follower", node.LastContact()
	case raft.Candidate:
		s.Role, s.LastContact = "candidate", node.LastContact()
	case raft.Shutdown:
	}
	servers, err := r.Servers()
	if err != nil {
		return s
	}
	for _, srv := range servers {
		if srv.Voter {
			s.Voters = append(s.Voters, srv.ID)
		} else {
			s.Learners = append(s.Learners, srv.ID)
		}
	}
	return s
}

// Servers is the newest raft configuration that this replica has in its log.
// It needs no leader, and is there after a restart before any entry is applied.
func (r *Replica) Servers() ([]Server, error) {
	node := r.node.Load()
	if node == nil {
		return nil, labmesh.Refuse(labmesh.Unavailable, "list replicas: this replica is not running")
	}
	f := node.GetConfiguration()
	if err := f.Error(); err != nil {
		return nil, fmt.Errorf("list replicas: %w", err)
	}
	var servers []Server
	for _, s := range f.Configuration().Servers {
		servers = append(servers, Server{ID: labmesh.NodeID(s.ID), Voter: s.Suffrage == raft.Voter})
	}
	return servers, nil
}

// Progress is what the leader knows of the other replicas; empty elsewhere.
func (r *Replica) Progress() map[labmesh.NodeID]Progress { return r.nudger.progress() }

// AddLearner adds a replica that gets the log and does not vote. Only the
// leader can; it returns when the change is committed. So do the others here.
func (r *Replica) AddLearner(ctx context.Context, id labmesh.NodeID) error {
	return r.reconfigure(ctx, "add learner "+string(id), func(n *raft.Raft) raft.Future {
		return n.AddNonvoter(raft.ServerID(id), raft.ServerAddress(id), 0, confChangeTimeout)
	})
}

// Promote makes a learner a voter.
func (r *Replica) Promote(ctx context.Context, id labmesh.NodeID) error {
	return r.reconfigure(ctx, "promote "+string(id), func(n *raft.Raft) raft.Future {
		return n.AddVoter(raft.ServerID(id), raft.ServerAddress(id), 0, confChangeTimeout)
	})
}

// Demote makes a voter a learner.
func (r *Replica) Demote(ctx context.Context, id labmesh.NodeID) error {
	return r.reconfigure(ctx, "demote "+string(id), func(n *raft.Raft) raft.Future {
		return n.DemoteVoter(raft.ServerID(id), 0, confChangeTimeout)
	})
}

// Remove takes a replica out of the configuration.
func (r *Replica) Remove(ctx context.Context, id labmesh.NodeID) error {
	return r.reconfigure(ctx, "remove "+string(id), func(n *raft.Raft) raft.Future {
		return n.RemoveServer(raft.ServerID(id), 0, confChangeTimeout)
	})
}

// TransferLeadership hands the leadership to the voter that has most of the
// log. A leader that is about to stop does this: it takes milliseconds, an
// election half a second.
func (r *Replica) TransferLeadership(ctx context.Context) error {
	return r.reconfigure(ctx, "transfer leadership", func(n *raft.Raft) raft.Future { return n.LeadershipTransfer() })
}

// Make carries out one change of a plan.
func (r *Replica) Make(ctx context.Context, c Change) error {
	switch c.Do {
	case AddLearner:
		return r.AddLearner(ctx, c.Node)
	case Promote:
		return r.Promote(ctx, c.Node)
	case Demote:
		return r.Demote(ctx, c.Node)
	case Remove:
		return r.Remove(ctx, c.Node)
	}
	return fmt.Errorf("make change: unknown step %q", c.Do)
}

func (r *Replica) reconfigure(ctx context.Context, what string, f func(*raft.Raft) raft.Future) error {
	node := r.node.Load()
	if node == nil {
		return labmesh.Refuse(labmesh.Unavailable, "%s: this replica is not running", what)
	}
	return r.await(ctx, what, func() raft.Future { return f(node) })
}

// asks are the questions that raft has yet to answer, but for entries. It answers
// all while it runs, and forgets those that it holds when it is shut down.
type asks struct {
	mu   sync.Mutex
	over bool
	open sync.WaitGroup
}

// begin counts a question in, unless it is too late for any.
func (a *asks) begin() bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.over {
		return false
	}
	a.open.Add(1)
	return true
}

// settle takes no more questions, and waits for the answers to those that were asked.
func (a *asks) settle() {
	a.mu.Lock()
	a.over = true
	a.mu.Unlock()
	a.open.Wait()
}

// await asks raft, which knows no contexts, and waits for the answer.
func (r *Replica) await(ctx context.Context, what string, ask func() raft.Future) error {
	if !r.asks.begin() {
		return labmesh.Refuse(labmesh.Unavailable, "%s: this replica stops", what)
	}
	f, settled := ask(), make(chan error, 1)
	go func() { // it ends before raft is shut down
		defer r.asks.open.Done()
		settled <- f.Error()
	}()
	select {
	case err := <-settled:
		switch {
		case err == nil:
			return nil
		case errors.Is(err, raft.ErrNotLeader), errors.Is(err, raft.ErrLeadershipLost),
			errors.Is(err, raft.ErrRaftShutdown), errors.Is(err, raft.ErrLeadershipTransferInProgress):
			return labmesh.Refuse(labmesh.Unavailable, "%s: %v", what, err)
		}
		return fmt.Errorf("%s: %w", what, err)
	case <-ctx.Done():
		return fmt.Errorf("%s: %w", what, context.Cause(ctx))
	}
}
