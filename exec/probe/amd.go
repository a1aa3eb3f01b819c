package probe

import (
	"fmt"
	"path"
	"strings"

	"labmesh"
)

// kfd is the kernel's driver for computing on AMD GPUs, which ROCm stands on.
const (
	kfdDevice = "/dev/kfd"
	kfdNodes  = "/sys/class/kfd/kfd/topology/nodes"
)

// Kinds of memory in KFD's topology (HSA_MEM_HEAP_TYPE in kfd_sysfs): the GPU's own,
// visible to the processor or not.
const (
	heapPublic  = 1
	heapPrivate = 2
)

// amd finds the AMD GPUs: those in KFD's topology, and those that are only on the bus.
func amd(cfg Config, cards []card) (devices []labmesh.Device, why string) {
	blocked := cfg.opens(kfdDevice)
	driver := cfg.text("sys/module/amdgpu/version")
	listed := map[string]bool{}
	for _, node := range cfg.glob(kfdNodes + "/*") {
		p := cfg.properties(node + "/properties")
		if p["simd_count"] == 0 { // a processor
			continue
		}
		d := labmesh.Device{
			Class: classROCm, Index: len(devices), Name: cfg.text(node, "name"), PCI: kfdAddress(p), Compute: gfx(p["gfx_target_version"]),
			Driver: driver, MemoryGB: cfg.kfdMemory(node), Level: labmesh.DeviceDriver,
		}
		if name := cfg.text("sys/bus/pci/devices", d.PCI, "product_name"); name != "" {
			d.Name = name
		}
		if id := p["unique_id"]; id != 0 {
			d.UUID = fmt.Sprintf("GPU-%016x", id) // as rocminfo writes it
		}
		if blocked != "" {
			d.Level, d.Reason = labmesh.DevicePresent, blocked
		}
		listed[d.PCI] = true
		if devices = append(devices, d); len(devices) == devicesMax {
			break
		}
	}
	for _, c := range cards {
		if c.vendor == vendorAMD && c.display() && !listed[c.address] {
			reason := "the amdgpu driver has it, but it is not in KFD's topology: ROCm does not know this GPU"
			if c.driver != "amdgpu" {
				reason = "an AMD GPU is on the PCI bus, but the amdgpu driver is not loaded for it"
			}
			devices = append(devices, labmesh.Device{Class: classROCm, Index: len(devices), Name: c.name("AMD GPU"), PCI: c.address, Level: labmesh.DevicePresent, Reason: reason})
		}
	}
	if len(devices) == 0 {
		return nil, "no AMD GPU: none is on the PCI bus, nor in KFD's topology"
	}
	return devices, devices[0].Reason
}

// kfdMemory is the GPU's own memory, in GiB; 0 when KFD does not say.
func (cfg Config) kfdMemory(node string) float64 {
	var bytes uint64
	for _, bank := range cfg.glob(path.Join(node, "mem_banks/*/properties")) {
		p := cfg.properties(bank)
		if heap := p["heap_type"]; heap == heapPublic || heap == heapPrivate {
			bytes += p["size_in_bytes"]
		}
	}
	return gb(bytes)
}

// kfdAddress is the PCI address of a KFD node: location_id is bus, device and function.
func kfdAddress(p map[string]uint64) string {
	at := p["location_id"]
	return fmt.Sprintf("%04x:%02x:%02x.%x", p["domain"], at>>8&0xff, at>>3&0x1f, at&7)
}

// gfx writes a KFD target as compilers name it: 90010 is gfx90a, 100300 is gfx1030.
func gfx(version uint64) string {
	if version == 0 {
		return ""
	}
	return strings.ToLower(fmt.Sprintf("gfx%d%x%x", version/10000, version/100%100, version%100))
}
