package probe

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"labmesh"
)

// declaredReason is said of a device that is only declared.
const declaredReason = "declared in the config of its node; nothing was found of it"

// ParseDeclared reads a device as a person declares it: its class, and after a
// colon what is known of it, as in cuda:name=NVIDIA T4,memory_gb=16,compute=7.5.
// The keys are name, memory_gb (GiB), compute, uuid, driver and index.
func ParseDeclared(s string) (labmesh.Device, error) {
	class, rest, _ := strings.Cut(s, ":")
	d := labmesh.Device{Class: strings.ToLower(strings.TrimSpace(class)), Level: labmesh.DeviceDeclared}
	if !slices.Contains(Classes(), d.Class) {
		return d, fmt.Errorf("%.60q: %.40q is none of %s", s, class, strings.Join(Classes(), ", "))
	}
	for part := range strings.SplitSeq(rest, ",") {
		if strings.TrimSpace(part) == "" {
			continue
		}
		key, value, _ := strings.Cut(part, "=")
		if err := setDeclared(&d, strings.TrimSpace(key), strings.TrimSpace(value)); err != nil {
			return d, fmt.Errorf("%.60q: %w", s, err)
		}
	}
	return d, nil
}

// declaredMax bounds a word of a declared device, in bytes.
const declaredMax = 100

func setDeclared(d *labmesh.Device, key, value string) (err error) {
	if value == "" || len(value) > declaredMax {
		return fmt.Errorf("%.40q needs a value of 1 to %d bytes: write key=value, with commas between", key, declaredMax)
	}
	switch key {
	case "name":
		d.Name = value
	case "uuid":
		d.UUID = value
	case "driver":
		d.Driver = value
	case "compute":
		if major, minor, ok := strings.Cut(value, "."); d.Class == classCUDA && (!ok || !digits(major) || !digits(minor)) {
			return fmt.Errorf("compute %.40q is not major.minor, e.g. 7.5", value)
		}
		d.Compute = value
	case "memory_gb":
		if d.MemoryGB, err = strconv.ParseFloat(value, 64); err != nil || !(d.MemoryGB > 0 && d.MemoryGB <= 1<<20) {
			return fmt.Errorf("memory_gb %.40q is no number of GiB", value)
		}
	case "index":
		if d.Index, err = strconv.Atoi(value); err != nil || d.Index < 0 || d.Index >= devicesMax {
			return fmt.Errorf("index %.40q is not in 0 to %d", value, devicesMax-1)
		}
	default:
		return fmt.Errorf("%.40q is none of name, memory_gb, compute, uuid, driver, index", key)
	}
	return nil
}

func digits(s string) bool {
	_, err := strconv.ParseUint(s, 10, 9)
	return err == nil
}

// declare adds what a person says of devices to what was found: it overrides
// what it names of a device that is there, and adds one that is not.
func declare(devices, declared []labmesh.Device) []labmesh.Device {
	for _, d := range declared {
		i := slices.IndexFunc(devices, func(f labmesh.Device) bool {
			return f.Class == d.Class && (d.UUID != "" && f.UUID == d.UUID || d.UUID == "" && f.Index == d.Index)
		})
		if i < 0 {
			d.Reason = declaredReason
			devices = append(devices, d)
			continue
		}
		f := &devices[i]
		was := "found as " + strings.TrimSpace(fmt.Sprintf("%s, %s", f.Name, f.Level))
		if f.Reason != "" {
			was += ": " + f.Reason
		}
		f.Level, f.Reason = labmesh.DeviceDeclared, "declared in the config of its node; "+was
		for _, o := range []struct{ to, from *string }{{&f.Name, &d.Name}, {&f.Compute, &d.Compute}, {&f.Driver, &d.Driver}} {
			if *o.from != "" {
				*o.to = *o.from
			}
		}
		if d.MemoryGB > 0 {
			f.MemoryGB = d.MemoryGB
		}
	}
	return devices
}
