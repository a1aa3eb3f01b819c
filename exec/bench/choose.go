package bench

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"labmesh"
	"labmesh/bench"
	"labmesh/exec/bench/engines"
)

// order is the order in which engines are tried where the task leaves the choice.
// The first that can use the device wanted is taken: the engines that people compare
// with come first, the one that every machine has comes last.
var order = []string{bench.EngineTorch, bench.EngineONNX, bench.EngineBuiltIn}

const (
	classCUDA = "cuda"
	// memorySlack is what drivers keep of the memory of a device: engines see less of it
	// than the worker says that there is.
	memorySlack = 1.03
)

// choice is what runs a benchmark, and on what.
type choice struct {
	engine engines.Found
	device bench.Device
	index  bool   // the device is named by its index
	why    string // this engine
}

// choose finds the engine and the device for a config. What it refuses says what there is.
func choose(c bench.Config, r labmesh.Requirements, there []engines.Found) (choice, *labmesh.Error) {
	class, index := wanted(c, r)
	if c.Engine == bench.EngineCommand {
		e := engines.Found{Engine: labmesh.Engine{Name: bench.EngineCommand}, Command: c.Runner}
		d := bench.Device{Class: class, Index: max(index, 0), UUID: c.DeviceUUID}
		return choice{e, d, index >= 0, "the task brings its own runner"}, nil
	}
	var passed []string // why those before were not taken
	for _, name := range order {
		if c.Engine != bench.EngineAuto && c.Engine != name {
			continue
		}
		e, d, why := use(name, c, r, class, index, there)
		if why != "" {
			passed = append(passed, why)
			continue
		}
		if d.Name == "" || strings.EqualFold(d.Name, d.Class) {
			d.Name = named(d, there)
		}
		return choice{e, d, index >= 0, reason(c, e, class, passed)}, nil
	}
	return choice{}, labmesh.Refuse(labmesh.Invalid, "no engine of this worker can run %s on %s: %s", c.Model, class, strings.Join(passed, "; "))
}

// named is the name of a device as another engine tells it, for one that says no
// more than its class: rows of one device have one name, whichever engine measured.
func named(d bench.Device, there []engines.Found) string {
	for _, e := range there {
		for _, same := range e.Devices {
			if same.Class == d.Class && same.Index == d.Index && !strings.EqualFold(same.Name, d.Class) {
				return same.Name
			}
		}
	}
	return d.Name
}

// reason says for people why e was chosen.
func reason(c bench.Config, e engines.Found, class string, passed []string) string {
	switch {
	case c.Engine == e.Name:
		return "the task asks for it"
	case len(passed) == 0:
		return fmt.Sprintf("it is the first of %s, and works on %s here", strings.Join(order, ", "), class)
	}
	return fmt.Sprintf("it works on %s here; %s", class, strings.Join(passed, "; "))
}

// wanted is the class of device that a task asks for, and its index or -1. A task
// that says nothing, neither in its config nor in its requirements, means the processor.
func wanted(c bench.Config, r labmesh.Requirements) (class string, index int) {
	class, at, found := strings.Cut(strings.ToLower(c.Device), ":")
	index = -1
	if n, err := strconv.Atoi(at); found && err == nil && n >= 0 {
		index = n
	}
	if class != "auto" && class != "" {
		return class, index
	}
	for _, h := range r.Hardware {
		if h = strings.ToLower(h); h != labmesh.ClassCPU && slices.Contains(bench.Devices(), h) {
			return h, index
		}
	}
	if r.MinCUDACompute > 0 {
		return classCUDA, index
	}
	return labmesh.ClassCPU, index
}

// use finds the engine of a name and the device of it to use, or says why it will not do.
func use(name string, c bench.Config, r labmesh.Requirements, class string, index int, there []engines.Found) (e engines.Found, d bench.Device, why string) {
	if why = cannot(name, c); why != "" {
		return e, d, why
	}
	why = name + " is not on it"
	for _, e = range there {
		if e.Name != name {
			continue
		}
		if e.Reason != "" {
			why = fmt.Sprintf("%s does not work: %s", name, e.Reason)
			continue
		}
		if d, why = pick(e, c, r, class, index); why == "" {
			return e, d, ""
		}
	}
	return engines.Found{}, bench.Device{}, why
}

// cannot says why an engine can never run what a config asks for.
func cannot(name string, c bench.Config) string {
	m, named := bench.FindModel(c.Model)
	switch {
	case name == bench.EngineONNX && !c.FromFile():
		return "onnxruntime runs .onnx files"
	case name != bench.EngineONNX && c.FromFile():
		return name + " runs no files"
	case name == bench.EngineBuiltIn && (!named || !m.BuiltIn || c.Source == "hf"):
		return "labmesh-go does not have the model"
	}
	return ""
}

// pick finds the device of e that meets what is asked for: of several the one with the lowest index.
func pick(e engines.Found, c bench.Config, r labmesh.Requirements, class string, index int) (d bench.Device, why string) {
	var have []bench.Device
	for _, d := range e.Devices {
		if d.Class == class {
			have = append(have, d)
		}
	}
	slices.SortStableFunc(have, func(a, b bench.Device) int { return cmp.Compare(a.Index, b.Index) })
	if len(have) == 0 {
		why = fmt.Sprintf("%s sees no %s device", e.Name, class)
		if absent := e.Absent[class]; absent != "" {
			why += ": " + absent
		}
		return d, why
	}
	for _, d := range have {
		switch {
		case c.DeviceUUID != "" && !sameUUID(c.DeviceUUID, d.UUID):
			why = fmt.Sprintf("%s sees no device %s", e.Name, c.DeviceUUID)
		case c.DeviceUUID == "" && index >= 0 && d.Index != index:
			why = fmt.Sprintf("%s sees no device %s:%d", e.Name, class, index)
		case class != labmesh.ClassCPU && d.MemoryGB > 0 && d.MemoryGB*memorySlack < r.MinMemoryGB:
			why = fmt.Sprintf("%s has %.3g GiB of memory, the task needs %g", d.Name, d.MemoryGB, r.MinMemoryGB)
		case class == classCUDA && d.Compute != "" && r.MinCUDACompute > 0 && less(d.Compute, strconv.FormatFloat(r.MinCUDACompute, 'f', -1, 64)):
			why = fmt.Sprintf("%s has the compute capability %s, the task needs %g", d.Name, d.Compute, r.MinCUDACompute)
		default:
			return d, ""
		}
	}
	return d, why
}

// sameUUID compares the UUIDs of devices, which some write without the word for what they are of.
func sameUUID(a, b string) bool {
	bare := func(s string) string { return strings.TrimPrefix(strings.ToLower(s), "gpu-") }
	return bare(a) == bare(b)
}

// less compares versions of the form major.minor.
func less(a, b string) bool {
	num := func(s string) (int, int) {
		x, y, _ := strings.Cut(s, ".")
		major, _ := strconv.Atoi(x)
		minor, _ := strconv.Atoi(y)
		return major, minor
	}
	a1, a2 := num(a)
	b1, b2 := num(b)
	return a1 < b1 || a1 == b1 && a2 < b2
}

// visible is the value of CUDA_VISIBLE_DEVICES by which a runner sees d alone, "" for all.
func visible(d bench.Device) string {
	switch {
	case d.Class != classCUDA || d.UUID == "":
		return ""
	case strings.HasPrefix(d.UUID, "GPU-") || strings.HasPrefix(d.UUID, "MIG-"):
		return d.UUID
	}
	return "GPU-" + d.UUID
}
