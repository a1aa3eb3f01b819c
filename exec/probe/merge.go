package probe

import (
	"fmt"
	"slices"
	"strings"

	"labmesh"
	"labmesh/bench"
)

// Ran is what the probe of an engine found: the devices on which it really ran a kernel.
type Ran struct {
	Engine  labmesh.Engine
	Devices []bench.Device
	// Why says of a class of device why the engine does not use it, e.g. "it is
	// built without CUDA"; the key is the class.
	Why map[string]string
}

// Merge enters what engines ran on into c: those devices are usable, and of the
// others the reason says why no engine can use them. Devices are the same if
// their UUIDs are, or, where one has none, class and index. One that only an engine
// found is added: its word is better than that of a driver that could not be asked.
func Merge(c *labmesh.Capabilities, engines []Ran) {
	for _, e := range engines {
		for _, ran := range e.Devices {
			enter(c, e.Engine.Name, ran)
		}
	}
	for i := range c.Devices {
		if d := &c.Devices[i]; d.Level == labmesh.DeviceDriver {
			d.Reason = unused(d.Class, engines)
		}
	}
	if c.Absent == nil {
		c.Absent = map[string]string{}
	}
	words(c, nil)
}

// enter notes that an engine ran on a device.
func enter(c *labmesh.Capabilities, engine string, ran bench.Device) {
	d := match(c.Devices, ran)
	if d == nil {
		c.Devices = append(c.Devices, labmesh.Device{Class: ran.Class, Index: ran.Index, UUID: ran.UUID})
		d = &c.Devices[len(c.Devices)-1]
	}
	if d.Level != labmesh.DeviceDeclared {
		d.Level, d.Reason = labmesh.DeviceUsable, ""
	}
	for _, o := range []struct {
		to   *string
		from string
	}{{&d.UUID, ran.UUID}, {&d.Name, ran.Name}, {&d.Compute, ran.Compute}} {
		if *o.to == "" {
			*o.to = o.from
		}
	}
	if d.MemoryGB == 0 {
		d.MemoryGB = ran.MemoryGB
	}
	if !slices.Contains(d.Engines, engine) {
		d.Engines = append(d.Engines, engine)
	}
}

// match finds the device that an engine speaks of. An engine may count in another order
// than the driver: where the names differ, the first of that name which no
// engine has claimed under another index is meant.
func match(devices []labmesh.Device, ran bench.Device) *labmesh.Device {
	var same, other *labmesh.Device
	for i := range devices {
		d := &devices[i]
		switch {
		case d.Class != ran.Class:
		case d.UUID != "" && ran.UUID != "":
			if sameUUID(d.UUID, ran.UUID) {
				return d
			}
		case d.Index == ran.Index && (d.Name == "" || ran.Name == "" || d.Name == ran.Name || !named(d)):
			same = d
		case d.Name == ran.Name && other == nil && len(d.Engines) == 0:
			other = d
		}
	}
	if same == nil {
		same = other
	}
	return same
}

// named reports whether the name of a device is what its driver calls it, as engines do.
func named(d *labmesh.Device) bool {
	return d.Class != labmesh.ClassCPU && (d.Level == labmesh.DeviceDriver || d.Level == labmesh.DeviceUsable)
}

// sameUUID compares without the prefix, which some engines leave out.
func sameUUID(a, b string) bool {
	return strings.EqualFold(strings.TrimPrefix(a, "GPU-"), strings.TrimPrefix(b, "GPU-"))
}

// unused says why no engine can use devices of a class.
func unused(class string, engines []Ran) string {
	var why []string
	for _, e := range engines {
		switch {
		case e.Engine.Name == bench.EngineBuiltIn: // everybody knows that it runs on processors
		case e.Engine.Reason != "":
			why = append(why, fmt.Sprintf("%s: %s", e.Engine.Name, e.Engine.Reason))
		case e.Why[class] != "":
			why = append(why, fmt.Sprintf("%s: %s", e.Engine.Name, e.Why[class]))
		default:
			why = append(why, fmt.Sprintf("%s %s ran nothing on it", e.Engine.Name, e.Engine.Version))
		}
	}
	if len(why) == 0 {
		return "no engine can use it: neither torch nor onnxruntime was found"
	}
	return "no engine can use it: " + strings.Join(why, "; ")
}
