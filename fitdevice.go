package labmesh

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// cudaClass is the class of devices that a CUDA compute capability is asked of.
const cudaClass = "cuda"

// ofDevice reports whether a task of kind asks hardware, memory and compute
// capability of one device, and not of the machine.
func (r *Requirements) ofDevice(kind Kind) bool { return kind == Benchmark && r.asksDevice() }

// asksDevice reports whether r asks for an accelerator: by a word for hardware
// other than cpu, or by a compute capability.
func (r *Requirements) asksDevice() bool {
	if r.MinCUDACompute > 0 {
		return true
	}
	for _, h := range r.Hardware {
		if !strings.EqualFold(h, ClassCPU) {
			return true
		}
	}
	return false
}

// Device is the device of a machine that a benchmark with requirements r runs on: the
// first accelerator that alone meets all of r, if r asks for one, else the processor. An
// accelerator counts if an engine ran on it, or if it is declared; it must be of every
// class that is asked for, have the memory and the compute capability itself, and run with
// the engine that the task needs, if it needs one. Beside an accelerator the word cpu asks for nothing.
func (r *Requirements) Device(c *Capabilities) (Device, bool) {
	if !r.asksDevice() {
		for i := range c.Devices {
			if c.Devices[i].Class == ClassCPU {
				return c.Devices[i], true
			}
		}
		return Device{Class: ClassCPU, Name: c.CPU.Model, MemoryGB: c.Memory.TotalGB, Level: DeviceUsable}, true
	}
	for i := range c.Devices {
		if d := &c.Devices[i]; r.isClass(d.Class) && d.Runs() && r.enough(d) && r.runsOn(c, d) {
			return *d, true
		}
	}
	return Device{}, false
}

// isClass reports whether a device of class is all that the words for hardware ask for.
func (r *Requirements) isClass(class string) bool {
	for _, h := range r.Hardware {
		if !strings.EqualFold(h, class) && !strings.EqualFold(h, ClassCPU) {
			return false
		}
	}
	return class != ClassCPU && (r.MinCUDACompute <= 0 || strings.EqualFold(class, cudaClass))
}

// enough reports whether a device has the memory and compute capability. What is
// not known of it is not enough.
func (r *Requirements) enough(d *Device) bool {
	return r.MinMemoryGB <= d.MemoryGB && (r.MinCUDACompute <= 0 || computeOf(d.Compute) >= r.minCompute())
}

// runsOn reports whether every engine that r asks for among its tools runs on a device.
// Of a declared one nobody knows.
func (r *Requirements) runsOn(c *Capabilities, d *Device) bool {
	return d.Level == DeviceDeclared || r.engineMissing(c, d) == ""
}

// engineMissing is an engine that r asks for and that did not run on d; "" for none.
func (r *Requirements) engineMissing(c *Capabilities, d *Device) string {
	for _, tool := range r.Tools {
		for i := range c.Engines {
			if c.Engines[i].Name == tool && !slices.Contains(d.Engines, tool) {
				return tool
			}
		}
	}
	return ""
}

// noDevice says why no device of a machine meets r.
func (r *Requirements) noDevice(c *Capabilities) string {
	const most = 3
	var why []string
	for i := range c.Devices {
		d := &c.Devices[i]
		if !r.isClass(d.Class) {
			continue
		}
		if s := r.lacks(c, d); len(why) < most && !slices.Contains(why, s) {
			why = append(why, s)
		}
	}
	if len(why) > 0 {
		return strings.Join(why, "; ")
	}
	return r.noClass(c)
}

// noClass is noDevice for a machine without a device of the classes asked for.
func (r *Requirements) noClass(c *Capabilities) string {
	var asked []string
	for _, h := range r.Hardware {
		if h = strings.ToLower(h); h != ClassCPU && !slices.Contains(asked, h) {
			asked = append(asked, h)
		}
	}
	if r.MinCUDACompute > 0 && !slices.Contains(asked, cudaClass) {
		asked = append(asked, cudaClass)
	}
	if len(asked) > 1 {
		return "a benchmark runs on one device, and none is both " + strings.Join(asked, " and ")
	}
	why := ""
	if a := c.Absent[asked[0]]; a != "" {
		why = " (" + a + ")"
	} else if c.has(asked[0]) {
		why = " that it tells anything of"
	}
	return "it has no " + asked[0] + why
}

// lacks says why a device of the right class does not meet r.
func (r *Requirements) lacks(c *Capabilities, d *Device) string {
	name := d.Name
	if name == "" {
		name = "device " + strconv.Itoa(d.Index)
	}
	switch missing := r.engineMissing(c, d); {
	case !d.Runs() && d.Reason == "":
		return fmt.Sprintf("it has %s (%s, %s), but no engine has run on it", d.Class, name, d.Level)
	case !d.Runs():
		return fmt.Sprintf("it has %s (%s, %s), but %s", d.Class, name, d.Level, d.Reason)
	case d.MemoryGB == 0 && r.MinMemoryGB > 0:
		return fmt.Sprintf("how much memory its %s (%s) has is not known, the task needs %g GiB", d.Class, name, r.MinMemoryGB)
	case d.MemoryGB < r.MinMemoryGB:
		return fmt.Sprintf("its %s (%s) has %.1f GiB of memory, the task needs %g on one device", d.Class, name, d.MemoryGB, r.MinMemoryGB)
	case !r.enough(d):
		return fmt.Sprintf("the task needs CUDA compute capability %s or higher, its %s has %s", r.minCompute(), name, computeOf(d.Compute))
	default:
		return fmt.Sprintf("its %s (%s) runs with %s, the task needs %s", d.Class, name, strings.Join(d.Engines, ", "), missing)
	}
}

// minCompute is the compute capability asked for.
func (r *Requirements) minCompute() compute {
	return computeOf(strconv.FormatFloat(r.MinCUDACompute, 'f', -1, 64))
}
