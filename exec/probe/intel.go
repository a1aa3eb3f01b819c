package probe

import (
	"slices"

	"labmesh"
)

// intelDrivers are the kernel's drivers for what OpenVINO computes on, beside the processor.
var intelDrivers = []string{"i915", "xe", "intel_vpu"}

// intel finds Intel's GPUs and neural processors.
func intel(cfg Config, cards []card) (devices []labmesh.Device, why string) {
	for _, c := range cards {
		what := "Intel GPU"
		if c.accelerator() {
			what = "Intel NPU"
		}
		if c.vendor != vendorIntel || c.accelerator() && c.driver != "" && c.driver != "intel_vpu" {
			continue // of other accelerators OpenVINO knows nothing
		}
		d := labmesh.Device{Class: classOpenVINO, Index: len(devices), Name: c.name(what), PCI: c.address, Driver: c.driver, Level: labmesh.DeviceDriver}
		switch {
		case !slices.Contains(intelDrivers, c.driver):
			d.Level, d.Reason = labmesh.DevicePresent, "an "+what+" is on the PCI bus, but neither of the drivers i915, xe and intel_vpu is loaded for it"
		case len(c.nodes) == 0:
			d.Level, d.Reason = labmesh.DevicePresent, "the driver "+c.driver+" has it, but gives it no device file to compute through"
		default:
			if blocked := cfg.opens(c.nodes[0]); blocked != "" {
				d.Level, d.Reason = labmesh.DevicePresent, blocked
			}
		}
		devices = append(devices, d)
	}
	if len(devices) == 0 {
		return nil, "no Intel GPU or NPU: none is on the PCI bus (to run OpenVINO on a processor, ask for no hardware and the engine onnxruntime)"
	}
	return devices, devices[0].Reason
}
