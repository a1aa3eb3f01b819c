package httpapi

import (
	"context"
	"crypto/sha256"
	"io"
	"time"

	"labmesh"
	"labmesh/api"
)

// Service is what the API needs of the node behind it. Errors carry a
// [labmesh.Reason] where they are refusals; it decides the status code.
type Service interface {
	Keys
	Tasks
	Files
	Mesh
	Ledger
	Secrets
}

// Keys tells who calls.
type Keys interface {
	// Authenticate is the caller who bears a credential, an API key or a token, or a
	// refusal with reason Denied. Its message is shown, so it says nothing to who
	// has not proven to hold the credential.
	Authenticate(credential string) (Caller, error)
	// VerifySigned proves that a request was signed by the secret of the caller's key, not long
	// ago, and not before. uri is its path and query, body the SHA-256 of its body.
	VerifySigned(c Caller, header, method, uri string, body [sha256.Size]byte) error
	// CreateKey makes an API key. The first result is the key, which nobody is shown again.
	CreateKey(ctx context.Context, by Caller, r KeyRequest) (string, labmesh.Key, error)
	// ListKeys are all keys that are remembered, by id.
	ListKeys(ctx context.Context) ([]labmesh.Key, error)
	// RevokeKey makes a key open nothing any more, and the tokens that were made with it.
	RevokeKey(ctx context.Context, id, by string) error
	// MintToken makes a token that stands for the key of the caller, or for a worker.
	MintToken(ctx context.Context, by Caller, worker labmesh.WorkerID) (Token, error)
	// ListInvites are all invites that are remembered, by id.
	ListInvites(ctx context.Context) ([]labmesh.Invite, error)
	// DropInvite makes an invite let nobody in any more.
	DropInvite(ctx context.Context, id, by string) error
}

// KeyRequest says what an API key is for.
type KeyRequest struct {
	Name          string
	Role          labmesh.Role
	Project       string
	TTL           time.Duration // 0 for ever
	RequireSigned bool
}

// Token is a JSON web token and what it says.
type Token struct {
	Text    string
	Role    labmesh.Role
	Worker  labmesh.WorkerID
	Expires time.Time
}

// Caller is who makes a request.
type Caller struct {
	ID      string // of the API key, also where a token that was made with it was shown
	Name    string // of the key
	Role    labmesh.Role
	Project string           // what the caller submits is in it; see [Caller.sees]
	Worker  labmesh.WorkerID // that a token was made for; "" for a key
	Token   bool             // it showed a token, not the key
	Remote  string           // the address that the request came from

	RequireSigned bool // what is not signed is refused
}

// Who is the caller as events, tasks and secrets name it.
func (c Caller) Who() string {
	if c.Name == "" || c.ID == "" {
		return c.Name + c.ID
	}
	return c.Name + "/" + c.ID
}

// Confined reports whether the caller sees the tasks of its project alone.
func (c Caller) Confined() bool { return c.Role == labmesh.RoleSubmitter }

// sees reports whether a task is any of the caller's business.
func (c Caller) sees(t *labmesh.Task) bool {
	return !c.Confined() || c.Project != "" && t.Project == c.Project
}

// seesWorker reports whether a worker is any of the caller's business. A key for
// light workers speaks for each of them, a token for the one that it was made for.
func (c Caller) seesWorker(w *labmesh.Worker) bool {
	switch {
	case c.Role != labmesh.RoleWorker:
		return true
	case c.Worker != "":
		return w.ID == c.Worker
	}
	return w.Light || w.Node == ""
}

// scope is the project to which lists for the caller are confined, "" for none.
func (c Caller) scope() string {
	if c.Confined() {
		return c.Project
	}
	return ""
}

// Tasks is what can be done with tasks.
type Tasks interface {
	// Submit brings all of specs into the mesh, or none, in the project of by. The answers are in
	// the order of specs. When it returns without an error they are durable on a
	// majority of voters.
	Submit(ctx context.Context, by Caller, specs []labmesh.Spec) ([]labmesh.Answer, error)
	Cancel(ctx context.Context, id labmesh.TaskID, by, reason string) error
	Task(ctx context.Context, id labmesh.TaskID) (labmesh.Task, error)
	// ListTasks lists in the order of submits. next is 0 at the end.
	ListTasks(ctx context.Context, f TaskFilter) (tasks []labmesh.Task, next uint64, err error)
	// Why explains why a task is where it is, above all why it waits.
	Why(ctx context.Context, id labmesh.TaskID) (Why, error)
	// Benchmarks lists rows that a task has measured, in the order of their ids.
	Benchmarks(ctx context.Context, f BenchFilter) ([]labmesh.Bench, error)
	// Logs sends one stream of a task's output, from whichever node has it. With
	// Follow it first sends a frame that only says so, and ends when the task
	// does. The data of a frame are good until send returns.
	Logs(ctx context.Context, r LogRequest, send func(api.LogFrame) error) error
}

// Files is what can be done with the files that tasks start from and leave.
type Files interface {
	// MissingChunks are those of hashes that this node does not hold.
	MissingChunks(ctx context.Context, hashes []string) ([]string, error)
	// PutChunk keeps a chunk of a bundle to come. It does not keep hold of data.
	PutChunk(ctx context.Context, data []byte) error
	// PutBundle checks a manifest whose chunks are all here, and keeps it.
	PutBundle(ctx context.Context, manifest []byte) (api.Bundle, error)
	// Artifacts lists the files that an attempt left, 0 for the newest that left any.
	Artifacts(ctx context.Context, id labmesh.TaskID, attempt int) (api.Artifacts, error)
	// OpenArtifact reads one of them, from whichever node has it. Where the
	// content can seek, callers may ask for ranges of it.
	OpenArtifact(ctx context.Context, id labmesh.TaskID, attempt int, path string) (api.Artifact, io.ReadCloser, error)
}

// Secrets keeps values for the tasks that ask for them.
type Secrets interface {
	// PutSecret keeps a secret in place of any before it with the same name.
	PutSecret(ctx context.Context, s labmesh.Secret) error
	// DropSecret forgets a secret; one that is not there is refused as NotFound.
	DropSecret(ctx context.Context, name, by string) error
	// Secrets are all secrets, without their values.
	Secrets(ctx context.Context) ([]labmesh.Secret, error)
	// AuditLog lists what was done to the mesh, the newest first.
	AuditLog(ctx context.Context, f AuditFilter) ([]labmesh.AuditRecord, error)
	// RotateSeal has all that is secret sealed by a new key, whose id it returns.
	RotateSeal(ctx context.Context, by string) (string, error)
}

// TaskFilter selects tasks; its zero value selects all.
type TaskFilter struct {
	Phase  labmesh.Phase
	Kind   labmesh.Kind
	Worker labmesh.WorkerID
	After  uint64 // only tasks with a higher seq
	Limit  int

	Project string // only tasks of it; "" for those of all
}

// BenchFilter selects rows of the benchmark of a task.
type BenchFilter struct {
	Task  labmesh.TaskID
	After int64 // only rows with a higher id
	Limit int
}

// LogRequest asks for the output of a task.
type LogRequest struct {
	Task    labmesh.TaskID
	Attempt int    // this one and no other; 0 for the newest and, with Follow, those that come
	Stream  string // stdout or stderr
	Follow  bool
	After   api.LogPosition // go on from here, with this attempt and those after it; zero for where it begins
}

// Why says in plain words why a task is where it is.
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

// Mesh is what can be asked of the mesh itself.
type Mesh interface {
	Status(ctx context.Context) Status
	// Peers asks every member of the mesh whether it is there. It takes some seconds where one is not.
	Peers(ctx context.Context) Peers
	// Ready is nil when this node knows a leader and has caught up.
	Ready() error
	ListWorkers(ctx context.Context) ([]Worker, error)
	// Worker is one worker and the tasks it holds or held lately.
	Worker(ctx context.Context, id labmesh.WorkerID) (Worker, []labmesh.Task, error)
	// Register makes a worker known before it comes.
	Register(ctx context.Context, w labmesh.Worker) (labmesh.WorkerID, error)
	// HoldWorker has a worker take no new work, or take it again with an empty status.
	HoldWorker(ctx context.Context, id labmesh.WorkerID, status labmesh.WorkerStatus, reason, by string) error
	// Ban shuts out a node for ever, named by its id or by that of its worker. It
	// returns the id of the node.
	Ban(ctx context.Context, name, by string) (labmesh.NodeID, error)
	// Invite mints an invite and returns the string that a newcomer passes to --join.
	Invite(ctx context.Context, r InviteRequest) (string, error)
	// Backup readies a backup of the mesh and returns what writes it.
	Backup(ctx context.Context) (func(io.Writer) error, error)
	// Events calls send with each event after the given one, in order, until
	// ctx ends or send fails. Events older than what is remembered are refused
	// with reason NotFound. send waits for a slow reader, if only for a bounded
	// time: no lock may be held around it.
	Events(ctx context.Context, after EventID, send func(labmesh.Event) error) error
}

// EventID is the place of an event in the order of all; the zero value means from now on.
type EventID struct {
	Index uint64
	N     int
}

// InviteRequest says who may come in by an invite.
type InviteRequest struct {
	Role labmesh.Role
	TTL  time.Duration
	Uses int
	By   string
}

// Worker is a worker as the mesh decided about it, and what is heard of it.
type Worker struct {
	labmesh.Worker
	Busy      bool // active and full
	SlotsUsed int
	Heartbeat time.Time        // when it was last heard of; zero if never here
	Metrics   *labmesh.Metrics // what it was doing then
}

// Status is the mesh as this node sees it.
type Status struct {
	Node, Leader labmesh.NodeID // Leader is "" when none is known
	Mesh         labmesh.MeshID
	Role         string         // leader, voter, learner or leaf
	Via          labmesh.NodeID // the replica that a leaf asks; "" elsewhere
	Term         uint64
	Voters       []labmesh.NodeID
	Replicas     []labmesh.NodeID
	Leaves       []labmesh.NodeID
	Alive        int // voters that are heard of
	Quorum       int // voters that must be there for a decision
	Applied      uint64
	Ledger       uint64
	StaleSeconds float64 // since the leader was last heard of, on a node that does not lead
	Warnings     []string
	Uptime       time.Duration
	Version      string
	Workers      WorkerCounts
	Tasks        map[labmesh.Phase]int
	TasksTotal   int
}

// WorkerCounts counts workers by what they do.
type WorkerCounts struct{ Total, Active, Idle, Held, Offline int }

// Ledger answers SQL.
type Ledger interface {
	Query(ctx context.Context, q Query) (QueryResult, error)
	// QueryParquet writes the result as a Parquet file.
	QueryParquet(ctx context.Context, q Query, w io.Writer) error
}

// Query is one read-only statement.
type Query struct {
	SQL     string
	Timeout time.Duration // 0 for the default
	MaxRows int           // 0 for the default
}

// QueryResult is what a statement gave. Rows hold values that JSON can carry.
type QueryResult struct {
	Columns   []string `json:"columns"`
	Types     []string `json:"types"`
	Rows      [][]any  `json:"rows"`
	Truncated bool     `json:"truncated"`
	Index     uint64   `json:"log_index"`
}
