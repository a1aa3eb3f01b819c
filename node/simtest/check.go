package simtest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"reflect"
	"sync"

	"labmesh"
)

// Trail is what every replica did with every entry of the log. All must do the
// same, in every life.
type Trail struct {
	mu      sync.Mutex
	entries map[uint64]entry
	final   map[labmesh.TaskID]verdict
	errs    []error
}

type entry struct {
	node   int // that was the first to apply it
	events []labmesh.Event
}

type verdict struct {
	phase   labmesh.Phase
	attempt int
	index   uint64
}

// NewTrail is an empty one.
func NewTrail() *Trail {
	return &Trail{entries: map[uint64]entry{}, final: map[labmesh.TaskID]verdict{}}
}

// Applied notes what came of the entry at index on a node.
func (t *Trail) Applied(node int, index uint64, events []labmesh.Event) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if first, ok := t.entries[index]; ok {
		if !reflect.DeepEqual(first.events, events) {
			t.fail("nodes %d and %d applied entry %d differently:\n    %+v\n    %+v", first.node, node, index, first.events, events)
		}
		return
	}
	t.entries[index] = entry{node, events}
	for i := range events {
		t.look(index, &events[i])
	}
}

// look checks that a task which has its verdict keeps it.
func (t *Trail) look(index uint64, e *labmesh.Event) {
	if e.Task == nil {
		return
	}
	now := verdict{e.Task.Phase, e.Task.Attempt, index}
	before, ended := t.final[e.Task.ID]
	switch {
	case ended && (before.phase != now.phase || before.attempt != now.attempt):
		t.fail("task %s was %s (attempt %d) at entry %d and is %s (attempt %d) at entry %d", e.Task.ID, before.phase, before.attempt, before.index, now.phase, now.attempt, index)
	case !ended && now.phase.Final() && e.Type == labmesh.TaskEnded:
		t.final[e.Task.ID] = now
	}
}

// Saw checks a task as some node showed it to somebody, however stale.
func (t *Trail) Saw(node int, task labmesh.Task) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if !task.Phase.Final() {
		return
	}
	if v, ok := t.final[task.ID]; !ok || v.phase != task.Phase || v.attempt != task.Attempt {
		t.fail("node %d shows %s as %s (attempt %d); its verdict is %s (attempt %d)", node, task.ID, task.Phase, task.Attempt, v.phase, v.attempt)
	}
}

func (t *Trail) fail(format string, args ...any) {
	if len(t.errs) < 10 {
		t.errs = append(t.errs, fmt.Errorf(format, args...))
	}
}

// Err is what was wrong.
func (t *Trail) Err() error {
	t.mu.Lock()
	defer t.mu.Unlock()
	return errors.Join(t.errs...)
}

// Replica is what the checks look at when all has healed.
type Replica struct {
	Index    uint64
	State    []byte // encoded
	Task     func(context.Context, labmesh.TaskID) (labmesh.Task, error)
	Attempts func(context.Context, labmesh.TaskID) ([]labmesh.Attempt, error) // of the ledger
	Rows     []byte                                                           // of the ledger, in order
}

// Settled checks replicas that have all applied the same entries: every task
// acknowledged is there with one verdict, from one accepted attempt, and all
// replicas and ledgers are equal.
func Settled(ctx context.Context, acknowledged map[labmesh.TaskID]string, replicas []Replica) error {
	var errs []error
	for i, r := range replicas[1:] {
		if r.Index != replicas[0].Index || !bytes.Equal(r.State, replicas[0].State) {
			errs = append(errs, fmt.Errorf("nodes 0 and %d hold different states (at %d and %d)", i+1, replicas[0].Index, r.Index))
		}
		if !bytes.Equal(r.Rows, replicas[0].Rows) {
			errs = append(errs, fmt.Errorf("the ledgers of nodes 0 and %d differ (%d and %d bytes of rows)", i+1, len(replicas[0].Rows), len(r.Rows)))
		}
	}
	for id, key := range acknowledged {
		for i, r := range replicas {
			if err := settled(ctx, id, r); err != nil {
				errs = append(errs, fmt.Errorf("node %d: %s (%s): %w", i, id, key, err))
			}
		}
	}
	return errors.Join(errs...)
}

func settled(ctx context.Context, id labmesh.TaskID, r Replica) error {
	t, err := r.Task(ctx, id)
	if err != nil {
		return fmt.Errorf("acknowledged, and lost: %w", err)
	}
	if !t.Phase.Final() {
		return fmt.Errorf("it is %s (attempt %d on %s), and should have ended", t.Phase, t.Attempt, t.Worker)
	}
	if t.Spec.MaxAttempts > 0 && t.Attempt > t.Spec.MaxAttempts {
		return fmt.Errorf("it was given out %d times and may be %d times", t.Attempt, t.Spec.MaxAttempts)
	}
	rows, err := r.Attempts(ctx, id)
	if err != nil {
		return err
	}
	accepted := 0
	for _, a := range rows {
		if a.Status == string(labmesh.Completed) {
			accepted++
		}
	}
	if want := map[bool]int{true: 1}[t.Phase == labmesh.Completed]; accepted != want {
		return fmt.Errorf("it is %s with %d accepted attempts in the ledger", t.Phase, accepted)
	}
	return nil
}
