package attach

import (
	"context"
	"encoding/json"
	"slices"
	"sync"
	"time"

	"labmesh"
	"labmesh/exec"
	"labmesh/light"
)

// desk is where the worker finds the task that it was sent. What it says of the end of one
// waits until a node has confirmed it.
type desk struct {
	worker labmesh.WorkerID

	mu      sync.Mutex
	changed chan struct{}
	ended   chan struct{} // has one in it when there is a result to send
	tasks   []*labmesh.Task
	results []result
	rows    map[labmesh.TaskID][]labmesh.BenchRow
	cases   map[labmesh.TaskID][]labmesh.TestCase
	count   int // of attempts
}

var _ exec.Desk = (*desk)(nil)

// result is the message by which a task ends.
type result struct {
	Type    string             `json:"type"`
	Worker  labmesh.WorkerID   `json:"worker_id"`
	Task    labmesh.TaskID     `json:"task_id"`
	Status  string             `json:"status"`
	Seconds float64            `json:"execution_time_seconds"`
	Metrics json.RawMessage    `json:"hardware_metrics,omitempty"`
	Result  json.RawMessage    `json:"result,omitempty"`
	Error   string             `json:"error,omitempty"`
	Cause   labmesh.Cause      `json:"cause,omitempty"`
	Rows    []labmesh.BenchRow `json:"benchmark_rows,omitempty"`
	Cases   []labmesh.TestCase `json:"test_cases,omitempty"`
}

func newDesk(id labmesh.WorkerID) *desk {
	return &desk{worker: id, changed: make(chan struct{}), ended: make(chan struct{}, 1), rows: map[labmesh.TaskID][]labmesh.BenchRow{}, cases: map[labmesh.TaskID][]labmesh.TestCase{}}
}

// change has the worker look again. The caller holds mu.
func (d *desk) change() {
	close(d.changed)
	d.changed = make(chan struct{})
}

// Assigned is the tasks that were sent and have not ended.
func (d *desk) Assigned() []*labmesh.Task {
	d.mu.Lock()
	defer d.mu.Unlock()
	return slices.Clone(d.tasks)
}

// Changed is closed at the next change.
func (d *desk) Changed() <-chan struct{} {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.changed
}

// put takes in a task that was sent. One that is here already is not run twice.
func (d *desk) put(e light.Execute) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.find(e.Task) >= 0 {
		return
	}
	d.results = slices.DeleteFunc(d.results, func(r result) bool { return r.Task == e.Task })
	d.count++
	d.tasks = append(d.tasks, &labmesh.Task{
		ID: e.Task, Attempt: d.count, Worker: d.worker, Phase: labmesh.Assigned, Assigned: time.Now(),
		Spec: labmesh.Spec{Kind: e.Kind, Config: e.Config, TimeoutSeconds: e.Timeout},
	})
	d.change()
}

// cancel stops a task, and says nothing of its end.
func (d *desk) cancel(id labmesh.TaskID) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.results = slices.DeleteFunc(d.results, func(r result) bool { return r.Task == id })
	d.phase(id, labmesh.Cancelling)
}

// phase sets the phase of a task; tasks that were handed out are not written to. The caller holds mu.
func (d *desk) phase(id labmesh.TaskID, to labmesh.Phase) {
	if i := d.find(id); i >= 0 && d.tasks[i].Phase != labmesh.Cancelling {
		t := *d.tasks[i]
		t.Phase = to
		d.tasks[i] = &t
		d.change()
	}
}

func (d *desk) find(id labmesh.TaskID) int {
	return slices.IndexFunc(d.tasks, func(t *labmesh.Task) bool { return t.ID == id })
}

// busy is the task that is run, or whose result no node has confirmed; "" for none.
func (d *desk) busy() labmesh.TaskID {
	d.mu.Lock()
	defer d.mu.Unlock()
	switch {
	case len(d.tasks) > 0:
		return d.tasks[0].ID
	case len(d.results) > 0:
		return d.results[0].Task
	}
	return ""
}

// pending is the results that no node has confirmed.
func (d *desk) pending() []result {
	d.mu.Lock()
	defer d.mu.Unlock()
	return slices.Clone(d.results)
}

// settled forgets a result: a node has taken it, or does not want it.
func (d *desk) settled(id labmesh.TaskID) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.results = slices.DeleteFunc(d.results, func(r result) bool { return r.Task == id })
}

// Report takes in what the worker says of its attempts.
func (d *desk) Report(_ context.Context, cmds []labmesh.Command) ([]labmesh.Answer, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, cmd := range cmds {
		switch cmd := cmd.(type) {
		case labmesh.StartTask:
			d.phase(cmd.ID, labmesh.Running)
		case labmesh.RecordBench:
			d.rows[cmd.ID] = append(d.rows[cmd.ID][:min(cmd.From, len(d.rows[cmd.ID]))], cmd.Rows...)
		case labmesh.RecordTests:
			d.cases[cmd.ID] = append(d.cases[cmd.ID][:min(cmd.From, len(d.cases[cmd.ID]))], cmd.Cases...)
		case labmesh.FinishTask:
			d.finish(cmd)
		}
	}
	return make([]labmesh.Answer, len(cmds)), nil
}

// finish turns the end of an attempt into a result, but for one that was cancelled. The caller holds mu.
func (d *desk) finish(cmd labmesh.FinishTask) {
	i := d.find(cmd.ID)
	if i < 0 {
		return
	}
	cancelled := d.tasks[i].Phase == labmesh.Cancelling
	d.tasks = slices.Delete(d.tasks, i, i+1)
	rows, cases := d.rows[cmd.ID], d.cases[cmd.ID]
	delete(d.rows, cmd.ID)
	delete(d.cases, cmd.ID)
	d.change()
	if cancelled {
		return
	}
	o := cmd.Outcome
	r := result{
		Type: light.TypeTaskResult, Worker: d.worker, Task: cmd.ID, Status: "completed", Seconds: o.Seconds, Metrics: o.Metrics,
		Result: o.Result, Error: o.Error, Cause: o.Cause, Rows: rows, Cases: cases,
	}
	if !o.OK {
		r.Status = "failed"
	}
	d.results = append(d.results, r)
	select {
	case d.ended <- struct{}{}:
	default: // it will be seen with the one before
	}
}
