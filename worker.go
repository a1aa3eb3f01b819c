package labmesh

import "time"

// Worker is a worker as the mesh decided about it: what it can do, and whether
// it takes work. What it is doing now is in its [Advert], never here.
type Worker struct {
	ID           WorkerID          `json:"worker_id"`
	Node         NodeID            `json:"node_id"` // the node that it is; of a light worker the one that it is attached to
	Hostname     string            `json:"hostname"`
	Light        bool              `json:"light,omitempty"` // no node, but a client of the WebSocket of one
	Slots        int               `json:"slots"`
	Kinds        []Kind            `json:"kinds"` // the kinds of task it can run
	Capabilities Capabilities      `json:"capabilities"`
	Tags         map[string]string `json:"tags,omitempty"`

	Status WorkerStatus `json:"status"`
	Reason string       `json:"reason,omitempty"` // why it is not active
	// Hold is draining or quarantined while somebody wants that it takes no work, also while it is offline; "" else.
	Hold       WorkerStatus `json:"hold,omitempty"`
	HoldReason string       `json:"hold_reason,omitempty"`
	Registered time.Time    `json:"registered"` // when it first came
	Changed    time.Time    `json:"changed"`    // when Status last changed
	Index      uint64       `json:"log_index"`
}

// WorkerStatus says whether a worker takes work.
type WorkerStatus string

// The statuses of a worker. A worker that is active and full is shown to users as busy.
const (
	WorkerActive      WorkerStatus = "active"
	WorkerDraining    WorkerStatus = "draining"    // a person wants that it takes no more work; what it runs goes on
	WorkerQuarantined WorkerStatus = "quarantined" // the same, on the word of the leader: what it ran failed as it did nowhere else
	WorkerOffline     WorkerStatus = "offline"
)

// Capabilities are what a machine really offers. Sizes are GiB; what cannot be
// known is absent, never 0.
type Capabilities struct {
	Hostname string   `json:"hostname"`
	Platform string   `json:"platform"` // e.g. linux/amd64
	Hardware []string `json:"hardware"` // words that requirements ask for: cpu, cuda, …
	CPU      CPU      `json:"cpu"`
	Memory   Memory   `json:"memory"`
	Disk     *Disk    `json:"disk,omitempty"`
	GPU      *GPU     `json:"gpu,omitempty"`
	// Absent says, for hardware that was looked for and not found, why not.
	Absent map[string]string `json:"absent,omitempty"`
	// Tools are the interpreters and toolchains found, by name, with their version.
	Tools map[string]string `json:"tools,omitempty"`
	// Sandboxes are those that this machine can make. Of the others, Absent says
	// why not, under sandbox:<name>.
	Sandboxes []Sandbox `json:"sandboxes,omitempty"`
	// Devices are the accelerators that were found, usable or not, and the processor.
	Devices []Device `json:"devices,omitempty"`
	// Engines are those that run benchmarks here.
	Engines     []Engine     `json:"engines,omitempty"`
	Calibration *Calibration `json:"calibration,omitempty"`
}

// DeviceLevel says how far a device has been seen to work.
type DeviceLevel string

// The levels of a device, each including those before it. Benchmarks run on usable ones.
const (
	DevicePresent  DeviceLevel = "present"  // it is on a bus
	DeviceDriver   DeviceLevel = "driver"   // its driver answers
	DeviceUsable   DeviceLevel = "usable"   // an engine ran a kernel on it
	DeviceDeclared DeviceLevel = "declared" // somebody says so in the config of the node
)

// ClassCPU is the class of the processors of a machine: they are one device.
const ClassCPU = "cpu"

// Runs reports whether benchmarks may run on the device: an engine did so before, or
// the person at the machine says that one can.
func (d *Device) Runs() bool { return d.Level == DeviceUsable || d.Level == DeviceDeclared }

// Answers reports whether programs that bring their own libraries can expect to
// reach the device: that makes its class a word for hardware.
func (d *Device) Answers() bool { return d.Level != DevicePresent && d.Level != "" }

// Device is a processor, a GPU, a slice of one, or another accelerator.
type Device struct {
	Class    string      `json:"class"` // cpu, cuda, rocm, mps, openvino, …: a word for hardware
	Index    int         `json:"index"`
	UUID     string      `json:"uuid,omitempty"`
	Name     string      `json:"name,omitempty"`
	MemoryGB float64     `json:"memory_gb,omitempty"` // GiB of its own, or that it shares
	Compute  string      `json:"compute_capability,omitempty"`
	Driver   string      `json:"driver,omitempty"`
	MIG      bool        `json:"mig,omitempty"` // it is a slice of a GPU
	PCI      string      `json:"pci,omitempty"` // its address on the bus, as in /sys/bus/pci/devices
	Level    DeviceLevel `json:"level"`
	Reason   string      `json:"reason,omitempty"`  // why it is not usable
	Engines  []string    `json:"engines,omitempty"` // those that ran a kernel on it
}

// Engine is software that runs models.
type Engine struct {
	Name    string `json:"name"` // torch, onnxruntime or labmesh-go
	Version string `json:"version,omitempty"`
	Path    string `json:"path,omitempty"`   // of the interpreter
	Reason  string `json:"reason,omitempty"` // why it does not work; "" for one that does
}

// Calibration is how fast a machine is, measured while it had nothing else to do.
type Calibration struct {
	At           time.Time `json:"at"`
	GFLOPS       float64   `json:"gflops,omitempty"`           // fp32 matrix product on all processors
	GFLOPSOne    float64   `json:"gflops_one,omitempty"`       // the same on one
	MemoryGBs    float64   `json:"memory_gb_s,omitempty"`      // 10⁹ bytes a second, copied
	DiskMBs      float64   `json:"disk_mb_s,omitempty"`        // 10⁶ bytes a second, written and synced
	DeviceGFLOPS float64   `json:"device_gflops,omitempty"`    // of the first usable accelerator
	Speed        float64   `json:"speed"`                      // of one processor, against 1 for a reference; what the scheduler uses
	Slower       string    `json:"slower_than_self,omitempty"` // in which way it is slower than it was
}

// CPU describes the processors of a machine.
type CPU struct {
	Model   string  `json:"model,omitempty"`
	Cores   int     `json:"cores,omitempty"`
	Threads int     `json:"threads,omitempty"`
	FreqMHz float64 `json:"freq_mhz,omitempty"`
}

// Memory is the memory of a machine, in GiB.
type Memory struct {
	TotalGB     float64 `json:"total_gb"`
	AvailableGB float64 `json:"available_gb"`
}

// Disk is the file system that holds the attempts, in GiB.
type Disk struct {
	TotalGB float64 `json:"total_gb"`
	FreeGB  float64 `json:"free_gb"`
}

// GPU describes the GPUs of a machine. Name, MemoryGB and CUDACompute are
// those of the first device.
type GPU struct {
	Count       int         `json:"count"`
	Devices     []GPUDevice `json:"devices"`
	CUDAVersion string      `json:"cuda_version,omitempty"`
	Driver      string      `json:"driver,omitempty"`
	Name        string      `json:"name,omitempty"`
	MemoryGB    float64     `json:"memory_gb,omitempty"`
	CUDACompute float64     `json:"cuda_compute,omitempty"`
}

// GPUDevice is one GPU.
type GPUDevice struct {
	Index             int     `json:"index"`
	UUID              string  `json:"uuid,omitempty"`
	Name              string  `json:"name"`
	MemoryGB          float64 `json:"memory_gb"`
	ComputeCapability string  `json:"compute_capability,omitempty"` // major.minor
}

// GPUCount is how many GPUs the machine has.
func (c Capabilities) GPUCount() int {
	if c.GPU == nil {
		return 0
	}
	return c.GPU.Count
}

// Metrics are what a machine is doing now. They travel in adverts and never
// enter the log.
type Metrics struct {
	CPUPercent        float64 `json:"cpu_percent"`
	Load1             float64 `json:"load1"`
	MemoryAvailableGB float64 `json:"memory_available_gb"`
	DiskFreeGB        float64 `json:"disk_free_gb"`
	Running           int     `json:"running"` // attempts under way
	RSSMB             float64 `json:"rss_mb"`  // of the node's own process
}

// Advert is what a node says of itself, again and again, by gossip. It holds
// until its lease runs out. Gossip may lose it: nothing that must arrive may
// depend on one.
type Advert struct {
	Node    NodeID        `json:"node_id"`
	Worker  WorkerID      `json:"worker_id,omitempty"` // "" on a node that takes no work
	Boot    int64         `json:"boot"`                // when the process started, Unix ns; a later boot replaces an earlier
	Seq     uint64        `json:"seq"`                 // counts up within a boot
	Lease   time.Duration `json:"lease_ns"`
	Addrs   []string      `json:"addrs"` // multiaddrs it listens on
	API     string        `json:"api,omitempty"`
	Version string        `json:"version"`
	Feature int           `json:"feature"`        // the feature level it knows, see [Feature]
	Leaf    bool          `json:"leaf,omitempty"` // it holds no copy of the log, and wants none
	Accepts bool          `json:"accepts"`        // whether its worker takes new work just now
	Reason  string        `json:"reason,omitempty"`
	Metrics Metrics       `json:"metrics"`
}

// Feature is the feature level of this build: the newest commands it knows.
// Nodes advert theirs, so that a command of a later level can be held back until
// every replica knows it. Level 2 brought [RecordTests], [RecordBench], [PutSecret]
// and [DropSecret], level 3 [HoldWorker], [RaiseLevel], [ReportState], [Spec.OnDisconnect] and leases of
// workers, level 4 [RevokeKey], [UseKeys], [DropInvite], [PutTokenKey], [PutSealKey], [RecordAudit], projects, sealed
// secrets and light workers; all before them are of level 1. See [LevelOf].
const Feature = 4

// Member is a node that belongs to the mesh, or did until it was banned.
type Member struct {
	Node     NodeID    `json:"node_id"`
	Role     Role      `json:"role"`
	Hostname string    `json:"hostname,omitempty"`
	Addrs    []string  `json:"addrs,omitempty"` // where it could be reached when it joined
	Banned   bool      `json:"banned,omitempty"`
	Joined   time.Time `json:"joined"`
	Index    uint64    `json:"log_index"`
}
