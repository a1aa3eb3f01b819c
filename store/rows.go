package store

import (
	"database/sql/driver"
	"encoding/json"
	"fmt"
	"reflect"
	"strings"
	"time"

	"labmesh"
)

// Superseded is the status of an attempt whose word came too late to count.
const Superseded = "superseded"

// Row is the values of one row, in the order of its table's columns.
type Row = []driver.Value

// RowsOf calls yield with every row that e leaves in the ledger: its own, and
// that of the task, attempt or worker that it made final or changed.
func RowsOf(e *labmesh.Event, yield func(*Table, Row) error) error {
	switch {
	case e.Type == labmesh.TaskEnded && e.Task != nil:
		row, err := TaskRow(e.Task, e.Index)
		if err != nil {
			return err
		}
		if err := yield(&TasksTable, row); err != nil {
			return err
		}
	case (e.Type == labmesh.AttemptEnded || e.Type == labmesh.AttemptLate) && e.Attempt != nil:
		row, err := attemptRow(e)
		if err != nil {
			return err
		}
		if err := yield(&AttemptsTable, row); err != nil {
			return err
		}
	case e.Worker != nil && (e.Type == labmesh.WorkerJoined || e.Type == labmesh.WorkerUpdated || e.Type == labmesh.WorkerGone):
		row, err := WorkerRow(LiveWorker{Worker: e.Worker, Heartbeat: e.At}, e.Index)
		if err != nil {
			return err
		}
		if err := yield(&WorkersTable, row); err != nil {
			return err
		}
	case e.Type == labmesh.TestsRecorded && e.Tests != nil:
		for i := range e.Tests.Cases {
			if err := yield(&TestsTable, testRow(e, i)); err != nil {
				return err
			}
		}
	case e.Type == labmesh.BenchRecorded && e.Bench != nil:
		for i := range e.Bench.Rows {
			row, err := benchRow(e, i)
			if err != nil {
				return err
			}
			if err := yield(&BenchTable, row); err != nil {
				return err
			}
		}
	case e.Type == labmesh.Audited:
		for i := range e.Audit {
			if err := yield(&AuditTable, auditRow(e, i)); err != nil {
				return err
			}
		}
		return nil // the records say it all
	}
	return yield(&EventsTable, eventRow(e))
}

func auditRow(e *labmesh.Event, i int) Row {
	r := &e.Audit[i]
	return Row{
		int64(e.Index), int64(e.N), timestamp(r.At), text(r.Actor), text(r.Name), text(r.Role),
		text(r.Remote), text(r.Node), text(r.Action), text(r.Target), text(r.Outcome), text(r.Detail), int64(max(1, r.Count)),
		int64(i),
	}
}

// TaskRow is t as a row of distributed_tasks, from the log entry at index.
func TaskRow(t *labmesh.Task, index uint64) (Row, error) {
	requirements, err := requirementsJSON(t.Spec.Requirements)
	if err != nil {
		return nil, fmt.Errorf("requirements of task %s: %w", t.ID, err)
	}
	labels, err := mapJSON(t.Spec.Labels)
	if err != nil {
		return nil, fmt.Errorf("labels of task %s: %w", t.ID, err)
	}
	rest, err := specRest(t.Spec)
	if err != nil {
		return nil, fmt.Errorf("spec of task %s: %w", t.ID, err)
	}
	outputs, err := outputsJSON(t.Outputs)
	if err != nil {
		return nil, fmt.Errorf("outputs of task %s: %w", t.ID, err)
	}
	return Row{
		text(t.ID), text(t.Spec.Kind), int64(t.Spec.Priority), text(t.Phase),
		timestamp(t.Created), timestamp(t.Started), timestamp(t.Ended),
		text(t.Worker), int64(t.Attempt), rawJSON(t.Spec.Config), requirements,
		int64(index), int64(t.Seq), text(t.Spec.Name), labels,
		rawJSON(t.Result), text(t.Error), text(t.Cause), text(t.By),
		text(t.Spec.IdempotencyKey), nonZero(t.Spec.MaxAttempts), timestamp(t.Assigned),
		timestamp(t.NotBefore), int64(t.Failed), int64(t.Lost), rest, outputs,
		text(t.Project),
	}, nil
}

func outputsJSON(o *labmesh.Outputs) (driver.Value, error) {
	if o == nil {
		return nil, nil
	}
	data, err := json.Marshal(o)
	return json.RawMessage(data), err
}

func requirementsJSON(r labmesh.Requirements) (json.RawMessage, error) {
	if reflect.ValueOf(r).IsZero() {
		return json.RawMessage("{}"), nil
	}
	return json.Marshal(r)
}

// specRest is what of a spec has no column: fields that are added to Spec one
// day are kept too.
func specRest(s labmesh.Spec) (driver.Value, error) {
	s.Kind, s.Priority, s.Config, s.Requirements = "", 0, nil, labmesh.Requirements{}
	s.Name, s.Labels, s.IdempotencyKey, s.MaxAttempts = "", nil, "", 0
	if reflect.ValueOf(s).IsZero() { // as most are; asking is cheaper than encoding
		return nil, nil
	}
	data, err := json.Marshal(s)
	return json.RawMessage(data), err
}

// TaskOf is the task of a row of distributed_tasks, without its History.
func TaskOf(row Row) (labmesh.Task, error) {
	r := reader{row: row}
	t := labmesh.Task{ID: labmesh.TaskID(r.text())}
	kind, priority := labmesh.Kind(r.text()), int(r.integer())
	t.Phase = labmesh.Phase(r.text())
	t.Created, t.Started, t.Ended = r.time(), r.time(), r.time()
	t.Worker, t.Attempt = labmesh.WorkerID(r.text()), int(r.integer())
	config := r.raw()
	var requirements labmesh.Requirements
	r.json(&requirements)
	t.Index, t.Seq = uint64(r.integer()), uint64(r.integer())
	name := r.text()
	var labels map[string]string
	r.json(&labels)
	t.Result, t.Error, t.Cause, t.By = r.raw(), r.text(), labmesh.Cause(r.text()), r.text()
	key, attempts := r.text(), int(r.integer())
	t.Assigned, t.NotBefore = r.time(), r.time()
	t.Failed, t.Lost = int(r.integer()), int(r.integer())
	r.json(&t.Spec)
	t.Spec.Kind, t.Spec.Priority, t.Spec.Config, t.Spec.Requirements = kind, priority, config, requirements
	t.Spec.Name, t.Spec.Labels, t.Spec.IdempotencyKey, t.Spec.MaxAttempts = name, labels, key, attempts
	r.json(&t.Outputs)
	t.Project = r.text()
	return t, r.err
}

func attemptRow(e *labmesh.Event) (Row, error) {
	a := e.Attempt
	outputs, err := outputsJSON(a.Outputs)
	if err != nil {
		return nil, fmt.Errorf("outputs of attempt %d of task %s: %w", a.Number, a.Task, err)
	}
	status := a.Status
	if e.Type == labmesh.AttemptLate {
		status = Superseded
	}
	var seconds driver.Value // unknown for an attempt that never started
	if a.Seconds != 0 || !a.Started.IsZero() {
		seconds = a.Seconds
	}
	return Row{
		a.ID, text(a.Task), text(a.Worker), int64(a.Number), text(status),
		timestamp(a.Started), timestamp(a.Ended), seconds, text(a.Error), rawJSON(a.Metrics),
		int64(e.Index), text(a.Cause), seconds, outputs,
	}, nil
}

// AttemptOf is the attempt of a row of task_execution_history, and the log
// index it comes from.
func AttemptOf(row Row) (labmesh.Attempt, uint64, error) {
	r := reader{row: row}
	a := labmesh.Attempt{
		ID: r.integer(), Task: labmesh.TaskID(r.text()), Worker: labmesh.WorkerID(r.text()),
		Number: int(r.integer()), Status: r.text(), Started: r.time(), Ended: r.time(),
	}
	r.next() // the seconds are kept twice: in single precision for people, and exactly
	a.Error, a.Metrics = r.text(), r.raw()
	index := uint64(r.integer())
	a.Cause, a.Seconds = labmesh.Cause(r.text()), r.float()
	r.json(&a.Outputs)
	return a, index, r.err
}

// WorkerRow is w as a row of worker_nodes, from the log entry at index.
func WorkerRow(w LiveWorker, index uint64) (Row, error) {
	capabilities, err := json.Marshal(w.Worker.Capabilities)
	if err != nil {
		return nil, fmt.Errorf("capabilities of worker %s: %w", w.Worker.ID, err)
	}
	tags, err := mapJSON(w.Worker.Tags)
	if err != nil {
		return nil, fmt.Errorf("tags of worker %s: %w", w.Worker.ID, err)
	}
	kinds, err := json.Marshal(w.Worker.Kinds)
	if err != nil {
		return nil, fmt.Errorf("kinds of worker %s: %w", w.Worker.ID, err)
	}
	var metrics driver.Value
	if w.Metrics != nil {
		data, err := json.Marshal(w.Metrics)
		if err != nil {
			return nil, fmt.Errorf("metrics of worker %s: %w", w.Worker.ID, err)
		}
		metrics = json.RawMessage(data)
	}
	status := w.Status
	if status == "" {
		status = string(w.Worker.Status)
	}
	return Row{
		text(w.Worker.ID), text(w.Worker.Hostname), timestamp(w.Worker.Registered),
		timestamp(w.Heartbeat), text(status), json.RawMessage(capabilities),
		metrics, tags,
		int64(index), text(w.Worker.Node), nonZero(w.Worker.Slots), json.RawMessage(kinds),
		text(w.Worker.Reason), timestamp(w.Worker.Changed),
	}, nil
}

// testRow is the case at place i of those that e tells of.
func testRow(e *labmesh.Event, i int) Row {
	t := e.Tests
	c := &t.Cases[i]
	return Row{
		int64(e.Index), t.ID + int64(i), text(c.Suite), text(t.Task), int64(t.Attempt),
		int64(max(c.Try, 1)), text(t.Worker), text(c.Framework), text(c.File), text(c.Name),
		text(c.Params), text(c.Verdict), c.Seconds, text(c.Message),
		text(c.Log), c.Quarantined, timestamp(e.At), int64(t.From + i), int64(e.N),
	}
}

// TestOf is the test case of a row of test_results.
func TestOf(row Row) (RecordedTests, error) {
	r := reader{row: row}
	var c labmesh.TestCase
	t := RecordedTests{Position: Position{Index: uint64(r.integer())}}
	t.ID = r.integer()
	c.Suite, t.Task, t.Attempt = r.text(), labmesh.TaskID(r.text()), int(r.integer())
	c.Try, t.Worker, c.Framework = int(r.integer()), labmesh.WorkerID(r.text()), r.text()
	c.File, c.Name, c.Params = r.text(), r.text(), r.text()
	c.Verdict, c.Seconds, c.Message = labmesh.TestVerdict(r.text()), r.float(), r.text()
	c.Log, c.Quarantined = r.text(), r.truth()
	r.next() // the time is that of the event
	t.From, t.N = int(r.integer()), int(r.integer())
	t.Cases = []labmesh.TestCase{c}
	return t, r.err
}

// AddTest appends t, of one case, to list: to the last of them if one event told
// of both. Backends call it with the rows in the order of their ids.
func AddTest(list []RecordedTests, t RecordedTests) []RecordedTests {
	if n := len(list); n > 0 {
		last := &list[n-1]
		if last.Index == t.Index && last.N == t.N {
			last.Cases = append(last.Cases, t.Cases...)
			return list
		}
	}
	return append(list, t)
}

func eventRow(e *labmesh.Event) Row {
	row := Row{int64(e.Index), int64(e.N), timestamp(e.At), text(e.Type), nil, nil, nil, nil, text(e.Actor), text(e.Detail)}
	if t := e.Task; t != nil {
		row[4], row[5], row[6] = text(t.ID), nonZero(t.Attempt), text(t.Worker)
	}
	if t := e.Tests; t != nil {
		row[4], row[5], row[6] = text(t.Task), nonZero(t.Attempt), text(t.Worker)
	}
	if b := e.Bench; b != nil {
		row[4], row[5], row[6] = text(b.Task), nonZero(b.Attempt), text(b.Worker)
	}
	if a := e.Attempt; a != nil {
		row[4], row[5], row[6] = text(a.Task), nonZero(a.Number), text(a.Worker)
	}
	if w := e.Worker; w != nil {
		row[6], row[7] = text(w.ID), text(w.Node)
	}
	if m := e.Member; m != nil {
		row[7] = text(m.Node)
	}
	return row
}

// EventOf is the event of a row of events.
func EventOf(row Row) (Event, error) {
	r := reader{row: row}
	e := Event{
		Index: uint64(r.integer()), N: int(r.integer()), At: r.time(), Type: labmesh.EventType(r.text()),
		Task: labmesh.TaskID(r.text()), Attempt: int(r.integer()), Worker: labmesh.WorkerID(r.text()),
		Node: labmesh.NodeID(r.text()), Actor: r.text(), Detail: r.text(),
	}
	return e, r.err
}

// text is s as a value; what is not known is NULL.
func text[S ~string](s S) driver.Value {
	if s == "" {
		return nil
	}
	return strings.ToValidUTF8(string(s), "\uFFFD")
}

func nonZero[N int | int64](n N) driver.Value {
	if n == 0 {
		return nil
	}
	return int64(n)
}

// timestamp is t as the ledger keeps it: in whole microseconds.
func timestamp(t time.Time) driver.Value {
	if t.IsZero() {
		return nil
	}
	return t.UTC().Truncate(time.Microsecond)
}

// rawJSON is data as a value. What is not JSON, which the API never lets in,
// is kept as a JSON string, so that a row can always be written.
func rawJSON(data json.RawMessage) driver.Value {
	if len(data) == 0 {
		return nil
	}
	if !json.Valid(data) {
		quoted, _ := json.Marshal(string(data)) // a string always can be
		return json.RawMessage(quoted)
	}
	return data
}

func mapJSON(m map[string]string) (driver.Value, error) {
	if len(m) == 0 {
		return nil, nil
	}
	data, err := json.Marshal(m)
	return json.RawMessage(data), err
}
