// Package exectest holds a desk in memory, for tests of workers and runners.
package exectest

import (
	"context"
	"sync"

	"labmesh"
)

// Desk is a desk that keeps the phases of its tasks as the mesh would. The zero
// value is ready.
type Desk struct {
	// Fail, if set, is asked before each Report; its error is returned.
	Fail func(cmds []labmesh.Command) error

	mu      sync.Mutex
	order   []labmesh.TaskID
	tasks   map[labmesh.TaskID]*labmesh.Task
	ends    map[labmesh.TaskID]labmesh.Outcome
	cases   map[labmesh.TaskID][]labmesh.TestCase
	rows    map[labmesh.TaskID][]labmesh.BenchRow
	changed chan struct{}
	calls   int
	late    []labmesh.Command
}

// Put places tasks on the desk as they are.
func (d *Desk) Put(tasks ...labmesh.Task) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.tasks == nil {
		d.tasks, d.ends = make(map[labmesh.TaskID]*labmesh.Task), make(map[labmesh.TaskID]labmesh.Outcome)
	}
	for _, t := range tasks {
		if d.tasks[t.ID] == nil {
			d.order = append(d.order, t.ID)
		}
		d.tasks[t.ID] = &t
	}
	d.publish()
}

// Cancel moves a held task to cancelling.
func (d *Desk) Cancel(id labmesh.TaskID) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if t := d.tasks[id]; t != nil && t.Phase.Held() {
		t.Phase = labmesh.Cancelling
		d.publish()
	}
}

// Take takes a task off the desk, as when the mesh gave it to another worker.
func (d *Desk) Take(id labmesh.TaskID) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.remove(id)
	d.publish()
}

// Assigned is the tasks on the desk, in the order in which they were put there.
func (d *Desk) Assigned() []*labmesh.Task {
	d.mu.Lock()
	defer d.mu.Unlock()
	held := make([]*labmesh.Task, 0, len(d.order))
	for _, id := range d.order {
		t := *d.tasks[id] // as the mesh does: what is handed out changes no more
		held = append(held, &t)
	}
	return held
}

// Changed is closed at the next change.
func (d *Desk) Changed() <-chan struct{} {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.changed == nil {
		d.changed = make(chan struct{})
	}
	return d.changed
}

// Report takes or declines each command as the state machine would.
func (d *Desk) Report(ctx context.Context, cmds []labmesh.Command) ([]labmesh.Answer, error) {
	if d.Fail != nil {
		if err := d.Fail(cmds); err != nil {
			return nil, err
		}
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.calls++
	answers := make([]labmesh.Answer, len(cmds))
	for i, c := range cmds {
		answers[i].Refused = d.apply(c)
		if answers[i].Refused != nil {
			d.late = append(d.late, c)
		}
	}
	d.publish()
	return answers, nil
}

func (d *Desk) apply(c labmesh.Command) *labmesh.Error {
	switch c := c.(type) {
	case labmesh.StartTask:
		t := d.tasks[c.ID]
		if t == nil || t.Attempt != c.Attempt || t.Phase == labmesh.Cancelling {
			return labmesh.Refuse(labmesh.Conflict, "start %s: the mesh has moved on", c.ID)
		}
		t.Phase = labmesh.Running
	case labmesh.RecordTests:
		skip, refused := d.record(c.ID, c.Attempt, c.From)
		if refused != nil {
			return refused
		}
		if d.cases == nil {
			d.cases = make(map[labmesh.TaskID][]labmesh.TestCase)
		}
		d.cases[c.ID] = append(d.cases[c.ID], c.Cases[min(skip, len(c.Cases)):]...)
	case labmesh.RecordBench:
		skip, refused := d.record(c.ID, c.Attempt, c.From)
		if refused != nil {
			return refused
		}
		if d.rows == nil {
			d.rows = make(map[labmesh.TaskID][]labmesh.BenchRow)
		}
		d.rows[c.ID] = append(d.rows[c.ID], c.Rows[min(skip, len(c.Rows)):]...)
	case labmesh.FinishTask:
		t := d.tasks[c.ID]
		if t == nil || t.Attempt != c.Attempt {
			return labmesh.Refuse(labmesh.Conflict, "finish %s: the mesh has moved on", c.ID)
		}
		d.ends[c.ID] = c.Outcome
		d.remove(c.ID)
	}
	return nil
}

// record says how many of the cases and rows of an attempt, from the given one on, are on record.
func (d *Desk) record(id labmesh.TaskID, attempt, from int) (skip int, _ *labmesh.Error) {
	have := len(d.cases[id]) + len(d.rows[id])
	if t := d.tasks[id]; t == nil || t.Attempt != attempt || from > have {
		return 0, labmesh.Refuse(labmesh.Conflict, "record of %s from %d of %d: the mesh has moved on", id, from, have)
	}
	return have - from, nil
}

func (d *Desk) remove(id labmesh.TaskID) {
	delete(d.tasks, id)
	for i, o := range d.order {
		if o == id {
			d.order = append(d.order[:i:i], d.order[i+1:]...)
			return
		}
	}
}

func (d *Desk) publish() {
	if d.changed != nil {
		close(d.changed)
		d.changed = nil
	}
}

// Outcome is how a task ended, once it has.
func (d *Desk) Outcome(id labmesh.TaskID) (labmesh.Outcome, bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	o, ok := d.ends[id]
	return o, ok
}

// Await waits until a task has ended.
func (d *Desk) Await(ctx context.Context, id labmesh.TaskID) (labmesh.Outcome, error) {
	for {
		changed := d.Changed()
		if o, ok := d.Outcome(id); ok {
			return o, nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return labmesh.Outcome{}, ctx.Err()
		}
	}
}

// Cases is the test cases on record for a task.
func (d *Desk) Cases(id labmesh.TaskID) []labmesh.TestCase {
	d.mu.Lock()
	defer d.mu.Unlock()
	return append([]labmesh.TestCase(nil), d.cases[id]...)
}

// Rows is the rows of benchmarks on record for a task.
func (d *Desk) Rows(id labmesh.TaskID) []labmesh.BenchRow {
	d.mu.Lock()
	defer d.mu.Unlock()
	return append([]labmesh.BenchRow(nil), d.rows[id]...)
}

// Calls is how often Report was answered.
func (d *Desk) Calls() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.calls
}

// Late is the commands that were declined.
func (d *Desk) Late() []labmesh.Command {
	d.mu.Lock()
	defer d.mu.Unlock()
	return append([]labmesh.Command(nil), d.late...)
}

// Phase is where a task on the desk stands, "" when it is not there.
func (d *Desk) Phase(id labmesh.TaskID) labmesh.Phase {
	d.mu.Lock()
	defer d.mu.Unlock()
	if t := d.tasks[id]; t != nil {
		return t.Phase
	}
	return ""
}
