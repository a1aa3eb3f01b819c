//go:build cgo && (linux || darwin)

package probe

import (
	"errors"
	"fmt"
	"math"

	"github.com/NVIDIA/go-nvml/pkg/nvml"

	"labmesh/bench"
)

// openStates opens the driver's library. ask is how the GPUs are.
func openStates() (ask func() []bench.GPUState, done func(), err error) {
	switch ret := nvml.Init(); ret {
	case nvml.SUCCESS:
	case nvml.ERROR_LIBRARY_NOT_FOUND:
		return nil, nil, errors.New(libraryMissing)
	default:
		return nil, nil, errors.New("the NVIDIA driver does not answer: " + ret.Error())
	}
	count, ret := nvml.DeviceGetCount()
	if ret != nvml.SUCCESS {
		_ = nvml.Shutdown()
		return nil, nil, errors.New("the NVIDIA driver does not list its GPUs: " + ret.Error())
	}
	driver, _ := nvml.SystemGetDriverVersion() // "" where it is not known
	return func() (all []bench.GPUState) {
		for i := range count {
			if h, ret := nvml.DeviceGetHandleByIndex(i); ret == nvml.SUCCESS {
				all = append(all, stateOf(i, driver, h))
			}
		}
		return all
	}, func() { _ = nvml.Shutdown() }, nil
}

// has reports whether the driver's library has a function: to call one that it
// lacks would end this process.
func has(function string) bool { return nvml.Extensions().LookupSymbol(function) == nil }

// stateOf is how a GPU is. What its driver does not say is left out.
func stateOf(index int, driver string, h nvml.Device) bench.GPUState {
	s := bench.GPUState{Index: index, Driver: driver}
	describeState(&s, h)
	if v, ret := h.GetTemperature(nvml.TEMPERATURE_GPU); ret == nvml.SUCCESS {
		s.TempC = float(v, 1)
	}
	if v, ret := h.GetPowerUsage(); ret == nvml.SUCCESS {
		s.PowerW = float(v, 1000)
	}
	if v, ret := h.GetEnforcedPowerLimit(); ret == nvml.SUCCESS {
		s.PowerLimitW = float(v, 1000)
	}
	if has("nvmlDeviceGetTotalEnergyConsumption") {
		if v, ret := h.GetTotalEnergyConsumption(); ret == nvml.SUCCESS {
			s.EnergyJ = float(v, 1000)
		}
	}
	if v, ret := h.GetClockInfo(nvml.CLOCK_SM); ret == nvml.SUCCESS {
		s.SMMHz = float(v, 1)
	}
	if v, ret := h.GetMaxClockInfo(nvml.CLOCK_SM); ret == nvml.SUCCESS {
		s.SMMaxMHz = float(v, 1)
	}
	if v, ret := h.GetClockInfo(nvml.CLOCK_MEM); ret == nvml.SUCCESS {
		s.MemoryMHz = float(v, 1)
	}
	if v, ret := h.GetUtilizationRates(); ret == nvml.SUCCESS {
		s.Utilization = float(v.Gpu, 1)
	}
	if v, ret := h.GetPerformanceState(); ret == nvml.SUCCESS && v != nvml.PSTATE_UNKNOWN {
		s.PState = fmt.Sprintf("P%d", v)
	}
	if has("nvmlDeviceGetCurrentClocksThrottleReasons") {
		if v, ret := h.GetCurrentClocksThrottleReasons(); ret == nvml.SUCCESS {
			s.Throttle, s.Reasons = &v, bench.ThrottleWords(v)
		}
	}
	if all, ret := h.GetComputeRunningProcesses(); ret == nvml.SUCCESS {
		for _, p := range all {
			s.Processes = append(s.Processes, computes(p))
		}
	}
	return s
}

// describeState says what changes seldom.
func describeState(s *bench.GPUState, h nvml.Device) {
	if v, ret := h.GetUUID(); ret == nvml.SUCCESS {
		s.UUID = v
	}
	if v, ret := h.GetName(); ret == nvml.SUCCESS {
		s.Name = v
	}
	if p, ret := h.GetPciInfo(); ret == nvml.SUCCESS {
		s.PCI = fmt.Sprintf("%04x:%02x:%02x.0", p.Domain, p.Bus, p.Device)
	}
	if major, minor, ret := h.GetCudaComputeCapability(); ret == nvml.SUCCESS {
		s.Compute = fmt.Sprintf("%d.%d", major, minor)
	}
	if m, ret := h.GetMemoryInfo(); ret == nvml.SUCCESS {
		s.Memory, s.Used = size(m.Total), size(m.Used)
	}
	if now, _, ret := h.GetEccMode(); ret == nvml.SUCCESS {
		s.ECC = on(now == nvml.FEATURE_ENABLED)
	}
	if now, ret := h.GetPersistenceMode(); ret == nvml.SUCCESS {
		s.Persists = on(now == nvml.FEATURE_ENABLED)
	}
	if has("nvmlDeviceGetMigMode") {
		slicesOf(s, h)
	}
}

// slicesOf says whether a GPU is in MIG mode, and which slices it is in.
func slicesOf(s *bench.GPUState, h nvml.Device) {
	now, _, ret := h.GetMigMode()
	if ret != nvml.SUCCESS {
		return
	}
	s.MIG = on(now == nvml.DEVICE_MIG_ENABLE)
	if !*s.MIG {
		return
	}
	most, _ := h.GetMaxMigDeviceCount() // 0 where it is not known
	for i := range most {
		if slice, ret := h.GetMigDeviceHandleByIndex(i); ret == nvml.SUCCESS {
			if v, ret := slice.GetUUID(); ret == nvml.SUCCESS {
				s.Slices = append(s.Slices, v)
			}
		}
	}
}

func computes(p nvml.ProcessInfo) bench.GPUProcess {
	out := bench.GPUProcess{PID: int(p.Pid), Bytes: size(p.UsedGpuMemory)}
	if name, ret := nvml.SystemGetProcessName(int(p.Pid)); ret == nvml.SUCCESS {
		out.Name = name
	}
	return out
}

func float[T uint32 | uint64](v T, unit float64) *float64 {
	f := float64(v) / unit
	return &f
}

// size is a number of bytes; nil for the one that NVML gives for "not available".
func size(v uint64) *int64 {
	if v > math.MaxInt64 {
		return nil
	}
	n := int64(v)
	return &n
}

func on(b bool) *bool { return &b }
