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
	g := &labmesh.GPU{}
	if v, ret := nvml.SystemGetDriverVersion(); ret == nvml.SUCCESS {
		g.Driver = v
	}
	if v, ret := nvml.SystemGetCudaDriverVersion(); ret == nvml.SUCCESS {
		g.CUDAVersion = fmt.Sprintf("%d.%d", v/1000, v%1000/10)
	}
	for i := range count {
		d, ret := device(i)
		if ret != nvml.SUCCESS {
			return gpuReport{Reason: fmt.Sprintf("GPU %d does not answer: %v", i, ret.Error())}
		}
		g.Devices = append(g.Devices, d)
	}
	return gpuReport{GPU: summarize(g)}
}

func device(i int) (labmesh.GPUDevice, nvml.Return) {
	d := labmesh.GPUDevice{Index: i}
	h, ret := nvml.DeviceGetHandleByIndex(i)
	if ret != nvml.SUCCESS {
		return d, ret
	}
	if d.Name, ret = h.GetName(); ret != nvml.SUCCESS {
		return d, ret
	}
	if v, ret := h.GetUUID(); ret == nvml.SUCCESS {
		d.UUID = v
	}
	if m, ret := h.GetMemoryInfo(); ret == nvml.SUCCESS {
		d.MemoryGB = gb(m.Total)
	}
	if major, minor, ret := h.GetCudaComputeCapability(); ret == nvml.SUCCESS {
		d.ComputeCapability = fmt.Sprintf("%d.%d", major, minor)
	}
	return d, nvml.SUCCESS
}
