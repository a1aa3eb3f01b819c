package consensus

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/hashicorp/raft"

	"labmesh"
)

// Propose puts commands into the log, all in one entry, and returns where they
// are and what the state machine answered to each. A follower forwards them to
// the leader, once. While there is no leader it waits for one, up to 3 seconds;
// it waits 10 seconds in all, and no longer than ctx. To see the outcome in this replica's view, [Replica.Await]
// the receipt's index.
//
// Refusals: Unavailable, safe to repeat, when there is no leader or the fate of
// the commands is not known (the message says which); Exhausted when too much is
// waiting; TooLarge and Invalid for what cannot be an entry. A refusal by the
// state machine is no error: it is in the answers.
func (r *Replica) Propose(ctx context.Context, cmds ...labmesh.Command) (labmesh.Receipt, error) {
	lines, err := encodeBatch(cmds)
	if err != nil {
		return labmesh.Receipt{}, err
	}
	ctx, cancel := context.WithTimeout(ctx, answerMax)
	defer cancel()
	giveUp := time.Now().Add(leaderWaitMax)
	for {
		rc, err := r.proposeOnce(ctx, lines)
		var early *notEnteredError
		if !errors.As(err, &early) || time.Now().After(giveUp) || !r.pause(ctx) {
			return rc, err
		}
	}
}

// proposeOnce hands encoded commands to whoever leads just now.
func (r *Replica) proposeOnce(ctx context.Context, lines []byte) (labmesh.Receipt, error) {
	switch leader, _ := r.Leader(); leader {
	case "":
		return labmesh.Receipt{}, notEntered("no leader")
	case r.cfg.ID:
		b, err := readBatch(lines)
		if err != nil {
			return labmesh.Receipt{}, err
		}
		return r.proposeBatch(ctx, b)
	default:
		rc, err := r.forward.propose(ctx, leader, lines)
		if err != nil {
			return labmesh.Receipt{}, fmt.Errorf("through %s: %w", leader, err)
		}
		return rc, nil
	}
}

// pause waits a moment for the leadership to settle. It returns false when
// there is no point in waiting.
func (r *Replica) pause(ctx context.Context) bool {
	t := time.NewTimer(leaderPoll)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
	case <-r.life.Done():
	}
	return false
}

// ProposeHere puts commands into the log if this replica leads, and refuses
// otherwise: it never forwards.
func (r *Replica) ProposeHere(ctx context.Context, cmds ...labmesh.Command) (labmesh.Receipt, error) {
	lines, err := encodeBatch(cmds)
	if err != nil {
		return labmesh.Receipt{}, err
	}
	b, err := readBatch(lines)
	if err != nil {
		return labmesh.Receipt{}, err
	}
	ctx, cancel := context.WithTimeout(ctx, answerMax)
	defer cancel()
	return r.proposeBatch(ctx, b)
}

func (r *Replica) proposeBatch(ctx context.Context, b *batch) (labmesh.Receipt, error) {
	type outcome struct {
		rc  labmesh.Receipt
		err error
	}
	settled := make(chan outcome, 1)
	b.done = func(rc labmesh.Receipt, err error) { settled <- outcome{rc, err} }
	if err := r.enqueue(b); err != nil {
		return labmesh.Receipt{}, err
	}
	select {
	case o := <-settled:
		return o.rc, o.err
	case <-ctx.Done():
		return labmesh.Receipt{}, fateUnknown("the time to answer is over: " + context.Cause(ctx).Error())
	case <-r.done:
		select { // all batches are settled by now
		case o := <-settled:
			return o.rc, o.err
		default:
			return labmesh.Receipt{}, fateUnknown("the replica has stopped")
		}
	}
}

// enqueue queues a batch if this replica leads.
func (r *Replica) enqueue(b *batch) error {
	node := r.node.Load()
	if node == nil || r.life.Err() != nil {
		return notEntered("this replica is not running")
	}
	if node.State() != raft.Leader {
		return notEntered("this node does not lead")
	}
	if err := r.admissible(b); err != nil {
		return err
	}
	return r.committer.enqueue(b)
}

// admissible refuses commands that some replica may not know yet: an entry that
// it cannot read would stop it.
func (r *Replica) admissible(b *batch) error {
	level := 0
	for _, c := range b.cmds {
		if need := labmesh.LevelOf(c); need > 1 {
			if level == 0 {
				level = r.View().Level()
			}
			if need > level {
				return labmesh.Refuse(labmesh.Unavailable, "the mesh is at feature level %d until all of its replicas have been upgraded, and %s is of level %d (labmesh doctor shows who is behind); nothing has been done", level, c.CommandName(), need)
			}
		}
	}
	return nil
}
