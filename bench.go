package labmesh

import (
	"encoding/json"
	"time"
)

// BenchRow is what one process run of a benchmark measured at one batch size.
// What could not be known is nil or "", never 0.
type BenchRow struct {
	Run      string    `json:"run_id"`        // one launch of the runner
	Repeat   int       `json:"repeat"`        // which of the task's launches, from 1
	Arm      string    `json:"arm,omitempty"` // of a comparison on one machine: a or b; rows of one repeat are a pair
	Started  time.Time `json:"started_at"`
	Finished time.Time `json:"finished_at"`

	// Series is equal for rows that may be compared over time: the same work by
	// the same engine on the same kind of device. Compare is Series without engine and device:
	// equal for rows that may be compared between machines.
	Series  string `json:"series_key"`
	Compare string `json:"compare_key"`

	Work   BenchWork   `json:"work"`
	Status BenchStatus `json:"status"`
	Reason string      `json:"reason,omitempty"` // why it is not ok

	N          int             `json:"n"`                     // iterations measured
	Wall       *BenchTiming    `json:"wall,omitempty"`        // time of an iteration as the host sees it
	Device     *BenchTiming    `json:"device,omitempty"`      // the same as the device's own events say
	FirstMS    *float64        `json:"first_ms,omitempty"`    // the first iteration ever, before warm-up
	LoadS      *float64        `json:"load_s,omitempty"`      // seconds to load or make the model
	Throughput *float64        `json:"throughput,omitempty"`  // items a second: batch × n ÷ the sum of wall times
	GFLOPS     *float64        `json:"gflops,omitempty"`      // 10⁹ operations a second, where the work per item is known
	Samples    string          `json:"samples_ref,omitempty"` // the raw times, a file among the task's outputs
	Stability  *BenchStable    `json:"stability,omitempty"`   //
	Finite     *bool           `json:"finite,omitempty"`      // no NaN or infinity came out
	Checksum   string          `json:"checksum,omitempty"`    // of what came out
	Resources  BenchResources  `json:"resources"`             //
	Env        json.RawMessage `json:"env,omitempty"`         // fingerprint of machine, device and software, an object
	Flags      []BenchFlag     `json:"flags,omitempty"`       // what makes the row doubtful
	Doubts     []string        `json:"doubts,omitempty"`      // the same for people, one for each flag, e.g. "load was 2.1 on 2 processors"
	Comparable bool            `json:"comparable"`            // whether statistics may use it
}

// BenchWork is what was run, and on what: all that tells one series from another.
type BenchWork struct {
	Model      string         `json:"model"`
	Source     string         `json:"model_source,omitempty"` // hf, builtin or file
	Weights    string         `json:"weights,omitempty"`      // random or pretrained
	Seed       int64          `json:"seed"`
	Params     int64          `json:"params,omitempty"`
	FLOPs      float64        `json:"flops_per_item,omitempty"`
	Shape      map[string]int `json:"input_shape,omitempty"` // of one item, e.g. sequence_length
	Batch      int            `json:"batch"`
	Requested  string         `json:"precision_requested"`
	Effective  string         `json:"precision_effective,omitempty"`
	Cast       string         `json:"cast,omitempty"` // native or autocast
	Iterations int            `json:"iterations_requested"`
	Warmup     int            `json:"warmup_n,omitempty"`
	Threads    int            `json:"threads,omitempty"`
	Compile    bool           `json:"compile,omitempty"`
	TF32       bool           `json:"tf32,omitempty"`
	Attention  string         `json:"attn_impl,omitempty"`
	Devices    int            `json:"device_count,omitempty"`

	Engine        string `json:"engine"`
	EngineVersion string `json:"engine_version,omitempty"`
	EngineWhy     string `json:"engine_why,omitempty"` // why this engine was chosen
	Kernel        string `json:"kernel,omitempty"`     // of the built-in engine: avx512, avx2 or scalar
	DeviceClass   string `json:"device_class"`         // cpu, cuda, rocm, mps, …
	DeviceName    string `json:"device_name,omitempty"`
	DeviceUUID    string `json:"device_uuid,omitempty"`
	DriverMajor   string `json:"driver_major,omitempty"`
	Protocol      int    `json:"protocol"` // version of how it is measured
}

// BenchStatus says how the measurement at one batch size ended.
type BenchStatus string

// The statuses. Only rows that are ok or truncated hold times.
const (
	BenchOK          BenchStatus = "ok"
	BenchTruncated   BenchStatus = "truncated"   // its time was up; n says how far it came
	BenchOOM         BenchStatus = "oom"         // an allocation failed
	BenchOOMKilled   BenchStatus = "oom_killed"  // the kernel killed the runner
	BenchUnsupported BenchStatus = "unsupported" // the engine cannot do it, e.g. fp16 on this device
	BenchError       BenchStatus = "error"
	BenchCrashed     BenchStatus = "crashed" // the runner died
	BenchSilent      BenchStatus = "timeout" // the runner said nothing for too long
	BenchCancelled   BenchStatus = "cancelled"
)

// BenchTiming are statistics of the times of iterations, in milliseconds. A
// percentile that n does not allow is nil.
type BenchTiming struct {
	P50  float64     `json:"p50"`
	P90  *float64    `json:"p90,omitempty"` // from n ≥ 10
	P95  *float64    `json:"p95,omitempty"` // from n ≥ 20
	P99  *float64    `json:"p99,omitempty"` // from n ≥ 100
	Min  float64     `json:"min"`
	Max  float64     `json:"max"`
	Mean float64     `json:"mean"`
	SD   *float64    `json:"sd,omitempty"`
	MAD  float64     `json:"mad"`
	CV   *float64    `json:"cv,omitempty"`
	CI95 *[2]float64 `json:"ci95_median,omitempty"`
}

// BenchStable says how steady the times were.
type BenchStable struct {
	Verdict      string   `json:"verdict"` // stable or unstable
	WindowSpread *float64 `json:"window_spread_pct,omitempty"`
	Autocorr     *float64 `json:"lag1_autocorr,omitempty"`
	Drift        *float64 `json:"drift_pct,omitempty"` // last third against the first
}

// BenchResources are what the measurement took.
type BenchResources struct {
	CPUMS          *float64 `json:"cpu_ms_per_iter,omitempty"`
	CPUUtil        *float64 `json:"cpu_util,omitempty"` // CPU time ÷ (wall time × threads)
	HostPeak       *int64   `json:"host_peak_bytes,omitempty"`
	DevicePeak     *int64   `json:"device_peak_bytes,omitempty"`
	DeviceReserved *int64   `json:"device_reserved_bytes,omitempty"`
	DeviceTotal    *int64   `json:"device_total_bytes,omitempty"`
	EnergyJ        *float64 `json:"energy_j,omitempty"`
	EnergySource   string   `json:"energy_source,omitempty"` // nvml or rapl
	PowerW         *float64 `json:"power_avg_w,omitempty"`
}

// BenchFlag is something that makes a row doubtful.
type BenchFlag string

// The flags.
const (
	FlagContended  BenchFlag = "contended" // others used the processor
	FlagThrottled  BenchFlag = "throttled"
	FlagUnstable   BenchFlag = "unstable"
	FlagFew        BenchFlag = "too_few_samples"
	FlagForeignGPU BenchFlag = "foreign_gpu_process"
	FlagClockDrift BenchFlag = "clock_drift"
	FlagProtocol   BenchFlag = "protocol_errors" // the runner said what cannot be
	FlagFallback   BenchFlag = "fallback_precision"
	FlagTruncated  BenchFlag = "truncated"
	FlagThreads    BenchFlag = "extra_threads" // the engine ran more threads than it says
	FlagNoisy      BenchFlag = "noisy"         // the machine did not become quiet before the start
)

// Limits on benchmark rows.
const (
	BenchRowsMax     = 200      // in one command
	BenchEnvBytesMax = 16 << 10 // of the fingerprint of one
)
