package store

import (
	"context"
	"io"
	"iter"
	"math"
	"time"

	"labmesh"
)

// Backend is a place where a ledger is kept. Its methods may be called at the
// same time; writes queue up behind one another, reads see whole transactions.
type Backend interface {
	Writer
	Reader
	Console
	Filler
	// Close releases the ledger. It is safe twice.
	Close() error
}

// Writer writes what the log says happened.
type Writer interface {
	// Applied is the log index up to which the ledger is written. Rows that a
	// gap lacks count as written: see Filler.
	Applied() (uint64, error)
	// Append writes the rows that events stand for and moves the applied index
	// to applied, in one transaction. Events at or below the index that was
	// applied before are skipped, so replaying the log does nothing.
	Append(ctx context.Context, applied uint64, events []labmesh.Event) error
}

// Reader answers the questions that the API asks of what is finished.
type Reader interface {
	// Task is the finished task with that id, with its History, and whether there is one.
	Task(ctx context.Context, id labmesh.TaskID) (labmesh.Task, bool, error)
	// FindKey is the finished task that was submitted in a project under an idempotency key.
	FindKey(ctx context.Context, project, key string) (labmesh.TaskID, bool, error)
	// Tasks lists finished tasks by Seq, without their History.
	Tasks(ctx context.Context, f Filter) ([]labmesh.Task, error)
	// Attempts lists every ended attempt of a task, superseded ones too, oldest first.
	Attempts(ctx context.Context, id labmesh.TaskID) ([]labmesh.Attempt, error)
	// Events lists events after a position, in the order of the log.
	Events(ctx context.Context, after Position, limit int) ([]Event, error)
	// Tests lists the test cases that the log entries in (after, upto] recorded,
	// those of each event together, in the order of the log.
	Tests(ctx context.Context, after, upto uint64) ([]RecordedTests, error)
	// Bench lists the rows of benchmarks that log entries recorded, those of each
	// event together, in the order of the log.
	Bench(ctx context.Context, f BenchFilter) ([]RecordedBench, error)
}

// Console is the door for people's own SQL. It reads and never writes.
type Console interface {
	// Query runs one statement that reads. What is wrong with the statement is
	// a refusal, with words for the person who wrote it.
	Query(ctx context.Context, q Query) (Result, error)
	// WriteParquet runs q as Query does and writes its rows as a Parquet file.
	WriteParquet(ctx context.Context, q Query, w io.Writer) error
}

// Filler fills the gap that a snapshot of the state leaves in a ledger: the
// snapshot at index S holds no rows, so a ledger that stood at A < S lacks
// those in (A, S]. A peer has them.
type Filler interface {
	// Require says that the state stands at upto without the events up to it
	// having been appended: what is missing becomes a gap, durably, and the
	// ledger goes on from upto.
	Require(ctx context.Context, upto uint64) error
	// Gap is the oldest gap, and whether there is one.
	Gap(ctx context.Context) (Gap, bool, error)
	// Export writes all rows with a log index in (after, next] to w. next is at
	// most upto, and chosen so that about limitRows rows are written, but never
	// between the rows of one log index. It refuses to export what this ledger
	// lacks itself.
	Export(ctx context.Context, after, upto uint64, limitRows int, w io.Writer) (next uint64, err error)
	// Import appends what Export wrote and moves the start of the oldest gap to
	// next, in one transaction. Importing the same again does nothing.
	Import(ctx context.Context, r io.Reader, next uint64) error
}

// Gap says which rows a ledger lacks: those with After < log index ≤ Upto.
type Gap struct {
	After uint64 `json:"after"`
	Upto  uint64 `json:"upto"`
}

// Filter chooses finished tasks. Zero fields choose all.
type Filter struct {
	Phases []labmesh.Phase
	Kind   labmesh.Kind
	Worker labmesh.WorkerID
	After  uint64 // only tasks with a greater Seq
	Limit  int    // at most TasksMax, which 0 stands for

	Project string // only tasks of this project; "" for those of all
}

// TasksMax bounds how many rows one call of Tasks or Events returns.
const TasksMax = 10_000

// Rows is limit within its bound.
func Rows(limit int) int {
	if limit <= 0 || limit > TasksMax {
		return TasksMax
	}
	return limit
}

// Position is a place in the order of events.
type Position struct {
	Index uint64
	N     int
}

// Event is an event as the ledger keeps it: whom it is about, not what became of them.
type Event struct {
	Index   uint64            `json:"log_index"`
	N       int               `json:"n"`
	At      time.Time         `json:"time"`
	Type    labmesh.EventType `json:"type"`
	Task    labmesh.TaskID    `json:"task_id,omitempty"`
	Attempt int               `json:"attempt,omitempty"`
	Worker  labmesh.WorkerID  `json:"worker_id,omitempty"`
	Node    labmesh.NodeID    `json:"node_id,omitempty"`
	Actor   string            `json:"actor,omitempty"`
	Detail  string            `json:"detail,omitempty"`
}

// RecordedTests are the test cases of one event.
type RecordedTests struct {
	Position
	labmesh.Tests
}

// RecordedBench are the rows of a benchmark of one event.
type RecordedBench struct {
	Position
	labmesh.Bench
}

// BenchFilter chooses rows of benchmarks. Zero fields choose all.
type BenchFilter struct {
	Task        labmesh.TaskID
	After, Upto uint64 // only those of log entries in (After, Upto]; 0 for Upto is no bound
	AfterID     int64  // only rows with a higher id
	Limit       int    // at most TasksMax rows, which 0 stands for
}

// Bound is the last log index that f chooses, and how many rows at the most.
func (f BenchFilter) Bound() (upto uint64, rows int) {
	if upto = f.Upto; upto == 0 {
		upto = math.MaxInt64
	}
	return upto, Rows(f.Limit)
}

// Limits on a query. Zero fields of a Query stand for the defaults.
const (
	SQLBytesMax     = 64 << 10
	QueryTimeout    = 30 * time.Second // default
	QueryTimeoutMax = 10 * time.Minute
	QueryRows       = 10_000 // default
	QueryRowsMax    = 1_000_000
	ResultBytesMax  = 64 << 20 // of all values of a result together
)

// Query is one SQL statement and its bounds.
type Query struct {
	SQL     string
	Timeout time.Duration // at most QueryTimeoutMax
	MaxRows int           // at most QueryRowsMax
	// Live is what the mesh is doing now. With it a query sees the mesh as it
	// was at Live.Index: distributed_tasks and worker_nodes hold live rows too.
	// Without it the query sees the ledger alone. The caller waits for the
	// ledger to reach Live.Index if nothing may be missing.
	Live LiveRows
}

// LiveRows shows what is in a node's state at one log index.
type LiveRows interface {
	// Index is the log index of the state that the rows are from.
	Index() uint64
	// Tasks are all tasks that the state holds, finished ones too.
	Tasks() iter.Seq[*labmesh.Task]
	// Workers are all workers that the state holds.
	Workers() iter.Seq[LiveWorker]
}

// LiveWorker is a worker with what its node said of itself last.
type LiveWorker struct {
	Worker    *labmesh.Worker
	Status    string           // as users see it, e.g. busy; "" for Worker.Status
	Heartbeat time.Time        // when its node was last heard of; zero if it was not
	Metrics   *labmesh.Metrics // nil if it was not heard of
}

// Result is what a query found.
type Result struct {
	Columns   []string `json:"columns"`
	Types     []string `json:"types"` // SQL types
	Rows      [][]any  `json:"rows"`  // values that encoding/json writes
	Truncated bool     `json:"truncated"`
	// Index is the log index that the rows stand for: that of Query.Live, or of
	// the ledger if that is behind.
	Index uint64 `json:"log_index"`
}
