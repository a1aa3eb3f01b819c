package probe_test

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"labmesh"
	"labmesh/bench"
	"labmesh/exec/probe"
)

// look probes a machine whose file system is files, where a value that begins
// with -> is a link.
func look(t *testing.T, cfg probe.Config, files map[string]string) labmesh.Capabilities {
	t.Helper()
	plain := map[string]string{}
	for name, text := range files {
		if !strings.HasPrefix(text, "->") {
			plain[name] = text
		}
	}
	cfg.Dir, cfg.Root = t.TempDir(), root(t, plain)
	for name, text := range files {
		if to, ok := strings.CutPrefix(text, "->"); ok {
			if err := os.Symlink(to, filepath.Join(cfg.Root, name)); err != nil {
				t.Fatal(err)
			}
		}
	}
	if cfg.Environ == nil {
		cfg.Environ = []string{}
	}
	if cfg.GPUChild == nil {
		cfg.GPUChild = says(noLibrary)
	}
	return probe.ProbeDevices(t.Context(), cfg)
}

// of is the devices of one class.
func of(c labmesh.Capabilities, class string) (out []labmesh.Device) {
	for _, d := range c.Devices {
		if d.Class == class {
			out = append(out, d)
		}
	}
	return out
}

func pci(address, vendor, device, class string) map[string]string {
	dir := "sys/bus/pci/devices/" + address + "/"
	return map[string]string{dir + "vendor": vendor + "\n", dir + "device": device + "\n", dir + "class": class + "\n"}
}

func join(parts ...map[string]string) map[string]string {
	all := map[string]string{}
	for _, p := range parts {
		for k, v := range p {
			all[k] = v
		}
	}
	return all
}

func TestAMDFromItsTopology(t *testing.T) {
	t.Parallel()
	node := "sys/class/kfd/kfd/topology/nodes/1/"
	files := join(pci("0000:c3:00.0", "0x1002", "0x740f", "0x038000"), map[string]string{
		"sys/class/kfd/kfd/topology/nodes/0/properties": "cpu_cores_count 64\nsimd_count 0\n",
		node + "properties":                             "simd_count 416\ngfx_target_version 90010\nlocation_id 49920\ndomain 0\nunique_id 255\n",
		node + "name":                                   "aldebaran\n",
		node + "mem_banks/0/properties":                 "heap_type 1\nsize_in_bytes 68702699520\n",
		node + "mem_banks/1/properties":                 "heap_type 4\nsize_in_bytes 65536\n",
		"sys/bus/pci/devices/0000:c3:00.0/product_name": "AMD Instinct MI210\n",
		"sys/module/amdgpu/version":                     "6.7.0\n",
		"dev/kfd":                                       "",
	})
	c := look(t, probe.Config{}, files)
	want := labmesh.Device{Class: "rocm", Name: "AMD Instinct MI210", UUID: "GPU-00000000000000ff", MemoryGB: 63.98, Compute: "gfx90a", Driver: "6.7.0", PCI: "0000:c3:00.0", Level: labmesh.DeviceDriver}
	if got := of(c, "rocm"); len(got) != 1 || fmt.Sprint(got[0]) != fmt.Sprint(want) || !slices.Contains(c.Hardware, "rocm") || c.Absent["rocm"] != "" {
		t.Errorf("%+v\nwant %+v; hardware %v, absent %v", got, want, c.Hardware, c.Absent)
	}
	delete(files, "dev/kfd")
	c = look(t, probe.Config{}, files)
	if got := of(c, "rocm"); len(got) != 1 || got[0].Level != labmesh.DevicePresent || c.Absent["rocm"] != "/dev/kfd does not exist" || slices.Contains(c.Hardware, "rocm") {
		t.Errorf("without /dev/kfd: %+v, %v", got, c.Absent)
	}
}

func TestWhatIsOnlyOnTheBus(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		files       map[string]string
		class, want string
	}{
		"AMD without a driver": {pci("0000:01:00.0", "0x1002", "0x73bf", "0x030000"), "rocm", "the amdgpu driver is not loaded"},
		"AMD that ROCm does not know": {join(pci("0000:01:00.0", "0x1002", "0x6613", "0x030000"), map[string]string{"sys/bus/pci/devices/0000:01:00.0/driver": "->../../bus/pci/drivers/amdgpu"}),
			"rocm", "not in KFD's topology"},
		"Intel without a driver": {pci("0000:00:02.0", "0x8086", "0x56a0", "0x030000"), "openvino", "neither of the drivers"},
		"Intel without a file": {join(pci("0000:00:02.0", "0x8086", "0x56a0", "0x030000"), map[string]string{"sys/bus/pci/devices/0000:00:02.0/driver": "->../drivers/i915"}),
			"openvino", "no device file"},
		"NVIDIA without a driver": {pci("0000:01:00.0", "0x10de", "0x1eb8", "0x030200"), "cuda", "no NVIDIA driver: libnvidia-ml.so.1 not found"},
	} {
		got := look(t, probe.Config{}, c.files)
		d := of(got, c.class)
		if len(d) != 1 || d[0].Level != labmesh.DevicePresent || !strings.Contains(d[0].Reason, c.want) || !strings.Contains(d[0].Name, "[") ||
			!strings.Contains(got.Absent[c.class], c.want) || slices.Contains(got.Hardware, c.class) {
			t.Errorf("%s: %+v, absent %q", name, d, got.Absent[c.class])
		}
	}
	sound := look(t, probe.Config{}, pci("0000:01:00.1", "0x10de", "0x10f7", "0x040300"))
	if len(of(sound, "cuda")) != 0 {
		t.Errorf("a sound card is a GPU: %+v", sound.Devices)
	}
}

func TestIntelWithItsDrivers(t *testing.T) {
	t.Parallel()
	gpu, npu := "sys/bus/pci/devices/0000:00:02.0/", "sys/bus/pci/devices/0000:00:0b.0/"
	c := look(t, probe.Config{}, join(pci("0000:00:02.0", "0x8086", "0x7d55", "0x030000"), pci("0000:00:0b.0", "0x8086", "0x7d1d", "0x120000"), map[string]string{
		gpu + "driver": "->../../bus/pci/drivers/xe", gpu + "drm/renderD128/dev": "226:128", "dev/dri/renderD128": "",
		npu + "driver": "->../../bus/pci/drivers/intel_vpu", npu + "accel/accel0/dev": "261:0", "dev/accel/accel0": "",
	}))
	d := of(c, "openvino")
	if len(d) != 2 || d[0].Level != labmesh.DeviceDriver || d[0].Driver != "xe" || d[1].Level != labmesh.DeviceDriver || d[1].Index != 1 || !strings.HasPrefix(d[1].Name, "Intel NPU") || !slices.Contains(c.Hardware, "openvino") {
		t.Errorf("%+v, %v", d, c.Absent)
	}
}

// TestSaysNoWhereThereIsNothing: each class that was looked for is absent with a
// reason, and the processor is a device.
func TestSaysNoWhereThereIsNothing(t *testing.T) {
	t.Parallel()
	c := look(t, probe.Config{}, nil)
	for _, class := range probe.Classes() {
		if class == "mps" {
			continue // it depends on where the test runs
		}
		if c.Absent[class] == "" || slices.Contains(c.Hardware, class) || len(of(c, class)) > 0 {
			t.Errorf("%s: %q, %v", class, c.Absent[class], of(c, class))
		}
	}
	if d := of(c, "cpu"); len(d) != 1 || d[0].Level != labmesh.DeviceUsable || d[0].MemoryGB != c.Memory.TotalGB {
		t.Errorf("the processor: %+v", d)
	}
}

func TestDeclared(t *testing.T) {
	t.Parallel()
	for s, want := range map[string]string{
		"cuda": "", "CUDA:name=NVIDIA T4,memory_gb=16,compute=7.5": "", "rocm:compute=gfx90a,index=1": "", "openvino:": "",
		"gpu:name=x": "none of cuda", "cuda:colour=red": "none of name", "cuda:memory_gb=lots": "no number", "cuda:memory_gb=-1": "no number", "cuda:memory_gb=NaN": "no number",
		"cuda:compute=7": "major.minor", "cuda:compute=7.x": "major.minor", "cuda:index=-1": "not in 0", "cuda:name": "needs a value", "cuda:name=" + strings.Repeat("x", 101): "needs a value", "": "none of",
	} {
		if _, err := probe.ParseDeclared(s); (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %q", s, err, want)
		}
	}
	declared, err := probe.ParseDeclared("cuda:name=NVIDIA T4,memory_gb=16,compute=7.5")
	if err != nil {
		t.Fatal(err)
	}
	c := look(t, probe.Config{Declared: []labmesh.Device{declared}}, nil)
	if d := of(c, "cuda"); len(d) != 1 || d[0].Level != labmesh.DeviceDeclared || d[0].Reason == "" || !slices.Contains(c.Hardware, "cuda") || c.GPU == nil || c.GPU.CUDACompute != 7.5 || c.Absent["cuda"] != "" {
		t.Errorf("declared out of nothing: %+v, %+v, %v", d, c.GPU, c.Absent)
	}
	c = look(t, probe.Config{Declared: []labmesh.Device{declared}}, pci("0000:01:00.0", "0x10de", "0x1eb8", "0x030200"))
	d := of(c, "cuda")
	if len(d) != 1 || d[0].Name != "NVIDIA T4" || d[0].PCI == "" || d[0].Level != labmesh.DeviceDeclared || !strings.Contains(d[0].Reason, "found as NVIDIA GPU [10de:1eb8], present") {
		t.Errorf("declared over what is on the bus: %+v", d)
	}
	probe.Merge(&c, []probe.Ran{{Engine: labmesh.Engine{Name: "torch"}, Devices: []bench.Device{{Class: "cuda", Name: "Tesla T4", MemoryGB: 14.7}}}})
	if d := of(c, "cuda"); len(d) != 1 || d[0].Level != labmesh.DeviceDeclared || d[0].Name != "NVIDIA T4" || d[0].MemoryGB != 16 || !slices.Contains(d[0].Engines, "torch") {
		t.Errorf("what is declared stays: %+v", d)
	}
}

func FuzzParseDeclared(f *testing.F) {
	f.Add("cuda:name=NVIDIA T4,memory_gb=16,compute=7.5,index=3")
	f.Fuzz(func(t *testing.T, s string) {
		d, err := probe.ParseDeclared(s)
		if err == nil && (!slices.Contains(probe.Classes(), d.Class) || !(d.MemoryGB >= 0) || d.Index < 0) {
			t.Errorf("%q is taken for %+v", s, d)
		}
	})
}

func TestMergeMatchesWhatEnginesRanOn(t *testing.T) {
	t.Parallel()
	gpu := func(index int, uuid, name string) labmesh.Device {
		return labmesh.Device{Class: "cuda", Index: index, UUID: uuid, Name: name, MemoryGB: 16, Level: labmesh.DeviceDriver}
	}
	torch := func(devices ...bench.Device) probe.Ran {
		return probe.Ran{Engine: labmesh.Engine{Name: "torch", Version: "2.9"}, Devices: devices, Why: map[string]string{"cuda": "it is built without CUDA"}}
	}
	for name, c := range map[string]struct {
		devices []labmesh.Device
		ran     []probe.Ran
		want    string // of each cuda device: index, level, engines
	}{
		"by UUID, whatever the index": {[]labmesh.Device{gpu(0, "GPU-a", "x"), gpu(1, "GPU-b", "y")}, []probe.Ran{torch(bench.Device{Class: "cuda", Index: 0, UUID: "b"})}, "0 driver [], 1 usable [torch]"},
		"by index":                    {[]labmesh.Device{gpu(0, "GPU-a", "x"), gpu(1, "", "x")}, []probe.Ran{torch(bench.Device{Class: "cuda", Index: 1, Name: "x"})}, "0 driver [], 1 usable [torch]"},
		"in another order":            {[]labmesh.Device{gpu(0, "GPU-a", "slow"), gpu(1, "GPU-b", "fast")}, []probe.Ran{torch(bench.Device{Class: "cuda", Index: 0, Name: "fast"})}, "0 driver [], 1 usable [torch]"},
		"two engines":                 {[]labmesh.Device{gpu(0, "GPU-a", "x")}, []probe.Ran{torch(bench.Device{Class: "cuda"}), {Engine: labmesh.Engine{Name: "onnxruntime"}, Devices: []bench.Device{{Class: "cuda"}}}}, "0 usable [torch onnxruntime]"},
		"only the engine found it":    {nil, []probe.Ran{torch(bench.Device{Class: "cuda", UUID: "GPU-z", Name: "z", MemoryGB: 8})}, "0 usable [torch]"},
		"a slice is not the whole":    {[]labmesh.Device{{Class: "cuda", UUID: "MIG-1", MIG: true, Level: labmesh.DeviceDriver}}, []probe.Ran{torch(bench.Device{Class: "cuda", UUID: "MIG-1"})}, "0 usable [torch]"},
		"nothing ran":                 {[]labmesh.Device{gpu(0, "GPU-a", "x")}, []probe.Ran{torch()}, "0 driver []"},
	} {
		caps := labmesh.Capabilities{Devices: c.devices}
		probe.Merge(&caps, c.ran)
		var got []string
		for _, d := range of(caps, "cuda") {
			got = append(got, fmt.Sprintf("%d %s %v", d.Index, d.Level, d.Engines))
		}
		if s := strings.Join(got, ", "); s != c.want || !slices.Contains(caps.Hardware, "cuda") {
			t.Errorf("%s: %s, want %s; hardware %v", name, s, c.want, caps.Hardware)
		}
	}
	for want, ran := range map[string][]probe.Ran{
		"no engine can use it: torch: it is built without CUDA": {torch(), {Engine: labmesh.Engine{Name: "labmesh-go"}}},
		"torch: it does not start: bus error":                   {{Engine: labmesh.Engine{Name: "torch", Reason: "it does not start: bus error"}}},
		"onnxruntime 1.20 ran nothing on it":                    {{Engine: labmesh.Engine{Name: "onnxruntime", Version: "1.20"}}},
		"neither torch nor onnxruntime was found":               nil,
	} {
		caps := labmesh.Capabilities{Devices: []labmesh.Device{gpu(0, "GPU-a", "x")}}
		if probe.Merge(&caps, ran); !strings.Contains(caps.Devices[0].Reason, want) {
			t.Errorf("%q does not say %q", caps.Devices[0].Reason, want)
		}
	}
}

// TestNvidiaSMIOfAllAges: old drivers refuse fields, and leave values out.
func TestNvidiaSMIOfAllAges(t *testing.T) {
	t.Parallel()
	dead := func(context.Context) ([]byte, error) { return nil, fmt.Errorf("signal: aborted") }
	ask := func(script string) labmesh.Capabilities {
		bin := root(t, map[string]string{"nvidia-smi": "#!/bin/sh\n" + script})
		return look(t, probe.Config{GPUChild: dead, Environ: []string{"PATH=" + bin + ":/bin:/usr/bin"}}, nil)
	}
	old := ask(`case "$1" in
*compute_cap*) echo 'Field "compute_cap" is not a valid field to query.'; exit 2;;
*mig.mode*) echo 'Field "mig.mode.current" is not a valid field to query.' >&2; exit 2;;
esac
echo '0, GPU-a1, Tesla K80, 00000000:04:00.0, [N/A], 440.1'
echo '1, GPU-b2, Tesla K80, 0001:05:00.0, 11441, 440.1'
`)
	d := of(old, "cuda")
	if len(d) != 2 || d[0].MemoryGB != 0 || d[1].MemoryGB != 11.17 || d[0].Compute != "" || d[0].PCI != "0000:04:00.0" || d[1].PCI != "0001:05:00.0" || d[0].Driver != "440.1" || d[0].Level != labmesh.DeviceDriver {
		t.Errorf("%+v, %v", d, old.Absent)
	}
	sliced := ask(`if [ "$1" = -L ]; then cat <<END
GPU 0: NVIDIA A100-SXM4-40GB (UUID: GPU-a1)
  MIG 3g.20gb     Device  0: (UUID: MIG-c7)
  MIG 1g.5gb+me   Device  1: (UUID: MIG-d8)
GPU 1: NVIDIA A100-SXM4-40GB (UUID: GPU-b2)
GPU 2: NVIDIA A100-SXM4-40GB (UUID: GPU-e9)
END
exit; fi
echo '0, GPU-a1, NVIDIA A100, 00000000:04:00.0, 40960, 550.1, 8.0, Enabled'
echo '1, GPU-b2, NVIDIA A100, 00000000:05:00.0, 40960, 550.1, 8.0, Enabled'
echo '2, GPU-e9, NVIDIA A100, 00000000:06:00.0, 40960, 550.1, 8.0, Disabled'
`)
	var got []string
	for _, d := range of(sliced, "cuda") {
		got = append(got, fmt.Sprintf("%d %s %s %g %v %s", d.Index, d.UUID, d.Name, d.MemoryGB, d.MIG, d.Level))
	}
	want := []string{"0 MIG-c7 NVIDIA A100 MIG 3g.20gb 18.63 true driver", "1 MIG-d8 NVIDIA A100 MIG 1g.5gb+me 4.66 true driver", "2 GPU-b2 NVIDIA A100 40 false present", "3 GPU-e9 NVIDIA A100 40 false driver"}
	if !slices.Equal(got, want) || sliced.GPU.Count != 3 {
		t.Errorf("%q\nwant %q", got, want)
	}
	for script, want := range map[string]string{
		"exec sleep 30": "did not answer within 300ms", "echo 'x, y'": "read the answer", "echo '-1, a, b, c, 1, 2, 3, [N/A]'": "no index", ":": "shows no GPU",
		`echo 'Field "index" is not a valid field to query.'; exit 2`: "nvidia-smi says: Field", "echo boom >&2; exit 9": "boom",
		"[ \"$1\" = -L ] && exit 3; echo '0, GPU-a1, A, b, 1, 2, 8.0, Enabled'": "nvidia-smi -L: exit status 3",
	} {
		limit := 20 * time.Second
		if strings.Contains(script, "sleep") {
			limit = 300 * time.Millisecond
		}
		bin := root(t, map[string]string{"nvidia-smi": "#!/bin/sh\n" + script})
		c := look(t, probe.Config{Environ: []string{"PATH=" + bin + ":/bin:/usr/bin"}, Patience: limit}, nil)
		if c.GPU != nil || len(of(c, "cuda")) != 0 || !strings.Contains(c.Absent["cuda"], want) {
			t.Errorf("%s: %+v, %q does not say %q", script, c.GPU, c.Absent["cuda"], want)
		}
	}
}

// fakeNVML is a driver's library with so many GPUs, of which the first may be in
// MIG mode. Some symbols are left out when the library is to be old.
const fakeNVML = `
#include <string.h>
typedef struct { unsigned long long total, free, used; } memory;
typedef struct { char legacy[16]; unsigned domain, bus, device, id, sub; char bus_id[32]; } pci;
int nvmlInit_v2(void) { return 0; }
int nvmlInit(void) { return 0; }
int nvmlShutdown(void) { return 0; }
const char *nvmlErrorString(int r) { return "the fake says no"; }
int nvmlSystemGetDriverVersion(char *v, unsigned n) { strncpy(v, "550.54", n); return 0; }
int nvmlSystemGetCudaDriverVersion(int *v) { *v = 12040; return 0; }
int nvmlDeviceGetCount_v2(unsigned *n) { *n = 3; return 0; }
int nvmlDeviceGetCount(unsigned *n) { *n = 3; return 0; }
static char gpus[4];
int nvmlDeviceGetHandleByIndex_v2(unsigned i, void **d) { if (i == 2) return 15; *d = &gpus[i]; return 0; }
int nvmlDeviceGetHandleByIndex(unsigned i, void **d) { return nvmlDeviceGetHandleByIndex_v2(i, d); }
int nvmlDeviceGetUUID(void *d, char *v, unsigned n) { strncpy(v, d == &gpus[0] ? "GPU-a1" : d == &gpus[1] ? "GPU-b2" : "MIG-c3", n); return 0; }
int nvmlDeviceGetMemoryInfo(void *d, memory *m) { m->total = d == &gpus[3] ? 10ULL << 30 : 80ULL << 30; return 0; }
int nvmlDeviceGetMemoryInfo_v2(void *d, memory *m) { return 3; }
int nvmlDeviceGetCudaComputeCapability(void *d, int *major, int *minor) { if (d == &gpus[3]) return 3; *major = 9; *minor = 0; return 0; }
int nvmlDeviceGetPciInfo_v3(void *d, pci *p) { memset(p, 0, sizeof *p); p->bus = 4 + (d == &gpus[1]); return 0; }
int nvmlDeviceGetPciInfo(void *d, pci *p) { return nvmlDeviceGetPciInfo_v3(d, p); }
#ifndef OLD
int nvmlDeviceGetName(void *d, char *v, unsigned n) { strncpy(v, d == &gpus[3] ? "NVIDIA H100 MIG 1g.10gb" : "NVIDIA H100", n); return 0; }
#endif
#ifdef MIG
int nvmlDeviceGetMigMode(void *d, unsigned *now, unsigned *next) { *now = *next = d == &gpus[1]; return 0; }
int nvmlDeviceGetMaxMigDeviceCount(void *d, unsigned *n) { *n = 7; return 0; }
int nvmlDeviceGetMigDeviceHandleByIndex(void *d, unsigned i, void **out) { if (i != 4) return 6; *out = &gpus[3]; return 0; }
#endif
`

// TestAskTheDriversLibrary has the child process ask a library made for the
// test: a good one, one from before MIG, and one that lacks a symbol, which kills the child.
func TestAskTheDriversLibrary(t *testing.T) {
	t.Parallel()
	gcc, err := exec.LookPath("gcc")
	if err != nil {
		t.Skip("gcc is not on PATH: apt install gcc")
	}
	child := func(flags ...string) func(context.Context) ([]byte, error) {
		dir := root(t, map[string]string{"nvml.c": fakeNVML})
		args := append([]string{"-shared", "-fPIC", "-w", "-o", filepath.Join(dir, "libnvidia-ml.so.1"), filepath.Join(dir, "nvml.c")}, flags...)
		if out, err := exec.CommandContext(t.Context(), gcc, args...).CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		return probe.Child("/usr/bin/env", "LD_LIBRARY_PATH="+dir, childVar+"=nvml", os.Args[0])
	}
	show := func(c labmesh.Capabilities) (out []string) {
		for _, d := range of(c, "cuda") {
			out = append(out, strings.TrimSpace(fmt.Sprintf("%d %s %s %g %s %v %s %s %s", d.Index, d.UUID, d.Name, d.MemoryGB, d.Compute, d.MIG, d.PCI, d.Level, d.Reason)))
		}
		return out
	}
	sliced := look(t, probe.Config{GPUChild: child("-DMIG")}, nil)
	if got, want := show(sliced), []string{
		"0 GPU-a1 NVIDIA H100 80 9.0 false 0000:04:00.0 driver", "1 MIG-c3 NVIDIA H100 MIG 1g.10gb 10 9.0 true 0000:05:00.0 driver",
		"2   0  false  present the NVIDIA driver has no answer for it: the fake says no",
	}; !slices.Equal(got, want) || sliced.GPU == nil || sliced.GPU.Count != 2 || sliced.GPU.CUDAVersion != "12.4" || of(sliced, "cuda")[0].Driver != "550.54" {
		t.Errorf("%q\nwant %q; %+v", got, want, sliced.GPU)
	}
	before := show(look(t, probe.Config{GPUChild: child()}, nil))
	if len(before) != 3 || !strings.HasPrefix(before[1], "1 GPU-b2 NVIDIA H100 80 9.0 false") {
		t.Errorf("a library without MIG: %q", before)
	}
	old := look(t, probe.Config{GPUChild: child("-DOLD")}, pci("0000:04:00.0", "0x10de", "0x2330", "0x030200"))
	if d := of(old, "cuda"); len(d) != 1 || d[0].Level != labmesh.DevicePresent || !strings.Contains(old.Absent["cuda"], "undefined symbol: nvmlDeviceGetName") || slices.Contains(old.Hardware, "cuda") {
		t.Errorf("a library that lacks a symbol: %+v, %q", d, old.Absent["cuda"])
	}
	bin := root(t, map[string]string{"nvidia-smi": "#!/bin/sh\necho '0, GPU-a1, NVIDIA H100, 00000000:04:00.0, 81559, 550.54, 9.0, Disabled'\n"})
	saved := look(t, probe.Config{GPUChild: child("-DOLD"), Environ: []string{"PATH=" + bin + ":/bin"}}, nil)
	if got := show(saved); len(got) != 1 || got[0] != "0 GPU-a1 NVIDIA H100 79.65 9.0 false 0000:04:00.0 driver" {
		t.Errorf("nvidia-smi in its place: %q, %v", got, saved.Absent)
	}
}
