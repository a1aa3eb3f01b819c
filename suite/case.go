package suite

import (
	"labmesh"
)

// Case is one test case of a suite, or a whole file of them.
type Case struct {
	ID     string // how its framework calls it
	File   string
	Name   string
	Params string
	// Seconds is how long it is thought to take at speed 1; 0 when nobody knows.
	Seconds float64
	// Whole says that it is a file which is run as one: which cases are in it is known afterwards.
	Whole bool
	// Quarantined says that its failures are shown, and not counted.
	Quarantined bool
}

// key is what a case and the records of its runs have in common.
type key struct{ file, name, params string }

// Worker is a worker that fits the suite and takes work.
type Worker struct {
	ID    labmesh.WorkerID
	Slots int
	// Speed is how fast it was in earlier runs, 1 being the middle; 0 when nobody knows.
	Speed float64
	// Gauged is how fast its machine was when it was measured, against a reference; 0 when it was not.
	Gauged float64
}

// Options say how a suite is run.
type Options struct {
	Retries  int     // how often a case that failed is tried again
	FailFast bool    // stop at the first case that failed for good
	Parallel int     // chunks under way at the same time, at most; 0 for as many as there are slots
	Overhead float64 // seconds that a chunk takes besides its cases, until it is known; 0 for a usual one

	// Quarantined tells of cases that were not known before they ran; nil for none.
	Quarantined func(id string) bool
}

// ChunkID names a chunk within its queue.
type ChunkID int

// Chunk is some cases for one worker to run one after the other.
type Chunk struct {
	ID      ChunkID
	Worker  labmesh.WorkerID
	Cases   []Case // those of a file together, in the order in which they were collected
	Try     int    // 1 for the first run of its cases
	Seconds float64
}

// Order is what is to be done: hand out a chunk, or take one back.
type Order struct {
	Start    *Chunk
	Withdraw ChunkID // when Start is nil
	Why      string  // of a withdrawal
}

// End is how a chunk ended.
type End struct {
	OK      bool
	Started bool // it ran
	Cause   labmesh.Cause
	Error   string
}

// Source says where a record comes from.
type Source struct {
	Task    labmesh.TaskID   `json:"task_id"`
	Attempt int              `json:"attempt"`
	Worker  labmesh.WorkerID `json:"worker_id"`
}

// Run is one run of a case.
type Run struct {
	labmesh.TestCase
	Source
}

// Result is what became of a case. Verdict is "" while there is none: the case did not run.
type Result struct {
	Case    Case
	Verdict labmesh.TestVerdict
	Runs    []Run // the last one gave the verdict
	Flaky   bool  // it passed, after it had failed
}

// Bad reports whether the result makes the suite fail.
func (r *Result) Bad() bool { return r.Verdict.Bad() && !r.Case.Quarantined }

// Last is the run that gave the verdict.
func (r *Result) Last() Run {
	if len(r.Runs) == 0 {
		return Run{}
	}
	return r.Runs[len(r.Runs)-1]
}

// Counts is a suite in numbers. Every case is in exactly one of Passed to NotRun.
type Counts struct {
	Total    int `json:"total"`
	Passed   int `json:"passed"`
	Failed   int `json:"failed"`
	Errors   int `json:"errors"`
	Crashed  int `json:"crashed"`
	Timeouts int `json:"timeouts"`
	Skipped  int `json:"skipped"`
	XFailed  int `json:"xfailed"`
	XPassed  int `json:"xpassed"`
	NotRun   int `json:"not_run"`

	Flaky       int `json:"flaky"`       // of those that passed
	Quarantined int `json:"quarantined"` // of those that did not, but do not count
	Bad         int `json:"bad"`         // those that make the suite fail
}

// Done is how many have a verdict.
func (c Counts) Done() int { return c.Total - c.NotRun }

func (c *Counts) add(r *Result, sign int) {
	c.Total += sign
	switch r.Verdict {
	case labmesh.TestPassed:
		c.Passed += sign
	case labmesh.TestFailed:
		c.Failed += sign
	case labmesh.TestCrashed:
		c.Crashed += sign
	case labmesh.TestTimeout:
		c.Timeouts += sign
	case labmesh.TestSkipped:
		c.Skipped += sign
	case labmesh.TestXFailed:
		c.XFailed += sign
	case labmesh.TestXPassed:
		c.XPassed += sign
	case "":
		c.NotRun += sign
	default:
		c.Errors += sign
	}
	switch {
	case r.Flaky:
		c.Flaky += sign
	case r.Bad():
		c.Bad += sign
	case r.Verdict.Bad():
		c.Quarantined += sign
	}
}
