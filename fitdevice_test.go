package labmesh_test

import (
	"strings"
	"testing"

	"labmesh"
)

// TestBenchmarkAsksOneUsableDevice: all that is asked must be met by one device
// alone, and what stands in the way is said.
func TestBenchmarkAsksOneUsableDevice(t *testing.T) {
	t.Parallel()
	type R = labmesh.Requirements
	type D = labmesh.Device
	cpu := D{Class: "cpu", Name: "x86", MemoryGB: 64, Level: labmesh.DeviceUsable}
	t4 := D{Class: "cuda", Name: "T4", UUID: "GPU-t4", MemoryGB: 14.75, Compute: "7.5", Level: labmesh.DeviceUsable, Engines: []string{"torch"}}
	driver, declared, unknown := t4, t4, t4
	driver.Level, driver.Reason = labmesh.DeviceDriver, "no engine can use it: torch is built without CUDA"
	declared.Level, declared.Engines = labmesh.DeviceDeclared, nil
	unknown.MemoryGB, unknown.Compute = 0, ""
	blackwell := D{Class: "cuda", Index: 1, Name: "B200", UUID: "GPU-b", MemoryGB: 178, Compute: "10.0", Level: labmesh.DeviceUsable, Engines: []string{"torch", "onnxruntime"}}
	small := D{Class: "cuda", Index: 2, Name: "H200 MIG 1g.18gb", MIG: true, MemoryGB: 16, Compute: "9.0", Level: labmesh.DeviceUsable, Engines: []string{"torch"}}
	seed := R{Hardware: []string{"cuda"}, MinMemoryGB: 8, MinCUDACompute: 7.5}
	for name, c := range map[string]struct {
		needs   R
		devices []D
		want    string // the name of the device, or what the misfit says
	}{
		"the processor":              {R{Hardware: []string{"CPU"}, MinMemoryGB: 64}, []D{t4}, "x86"},
		"nothing asked":              {R{}, []D{t4}, "x86"},
		"the seed's task":            {seed, []D{t4}, "T4"},
		"the first that does":        {R{Hardware: []string{"cuda", "cpu"}, MinMemoryGB: 15}, []D{t4, small, blackwell}, "H200 MIG 1g.18gb"},
		"10.0 is more than 9.0":      {R{MinCUDACompute: 9.1}, []D{t4, small, blackwell}, "B200"},
		"declared counts":            {seed, []D{declared}, "T4"},
		"declared, whatever engine":  {R{Hardware: []string{"cuda"}, Tools: []string{"onnxruntime"}}, []D{declared}, "T4"},
		"the engine asked for":       {R{Hardware: []string{"cuda"}, Tools: []string{"onnxruntime"}}, []D{t4, blackwell}, "B200"},
		"driver only":                {seed, []D{driver}, "it has cuda (T4, driver), but no engine can use it: torch is built without CUDA"},
		"none":                       {seed, nil, "it has no cuda (no NVIDIA driver)"},
		"memory of the machine":      {R{Hardware: []string{"cuda"}, MinMemoryGB: 32}, []D{t4}, "its cuda (T4) has 14.8 GiB of memory, the task needs 32 on one device"},
		"memory is not added up":     {R{Hardware: []string{"cuda"}, MinMemoryGB: 20}, []D{t4, small}, "T4) has 14.8"},
		"memory not known":           {seed, []D{unknown}, "is not known"},
		"compute not known":          {R{MinCUDACompute: 7}, []D{unknown}, "7.0 or higher, its T4 has none"},
		"compute too low":            {R{MinCUDACompute: 8}, []D{t4}, "capability 8.0 or higher, its T4 has 7.5"},
		"an engine that is not":      {R{Hardware: []string{"cuda"}, Tools: []string{"onnxruntime"}}, []D{t4}, "its cuda (T4) runs with torch, the task needs onnxruntime"},
		"no device is two":           {R{Hardware: []string{"cuda", "rocm"}}, []D{t4}, "none is both cuda and rocm"},
		"compute is asked of cuda":   {R{MinCUDACompute: 7}, nil, "it has no cuda"},
		"another class than it has":  {R{Hardware: []string{"rocm"}}, []D{t4}, "it has no rocm"},
		"all that stand in the way":  {seed, []D{driver, {Class: "cuda", Name: "K80", MemoryGB: 11, Compute: "3.7", Level: labmesh.DeviceUsable}}, "without CUDA; the task needs"},
		"a word without any devices": {R{Hardware: []string{"tpu"}}, []D{t4}, "it has no tpu"},
	} {
		w := labmesh.Worker{ID: "w1", Slots: 4, Kinds: []labmesh.Kind{labmesh.Benchmark}, Capabilities: labmesh.Capabilities{
			Hardware: []string{"cpu", "cuda"}, Memory: labmesh.Memory{TotalGB: 64}, Absent: map[string]string{}, Devices: append([]D{cpu}, c.devices...),
			Tools: map[string]string{"torch": "2", "onnxruntime": "1"}, Engines: []labmesh.Engine{{Name: "torch"}, {Name: "onnxruntime"}}}}
		if len(c.devices) == 0 {
			w.Capabilities.Hardware, w.Capabilities.Absent["cuda"] = []string{"cpu"}, "no NVIDIA driver"
		}
		d, ok := c.needs.Device(&w.Capabilities)
		misfits := c.needs.Misfits(labmesh.Benchmark, &w)
		if fits := c.needs.Fits(labmesh.Benchmark, &w); fits != ok || fits != (len(misfits) == 0) {
			t.Errorf("%s: fits %v, device %v, misfits %q", name, fits, ok, misfits)
		}
		if ok && d.Name != c.want || !ok && (len(misfits) != 1 || !strings.Contains(misfits[0], c.want)) {
			t.Errorf("%s: %s, %q; want %q", name, d.Name, misfits, c.want)
		}
	}
}

// TestOtherKindsAskTheMachine: a custom task brings its own libraries, so a driver
// that answers is enough, and memory is the machine's.
func TestOtherKindsAskTheMachine(t *testing.T) {
	t.Parallel()
	w := labmesh.Worker{Slots: 1, Kinds: []labmesh.Kind{labmesh.Custom}, Capabilities: labmesh.Capabilities{Hardware: []string{"cpu", "cuda"}, Memory: labmesh.Memory{TotalGB: 32},
		GPU: &labmesh.GPU{Count: 1, Devices: []labmesh.GPUDevice{{ComputeCapability: "7.5"}}}, Devices: []labmesh.Device{{Class: "cuda", MemoryGB: 8, Level: labmesh.DeviceDriver}}}}
	r := labmesh.Requirements{Hardware: []string{"cuda"}, MinMemoryGB: 16, MinCUDACompute: 7.5}
	if misfits := r.Misfits(labmesh.Custom, &w); len(misfits) > 0 {
		t.Errorf("%q", misfits)
	}
}
