package bench

import (
	"encoding/json"

	"labmesh"
)

// Protocol is the version of the protocol, and of how measuring is done.
const Protocol = 1

// Spec tells a runner what to measure.
type Spec struct {
	V          int    `json:"v"`
	Model      string `json:"model"`
	Source     string `json:"source"`                             // auto, hf, builtin or file
	File       string `json:"file,omitempty"`                     // path of the model, of one from a file
	Device     string `json:"device"`                             // auto, or a class, with an index after a colon if it matters: cpu, cuda:1, rocm, mps, openvino
	DeviceUUID string `json:"device_uuid,omitempty"`              // of one device, in place of an index
	Precision  string `json:"precision"`                          //
	Fallback   string `json:"on_unsupported_precision,omitempty"` // what to run instead: fp32, or "" for nothing
	Cast       string `json:"cast,omitempty"`                     // native or autocast; "" leaves it to the engine
	BatchSizes []int  `json:"batch_sizes"`                        // in the order in which to measure

	SequenceLength int `json:"sequence_length,omitempty"` // tokens of an item; 0 leaves it to the model
	ImageSize      int `json:"image_size,omitempty"`      // pixels of a side; 0 leaves it to the model

	Iterations       int     `json:"iterations"`            // at least, unless MaxSeconds are over
	MinSeconds       float64 `json:"min_seconds"`           // at least, for each batch size
	MaxSeconds       float64 `json:"max_seconds_per_batch"` // bound on the measurement of a batch size, without its warm-up
	WarmupIterations int     `json:"warmup_iterations"`     // at least, unless they take longer than MaxSeconds and than ten times WarmupSeconds
	WarmupSeconds    float64 `json:"warmup_min_seconds"`    // at least; then until times are steady, for ten times as long at most

	Threads int   `json:"threads,omitempty"` // 0 leaves it to the engine
	Seed    int64 `json:"seed"`
	Compile bool  `json:"compile,omitempty"`
	TF32    bool  `json:"tf32,omitempty"`
}

// EventKind says what a line of a runner is about.
type EventKind string

// The kinds of events, in the order in which they come.
const (
	EventHello      EventKind = "hello"
	EventModel      EventKind = "model"
	EventBatchStart EventKind = "batch_start"
	EventWarmup     EventKind = "warmup"
	EventSamples    EventKind = "samples"
	EventBatchEnd   EventKind = "batch_end"
	EventFatal      EventKind = "fatal"
	EventDone       EventKind = "done"
)

// Event is one line of a runner. Its kind says which of the fields it has; what
// a runner does not know it leaves out.
type Event struct {
	V    int       `json:"v"`
	Seq  int       `json:"seq"` // from 1, without gaps
	T    float64   `json:"t"`   // seconds since the runner started, monotonic
	Kind EventKind `json:"event"`

	// hello
	Runner        string          `json:"runner,omitempty"`         // torch, onnxruntime, labmesh-go, …
	RunnerVersion string          `json:"runner_version,omitempty"` // of the engine, e.g. of torch
	Pid           int             `json:"pid,omitempty"`
	Devices       []Device        `json:"devices,omitempty"` // those it can use
	Env           json.RawMessage `json:"env,omitempty"`     // versions of what it is made of, an object

	// model
	Name        string         `json:"name,omitempty"`
	Source      string         `json:"source,omitempty"`  // hf, builtin or file
	Weights     string         `json:"weights,omitempty"` // random or pretrained
	Params      int64          `json:"params,omitempty"`
	ParamBytes  int64          `json:"param_bytes,omitempty"`
	FLOPs       float64        `json:"flops_per_item,omitempty"`
	Shape       map[string]int `json:"input_shape,omitempty"` // of one item
	LoadS       *float64       `json:"load_s,omitempty"`
	Requested   string         `json:"precision_requested,omitempty"`
	Effective   string         `json:"precision_effective,omitempty"`
	Cast        string         `json:"cast,omitempty"`
	Kernel      string         `json:"kernel,omitempty"`
	AttnImpl    string         `json:"attn_impl,omitempty"`
	DeviceClass string         `json:"device_class,omitempty"`
	DeviceName  string         `json:"device_name,omitempty"`
	DeviceUUID  string         `json:"device_uuid,omitempty"`
	Threads     int            `json:"threads,omitempty"` // as read back
	Notes       []string       `json:"notes,omitempty"`

	// batch_start, warmup, samples and batch_end
	Batch int `json:"batch,omitempty"` // items in one iteration

	// warmup
	N       int      `json:"n,omitempty"` // iterations; of batch_end those that were measured
	FirstMS *float64 `json:"first_ms,omitempty"`
	Stable  *bool    `json:"stable,omitempty"` // whether times became steady
	TotalS  *float64 `json:"total_s,omitempty"`

	// samples
	I0 int         `json:"i0,omitempty"` // index of the first, from 0
	MS [][]float64 `json:"ms,omitempty"` // of each iteration: wall time, and device time where it is known

	// batch_end
	Status         labmesh.BenchStatus `json:"status,omitempty"` // ok, truncated, oom, unsupported, error or cancelled
	Reason         string              `json:"reason,omitempty"`
	WallS          *float64            `json:"wall_s,omitempty"`
	CPUMS          *float64            `json:"cpu_ms,omitempty"` // of the process, while it measured
	HostPeak       *int64              `json:"host_peak_bytes,omitempty"`
	DevicePeak     *int64              `json:"device_peak_bytes,omitempty"`
	DeviceReserved *int64              `json:"device_reserved_bytes,omitempty"`
	DeviceTotal    *int64              `json:"device_total_bytes,omitempty"`
	EnergyJ        *float64            `json:"energy_j,omitempty"`
	Finite         *bool               `json:"finite,omitempty"`
	Checksum       string              `json:"checksum,omitempty"`

	// fatal
	Code    string `json:"code,omitempty"` // device_lost, unknown_model, no_device, no_model_file, bad_spec, params, out_of_memory, internal
	Message string `json:"message,omitempty"`
}

// Device is one device that an engine can use.
type Device struct {
	Class    string  `json:"class"` // cpu, cuda, rocm, mps, openvino, …
	Index    int     `json:"index"`
	UUID     string  `json:"uuid,omitempty"`
	Name     string  `json:"name,omitempty"`
	MemoryGB float64 `json:"memory_gb,omitempty"` // GiB
	Compute  string  `json:"compute_capability,omitempty"`
}

// Quiet is how the wait for a quiet machine ended.
type Quiet struct {
	OK      bool     `json:"ok"`
	WaitedS float64  `json:"waited_s"`
	Reasons []string `json:"reasons,omitempty"` // what was not quiet when the wait was over, for people
}

// Observed is what was seen of the machine, from outside, while a batch size was measured.
type Observed struct {
	Flags        []labmesh.BenchFlag `json:"flags,omitempty"`
	Reasons      []string            `json:"reasons,omitempty"` // one for each flag, for people
	EnergyJ      *float64            `json:"energy_j,omitempty"`
	EnergySource string              `json:"energy_source,omitempty"` // nvml or rapl
	PowerW       *float64            `json:"power_avg_w,omitempty"`
}
