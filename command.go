package labmesh

import "time"

// Command is a change that somebody wants made to the mesh. Commands enter the
// log and stay there for ever: one is added, never changed. Each may arrive
// twice and is applied once.
type Command interface {
	// CommandName is the name and version under which the command is in the log.
	CommandName() string
}

// Entry is what the log holds: commands that were grouped together, and the
// time on the leader's clock at which it took them. The state machine reads no
// other clock.
type Entry struct {
	At       time.Time
	Commands []Command
}

// Receipt says where commands entered the log and what the state machine
// answered to each of them, in their order.
type Receipt struct {
	Index   uint64   `json:"index"`
	Answers []Answer `json:"answers"`
}

// Answer is what the state machine said to one command.
type Answer struct {
	Refused *Error `json:"refused,omitempty"`
	Task    TaskID `json:"task,omitempty"`    // the task that the command is about
	Existed bool   `json:"existed,omitempty"` // a submit that had been made before
}

// FoundMesh is the first command of every mesh: it names the mesh, and makes
// the founder its first member.
type FoundMesh struct {
	Mesh    MeshID `json:"mesh_id"`
	Founder Member `json:"founder"`
	Key     Key    `json:"key"`             // the founder's admin key
	Level   int    `json:"level,omitempty"` // the feature level that the mesh begins at; 0 means 1
}

// RaiseLevel is the leader's word that every replica knows the commands of a
// feature level: from here on they may enter the log. The level of a mesh never sinks.
type RaiseLevel struct {
	Level int `json:"level"`
}

// ReportState is a replica's word of what its state was when it had applied the
// entry at Index, as a hash. The state takes no note of it: replicas compare.
type ReportState struct {
	Node  NodeID `json:"node_id"`
	Index uint64 `json:"index"`
	Form  string `json:"form"` // how the state was written; only sums of one form are compared
	Sum   []byte `json:"sum"`
}

// SubmitTask brings a task into the mesh. ID is chosen by the node that takes the submit.
type SubmitTask struct {
	ID   TaskID `json:"id"`
	Spec Spec   `json:"spec"`
	By   string `json:"by,omitempty"`
	// Project is whose task it is, see [Task.Project].
	Project string `json:"project,omitempty"`
}

// PlaceTask gives a pending task to a worker. Attempt must be the next number.
// With Ahead the worker has no slot free for it now, and starts it when it has.
type PlaceTask struct {
	ID      TaskID   `json:"id"`
	Attempt int      `json:"attempt"`
	Worker  WorkerID `json:"worker_id"`
	Ahead   bool     `json:"ahead,omitempty"`
}

// StartTask is a worker's word that it has started an attempt.
type StartTask struct {
	ID      TaskID   `json:"id"`
	Attempt int      `json:"attempt"`
	Worker  WorkerID `json:"worker_id"`
}

// FinishTask is a worker's word that an attempt has ended.
type FinishTask struct {
	ID      TaskID   `json:"id"`
	Attempt int      `json:"attempt"`
	Worker  WorkerID `json:"worker_id"`
	Outcome Outcome  `json:"outcome"`
}

// CancelTask is somebody's word that a task is wanted no more.
type CancelTask struct {
	ID     TaskID `json:"id"`
	By     string `json:"by,omitempty"`
	Reason string `json:"reason,omitempty"`
}

// ExpireTask is the leader giving up on a task whose deadline has passed.
// Attempt is the newest attempt when the leader decided.
type ExpireTask struct {
	ID      TaskID `json:"id"`
	Attempt int    `json:"attempt"`
	Cause   Cause  `json:"cause"` // queue, timeout, offer, cancelled or worker_lost
}

// WakeTasks makes pending those tasks whose wait before a retry is over. Every
// entry does so; this one exists for when no other is due.
type WakeTasks struct{}

// PutWorker registers a worker, or changes what the mesh knows of it. It makes
// an offline worker active again.
type PutWorker struct {
	Worker Worker `json:"worker"`
}

// LoseWorker is the leader's verdict that a worker is gone. Its attempts are lost, but for those
// that may go on without the mesh ([Spec.OnDisconnect]): they stay with it until it is back.
// With Stopped it is the worker's own word that nothing of what it held runs any more.
type LoseWorker struct {
	ID      WorkerID `json:"worker_id"`
	Reason  string   `json:"reason"`
	Stopped bool     `json:"stopped,omitempty"`
}

// HoldWorker has a worker take no new work: Status is draining or quarantined. With "" it takes work
// again. What the worker runs goes on; what it was given ahead of a free slot goes elsewhere.
type HoldWorker struct {
	ID     WorkerID     `json:"worker_id"`
	Status WorkerStatus `json:"status,omitempty"`
	Reason string       `json:"reason,omitempty"`
	By     string       `json:"by,omitempty"`
}

// PutMember admits a node. With Invite set it uses up one use of that invite,
// and is refused when the invite has expired, is used up, or has another role.
type PutMember struct {
	Member Member `json:"member"`
	Invite string `json:"invite,omitempty"`
}

// BanMember shuts a node out at once.
type BanMember struct {
	Node NodeID `json:"node_id"`
	By   string `json:"by,omitempty"`
}

// PutInvite makes an invite known to all nodes.
type PutInvite struct {
	Invite Invite `json:"invite"`
}

// PutKey makes an API key known to all nodes.
type PutKey struct {
	Key Key `json:"key"`
}

// RecordTests is a worker's word of test cases that ended in an attempt under
// way. From is how many of the attempt were recorded before: what is sent twice is recorded once.
type RecordTests struct {
	ID      TaskID     `json:"id"`
	Attempt int        `json:"attempt"`
	Worker  WorkerID   `json:"worker_id"`
	From    int        `json:"from"`
	Cases   []TestCase `json:"cases"` // at most CasesMax
}

// RecordBench is a worker's word of what a benchmark under way has measured. From
// is how many rows of the attempt were recorded before.
type RecordBench struct {
	ID      TaskID     `json:"id"`
	Attempt int        `json:"attempt"`
	Worker  WorkerID   `json:"worker_id"`
	From    int        `json:"from"`
	Rows    []BenchRow `json:"rows"` // at most BenchRowsMax
}

// PutSecret keeps a value for attempts that ask for it by name, in place of any before it.
type PutSecret struct {
	Secret Secret `json:"secret"`
}

// DropSecret forgets a secret.
type DropSecret struct {
	Name string `json:"name"`
	By   string `json:"by,omitempty"`
}

// RevokeKey makes an API key open nothing any more.
type RevokeKey struct {
	ID string `json:"id"`
	By string `json:"by,omitempty"`
}

// UseKeys says when API keys were last used.
type UseKeys struct {
	Used []KeyUse `json:"used"`
}

// KeyUse is when a key was used.
type KeyUse struct {
	ID string    `json:"id"`
	At time.Time `json:"at"`
}

// DropInvite makes an invite let nobody in any more.
type DropInvite struct {
	ID string `json:"id"`
	By string `json:"by,omitempty"`
}

// PutTokenKey makes a key for tokens known to all nodes.
type PutTokenKey struct {
	Key TokenKey `json:"key"`
}

// PutSealKey names the key by which secrets are sealed from here on. The key
// itself goes from member to member and enters no log.
type PutSealKey struct {
	ID string `json:"id"`
	By string `json:"by,omitempty"`
}

// RecordAudit keeps what was done to the mesh in the ledger. The state takes no note of it.
type RecordAudit struct {
	Records []AuditRecord `json:"records"` // at most AuditRecordsMax
}

// The names under which commands are in the log.
func (FoundMesh) CommandName() string   { return "found_mesh.v1" }
func (SubmitTask) CommandName() string  { return "submit_task.v1" }
func (PlaceTask) CommandName() string   { return "place_task.v1" }
func (StartTask) CommandName() string   { return "start_task.v1" }
func (FinishTask) CommandName() string  { return "finish_task.v1" }
func (CancelTask) CommandName() string  { return "cancel_task.v1" }
func (ExpireTask) CommandName() string  { return "expire_task.v1" }
func (WakeTasks) CommandName() string   { return "wake_tasks.v1" }
func (PutWorker) CommandName() string   { return "put_worker.v1" }
func (LoseWorker) CommandName() string  { return "lose_worker.v1" }
func (PutMember) CommandName() string   { return "put_member.v1" }
func (BanMember) CommandName() string   { return "ban_member.v1" }
func (PutInvite) CommandName() string   { return "put_invite.v1" }
func (PutKey) CommandName() string      { return "put_key.v1" }
func (RecordTests) CommandName() string { return "record_tests.v1" }
func (PutSecret) CommandName() string   { return "put_secret.v1" }
func (DropSecret) CommandName() string  { return "drop_secret.v1" }
func (RecordBench) CommandName() string { return "record_bench.v1" }
func (HoldWorker) CommandName() string  { return "hold_worker.v1" }
func (RaiseLevel) CommandName() string  { return "raise_level.v1" }
func (ReportState) CommandName() string { return "report_state.v1" }
func (RevokeKey) CommandName() string   { return "revoke_key.v1" }
func (UseKeys) CommandName() string     { return "use_keys.v1" }
func (DropInvite) CommandName() string  { return "drop_invite.v1" }
func (PutTokenKey) CommandName() string { return "put_token_key.v1" }
func (PutSealKey) CommandName() string  { return "put_seal_key.v1" }
func (RecordAudit) CommandName() string { return "record_audit.v1" }

// LevelOf is the feature level that a mesh must have before cmd may enter its
// log: that of the build that brought the command (see [Feature]).
func LevelOf(cmd Command) int {
	switch cmd := cmd.(type) {
	case SubmitTask:
		switch {
		case cmd.Project != "":
			return 4
		case cmd.Spec.OnDisconnect != "":
			return 3
		}
	case PutSecret:
		if cmd.Secret.Sealed != nil || len(cmd.Secret.Projects) > 0 {
			return 4
		}
		return 2
	case PutKey:
		if k := cmd.Key; k.Role != RoleAdmin || k.Project != "" || !k.Expires.IsZero() || k.RequireSigned || k.Signing != nil {
			return 4
		}
	case PutWorker:
		if cmd.Worker.Light {
			return 4
		}
	case RevokeKey, UseKeys, DropInvite, PutTokenKey, PutSealKey, RecordAudit:
		return 4
	case RecordTests, RecordBench, DropSecret:
		return 2
	case HoldWorker, ReportState:
		return 3
	}
	return 1 // RaiseLevel too: it is proposed only when all know it
}
