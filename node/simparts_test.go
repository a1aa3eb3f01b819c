package node

import (
	"context"
	"errors"
	"maps"
	"sync"
	"time"

	"labmesh"
	"labmesh/consensus"
	"labmesh/exec"
	"labmesh/mesh"
	"labmesh/node/simtest"
	"labmesh/scheduler"
)

// simLine is the desk of a worker, at the other end of a line.
type simLine struct {
	exec.Desk
	worker  *simWorker
	replica *consensus.Replica
	history *simtest.History
	flaw    flaw

	mu   sync.Mutex
	last []*labmesh.Task
}

func (l *simLine) Assigned() []*labmesh.Task {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.worker.isSilent() {
		l.last = l.Desk.Assigned()
	}
	return l.last
}

func (l *simLine) Changed() <-chan struct{} {
	if back := l.worker.line(); back != nil {
		return back
	}
	return l.Desk.Changed()
}

// Report hands in reports, and notes for each what came of it.
func (l *simLine) Report(ctx context.Context, cmds []labmesh.Command) (answers []labmesh.Answer, err error) {
	if back := l.worker.line(); back != nil {
		select {
		case <-back:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	called := time.Now()
	answers, err = l.Desk.Report(ctx, l.flaw.reports(cmds, l))
	if err == nil && l.worker.isSilent() {
		err = errors.New("the answer was lost")
	}
	for i, c := range cmds {
		f, ok := c.(labmesh.FinishTask)
		if !ok {
			continue
		}
		t, known := l.replica.View().Task(f.ID)
		if !known {
			continue
		}
		w := simtest.Word{Unknown: err != nil}
		if err == nil {
			w.Refused = answers[i].Refused != nil
		}
		l.history.Note(-1, t.Spec.IdempotencyKey, simtest.Ask{Op: simtest.Finish, Attempt: f.Attempt, OK: f.Outcome.OK}, w, called)
	}
	return answers, err
}

// simLedger is the ledger of a node, with somebody who watches.
type simLedger struct {
	*ledger
	n *simNode
}

func (l *simLedger) Append(index uint64, events []labmesh.Event) {
	l.n.sim.trail.Applied(l.n.index, index, events)
	l.ledger.Append(index, l.n.sim.flaw.events(events))
}

// simEars is what a node has heard.
type simEars struct {
	id labmesh.NodeID

	mu      sync.Mutex
	heard   map[labmesh.NodeID]mesh.Heard
	changed chan struct{}
}

func newSimEars(id labmesh.NodeID) *simEars {
	return &simEars{id: id, heard: map[labmesh.NodeID]mesh.Heard{}, changed: make(chan struct{})}
}

func (e *simEars) hear(adverts []labmesh.Advert) {
	e.mu.Lock()
	defer e.mu.Unlock()
	news, now := false, time.Now()
	for _, a := range adverts {
		last, known := e.heard[a.Node]
		news = news || !known || last.Advert.Accepts != a.Accepts || !last.Expires.After(now)
		e.heard[a.Node] = mesh.Heard{Advert: a, At: now, Expires: now.Add(scheduler.Lease)}
	}
	if news {
		close(e.changed)
		e.changed = make(chan struct{})
	}
}

func (e *simEars) ID() labmesh.NodeID { return e.id }

func (e *simEars) Heard() map[labmesh.NodeID]mesh.Heard {
	e.mu.Lock()
	defer e.mu.Unlock()
	now := time.Now()
	maps.DeleteFunc(e.heard, func(_ labmesh.NodeID, h mesh.Heard) bool { return !h.Expires.After(now) })
	return maps.Clone(e.heard)
}

func (e *simEars) Changed() <-chan struct{} {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.changed
}
