package api

import (
	"encoding/json"

	"labmesh"
)

// PriorityDefault is the priority of a task that was written without one.
const PriorityDefault = 1

// Task is one task in a list: GET /api/tasks.
type Task struct {
	ID       labmesh.TaskID `json:"task_id"`
	Kind     labmesh.Kind   `json:"type"`
	Name     Text           `json:"name"`
	Status   labmesh.Phase  `json:"status"`
	Priority int            `json:"priority"`
	Worker   Text           `json:"worker_id"` // who holds, or last held, it
	Attempts int            `json:"attempts"`  // the number of the newest attempt; 0 before the first
	Created  Time           `json:"created"`
	Started  Time           `json:"started"` // when the newest attempt started
	Ended    Time           `json:"ended"`
}

// TaskList is the reply to GET /api/tasks, in the order of submits. NextCursor
// is "" at the end.
type TaskList struct {
	Tasks      []Task `json:"tasks"`
	NextCursor string `json:"next_cursor,omitempty"`
}

// TaskDetail is the reply to GET /api/tasks/{id}.
type TaskDetail struct {
	Task
	Config       json.RawMessage      `json:"config"`
	Requirements labmesh.Requirements `json:"requirements"`
	Result       json.RawMessage      `json:"result"` // what the accepted attempt handed in
	Error        Text                 `json:"error"`
	Cause        Text                 `json:"cause"`
	History      []Attempt            `json:"history"` // attempts that ended, oldest first

	Labels              map[string]string    `json:"labels"`
	Env                 map[string]string    `json:"env,omitempty"`
	TimeoutSeconds      float64              `json:"timeout_seconds,omitempty"`
	QueueTimeoutSeconds float64              `json:"queue_timeout_seconds,omitempty"`
	Bundle              string               `json:"bundle,omitempty"`    // content id of the files that it starts from
	Artifacts           []string             `json:"artifacts,omitempty"` // patterns of files that are kept
	Limits              *labmesh.Limits      `json:"limits,omitempty"`
	Outputs             *labmesh.Outputs     `json:"outputs,omitempty"` // what the accepted attempt left: GET /api/tasks/{id}/artifacts
	MaxAttempts         int                  `json:"max_attempts,omitempty"`
	Retry               *labmesh.RetryPolicy `json:"retry_policy,omitempty"`
	IdempotencyKey      string               `json:"idempotency_key,omitempty"`
	DependsOn           []labmesh.TaskID     `json:"depends_on,omitempty"`
	OnDisconnect        string               `json:"on_disconnect,omitempty"`
	UnknownSince        Time                 `json:"unknown_since"` // since when its worker, which may still run it, is not heard of
	SubmittedBy         Text                 `json:"submitted_by"`
	NotBefore           Time                 `json:"not_before"` // when a waiting retry may be placed
	Index               uint64               `json:"log_index"`  // log index that last changed the task
}

// Attempt is one run of a task that has ended.
type Attempt struct {
	Number  int              `json:"attempt"`
	Worker  labmesh.WorkerID `json:"worker_id"`
	Status  string           `json:"status"` // completed, failed, timed_out, cancelled, lost or superseded
	Started Time             `json:"start_time"`
	Ended   Time             `json:"end_time"`
	Seconds float64          `json:"execution_time_seconds"`
	Error   Text             `json:"error_message"`
	Cause   Text             `json:"cause"` // a [labmesh.Cause], or null when it ended well
	Metrics json.RawMessage  `json:"hardware_metrics,omitempty"`
	Outputs *labmesh.Outputs `json:"outputs,omitempty"` // the files that it left
}

// SubmitReply is the reply to POST /api/tasks. Created is false when the task
// was there already, under the same task id or idempotency key.
type SubmitReply struct {
	ID      labmesh.TaskID `json:"task_id"`
	Created bool           `json:"created"`
	Message string         `json:"message"`
}

// BatchRequest is the body of POST /api/tasks/batch: all of Tasks come in, or none.
type BatchRequest struct {
	Tasks []labmesh.Spec `json:"tasks"`
}

// BatchReply is the reply to POST /api/tasks/batch. IDs are in the order of the
// request; Created counts those that were not there already.
type BatchReply struct {
	IDs     []labmesh.TaskID `json:"task_ids"`
	Created int              `json:"created"`
}

// CancelRequest is the body of POST /api/tasks/{id}/cancel. It may be left out.
type CancelRequest struct {
	Reason string `json:"reason,omitempty"`
}

// CancelReply is the reply to POST /api/tasks/{id}/cancel. A task that a worker
// holds is cancelling until the worker has stopped it.
type CancelReply struct {
	ID        labmesh.TaskID `json:"task_id"`
	Cancelled bool           `json:"cancelled"`
	Message   string         `json:"message"`
}

// Why is the reply to GET /api/tasks/{id}/why: in plain words, why a task is
// where it is, above all why it waits.
type Why struct {
	Task    labmesh.TaskID `json:"task_id"`
	Status  labmesh.Phase  `json:"status"`
	Summary string         `json:"summary"` // one sentence
	Ahead   int            `json:"ahead"`   // pending tasks of its class that go first
	Workers []WhyWorker    `json:"workers"` // for a pending task: what each worker lacks
}

// WhyWorker says what one worker has to do with a waiting task.
type WhyWorker struct {
	Worker   labmesh.WorkerID `json:"worker_id"`
	Hostname string           `json:"hostname,omitempty"`
	Fits     bool             `json:"fits"`
	Reasons  []string         `json:"reasons"` // why it does not run the task now
}
