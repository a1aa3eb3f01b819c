package probe

import (
	"runtime"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"labmesh"
)

// apple finds the GPU of an Apple machine, which shares the machine's memory. PyTorch
// needs Apple silicon and macOS 12.3 for it.
func apple() (devices []labmesh.Device, why string) {
	d := labmesh.Device{Class: classMPS, Name: "Apple GPU", Level: labmesh.DeviceDriver}
	if brand, err := unix.Sysctl("machdep.cpu.brand_string"); err == nil {
		d.Name = brand + " GPU"
	}
	if bytes, err := unix.SysctlUint64("hw.memsize"); err == nil {
		d.MemoryGB = gb(bytes)
	}
	version, err := unix.Sysctl("kern.osproductversion")
	d.Driver = "macOS " + version
	switch {
	case runtime.GOARCH != "arm64":
		return nil, "no Apple silicon: this is an Intel Mac, or a build for one"
	case err != nil || !since(version, 12, 3):
		d.Level, d.Reason = labmesh.DevicePresent, "it needs macOS 12.3, this is "+version
	}
	return []labmesh.Device{d}, d.Reason
}

// since reports whether version is major.minor or later.
func since(version string, major, minor int) bool {
	a, b, _ := strings.Cut(version, ".")
	b, _, _ = strings.Cut(b, ".")
	x, err := strconv.Atoi(a)
	y, _ := strconv.Atoi(b) // 0 where there is none
	return err == nil && (x > major || x == major && y >= minor)
}
