package probe

import (
	"bytes"
	"context"
	"encoding/csv"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"labmesh"
)

// gpuReport is what the GPU child writes: the GPUs, or why there are none.
type gpuReport struct {
	GPU    *labmesh.GPU `json:"gpu,omitempty"`
	Reason string       `json:"reason,omitempty"`
	NoLib  bool         `json:"no_library,omitempty"`
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
			return nil, fmt.Errorf("GPU detection in a child process: %w", err)
		}
		return out, nil
	}
}

// gpus finds the NVIDIA GPUs whose driver really answers, or says why there are none.
func gpus(ctx context.Context, cfg Config) (*labmesh.GPU, string) {
	var why string
	noLib := cfg.GPUChild == nil
	if !noLib {
		r, err := askChild(ctx, cfg)
		if err == nil && r.GPU != nil {
			return r.GPU, ""
		}
		if why, noLib = r.Reason, r.NoLib; err != nil {
			why = err.Error()
		}
	}
	gpu, err := askSMI(ctx, cfg.Environ)
	if err == nil {
		return gpu, ""
	}
	if !errors.Is(err, exec.ErrNotFound) && (noLib || why == "") {
		return nil, err.Error()
	}
	return nil, explain(why, noLib, traces(cfg.Root))
}

func askChild(ctx context.Context, cfg Config) (r gpuReport, err error) {
	ctx, cancel := context.WithTimeout(ctx, gpuTimeout)
	defer cancel()
	out, err := cfg.GPUChild(ctx)
	if ctx.Err() != nil {
		return r, fmt.Errorf("the NVIDIA driver did not answer within %v", gpuTimeout)
	}
	if err != nil {
		return r, err
	}
	if err := json.Unmarshal(out, &r); err != nil {
		return r, fmt.Errorf("GPU detection in a child process: %w", err)
	}
	if r.GPU != nil && r.GPU.Count == 0 {
		r.GPU, r.Reason = nil, "the NVIDIA driver answers, and shows no GPU"
	}
	return r, nil
}

// smiQuery is what nvidia-smi is asked for, in this order.
const smiQuery = "index,uuid,name,memory.total,compute_cap,driver_version"

// askSMI asks nvidia-smi, where NVML could not be asked.
func askSMI(ctx context.Context, environ []string) (*labmesh.GPU, error) {
	path, err := findTool("nvidia-smi", environ)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, gpuTimeout)
	defer cancel()
	cmd := exec.CommandContext(ctx, path, "--query-gpu="+smiQuery, "--format=csv,noheader,nounits")
	cmd.Env, cmd.WaitDelay = environ, time.Second
	out, err := cmd.Output()
	if ctx.Err() != nil {
		return nil, fmt.Errorf("nvidia-smi did not answer within %v", gpuTimeout)
	}
	if err != nil {
		return nil, fmt.Errorf("nvidia-smi says: %.200s (%w)", bytes.TrimSpace(out), err)
	}
	return parseSMI(out)
}

// parseSMI reads the answer of nvidia-smi to smiQuery, memory in MiB.
func parseSMI(out []byte) (*labmesh.GPU, error) {
	r := csv.NewReader(bytes.NewReader(out))
	r.TrimLeadingSpace = true
	r.FieldsPerRecord = strings.Count(smiQuery, ",") + 1
	rows, err := r.ReadAll()
	if err != nil {
		return nil, fmt.Errorf("read the answer of nvidia-smi: %w", err)
	}
	g := &labmesh.GPU{}
	for _, row := range rows {
		index, err := strconv.Atoi(row[0])
		if err != nil {
			return nil, fmt.Errorf("read the answer of nvidia-smi: index: %w", err)
		}
		d := labmesh.GPUDevice{Index: index, UUID: row[1], Name: row[2]}
		if mb, err := strconv.ParseFloat(row[3], 64); err == nil { // else "[N/A]"
			d.MemoryGB = round(mb*mib/gib, 2)
		}
		if _, err := strconv.ParseFloat(row[4], 64); err == nil {
			d.ComputeCapability = row[4]
		}
		g.Devices, g.Driver = append(g.Devices, d), row[5]
	}
	if len(g.Devices) == 0 {
		return nil, errors.New("nvidia-smi answers, and shows no GPU")
	}
	return summarize(g), nil
}

// summarize fills in what a GPU says of its first device.
func summarize(g *labmesh.GPU) *labmesh.GPU {
	g.Count = len(g.Devices)
	if g.Count > 0 {
		d := g.Devices[0]
		g.Name, g.MemoryGB = d.Name, d.MemoryGB
		g.CUDACompute, _ = strconv.ParseFloat(d.ComputeCapability, 64) // 0, and so absent, when it is not known
	}
	return g
}

// trace is what of an NVIDIA GPU can be seen without its driver's library.
type trace struct {
	device string // a device file
	pci    bool   // one is on the PCI bus
	module bool   // the kernel module is loaded
}

// traces looks for signs of a GPU in the file system below root.
func traces(root string) (t trace) {
	at := func(path string) string { return filepath.Join("/", root, path) }
	if found, _ := filepath.Glob(at("dev/nvidia[0-9]*")); len(found) > 0 {
		t.device = strings.TrimPrefix(found[0], strings.TrimSuffix(at("."), "/"))
	}
	_, err := os.Stat(at("proc/driver/nvidia/version"))
	t.module = err == nil
	vendors, _ := filepath.Glob(at("sys/bus/pci/devices/*/vendor"))
	for _, v := range vendors {
		vendor, _ := os.ReadFile(v)
		class, _ := os.ReadFile(filepath.Join(filepath.Dir(v), "class"))
		if strings.TrimSpace(string(vendor)) == "0x10de" && strings.HasPrefix(string(class), "0x03") { // NVIDIA, display
			t.pci = true
		}
	}
	return t
}

// explain says why a machine offers no CUDA.
func explain(why string, noLib bool, t trace) string {
	switch {
	case !noLib:
		return why
	case t.device != "":
		return fmt.Sprintf("NVIDIA device files are there (%s), but %s: install the driver's libraries, or start the container with them", t.device, libraryMissing)
	case t.module:
		return "the NVIDIA kernel module is loaded, but " + libraryMissing + ": install the driver's libraries"
	case t.pci:
		return "an NVIDIA GPU is on the PCI bus, but it has no NVIDIA driver: " + libraryMissing
	}
	return "no NVIDIA driver: " + libraryMissing
}
