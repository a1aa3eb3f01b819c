package state

import "labmesh"

// recordTests passes test cases on to the ledger. They count only from the
// worker that holds the attempt, and only once.
func (x *change) recordTests(cmd labmesh.RecordTests) *labmesh.Error {
	old, refused := x.holds(cmd.ID, cmd.Attempt, cmd.Worker)
	switch {
	case refused != nil:
		return refused
	case len(cmd.Cases) == 0 || len(cmd.Cases) > labmesh.CasesMax || cmd.From < 0:
		return labmesh.Refuse(labmesh.Invalid, "record tests of %s: %d cases from %d: it must be 1 to %d of them", cmd.ID, len(cmd.Cases), cmd.From, labmesh.CasesMax)
	case cmd.From+len(cmd.Cases) <= old.Cases:
		return nil // sent twice
	case cmd.From > old.Cases:
		return labmesh.Refuse(labmesh.Conflict, "record tests of %s: from %d, but only %d are on record", cmd.ID, cmd.From, old.Cases)
	}
	cmd.Cases = cmd.Cases[old.Cases-cmd.From:] // a worker that took up its attempt again may group them otherwise
	cmd.From = old.Cases
	t := *old
	t.Cases += len(cmd.Cases)
	x.put(old, &t)
	x.tell(labmesh.Event{Type: labmesh.TestsRecorded, Task: &t, Tests: &labmesh.Tests{
		Task: t.ID, Attempt: cmd.Attempt, Worker: cmd.Worker, From: cmd.From, ID: x.caseID(len(cmd.Cases)), Cases: cmd.Cases,
	}})
	return nil
}

// entryCases is how many test cases one entry of the log has ids for. An entry
// is too small to hold as many.
const entryCases = 1 << 20

// caseID takes n ids for test cases, and returns the first: no other entry has
// the same ones, and they grow with the log.
func (x *change) caseID(n int) int64 {
	id := int64(x.v.index)*entryCases + x.cases
	x.cases += int64(n)
	return id
}
