package probe

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"time"

	"labmesh"
)

// gpuReport is what is known of the NVIDIA GPUs of a machine: by the GPU child,
// which writes it, or by nvidia-smi.
type gpuReport struct {
	Devices     []labmesh.Device `json:"devices,omitempty"`
	CUDAVersion string           `json:"cuda_version,omitempty"`
	Driver      string           `json:"driver,omitempty"`
	Reason      string           `json:"reason,omitempty"` // why there are none
	NoLib       bool             `json:"no_library,omitempty"`
}

// libraryMissing is said where the driver's library cannot be loaded.
const libraryMissing = "libnvidia-ml.so.1 not found"

// Child runs GPU detection in a process of its own: the program with args must
// call [GPUChild] with its standard output. A driver library that lacks a symbol
// kills the process that asks for it.
func Child(program string, args ...string) func(context.Context) ([]byte, error) {
	return func(ctx context.Context) ([]byte, error) {
		cmd := exec.CommandContext(ctx, program, args...)
		cmd.WaitDelay = time.Second
		out, err := cmd.Output()
		if err != nil {
			return nil, fmt.Errorf("GPU detection in a child process: %w%s", err, lastWords(err))
		}
		return out, nil
	}
}

// lastWords is the last line that a program wrote to its standard error before it failed.
func lastWords(err error) string {
	var exit *exec.ExitError
	if !errors.As(err, &exit) {
		return ""
	}
	said := strings.TrimSpace(string(exit.Stderr))
	if said == "" {
		return ""
	}
	return fmt.Sprintf(": %.200s", said[strings.LastIndexByte(said, '\n')+1:])
}

// nvidia finds the NVIDIA GPUs whose driver really answers, and those that are
// only on the bus. Without any that answers it says why.
func nvidia(ctx context.Context, cfg Config, cards []card) (found gpuReport, why string) {
	found, why = nvidiaDriver(ctx, cfg, cards)
	listed := map[string]bool{}
	for i := range found.Devices {
		d := &found.Devices[i]
		d.Class, listed[d.PCI] = classCUDA, true
		if d.Driver == "" {
			d.Driver = found.Driver
		}
	}
	reason := why
	if reason == "" {
		reason = "the NVIDIA driver answers, but does not list this GPU: nvidia-smi and the kernel's log (dmesg) may say why"
	}
	for _, c := range cards {
		if c.display() && c.vendor == vendorNVIDIA && !listed[c.address] {
			found.Devices = append(found.Devices, labmesh.Device{Class: classCUDA, Index: len(found.Devices), Name: c.name("NVIDIA GPU"), PCI: c.address, Level: labmesh.DevicePresent, Reason: reason})
		}
	}
	if why == "" && !slices.ContainsFunc(found.Devices, func(d labmesh.Device) bool { return d.Answers() }) {
		why = found.Devices[0].Reason // there are some, or it would say why not
	}
	return found, why
}

// nvidiaDriver asks the driver through its library, in a child process, and where that
// fails through nvidia-smi.
func nvidiaDriver(ctx context.Context, cfg Config, cards []card) (gpuReport, string) {
	var why string
	noLib := cfg.GPUChild == nil
	if !noLib {
		r, err := askChild(ctx, cfg)
		if err == nil && len(r.Devices) > 0 {
			return r, ""
		}
		if why, noLib = r.Reason, r.NoLib; err != nil {
			why = err.Error()
		}
	}
	r, err := askSMI(ctx, cfg)
	if err == nil {
		return r, ""
	}
	if !errors.Is(err, exec.ErrNotFound) {
		if why != "" {
			return gpuReport{}, why + "; " + err.Error()
		}
		return gpuReport{}, err.Error()
	}
	return gpuReport{}, explain(why, noLib, cfg, cards)
}

func askChild(ctx context.Context, cfg Config) (r gpuReport, err error) {
	ctx, cancel := context.WithTimeout(ctx, cfg.Patience)
	defer cancel()
	out, err := cfg.GPUChild(ctx)
	if ctx.Err() != nil {
		return r, fmt.Errorf("the NVIDIA driver did not answer within %v", cfg.Patience)
	}
	if err != nil {
		return r, err
	}
	if err := json.Unmarshal(out, &r); err != nil {
		return gpuReport{}, fmt.Errorf("GPU detection in a child process: %w", err)
	}
	if len(r.Devices) == 0 && r.Reason == "" && !r.NoLib {
		r.Reason = noGPUShown
	}
	return r, nil
}

const noGPUShown = "the NVIDIA driver answers, and shows no GPU"

// explain says why a machine offers no CUDA.
func explain(why string, noLib bool, cfg Config, cards []card) string {
	if !noLib {
		return why
	}
	if found := cfg.glob("dev/nvidia[0-9]*"); len(found) > 0 {
		return fmt.Sprintf("NVIDIA device files are there (%s), but %s: install the driver's libraries, or start the container with them", found[0], libraryMissing)
	}
	if _, err := os.Stat(cfg.at("proc/driver/nvidia/version")); err == nil {
		return "the NVIDIA kernel module is loaded, but " + libraryMissing + ": install the driver's libraries"
	}
	for _, c := range cards {
		if c.display() && c.vendor == vendorNVIDIA {
			return "an NVIDIA GPU is on the PCI bus, but it has no NVIDIA driver: " + libraryMissing
		}
	}
	return "no NVIDIA driver: " + libraryMissing
}

// summary is what the older words for GPUs say of the devices that answer; nil without any.
func summary(devices []labmesh.Device, r gpuReport) *labmesh.GPU {
	g := &labmesh.GPU{CUDAVersion: r.CUDAVersion, Driver: r.Driver}
	for i := range devices {
		if d := &devices[i]; d.Class == classCUDA && d.Answers() {
			g.Devices = append(g.Devices, labmesh.GPUDevice{Index: d.Index, UUID: d.UUID, Name: d.Name, MemoryGB: d.MemoryGB, ComputeCapability: d.Compute})
		}
	}
	if g.Count = len(g.Devices); g.Count == 0 {
		return nil
	}
	d := g.Devices[0]
	g.Name, g.MemoryGB = d.Name, d.MemoryGB
	g.CUDACompute, _ = strconv.ParseFloat(d.ComputeCapability, 64) // 0, and so absent, when it is not known
	return g
}
