package probe

import (
	"context"

	"labmesh"
)

// The classes of devices, which are the words for hardware.
const (
	classCUDA     = "cuda"
	classROCm     = "rocm"
	classMPS      = "mps"
	classOpenVINO = "openvino"
	classQNN      = "qnn"
	classWebGPU   = "webgpu"
	classWebNN    = "webnn"
)

// Classes lists every class of accelerator that a task may ask for.
func Classes() []string {
	return []string{classCUDA, classROCm, classMPS, classOpenVINO, classQNN, classWebGPU, classWebNN}
}

// found is what was found of one class.
type found struct {
	class   string
	devices []labmesh.Device
	why     string // there is none that answers
}

// accelerators looks for devices of every class. None is usable yet: only an
// engine that ran something on it can say so, see [Merge].
func accelerators(ctx context.Context, cfg Config) (all []found, gpu gpuReport) {
	cards := cfg.cards()
	gpu, why := nvidia(ctx, cfg, cards)
	all = append(all, found{classCUDA, gpu.Devices, why})
	for _, look := range []struct {
		class string
		at    func() ([]labmesh.Device, string)
	}{
		{classROCm, func() ([]labmesh.Device, string) { return amd(cfg, cards) }},
		{classMPS, apple},
		{classOpenVINO, func() ([]labmesh.Device, string) { return intel(cfg, cards) }},
	} {
		devices, why := look.at()
		all = append(all, found{look.class, devices, why})
	}
	return append(all,
		found{classQNN, nil, noQNN(cfg)},
		found{classWebGPU, nil, "labmesh has no engine for WebGPU: it is found in browsers, and a browser may compute without a GPU and not say so"},
		found{classWebNN, nil, "labmesh has no engine for WebNN: browsers on Linux refuse it, and elsewhere it is behind a flag"},
	), gpu
}

// noQNN says why there is no Qualcomm accelerator. Device files of its signal
// processors prove nothing: modems have them too.
func noQNN(cfg Config) string {
	if len(cfg.glob("dev/fastrpc-*")) > 0 {
		return "Qualcomm signal processors are there (/dev/fastrpc-*), but labmesh has no engine for QNN"
	}
	return "no Qualcomm accelerator (no /dev/fastrpc-*), and labmesh has no engine for QNN"
}

// equip enters the devices into c: words for hardware from those that answer, and
// of the other classes why not.
func equip(c *labmesh.Capabilities, all []found, gpu gpuReport, declared []labmesh.Device) {
	c.Devices = []labmesh.Device{{Class: labmesh.ClassCPU, Name: c.CPU.Model, MemoryGB: c.Memory.TotalGB, Level: labmesh.DeviceUsable}}
	why := map[string]string{}
	for _, f := range all {
		c.Devices = append(c.Devices, f.devices...)
		why[f.class] = f.why
	}
	c.Devices = declare(c.Devices, declared)
	c.GPU = summary(c.Devices, gpu)
	words(c, why)
}

// words sets the words for hardware: the class of each device that answers. Of
// the other classes why says why not.
func words(c *labmesh.Capabilities, why map[string]string) {
	c.Hardware = []string{labmesh.ClassCPU}
	for _, class := range Classes() {
		answers := false
		for i := range c.Devices {
			answers = answers || c.Devices[i].Class == class && c.Devices[i].Answers()
		}
		if answers {
			c.Hardware = append(c.Hardware, class)
			delete(c.Absent, class)
		} else if why[class] != "" {
			c.Absent[class] = why[class]
		}
	}
}
