package probe_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"

	"go.uber.org/goleak"

	"labmesh/exec/probe"
)

// childVar makes the test binary play the GPU child.
const childVar = "PROBE_TEST_CHILD"

func TestMain(m *testing.M) {
	switch os.Getenv(childVar) {
	case "nvml":
		if err := probe.GPUChild(os.Stdout); err != nil {
			panic(err)
		}
		return
	case "dies":
		os.Exit(127)
	case "states":
		playStates(os.Getenv("PROBE_TEST_STATES"))
		return
	}
	goleak.VerifyTestMain(m)
}

// root makes a file system of its own with the given files.
func root(t *testing.T, files map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for name, text := range files {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// says is a GPU child that writes text.
func says(text string) func(context.Context) ([]byte, error) {
	return func(context.Context) ([]byte, error) { return []byte(text), nil }
}

const noLibrary = `{"no_library":true}`

func TestSaysWhatTheMachineOffers(t *testing.T) {
	t.Parallel()
	bin := root(t, map[string]string{
		"go":      "#!/bin/sh\necho go version go1.99.1 linux/amd64\n",
		"gcc":     "#!/bin/sh\nexit 1\n",
		"python3": "#!/bin/sh\ncase $2 in *pytest*) echo 7.2.1;; *) echo 3.11.2;; esac\n",
	})
	c := probe.Probe(t.Context(), probe.Config{Dir: t.TempDir(), Environ: []string{"PATH=" + bin + ":/bin"}, Root: root(t, nil)})
	if c.Platform != runtime.GOOS+"/"+runtime.GOARCH || !slices.Contains(c.Hardware, "cpu") || c.CPU.Threads < 1 || c.CPU.Cores < 1 ||
		c.Memory.TotalGB <= 0 || c.Memory.AvailableGB <= 0 || c.Memory.AvailableGB > c.Memory.TotalGB || c.Disk == nil || c.Disk.TotalGB <= 0 {
		t.Errorf("%+v", c)
	}
	if c.Tools["go"] != "1.99.1" || c.Tools["python3"] != "3.11.2" || c.Tools["pytest"] != "7.2.1" {
		t.Errorf("tools %v", c.Tools)
	}
	if _, ok := c.Tools["gcc"]; ok {
		t.Errorf("a tool that does not work is listed: %v", c.Tools)
	}
}

func TestMemoryHeedsTheCgroup(t *testing.T) {
	t.Parallel()
	for name, files := range map[string]map[string]string{
		"v2": {"proc/self/cgroup": "0::/a/b\n", "sys/fs/cgroup/a/memory.max": "536870912\n", "sys/fs/cgroup/a/memory.current": "268435456\n", "sys/fs/cgroup/a/b/memory.max": "max\n"},
		"v1": {"proc/self/cgroup": "4:memory:/a\n0::/\n", "sys/fs/cgroup/memory/a/memory.limit_in_bytes": "536870912\n", "sys/fs/cgroup/memory/a/memory.usage_in_bytes": "268435456\n",
			"sys/fs/cgroup/memory/memory.limit_in_bytes": "9223372036854771712\n"},
	} {
		c := probe.Probe(t.Context(), probe.Config{Dir: t.TempDir(), Environ: []string{}, Root: root(t, files)})
		if c.Memory.TotalGB != 0.5 || c.Memory.AvailableGB != 0.25 {
			t.Errorf("%s: %+v", name, c.Memory)
		}
	}
}

func TestSaysWhyThereIsNoCUDA(t *testing.T) {
	t.Parallel()
	pci := map[string]string{"sys/bus/pci/devices/0000:01:00.0/vendor": "0x10de\n", "sys/bus/pci/devices/0000:01:00.0/class": "0x030200\n"}
	for name, c := range map[string]struct {
		child func(context.Context) ([]byte, error)
		files map[string]string
		want  string
	}{
		"nothing":         {says(noLibrary), nil, "no NVIDIA driver: libnvidia-ml.so.1 not found"},
		"a card":          {says(noLibrary), pci, "an NVIDIA GPU is on the PCI bus"},
		"device files":    {says(noLibrary), map[string]string{"dev/nvidia0": ""}, "device files are there (/dev/nvidia0), but libnvidia-ml.so.1 not found"},
		"a kernel module": {says(noLibrary), map[string]string{"proc/driver/nvidia/version": ""}, "the NVIDIA kernel module is loaded"},
		"no answer":       {says(`{"reason":"the NVIDIA driver does not answer: x"}`), nil, "does not answer: x"},
		"no GPUs":         {says(`{}`), nil, "shows no GPU"},
		"a dead child":    {func(context.Context) ([]byte, error) { return nil, errors.New("signal: aborted") }, nil, "aborted"},
		"no child":        {nil, nil, "no NVIDIA driver"},
	} {
		got := probe.Probe(t.Context(), probe.Config{Dir: t.TempDir(), GPUChild: c.child, Environ: []string{}, Root: root(t, c.files)})
		if got.GPU != nil || slices.Contains(got.Hardware, "cuda") || !strings.Contains(got.Absent["cuda"], c.want) {
			t.Errorf("%s: %+v", name, got)
		}
	}
}

func TestAsksNvidiaSMIWhenNVMLCannotBeAsked(t *testing.T) {
	t.Parallel()
	bin := root(t, map[string]string{"nvidia-smi": "#!/bin/sh\necho '0, GPU-a1, NVIDIA T4, 00000000:01:00.0, 15360, 535.1, 7.5, [N/A]'\necho '1, GPU-b2, NVIDIA X, 00000000:02:00.0, [N/A], 535.1, [N/A], [N/A]'\n"})
	dead := func(context.Context) ([]byte, error) { return nil, errors.New("signal: aborted") }
	c := probe.Probe(t.Context(), probe.Config{Dir: t.TempDir(), GPUChild: dead, Environ: []string{"PATH=" + bin}, Root: root(t, nil)})
	if c.GPU == nil || c.GPU.Count != 2 || c.GPU.Name != "NVIDIA T4" || c.GPU.MemoryGB != 15 || c.GPU.CUDACompute != 7.5 || c.GPU.Driver != "535.1" ||
		c.GPU.Devices[1].UUID != "GPU-b2" || c.GPU.Devices[1].ComputeCapability != "" || !slices.Contains(c.Hardware, "cuda") || c.Absent["cuda"] != "" {
		t.Errorf("%+v, absent %v", c.GPU, c.Absent)
	}
	bin = root(t, map[string]string{"nvidia-smi": "#!/bin/sh\necho \"NVIDIA-SMI has failed because it couldn't communicate with the NVIDIA driver\"\nexit 9\n"})
	c = probe.Probe(t.Context(), probe.Config{Dir: t.TempDir(), GPUChild: says(noLibrary), Environ: []string{"PATH=" + bin + ":/bin"}, Root: root(t, nil)})
	if c.GPU != nil || !strings.Contains(c.Absent["cuda"], "couldn't communicate") {
		t.Errorf("%+v, absent %v", c.GPU, c.Absent)
	}
}

func TestChildAnswersInAProcessOfItsOwn(t *testing.T) {
	t.Setenv(childVar, "nvml")
	out, err := probe.Child(os.Args[0])(t.Context())
	if err != nil || !json.Valid(bytes.TrimSpace(out)) {
		t.Errorf("%s, %v", out, err)
	}
	t.Setenv(childVar, "dies")
	if _, err := probe.Child(os.Args[0])(t.Context()); err == nil {
		t.Error("a child that died was believed")
	}
}

func TestSample(t *testing.T) {
	t.Parallel()
	s := probe.NewSampler(t.TempDir())
	m := s.Sample(t.Context())
	if m.MemoryAvailableGB <= 0 || m.DiskFreeGB <= 0 || m.RSSMB <= 1 || m.CPUPercent < 0 || m.CPUPercent > 100 {
		t.Errorf("%+v", m)
	}
}

func BenchmarkSample(b *testing.B) {
	s := probe.NewSampler(b.TempDir())
	for b.Loop() {
		_ = s.Sample(b.Context())
	}
}

func ExampleProbe() {
	c := probe.Probe(context.Background(), probe.Config{Dir: os.TempDir()})
	fmt.Println(c.Hardware[0])
	// Output: cpu
}
