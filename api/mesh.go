package api

import "labmesh"

// Status is the reply to GET /status: the mesh as the node that answers sees it.
type Status struct {
	Workers WorkerCounts   `json:"workers"`
	Tasks   map[string]int `json:"tasks"`  // "total", and one number for each status
	Uptime  float64        `json:"uptime"` // seconds
	Version string         `json:"version"`

	Node        labmesh.NodeID   `json:"node_id"`
	Mesh        labmesh.MeshID   `json:"mesh_id"`
	Role        string           `json:"role"`          // leader, voter, learner or leaf
	Via         labmesh.NodeID   `json:"via,omitempty"` // the replica that answered, on a leaf
	Leader      Text             `json:"leader"`        // a node id, or null when none is known
	Term        uint64           `json:"term"`
	Voters      []labmesh.NodeID `json:"voters"`
	Replicas    []labmesh.NodeID `json:"replicas"`
	Leaves      []labmesh.NodeID `json:"leaves"`
	VotersAlive int              `json:"voters_alive"` // voters that are heard of
	Quorum      int              `json:"quorum"`       // voters that must be there for a decision
	Applied     uint64           `json:"applied_index"`
	Ledger      uint64           `json:"ledger_index"`
	Stale       float64          `json:"stale_seconds"` // since the leader was last heard of
	Warnings    []string         `json:"warnings"`
}

// WorkerCounts counts workers by what they do.
type WorkerCounts struct {
	Total   int `json:"total"`
	Active  int `json:"active"`
	Idle    int `json:"idle"`
	Held    int `json:"held"` // draining or quarantined
	Offline int `json:"offline"`
}

// WorkerSummary is one worker in a list: GET /api/workers.
type WorkerSummary struct {
	ID            labmesh.WorkerID    `json:"worker_id"`
	Node          labmesh.NodeID      `json:"node_id"`
	Hostname      string              `json:"hostname"`
	Status        string              `json:"status"` // active, busy, draining, offline or quarantined
	Reason        Text                `json:"reason"` // why it is not active
	LastHeartbeat Time                `json:"last_heartbeat"`
	Slots         int                 `json:"slots"`
	SlotsUsed     int                 `json:"slots_used"`
	Capabilities  CapabilitiesSummary `json:"capabilities_summary"`
}

// WorkerBusy is the status, as users see it, of a worker that is active and full.
const WorkerBusy = "busy"

// CapabilitiesSummary is what a machine offers, in one line.
type CapabilitiesSummary struct {
	Hardware []string `json:"hardware"` // words that requirements ask for
	Platform Text     `json:"platform"`
	CPUs     int      `json:"cpus"` // threads
	MemoryGB float64  `json:"memory_gb"`
	GPUs     int      `json:"gpus"`
	GPU      Text     `json:"gpu"` // name of the first
}

// WorkerList is the reply to GET /api/workers.
type WorkerList struct {
	Workers []WorkerSummary `json:"workers"`
}

// Worker is the reply to GET /api/workers/{id}.
type Worker struct {
	WorkerSummary
	Kinds      []labmesh.Kind       `json:"kinds"` // the kinds of task it can run
	Full       labmesh.Capabilities `json:"capabilities"`
	Metrics    *labmesh.Metrics     `json:"hardware_metrics"`
	Tags       map[string]string    `json:"tags"`
	Registered Time                 `json:"registered"`
	Tasks      []Task               `json:"tasks"` // that it holds, or held lately
}

// RegisterRequest is the body of POST /api/workers/register. Unknown fields are
// left alone: workers of other makes send what they like.
type RegisterRequest struct {
	ID           labmesh.WorkerID     `json:"worker_id,omitempty"`
	Hostname     string               `json:"hostname,omitempty"`
	Capabilities labmesh.Capabilities `json:"capabilities,omitzero"`
	Tags         map[string]string    `json:"tags,omitempty"`
}

// RegisterReply is the reply to POST /api/workers/register.
type RegisterReply struct {
	ID         labmesh.WorkerID `json:"worker_id"`
	Registered bool             `json:"registered"`
	Message    string           `json:"message"`
}

// HoldRequest is the body of POST /api/workers/{id}/drain. It may be left out.
type HoldRequest struct {
	Reason string `json:"reason,omitempty"` // for the record, and for whoever asks why nothing runs there
}

// HoldReply is the reply to POST /api/workers/{id}/drain and …/undrain.
type HoldReply struct {
	ID      labmesh.WorkerID `json:"worker_id"`
	Message string           `json:"message"`
}

// BanReply is the reply to POST /api/nodes/{id}/ban.
type BanReply struct {
	Node    labmesh.NodeID `json:"node_id"`
	Message string         `json:"message"`
}

// InviteRequest is the body of POST /api/invites. What is left out is
// [InviteRoleDefault], [InviteTTLDefault] and [InviteUsesDefault].
type InviteRequest struct {
	Role       labmesh.Role `json:"role,omitempty"` // node or worker
	TTLSeconds float64      `json:"ttl_seconds,omitempty"`
	Uses       int          `json:"uses,omitempty"`
}

// InviteReply is the reply to POST /api/invites.
type InviteReply struct {
	Invite     string       `json:"invite"` // the string that a newcomer passes to --join
	Role       labmesh.Role `json:"role"`
	TTLSeconds float64      `json:"ttl_seconds"`
	Uses       int          `json:"uses"`
}

// Event is the data of one server-sent event of GET /api/events. Its id there,
// and here, is "<log index>-<n>"; a client that comes back sends the last one
// it saw as Last-Event-ID.
type Event struct {
	ID      string            `json:"id"`
	Index   uint64            `json:"log_index"`
	N       int               `json:"n"`
	At      Time              `json:"time"`
	Type    labmesh.EventType `json:"type"`
	Task    *EventTask        `json:"task,omitempty"`    // the task after the event
	Attempt *Attempt          `json:"attempt,omitempty"` // the attempt that ended
	Worker  *EventWorker      `json:"worker,omitempty"`  // the worker after the event
	Member  *EventMember      `json:"member,omitempty"`
	Tests   *EventTests       `json:"tests,omitempty"`  // test cases that ended
	Bench   *EventBench       `json:"bench,omitempty"`  // rows of a benchmark
	Actor   string            `json:"actor,omitempty"`  // on whose word
	Detail  string            `json:"detail,omitempty"` // for people
}

// EventTask is a task as an event shows it.
type EventTask struct {
	Task
	Error Text `json:"error"`
	Cause Text `json:"cause"`
}

// EventWorker is a worker as an event shows it.
type EventWorker struct {
	ID       labmesh.WorkerID     `json:"worker_id"`
	Node     labmesh.NodeID       `json:"node_id"`
	Hostname string               `json:"hostname"`
	Status   labmesh.WorkerStatus `json:"status"`
	Reason   Text                 `json:"reason"`
	Slots    int                  `json:"slots"`
}

// EventMember is a member as an event shows it.
type EventMember struct {
	Node     labmesh.NodeID `json:"node_id"`
	Role     labmesh.Role   `json:"role"`
	Hostname string         `json:"hostname,omitempty"`
	Banned   bool           `json:"banned"`
}

// EventTests are test cases as an event shows them. Those of an attempt are
// counted from 0 and come in order, each once; From is the place of the first here.
type EventTests struct {
	Task    labmesh.TaskID     `json:"task_id"`
	Attempt int                `json:"attempt"`
	Worker  labmesh.WorkerID   `json:"worker_id"`
	From    int                `json:"from"` // how many of the attempt came before
	Cases   []labmesh.TestCase `json:"cases"`
	// Omitted is how many cases are not shown because they are too large for an
	// event; the ledger has them (test_results).
	Omitted int `json:"omitted,omitempty"`
}

// EventBench are rows of a benchmark as an event shows them. Those of an attempt
// are counted from 0 and come in order, each once; From is the place of the first here.
type EventBench struct {
	Task    labmesh.TaskID     `json:"task_id"`
	Attempt int                `json:"attempt"`
	Worker  labmesh.WorkerID   `json:"worker_id"`
	From    int                `json:"from"` // how many of the attempt came before
	Rows    []labmesh.BenchRow `json:"rows"`
	// Omitted is how many rows are not shown because they are too large for an
	// event, and EnvOmitted says that the rows lack their fingerprint of the
	// machine for that reason; GET /api/tasks/{id}/benchmarks has them.
	Omitted    int  `json:"omitted,omitempty"`
	EnvOmitted bool `json:"env_omitted,omitempty"`
}

// BenchTaskRow is a row of a benchmark with whose it is.
type BenchTaskRow struct {
	ID      int64            `json:"id"` // grows with the log; the same on every node
	Task    labmesh.TaskID   `json:"task_id"`
	Attempt int              `json:"attempt"`
	Worker  labmesh.WorkerID `json:"worker_id"`
	Place   int              `json:"place"` // among the rows of its attempt, from 0
	labmesh.BenchRow
}

// BenchList is the reply to GET /api/tasks/{id}/benchmarks: a page of what a
// benchmark has measured so far, in the order in which it was recorded.
type BenchList struct {
	Rows       []BenchTaskRow `json:"rows"`
	NextCursor string         `json:"next_cursor,omitempty"` // "" on the last page
}
