package labmesh

import (
	"encoding/json"
	"time"
)

// TaskID names a task for ever. The node that takes the submit chooses it.
type TaskID string

// WorkerID names a worker: something that holds attempts and runs them.
type WorkerID string

// NodeID names a node: the text form of its libp2p peer id.
type NodeID string

// MeshID names a mesh. It is chosen when the mesh is founded.
type MeshID string

// Kind is the type of a task, as users write it.
type Kind string

// The kinds of task.
const (
	Benchmark Kind = "benchmark" // run a model and time it
	Test      Kind = "test"      // run a test file; its exit code is the verdict
	Custom    Kind = "custom"    // run a program
)

// Kinds lists every kind of task.
func Kinds() []Kind { return []Kind{Benchmark, Test, Custom} }

// Spec is a task as its submitter wrote it. It never changes after the submit.
type Spec struct {
	Kind           Kind              `json:"type"`
	Priority       int               `json:"priority"` // a higher number goes first
	Config         json.RawMessage   `json:"config,omitempty"`
	Requirements   Requirements      `json:"requirements,omitzero"`
	TaskID         TaskID            `json:"task_id,omitempty"`
	IdempotencyKey string            `json:"idempotency_key,omitempty"`
	Name           string            `json:"name,omitempty"`
	Labels         map[string]string `json:"labels,omitempty"`
	Env            map[string]string `json:"env,omitempty"`

	// Secrets are names of values that the mesh keeps (see [PutSecret]). Each attempt finds them as
	// variables of its environment by the same names.
	Secrets []string `json:"secrets,omitempty"`
	// Bundle is the content id of a tree of files, of which each attempt finds a copy in its work directory.
	Bundle string `json:"bundle,omitempty"`
	// Artifacts are patterns of files below the work directory that are kept when an attempt
	// has ended: as in .gitignore, with ** for any directories.
	Artifacts []string `json:"artifacts,omitempty"`
	// DependsOn are tasks that must have completed before this one is placed. If one of
	// them ends otherwise, this one is cancelled, with the cause dependency.
	DependsOn []TaskID `json:"depends_on,omitempty"`
	// OnDisconnect says what becomes of an attempt whose worker is cut off from the mesh: "" has it stopped when the
	// worker's lease runs out, and run elsewhere; "keep" has it go on until the worker is back; a duration as Go
	// writes it has it go on for so long. See [Spec.Outlasts].
	OnDisconnect string `json:"on_disconnect,omitempty"`
	// Limits bound what one attempt may use of its machine; nil leaves it to the machine.
	Limits *Limits `json:"limits,omitempty"`

	// TimeoutSeconds bounds one attempt from its start; 0 means no bound.
	TimeoutSeconds float64 `json:"timeout_seconds,omitempty"`
	// QueueTimeoutSeconds bounds the wait from submit to the first start; 0 means no bound.
	QueueTimeoutSeconds float64 `json:"queue_timeout_seconds,omitempty"`
	// MaxAttempts bounds how often the task may be started, whoever is to
	// blame for an attempt that did not end well; 1 means at most once, 0 leaves it to the retry policy.
	MaxAttempts int          `json:"max_attempts,omitempty"`
	Retry       *RetryPolicy `json:"retry_policy,omitempty"`
}

// RetryPolicy says how often a task that failed by its own fault is run again.
type RetryPolicy struct {
	MaxRetries     int     `json:"max_retries"`
	BackoffSeconds float64 `json:"backoff_seconds,omitempty"` // doubled with each retry, up to BackoffMax
}

// Limits bound what one attempt may use, where the machine can hold it to them.
// What is 0 is not bounded.
type Limits struct {
	CPUs     float64 `json:"cpus,omitempty"`      // CPU seconds a second
	MemoryGB float64 `json:"memory_gb,omitempty"` // GiB; what takes more is killed, with the cause oom
	Pids     int     `json:"pids,omitempty"`      // processes and threads
	DiskGB   float64 `json:"disk_gb,omitempty"`   // GiB in the attempt's directory; what takes more is stopped, with the cause disk_quota
}

// Limits on retrying.
const (
	BackoffMax = 5 * time.Minute // the longest wait before a retry
	// InfraRetriesMax bounds the attempts that may be lost to the mesh's own
	// faults (lost workers, full disks) before a task is given up.
	InfraRetriesMax = 16
)

// Requirements say which workers fit a task. A benchmark that asks for an
// accelerator asks for one device that is usable, see [Requirements.Device]; all else is
// asked of the machine as a whole.
type Requirements struct {
	Hardware       []string          `json:"hardware,omitempty"`         // every word must be in the worker's hardware
	MinMemoryGB    float64           `json:"min_memory_gb,omitempty"`    // GiB of memory of the machine, or of the accelerator of a benchmark
	MinCUDACompute float64           `json:"min_cuda_compute,omitempty"` // major.minor, e.g. 7.5
	CPUs           int               `json:"cpus,omitempty"`             // slots taken; 0 means 1
	GPUs           int               `json:"gpus,omitempty"`             // GPUs taken
	Exclusive      bool              `json:"exclusive,omitempty"`        // takes every slot of the worker
	Tags           map[string]string `json:"tags,omitempty"`             // each must be equal on the worker
	WorkerID       WorkerID          `json:"worker_id,omitempty"`        // this worker and no other
	Tools          []string          `json:"tools,omitempty"`            // every one must be among the worker's tools, e.g. pytest
	Sandbox        Sandbox           `json:"sandbox,omitempty"`          // how far the program is shut in
}

// Sandbox says how far an attempt's program is shut in.
type Sandbox string

// The sandboxes. A worker offers those that its machine can really make.
const (
	SandboxNone      Sandbox = ""           // it runs as any program of the node's user
	SandboxNoNetwork Sandbox = "no_network" // in namespaces of its own, without a network
	SandboxBubble    Sandbox = "bubblewrap" // without a network, and all but its own directory read-only
)

// Sandboxes lists every sandbox that a task may ask for.
func Sandboxes() []Sandbox { return []Sandbox{SandboxNoNetwork, SandboxBubble} }

// Task is one task and where it stands. A Task that has been published in a
// view is never changed: a change makes a new one.
type Task struct {
	ID   TaskID `json:"id"`
	Seq  uint64 `json:"seq"` // place in the order of submits, from 1
	Spec Spec   `json:"spec"`
	By   string `json:"by,omitempty"` // who submitted it
	// Project is whose task it is: keys for one project see and change no task of another. "" is a project too.
	Project string `json:"project,omitempty"`

	Phase   Phase    `json:"phase"`
	Attempt int      `json:"attempt"`             // number of the newest attempt; 0 before the first. The fencing token.
	Worker  WorkerID `json:"worker_id,omitempty"` // who holds, or last held, the attempt
	Slots   int      `json:"slots,omitempty"`     // slots of Worker that the attempt takes
	Ahead   bool     `json:"ahead,omitempty"`     // placed before a slot was free: it takes none until it starts
	Class   string   `json:"class"`               // tasks with equal needs wait in one class
	Waits   int      `json:"waits,omitempty"`     // tasks it depends on that have not ended yet
	Failed  int      `json:"failed,omitempty"`    // attempts that ended by the task's own fault
	Lost    int      `json:"lost,omitempty"`      // attempts that ended by the mesh's fault

	Created   time.Time `json:"created"`
	NotBefore time.Time `json:"not_before,omitzero"` // no placement before this
	Assigned  time.Time `json:"assigned,omitzero"`   // when the newest attempt was placed
	Started   time.Time `json:"started,omitzero"`    // when the newest attempt started
	Cancelled time.Time `json:"cancelled,omitzero"`  // when somebody first wanted it cancelled
	Ended     time.Time `json:"ended,omitzero"`

	// Unknown is since when nobody can say whether the attempt still runs: its worker is not heard of,
	// and the task stays with it all the same (see [Spec.OnDisconnect]). Zero else.
	Unknown time.Time `json:"unknown_since,omitzero"`

	Error  string          `json:"error,omitempty"`
	Cause  Cause           `json:"cause,omitempty"`
	Result json.RawMessage `json:"result,omitempty"` // what the accepted attempt handed in

	Outputs *Outputs `json:"outputs,omitempty"` // what the accepted attempt left

	Cases   int       `json:"cases,omitempty"`   // test cases, or rows of a benchmark, recorded of the newest attempt
	History []Attempt `json:"history,omitempty"` // attempts that ended, oldest first
	Index   uint64    `json:"log_index"`         // log index that last changed the task
}

// Attempt is one run of a task that has ended.
type Attempt struct {
	ID      int64           `json:"id"` // the same on every replica
	Task    TaskID          `json:"task_id"`
	Number  int             `json:"attempt"`
	Worker  WorkerID        `json:"worker_id"`
	Status  string          `json:"status"` // completed, failed, timed_out, cancelled, lost or superseded
	Cause   Cause           `json:"cause,omitempty"`
	Error   string          `json:"error_message,omitempty"`
	Started time.Time       `json:"start_time,omitzero"`
	Ended   time.Time       `json:"end_time"`
	Seconds float64         `json:"execution_time_seconds"`
	Metrics json.RawMessage `json:"hardware_metrics,omitempty"`
	Outputs *Outputs        `json:"outputs,omitempty"`
}

// Outputs are the files that an attempt left and that are kept: a tree of
// content, to be had from the nodes that hold it.
type Outputs struct {
	Tree  string `json:"tree"`  // its content id
	Files int    `json:"files"` // regular files in it
	Bytes int64  `json:"bytes"` // their sizes together
}

// Outcome is what a worker says of an attempt that ended.
type Outcome struct {
	OK      bool            `json:"ok"`
	Cause   Cause           `json:"cause,omitempty"` // why it is not OK
	Error   string          `json:"error,omitempty"`
	Result  json.RawMessage `json:"result,omitempty"` // at most ResultBytesMax
	Seconds float64         `json:"seconds"`          // on the worker's monotonic clock
	Metrics json.RawMessage `json:"metrics,omitempty"`
	Outputs *Outputs        `json:"outputs,omitempty"` // files that it left, if any are kept
}

// ResultBytesMax bounds what one attempt may put into the log; more goes by reference.
const ResultBytesMax = 64 << 10

// Cause says why an attempt did not end well. It is kept apart from the
// verdict: a cause of the mesh's own never counts as the task's failure.
type Cause string

// The causes.
const (
	CauseExit       Cause = "exit"        // the program ended with a code other than 0
	CauseSignal     Cause = "signal"      // the program was killed by a signal
	CauseTimeout    Cause = "timeout"     // the attempt ran past its timeout
	CauseProgram    Cause = "program"     // the program is not there or cannot be run
	CauseConfig     Cause = "config"      // the task's config makes no sense to its runner
	CauseCancelled  Cause = "cancelled"   // somebody cancelled it
	CauseQueue      Cause = "queue"       // it waited longer than its queue timeout
	CauseSpawn      Cause = "spawn"       // the machine could not start a process
	CauseDisk       Cause = "disk"        // the machine had no disk space left
	CauseWorkerLost Cause = "worker_lost" // the worker was not heard of, or restarted
	CauseOffer      Cause = "offer"       // the worker did not start it in time
	CauseOOM        Cause = "oom"         // it took more memory than it may, or than there was
	CauseQuota      Cause = "disk_quota"  // it took more disk than it may
	CauseBundle     Cause = "bundle"      // its bundle could not be had, or its outputs not be kept
	CauseDependency Cause = "dependency"  // a task that it depends on did not complete
	CauseWorker     Cause = "bad_worker"  // it failed at once, on a worker that fails what others do not
)

// Infra reports whether c is the mesh's own fault.
func (c Cause) Infra() bool {
	switch c {
	case CauseSpawn, CauseDisk, CauseWorkerLost, CauseOffer, CauseBundle, CauseWorker:
		return true
	}
	return false
}

// Slots is how many of a worker's slots the task takes; a worker with total
// slots gives all of them to an exclusive task.
func (r Requirements) Slots(total int) int {
	if r.Exclusive {
		return max(total, 1)
	}
	return max(r.CPUs, 1)
}

// Timeout is the bound on one attempt, or 0 for none.
func (s Spec) Timeout() time.Duration { return seconds(s.TimeoutSeconds) }

// QueueTimeout is the bound on the wait for the first start, or 0 for none.
func (s Spec) QueueTimeout() time.Duration { return seconds(s.QueueTimeoutSeconds) }

// LightConfigMax bounds the config of a task that a light worker can be sent, in bytes.
const LightConfigMax = 900 << 10

// NeedsNode says what of the task a light worker cannot be given, in plain words; "" if it can be given all of it.
func (s *Spec) NeedsNode() string {
	switch {
	case s.Bundle != "":
		return "a bundle"
	case len(s.Artifacts) > 0:
		return "artifacts to keep"
	case len(s.Secrets) > 0:
		return "secrets"
	case len(s.Env) > 0:
		return "an environment of its own"
	case s.Limits != nil:
		return "limits"
	case len(s.Config) > LightConfigMax:
		return "a config of more than 900 KiB"
	}
	return ""
}

// Keep is the word of [Spec.OnDisconnect] for an attempt that goes on until its worker is back.
const Keep = "keep"

// Outlasts is for how long an attempt goes on while its worker is cut off from the mesh:
// 0 for no longer than the worker's lease, a negative number for ever.
func (s Spec) Outlasts() time.Duration {
	if s.OnDisconnect == Keep {
		return -1
	}
	d, err := time.ParseDuration(s.OnDisconnect)
	if err != nil {
		return 0
	}
	return max(d, 0)
}

// OwnRetries is how often the task is run again after failing by its own fault.
func (s Spec) OwnRetries() int {
	switch {
	case s.Retry != nil:
		return s.Retry.MaxRetries
	case s.MaxAttempts > 0:
		return s.MaxAttempts - 1
	}
	return 0
}

// MayRetry reports whether t may have another attempt after one that ended
// with cause, which is already counted in t.Failed or t.Lost.
func (t *Task) MayRetry(cause Cause) bool {
	if t.Spec.MaxAttempts > 0 && t.Attempt >= t.Spec.MaxAttempts {
		return false
	}
	if cause.Infra() {
		return t.Lost <= InfraRetriesMax
	}
	return t.Failed <= t.Spec.OwnRetries()
}

// Backoff is the wait before the attempt that follows n failed ones.
func (s Spec) Backoff(n int) time.Duration {
	if s.Retry == nil || s.Retry.BackoffSeconds <= 0 || n < 1 {
		return 0
	}
	d := seconds(s.Retry.BackoffSeconds)
	for ; n > 1 && d < BackoffMax; n-- {
		d *= 2
	}
	return min(d, BackoffMax)
}

func seconds(s float64) time.Duration {
	const most = float64(1<<63-1) / float64(time.Second)
	if s <= 0 || s >= most {
		return 0
	}
	return time.Duration(s * float64(time.Second))
}
