package consensus

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/hashicorp/raft"

	"labmesh"
)

// Limits of the group commit.
const (
	queuedBatchesMax  = 16 << 10 // batches that wait to enter the log
	queuedBytesMax    = 64 << 20 // their bytes
	entryBytesTarget  = 1 << 20  // an entry is closed at this size, unless one batch alone is larger
	entryCommandsGoal = 4096     // or at this many commands
	entriesInFlight   = 2        // entries between the queue and the state machine; what comes meanwhile makes one entry
)

// batch is what one caller proposed: it enters the log in one piece.
type batch struct {
	lines []byte            // its commands, encoded
	cmds  []labmesh.Command // the same, decoded from lines
	done  func(labmesh.Receipt, error)
}

// encodeBatch encodes what one caller proposes.
func encodeBatch(cmds []labmesh.Command) ([]byte, error) {
	if len(cmds) == 0 {
		return nil, labmesh.Refuse(labmesh.Invalid, "propose: no commands")
	}
	if len(cmds) > labmesh.EntryCommandsMax {
		return nil, labmesh.Refuse(labmesh.TooLarge, "propose: %d commands at once; at most %d", len(cmds), labmesh.EntryCommandsMax)
	}
	lines, err := labmesh.EncodeCommands(cmds)
	if err != nil {
		return nil, fmt.Errorf("propose: %w", err)
	}
	if len(lines) > labmesh.EntryBytesMax {
		return nil, labmesh.Refuse(labmesh.TooLarge, "propose: commands of %d bytes; at most %d", len(lines), labmesh.EntryBytesMax)
	}
	return lines, nil
}

// readBatch decodes what encodeBatch encoded, here or on another node, so that
// the state machine of the leader is given what every other one will read.
// Commands that this build does not know never enter the log through it.
func readBatch(lines []byte) (*batch, error) {
	if len(lines) > labmesh.EntryBytesMax {
		return nil, labmesh.Refuse(labmesh.TooLarge, "propose: commands of %d bytes; at most %d", len(lines), labmesh.EntryBytesMax)
	}
	cmds, err := labmesh.DecodeCommands(lines)
	if err != nil {
		return nil, labmesh.Refuse(labmesh.Invalid, "propose: %v", err)
	}
	if len(cmds) == 0 || len(cmds) > labmesh.EntryCommandsMax {
		return nil, labmesh.Refuse(labmesh.Invalid, "propose: %d commands; 1 to %d", len(cmds), labmesh.EntryCommandsMax)
	}
	return &batch{lines: lines, cmds: cmds}, nil
}

// committer groups batches into entries. While entriesInFlight entries are
// under way it waits and lets the next one grow.
type committer struct {
	now     func() time.Time
	decoded *decodedEntries

	queue chan *batch
	bytes atomic.Int64   // of the batches in queue
	next  *batch         // taken from the queue, but too large for the last entry
	slots chan struct{}  // one for each entry under way
	sent  chan sentEntry // entries under way, in order
}

// sentEntry is an entry that raft has been given.
type sentEntry struct {
	future  raft.ApplyFuture
	data    []byte
	batches []*batch
}

func newCommitter(now func() time.Time, decoded *decodedEntries) *committer {
	return &committer{
		now: now, decoded: decoded,
		queue: make(chan *batch, queuedBatchesMax),
		slots: make(chan struct{}, entriesInFlight),
		sent:  make(chan sentEntry, entriesInFlight),
	}
}

// enqueue puts a batch in the queue. Its done is called when its fate is known.
func (c *committer) enqueue(b *batch) error {
	if c.bytes.Add(int64(len(b.lines))) > queuedBytesMax {
		c.bytes.Add(-int64(len(b.lines)))
		return labmesh.Refuse(labmesh.Exhausted, "propose: more than %d MiB wait to enter the log", queuedBytesMax>>20)
	}
	select {
	case c.queue <- b:
		return nil
	default:
		c.bytes.Add(-int64(len(b.lines)))
		return labmesh.Refuse(labmesh.Exhausted, "propose: %d batches wait to enter the log", queuedBatchesMax)
	}
}

// run makes entries of what is queued until ctx ends.
func (c *committer) run(ctx context.Context, node *raft.Raft) {
	for {
		select {
		case c.slots <- struct{}{}:
		case <-ctx.Done():
			return
		}
		batches := c.take(ctx)
		if len(batches) == 0 {
			return
		}
		at := c.now()
		entry := labmesh.Entry{At: at}
		lines := make([][]byte, len(batches))
		for i, b := range batches {
			lines[i] = b.lines
			entry.Commands = append(entry.Commands, b.cmds...)
		}
		data := labmesh.JoinEntry(at, lines...)
		c.decoded.put(data, entry)
		c.sent <- sentEntry{future: node.Apply(data, 0), data: data, batches: batches}
	}
}

// take waits for a batch and returns it with all others that fit beside it.
func (c *committer) take(ctx context.Context) []*batch {
	b := c.next
	c.next = nil
	if b == nil {
		select {
		case b = <-c.queue:
			c.bytes.Add(-int64(len(b.lines)))
		case <-ctx.Done():
			return nil
		}
	}
	batches, bytes, cmds := []*batch{b}, len(b.lines), len(b.cmds)
	for {
		select {
		case b = <-c.queue:
			c.bytes.Add(-int64(len(b.lines)))
		default:
			return batches
		}
		bytes, cmds = bytes+len(b.lines), cmds+len(b.cmds)
		if bytes > entryBytesTarget || cmds > entryCommandsGoal {
			c.next = b
			return batches
		}
		batches = append(batches, b)
	}
}

// settle tells the callers what became of their batches, until run has ended
// and all is told.
func (c *committer) settle() {
	for s := range c.sent {
		err := s.future.Error()
		c.decoded.take(s.data) // still there if it was not applied
		<-c.slots
		settleEntry(s, err)
	}
}

func settleEntry(s sentEntry, err error) {
	var answers []labmesh.Answer
	if err == nil {
		switch r := s.future.Response().(type) {
		case []labmesh.Answer:
			answers = r
		case error:
			err = r
		}
	}
	if err != nil {
		err = fateOf(err)
		for _, b := range s.batches {
			b.done(labmesh.Receipt{}, err)
		}
		return
	}
	index := s.future.Index()
	for _, b := range s.batches {
		b.done(labmesh.Receipt{Index: index, Answers: answers[:len(b.cmds):len(b.cmds)]}, nil)
		answers = answers[len(b.cmds):]
	}
}

// drain refuses all that is still queued.
func (c *committer) drain() {
	if c.next != nil {
		c.next.done(labmesh.Receipt{}, notEntered("the replica is stopping"))
		c.next = nil
	}
	for {
		select {
		case b := <-c.queue:
			c.bytes.Add(-int64(len(b.lines)))
			b.done(labmesh.Receipt{}, notEntered("the replica is stopping"))
		default:
			return
		}
	}
}

// notEnteredError is a refusal of commands that are known not to be in the log,
// so that they may be tried elsewhere without asking anybody.
type notEnteredError struct{ refusal *labmesh.Error }

func (e *notEnteredError) Error() string { return e.refusal.Error() }
func (e *notEnteredError) Unwrap() error { return e.refusal }

func notEntered(why string) error {
	return &notEnteredError{labmesh.Refuse(labmesh.Unavailable, "propose: %s; nothing has been done", why)}
}

// fateUnknown is a refusal of commands that may be in the log all the same.
func fateUnknown(why string) error {
	return labmesh.Refuse(labmesh.Unavailable, "propose: %s; the commands may have been taken, it is safe to repeat them", why)
}

// fateOf says what an error of raft means for the commands.
func fateOf(err error) error {
	switch {
	case errors.Is(err, raft.ErrNotLeader):
		return notEntered("this node does not lead")
	case errors.Is(err, raft.ErrLeadershipTransferInProgress):
		return notEntered("the leader is handing over")
	case errors.Is(err, raft.ErrLeadershipLost):
		return fateUnknown("the leader lost its leadership")
	case errors.Is(err, raft.ErrRaftShutdown):
		return fateUnknown("the replica is stopping")
	}
	return fateUnknown(err.Error())
}
