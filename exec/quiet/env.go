package quiet

import (
	"context"
	"encoding/json"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/shirou/gopsutil/v4/common"
	"github.com/shirou/gopsutil/v4/cpu"
	"github.com/shirou/gopsutil/v4/host"
	"github.com/shirou/gopsutil/v4/mem"

	"labmesh"
	"labmesh/bench"
)

// env is the fingerprint of a machine. What is not known is null.
type env struct {
	facts
	Governor *string  `json:"governor"`
	Turbo    *bool    `json:"turbo"`
	MHz      *float64 `json:"mhz"` // of the fastest processor, as it is read
	Load     *float64 `json:"load1"`
	Quota    *float64 `json:"cgroup_cpus"` // processors that the cgroup's quota allows
	GPU      *gpuEnv  `json:"gpu"`
}

// facts do not change while this process lives.
type facts struct {
	Labmesh    *string  `json:"labmesh"`
	OS         *string  `json:"os"`
	Distro     *string  `json:"distribution"`
	Kernel     *string  `json:"kernel"`
	Arch       *string  `json:"arch"`
	CPU        *string  `json:"cpu_model"`
	Microcode  *string  `json:"microcode"`
	Flags      []string `json:"cpu_flags"` // those that matter for models
	Cores      *int     `json:"cores"`
	Threads    *int     `json:"threads"`
	Affinity   *int     `json:"affinity"` // processors that this process may run on
	Memory     *uint64  `json:"ram_bytes"`
	MaxMHz     *float64 `json:"mhz_max"`
	FreqDriver *string  `json:"freq_driver"`
	SMT        *bool    `json:"smt"`
	Virt       *string  `json:"virt"` // e.g. kvm or docker; "" where nothing says so
	Hypervisor *bool    `json:"hypervisor"`
	NUMA       *int     `json:"numa_nodes"`
}

// gpuEnv is a GPU before and after a measurement.
type gpuEnv struct {
	Before *bench.GPUState `json:"before"`
	After  *bench.GPUState `json:"after"`
}

// fixed holds the facts once they are found.
type fixed struct {
	mu    sync.Mutex
	facts *facts
}

// textMax bounds a word of the fingerprint, in bytes.
const textMax = 200

// processesShown bounds how many processes of a GPU are in a fingerprint.
const processesShown = 8

// Env is the fingerprint of this machine and of d: a JSON object of at most
// [labmesh.BenchEnvBytesMax] bytes, in which what is not known is null. Of a GPU it holds
// how it was when the last watch began and when that ended.
func (m *Machine) Env(ctx context.Context, d bench.Device) json.RawMessage {
	l := m.look()
	e := env{facts: m.facts(ctx), MHz: l.mhz(), Load: m.files.load(), Quota: m.files.allowed(l.groups), Turbo: m.files.turbo()}
	e.Governor = m.files.governor()
	if d.Class == classCUDA {
		e.GPU = m.gpuEnv(ctx, d)
	}
	out, err := json.Marshal(e)
	if err == nil && len(out) > labmesh.BenchEnvBytesMax {
		e.GPU = nil
		out, err = json.Marshal(e)
	}
	if err != nil || len(out) > labmesh.BenchEnvBytesMax {
		return nil
	}
	return out
}

func (m *Machine) gpuEnv(ctx context.Context, d bench.Device) *gpuEnv {
	m.mu.Lock()
	s, ok := m.seen[keyOf(d)]
	m.mu.Unlock()
	if !ok {
		now := m.sampleGPU(ctx, d)
		s = span{now, nil}
	}
	if s.before == nil {
		return nil
	}
	return &gpuEnv{Before: s.before.shown(), After: s.after.shown()}
}

// shown is a state with no more than a fingerprint has room for.
func (g *gpuState) shown() *bench.GPUState {
	if g == nil {
		return nil
	}
	s := g.GPUState
	s.Slices, s.Processes = nil, slices.Clone(s.Processes[:min(len(s.Processes), processesShown)])
	for _, t := range []*string{&s.UUID, &s.Name, &s.PCI, &s.Driver, &s.Compute, &s.PState} {
		*t = bounded(*t)
	}
	for i := range s.Processes {
		s.Processes[i].Name = bounded(s.Processes[i].Name)
	}
	return &s
}

func bounded(s string) string {
	return strings.ToValidUTF8(s[:min(len(s), textMax)], "")
}

// word is s, or nil for "".
func word(s string) *string {
	if s = bounded(strings.TrimSpace(s)); s == "" {
		return nil
	}
	return &s
}

func positive[T int | uint64 | float64](n T) *T {
	if n <= 0 {
		return nil
	}
	return &n
}

// facts finds what does not change, once.
func (m *Machine) facts(ctx context.Context) facts {
	m.fixed.mu.Lock()
	defer m.fixed.mu.Unlock()
	if m.fixed.facts != nil {
		return *m.fixed.facts
	}
	f := m.readFacts(ctx)
	if ctx.Err() == nil {
		m.fixed.facts = &f
	}
	return f
}

func (m *Machine) readFacts(ctx context.Context) facts {
	ctx = context.WithValue(ctx, common.EnvKey, common.EnvMap{
		common.HostProcEnvKey: m.files.path("proc"), common.HostSysEnvKey: m.files.path("sys"), common.HostEtcEnvKey: m.files.path("etc"),
	})
	f := facts{Labmesh: word(m.cfg.Version), OS: word(runtime.GOOS), Arch: word(runtime.GOARCH), Affinity: positive(ownProcessors()), FreqDriver: word(m.files.text(cpu0 + "scaling_driver"))}
	if v, err := host.KernelVersionWithContext(ctx); err == nil {
		f.Kernel = word(v)
	}
	if name, _, version, err := host.PlatformInformationWithContext(ctx); err == nil && name != "" {
		f.Distro = word(name + " " + version)
	}
	if all, err := cpu.InfoWithContext(ctx); err == nil && len(all) > 0 {
		f.CPU, f.Microcode, f.Flags, f.Threads = word(all[0].ModelName), word(all[0].Microcode), relevant(all[0].Flags), positive(len(all))
		f.Virt, f.Hypervisor = virtual(ctx), hypervisor(all[0].Flags)
	}
	if n, err := cpu.CountsWithContext(ctx, false); err == nil {
		f.Cores = positive(n)
	}
	if v, err := mem.VirtualMemoryWithContext(ctx); err == nil {
		f.Memory = positive(v.Total)
	}
	if khz := m.files.number(cpu0 + "cpuinfo_max_freq"); khz != nil {
		f.MaxMHz = positive(*khz / 1000)
	}
	f.SMT = flag(m.files.text("sys/devices/system/cpu/smt/active"))
	nodes, _ := filepath.Glob(m.files.path("sys/devices/system/node/node[0-9]*"))
	f.NUMA = positive(len(nodes))
	return f
}

// cpu0 are the files about the clock of the first processor.
const cpu0 = "sys/devices/system/cpu/cpu0/cpufreq/"

// flag is a file with 0 or 1 in it.
func flag(text string) *bool {
	on, err := strconv.ParseBool(text)
	if err != nil {
		return nil
	}
	return &on
}

// governor is how the clock of the processors is chosen; several, where they differ.
func (f files) governor() *string {
	all, _ := filepath.Glob(f.path("sys/devices/system/cpu/cpu[0-9]*/cpufreq/scaling_governor"))
	var words []string
	for _, path := range all {
		if w := f.text(strings.TrimPrefix(path, f.path(""))); w != "" && !slices.Contains(words, w) {
			words = append(words, w)
		}
	}
	slices.Sort(words)
	return word(strings.Join(words, ","))
}

// turbo says whether processors may run faster than their nominal clock.
func (f files) turbo() *bool {
	if on := flag(f.text("sys/devices/system/cpu/cpufreq/boost")); on != nil {
		return on
	}
	off := flag(f.text("sys/devices/system/cpu/intel_pstate/no_turbo"))
	if off != nil {
		*off = !*off
	}
	return off
}

// relevant picks the flags that decide which kernels run.
func relevant(flags []string) []string {
	var out []string
	for _, f := range flags {
		for _, prefix := range []string{"avx", "amx", "fma", "sse4_2", "asimd", "sve", "sme2", "i8mm", "bf16", "fphp"} {
			if strings.HasPrefix(f, prefix) {
				out = append(out, f)
				break
			}
		}
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// virtual names what the machine is virtual by, a hypervisor or a container.
func virtual(ctx context.Context) *string {
	system, role, err := host.VirtualizationWithContext(ctx)
	if err != nil {
		return nil
	}
	if role != "guest" {
		system = ""
	}
	return &system
}

// hypervisor says whether there is one below the machine: x86 has a flag for it.
func hypervisor(flags []string) *bool {
	if !slices.Contains(flags, "sse2") {
		return nil
	}
	is := slices.Contains(flags, "hypervisor")
	return &is
}

// ownProcessors is how many processors this process may run on.
func ownProcessors() int { return runtime.NumCPU() }
