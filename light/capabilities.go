package light

import (
	"encoding/json"
	"slices"
	"strconv"
	"strings"

	"labmesh"
)

// accelerators are the words for hardware that name a class of devices.
var accelerators = []string{"cuda", "rocm", "mps", "openvino"}

// capabilitiesOf reads what a worker says that its machine offers. What it says of its
// accelerators counts as declared: no engine of ours ran on them.
func capabilitiesOf(f fields) labmesh.Capabilities {
	cpu, memory := f.object("cpu"), f.object("memory")
	c := labmesh.Capabilities{
		Hostname: clip(f.text("hostname"), wordBytesMax),
		Platform: platform(f),
		Hardware: hardware(f),
		CPU: labmesh.CPU{
			Model: clip(cpu.text("model"), wordBytesMax), Cores: int(cpu.size("cores")), Threads: int(cpu.size("threads")), FreqMHz: cpu.size("freq_mhz"),
		},
		Memory: labmesh.Memory{TotalGB: memory.size("total_gb"), AvailableGB: memory.size("available_gb")},
		GPU:    gpu(f.object("gpu")),
		Tools:  f.texts("tools"),
	}
	c.Devices = devices(&c)
	return c
}

// platform is a text, or an object as Python's platform module fills it.
func platform(f fields) string {
	if s := f.text("platform"); s != "" {
		return clip(s, wordBytesMax)
	}
	o := f.object("platform")
	return clip(strings.Trim(strings.ToLower(o.text("system"))+"/"+o.text("machine"), "/"), wordBytesMax)
}

func hardware(f fields) []string {
	var list []json.RawMessage
	var out []string
	_ = json.Unmarshal(f["hardware"], &list) // another type than a list holds no words
	for _, item := range list {
		var word string
		if json.Unmarshal(item, &word) == nil && word != "" && len(word) <= wordBytesMax && !slices.Contains(out, word) && len(out) < wordsMax {
			out = append(out, word)
		}
	}
	if len(out) == 0 {
		return []string{labmesh.ClassCPU} // whatever runs a worker has a processor
	}
	return out
}

func gpu(f fields) *labmesh.GPU {
	if len(f) == 0 {
		return nil
	}
	var list []json.RawMessage
	_ = json.Unmarshal(f["devices"], &list) // another type than a list holds no GPUs
	g := labmesh.GPU{
		CUDAVersion: clip(f.id("cuda_version"), wordBytesMax), Driver: clip(f.id("driver"), wordBytesMax),
		Name: clip(f.text("name"), wordBytesMax), MemoryGB: f.size("memory_gb"), CUDACompute: f.size("cuda_compute"),
	}
	for i, item := range list[:min(len(list), wordsMax)] {
		d, _ := fieldsOf(item)
		one := labmesh.GPUDevice{Index: i, UUID: clip(d.text("uuid"), wordBytesMax), Name: clip(d.text("name"), wordBytesMax), MemoryGB: d.size("memory_gb"), ComputeCapability: clip(d.id("compute_capability"), wordBytesMax)}
		if n, ok := d.number("index"); ok && n >= 0 && n < 1e6 {
			one.Index = int(n)
		}
		g.Devices = append(g.Devices, one)
	}
	g.Count = int(min(f.size("count"), 1024))
	g.Count = max(g.Count, len(g.Devices))
	if g.Count == 0 {
		return nil
	}
	if len(g.Devices) == 0 { // a summary alone
		d := labmesh.GPUDevice{Name: g.Name, MemoryGB: g.MemoryGB}
		if g.CUDACompute > 0 {
			d.ComputeCapability = strconv.FormatFloat(g.CUDACompute, 'f', 1, 64)
		}
		g.Devices = []labmesh.GPUDevice{d}
	}
	first := g.Devices[0]
	if g.Name == "" {
		g.Name = first.Name
	}
	if g.MemoryGB == 0 {
		g.MemoryGB = first.MemoryGB
	}
	if g.CUDACompute == 0 {
		g.CUDACompute, _ = strconv.ParseFloat(first.ComputeCapability, 64)
	}
	return &g
}

// devices are the processor, and the accelerators that are named.
func devices(c *labmesh.Capabilities) []labmesh.Device {
	out := []labmesh.Device{{Class: labmesh.ClassCPU, Name: c.CPU.Model, MemoryGB: c.Memory.TotalGB, Level: labmesh.DeviceDeclared}}
	for _, class := range accelerators {
		if !slices.ContainsFunc(c.Hardware, func(word string) bool { return strings.EqualFold(word, class) }) {
			continue
		}
		if c.GPU == nil || class == "openvino" || class == "mps" {
			out = append(out, labmesh.Device{Class: class, Level: labmesh.DeviceDeclared})
			continue
		}
		for _, d := range c.GPU.Devices {
			out = append(out, labmesh.Device{Class: class, Index: d.Index, UUID: d.UUID, Name: d.Name, MemoryGB: d.MemoryGB, Compute: d.ComputeCapability, Level: labmesh.DeviceDeclared})
		}
	}
	return out
}

// MetricsOf reads what a machine says that it is doing; nil where it says nothing that is understood.
func MetricsOf(data json.RawMessage) *labmesh.Metrics {
	f, ok := fieldsOf(data)
	if !ok {
		return nil
	}
	m := labmesh.Metrics{CPUPercent: f.size("cpu_percent"), Load1: f.size("load1"), MemoryAvailableGB: f.size("memory_available_gb"), DiskFreeGB: f.size("disk_free_gb"), RSSMB: f.size("rss_mb")}
	if m == (labmesh.Metrics{}) {
		return nil
	}
	return &m
}
