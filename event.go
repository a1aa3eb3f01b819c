package labmesh

import "time"

// Event is something that happened to the mesh, as every replica sees it:
// applying an entry of the log yields events, in order. The ledger writes them
// down and the event stream passes them on.
type Event struct {
	Index uint64    `json:"log_index"`
	N     int       `json:"n"` // place among the events of the same log index, from 0
	At    time.Time `json:"time"`
	Type  EventType `json:"type"`

	Task    *Task         `json:"task,omitempty"`    // the task after the event
	Attempt *Attempt      `json:"attempt,omitempty"` // the attempt that ended
	Worker  *Worker       `json:"worker,omitempty"`  // the worker after the event
	Member  *Member       `json:"member,omitempty"`
	Tests   *Tests        `json:"tests,omitempty"` // test cases that ended
	Bench   *Bench        `json:"bench,omitempty"` // rows of a benchmark
	Audit   []AuditRecord `json:"audit,omitempty"`
	Actor   string        `json:"actor,omitempty"`  // on whose word
	Detail  string        `json:"detail,omitempty"` // for people
}

// Tests are test cases that ended in an attempt.
type Tests struct {
	Task    TaskID     `json:"task_id"`
	Attempt int        `json:"attempt"`
	Worker  WorkerID   `json:"worker_id"`
	From    int        `json:"from"` // how many of the attempt came before
	ID      int64      `json:"id"`   // of the first; the others count on from it. The same on every replica
	Cases   []TestCase `json:"cases"`
}

// Bench are rows that an attempt of a benchmark has measured.
type Bench struct {
	Task    TaskID     `json:"task_id"`
	Attempt int        `json:"attempt"`
	Worker  WorkerID   `json:"worker_id"`
	From    int        `json:"from"` // how many of the attempt came before
	ID      int64      `json:"id"`   // of the first row, the others follow; the same on every replica
	Rows    []BenchRow `json:"rows"`
}

// EventType names what happened.
type EventType string

// The events. A task that ends yields AttemptEnded (if a worker held it) and
// then TaskEnded, which carries the task in its final form; both are rows of
// the ledger.
const (
	TaskSubmitted  EventType = "task_submitted"
	TaskPlaced     EventType = "task_placed"
	TaskStarted    EventType = "task_started"
	TaskCancelling EventType = "task_cancelling"
	TaskRetried    EventType = "task_retried" // back to pending
	TaskEnded      EventType = "task_ended"   // final
	AttemptEnded   EventType = "attempt_ended"
	AttemptLate    EventType = "attempt_late" // word of an attempt that counts no more: refused, but on record
	WorkerJoined   EventType = "worker_joined"
	WorkerUpdated  EventType = "worker_changed"
	WorkerGone     EventType = "worker_lost"
	MemberJoined   EventType = "member_joined"
	MemberBanned   EventType = "member_banned"
	MeshFounded    EventType = "mesh_founded"
	InviteMade     EventType = "invite_made"
	KeyMade        EventType = "key_made"
	KeyRevoked     EventType = "key_revoked"
	InviteDropped  EventType = "invite_dropped"
	TokenKeyMade   EventType = "token_key_made"
	SealKeyMade    EventType = "seal_key_made"
	Audited        EventType = "audited" // somebody did something; the records are in the event
	TestsRecorded  EventType = "tests_recorded"
	BenchRecorded  EventType = "bench_recorded"
	SecretPut      EventType = "secret_put"
	SecretDropped  EventType = "secret_dropped"
	LevelRaised    EventType = "level_raised" // the feature level of the mesh, which is in the detail
)
