package bench

// GPUState is how a GPU is at one time. What could not be known is nil, "" or absent.
type GPUState struct {
	Index    int      `json:"index"`
	UUID     string   `json:"uuid,omitempty"`
	Slices   []string `json:"mig_uuids,omitempty"` // UUIDs of its MIG instances
	Name     string   `json:"name,omitempty"`
	PCI      string   `json:"pci,omitempty"`
	Driver   string   `json:"driver,omitempty"`
	Compute  string   `json:"compute_capability,omitempty"`
	Memory   *int64   `json:"memory_bytes,omitempty"`
	Used     *int64   `json:"memory_used_bytes,omitempty"`
	MIG      *bool    `json:"mig,omitempty"`
	ECC      *bool    `json:"ecc,omitempty"`
	Persists *bool    `json:"persistence,omitempty"`

	PState      string   `json:"pstate,omitempty"`
	TempC       *float64 `json:"temp_c,omitempty"`
	PowerW      *float64 `json:"power_w,omitempty"`
	PowerLimitW *float64 `json:"power_limit_w,omitempty"`
	EnergyJ     *float64 `json:"energy_j,omitempty"` // since the driver was loaded
	SMMHz       *float64 `json:"sm_mhz,omitempty"`
	SMMaxMHz    *float64 `json:"sm_max_mhz,omitempty"`
	MemoryMHz   *float64 `json:"memory_mhz,omitempty"`
	Utilization *float64 `json:"utilization_pct,omitempty"` // share of time in which a kernel ran

	Throttle  *uint64      `json:"throttle_mask,omitempty"`    // why the clocks are not higher, as NVML's bits
	Reasons   []string     `json:"throttle_reasons,omitempty"` // the same in words
	Processes []GPUProcess `json:"processes,omitempty"`        // that compute on it
}

// GPUProcess is a process that computes on a GPU.
type GPUProcess struct {
	PID   int    `json:"pid"`
	Name  string `json:"name,omitempty"`
	Bytes *int64 `json:"memory_bytes,omitempty"` // of the GPU's memory
}

// Why the clocks of a GPU are not higher: bits of NVML's nvmlClocksEventReasons.
const (
	ThrottleIdle         uint64 = 1 << 0
	ThrottleAppClocks    uint64 = 1 << 1
	ThrottlePowerCap     uint64 = 1 << 2
	ThrottleHardware     uint64 = 1 << 3
	ThrottleSyncBoost    uint64 = 1 << 4
	ThrottleThermal      uint64 = 1 << 5
	ThrottleHardwareHeat uint64 = 1 << 6
	ThrottlePowerBrake   uint64 = 1 << 7
	ThrottleDisplay      uint64 = 1 << 8
)

// ThrottleSlows are the reasons that make a GPU slower than it is by itself: heat,
// the power supply, or its protection. That its clocks are low while it is idle, are set by an
// administrator, or end at its power limit is how the GPU works.
const ThrottleSlows = ThrottleHardware | ThrottleThermal | ThrottleHardwareHeat | ThrottlePowerBrake

// ThrottleWords says what the bits of a mask mean.
func ThrottleWords(mask uint64) (out []string) {
	for _, w := range []struct {
		bit  uint64
		word string
	}{
		{ThrottleIdle, "idle"}, {ThrottleAppClocks, "clocks set"}, {ThrottlePowerCap, "power limit"}, {ThrottleHardware, "hardware slowdown"}, {ThrottleSyncBoost, "sync boost"},
		{ThrottleThermal, "heat"}, {ThrottleHardwareHeat, "heat (hardware slowdown)"}, {ThrottlePowerBrake, "power brake"}, {ThrottleDisplay, "display clocks"},
	} {
		if mask&w.bit != 0 {
			out = append(out, w.word)
		}
	}
	return out
}
