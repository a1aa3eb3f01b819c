package state

import "labmesh"

// recordTests passes test cases on to the ledger.
func (x *change) recordTests(cmd labmesh.RecordTests) *labmesh.Error {
	t, fresh, refused := x.record(cmd.ID, cmd.Attempt, cmd.Worker, cmd.From, len(cmd.Cases), labmesh.CasesMax)
	if refused != nil || fresh == 0 {
		return refused
	}
	x.tell(labmesh.Event{Type: labmesh.TestsRecorded, Task: t, Tests: &labmesh.Tests{
		Task: t.ID, Attempt: cmd.Attempt, Worker: cmd.Worker, From: t.Cases - fresh, ID: x.caseID(fresh), Cases: cmd.Cases[len(cmd.Cases)-fresh:],
	}})
	return nil
}

// recordBench passes rows of a benchmark on to the ledger.
func (x *change) recordBench(cmd labmesh.RecordBench) *labmesh.Error {
	t, fresh, refused := x.record(cmd.ID, cmd.Attempt, cmd.Worker, cmd.From, len(cmd.Rows), labmesh.BenchRowsMax)
	if refused != nil || fresh == 0 {
		return refused
	}
	x.tell(labmesh.Event{Type: labmesh.BenchRecorded, Task: t, Bench: &labmesh.Bench{
		Task: t.ID, Attempt: cmd.Attempt, Worker: cmd.Worker, From: t.Cases - fresh, ID: x.caseID(fresh), Rows: cmd.Rows[len(cmd.Rows)-fresh:],
	}})
	return nil
}

// record counts n things that an attempt has to say, from of which came before.
// They count only from the worker that holds the attempt, and only once: fresh
// is how many, the last of them, are new.
func (x *change) record(id labmesh.TaskID, attempt int, w labmesh.WorkerID, from, n, most int) (_ *labmesh.Task, fresh int, _ *labmesh.Error) {
	old, refused := x.holds(id, attempt, w)
	switch {
	case refused != nil:
		return nil, 0, refused
	case n == 0 || n > most || from < 0:
		return nil, 0, labmesh.Refuse(labmesh.Invalid, "record of %s: %d from %d: it must be 1 to %d at once", id, n, from, most)
	case from > old.Cases:
		return nil, 0, labmesh.Refuse(labmesh.Conflict, "record of %s: from %d, but only %d are on record", id, from, old.Cases)
	}
	if fresh = from + n - old.Cases; fresh <= 0 {
		return old, 0, nil // sent twice
	}
	t := *old
	t.Cases += fresh // a worker that took up its attempt again may group them otherwise
	x.put(old, &t)
	return &t, fresh, nil
}

// entryCases is how many test cases and rows one entry of the log has ids for. An entry
// is too small to hold as many.
const entryCases = 1 << 20

// caseID takes n ids for test cases or rows, and returns the first: no other entry has
// the same ones, and they grow with the log.
func (x *change) caseID(n int) int64 {
	id := int64(x.v.index)*entryCases + x.cases
	x.cases += int64(n)
	return id
}
