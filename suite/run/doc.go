// Package run runs a suite of tests on a mesh, from the cases that a worker
// collects to the last verdict: it does what a [suite.Queue] decides, as tasks,
// and tells the queue what the mesh says of them.
//
// Nothing but the tasks and the ledger is kept for it anywhere, and it survives what the mesh does: it
// follows the events of a node, takes them up again where they broke off, and
// where some were missed it asks for the tasks and reads the ledger.
package run

import (
	"context"
	"io"
	"time"

	"labmesh"
	"labmesh/api"
	"labmesh/suite"
)

// Mesh is what a suite needs of a mesh. [labmesh/client.Client] is one.
type Mesh interface {
	Submit(context.Context, labmesh.Spec) (api.SubmitReply, error)
	Cancel(ctx context.Context, id labmesh.TaskID, reason string) (api.CancelReply, error)
	Task(context.Context, labmesh.TaskID) (api.TaskDetail, error)
	Why(context.Context, labmesh.TaskID) (api.Why, error)
	Workers(context.Context) ([]api.WorkerSummary, error)
	Worker(context.Context, labmesh.WorkerID) (api.Worker, error)
	Query(context.Context, api.QueryRequest) (api.QueryReply, error)
	Artifact(ctx context.Context, id labmesh.TaskID, path string) (io.ReadCloser, error)
	// Feed calls each with every event from when it was opened, and opened
	// whenever it is, saying whether events may have been missed before that. It blocks until ctx ends.
	Feed(ctx context.Context, opened func(gap bool), each func(api.Event) error) error
}

// Config says what to run, and how. Mesh, ID and Framework must be set.
type Config struct {
	Mesh      Mesh
	ID        string // of this run of the suite: a label of all its tasks, and part of their ids
	Name      string // for people
	Framework Framework
	Paths     []string // from the root of the bundle, for the frameworks that collect
	Select    []string // arguments that choose cases: for the collection only
	Args      []string // arguments for the framework
	Command   []string // of the framework command
	Files     []string // for it

	// Task is what all tasks have in common: bundle, requirements, priority,
	// labels, environment, limits.
	Task        labmesh.Spec
	CaseTimeout time.Duration // 0 for none
	Retries     int
	FailFast    bool
	Shards      suite.Shards
	Quarantine  *suite.Quarantine // nil for none

	// Show is told how far it is, a few times a second and at the end; nil for nobody.
	Show func(Progress)
	// Note says something to people; nil for nobody.
	Note func(format string, args ...any)
	// Patience is how long the mesh may be out of reach; 0 for a usual time.
	Patience time.Duration
}

// Framework is what runs the cases.
type Framework string

// The frameworks.
const (
	Pytest   Framework = "pytest"
	Unittest Framework = "unittest"
	Go       Framework = "go"
	Command  Framework = "command" // whatever writes JUnit XML
)

// Frameworks lists all frameworks.
func Frameworks() []Framework { return []Framework{Pytest, Unittest, Go, Command} }

// tools are what a worker must have.
func (f Framework) tools() []string {
	switch f {
	case Pytest:
		return []string{"pytest"}
	case Unittest:
		return []string{"python3"}
	case Go:
		return []string{"go"}
	}
	return nil
}

// Progress is how far a run is.
type Progress struct {
	Collecting  bool
	Waiting     string // why nothing runs, "" when something does
	Counts      suite.Counts
	Chunks      int           // that run
	Workers     int           // that run one
	ETA         time.Duration // until the end, 0 when nobody knows
	Failed      []string      // ids of cases that failed for good since the last time
	Flaky       []string      // … that passed after they had failed
	Quarantined []string      // … that failed in quarantine
	Final       bool
}

// Report is what came of a run.
type Report struct {
	ID          string
	Name        string
	Framework   Framework
	Began       time.Time
	Took        time.Duration // from the first submit to the last verdict
	Results     []suite.Result
	Counts      suite.Counts
	Errors      []suite.CollectError // what could not be collected
	Stopped     string               // why it ended before its end, "" when it did not
	Interrupted bool
	Chunks      int
	Workers     map[labmesh.WorkerID]Share
	History     int // cases whose time was known before
}

// Share is what one worker did.
type Share struct {
	Hostname string  `json:"hostname"`
	Chunks   int     `json:"chunks"`
	Cases    int     `json:"cases"`
	Seconds  float64 `json:"seconds"` // in cases
}

// OK reports whether the suite passed.
func (r *Report) OK() bool {
	return r.Counts.Bad == 0 && len(r.Errors) == 0 && r.Stopped == "" && r.Counts.NotRun == 0
}
