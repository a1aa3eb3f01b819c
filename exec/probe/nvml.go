//go:build cgo && (linux || darwin)

package probe

import (
	"encoding/json"
	"fmt"
	"io"

	"github.com/NVIDIA/go-nvml/pkg/nvml"

	"labmesh"
)

// GPUChild asks the NVIDIA driver for its GPUs and writes them, as JSON, to w.
// Call it in a process of its own that does nothing else: see [Child].
func GPUChild(w io.Writer) error {
	return json.NewEncoder(w).Encode(askNVML())
}

func askNVML() gpuReport {
	switch ret := nvml.Init(); ret {
	case nvml.SUCCESS:
	case nvml.ERROR_LIBRARY_NOT_FOUND:
		return gpuReport{NoLib: true}
	default:
		return gpuReport{Reason: "the NVIDIA driver does not answer: " + ret.Error()}
	}
	defer nvml.Shutdown()
	count, ret := nvml.DeviceGetCount()
	if ret != nvml.SUCCESS {
		return gpuReport{Reason: "the NVIDIA driver does not list its GPUs: " + ret.Error()}
	}
	var r gpuReport
	if v, ret := nvml.SystemGetDriverVersion(); ret == nvml.SUCCESS {
		r.Driver = v
	}
	if v, ret := nvml.SystemGetCudaDriverVersion(); ret == nvml.SUCCESS {
		r.CUDAVersion = fmt.Sprintf("%d.%d", v/1000, v%1000/10)
	}
	sliced := false
	for i := range count {
		h, ret := nvml.DeviceGetHandleByIndex(i)
		if ret != nvml.SUCCESS {
			r.Devices = append(r.Devices, labmesh.Device{Index: i, Level: labmesh.DevicePresent, Reason: "the NVIDIA driver has no answer for it: " + ret.Error()})
			continue
		}
		d := describe(h)
		d.Index = i
		if !inMIGMode(h) {
			r.Devices = append(r.Devices, d)
			continue
		}
		sliced = true
		r.Devices = append(r.Devices, migSlices(h, d)...)
	}
	if sliced {
		r.Devices = number(r.Devices)
	}
	return r
}

// describe says what the driver knows of a GPU. What it does not is left out.
func describe(h nvml.Device) labmesh.Device {
	d := labmesh.Device{Level: labmesh.DeviceDriver}
	if v, ret := h.GetName(); ret == nvml.SUCCESS {
		d.Name = v
	}
	if v, ret := h.GetUUID(); ret == nvml.SUCCESS {
		d.UUID = v
	}
	if m, ret := h.GetMemoryInfo(); ret == nvml.SUCCESS {
		d.MemoryGB = gb(m.Total)
	}
	if major, minor, ret := h.GetCudaComputeCapability(); ret == nvml.SUCCESS {
		d.Compute = fmt.Sprintf("%d.%d", major, minor)
	}
	if p, ret := h.GetPciInfo(); ret == nvml.SUCCESS {
		d.PCI = fmt.Sprintf("%04x:%02x:%02x.0", p.Domain, p.Bus, p.Device)
	}
	return d
}

// inMIGMode asks whether a GPU is cut into slices. A library from before there
// were any lacks the function, and to call it would kill this process.
func inMIGMode(h nvml.Device) bool {
	if nvml.Extensions().LookupSymbol("nvmlDeviceGetMigMode") != nil {
		return false
	}
	now, _, ret := h.GetMigMode()
	return ret == nvml.SUCCESS && now == nvml.DEVICE_MIG_ENABLE
}

// migSlices are the slices of a GPU in MIG mode, each a device of its own.
func migSlices(h nvml.Device, whole labmesh.Device) (out []labmesh.Device) {
	most, ret := h.GetMaxMigDeviceCount()
	if ret != nvml.SUCCESS {
		most = 0
	}
	for i := range most {
		slice, ret := h.GetMigDeviceHandleByIndex(i)
		if ret != nvml.SUCCESS {
			continue // that place is empty
		}
		d := describe(slice)
		d.MIG, d.PCI = true, whole.PCI
		if d.Compute == "" {
			d.Compute = whole.Compute
		}
		if d.Name == "" {
			d.Name = whole.Name + " MIG"
		}
		out = append(out, d)
	}
	if len(out) == 0 {
		out = append(out, withoutSlices(whole))
	}
	return out
}
