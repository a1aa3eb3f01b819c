package quiet

import (
	"slices"
	"strings"
	"testing"
	"time"

	"labmesh"
	"labmesh/bench"
)

// span10 is how long the snapshots of these tests are apart.
const span10 = 10 * time.Second

func seconds(s float64) *time.Duration {
	d := time.Duration(s * float64(time.Second))
	return &d
}

func ptr[T any](x T) *T { return &x }

// still are two snapshots of a machine of n processors on which nothing happens.
func still(n int) (a, b *snapshot) {
	at := time.Unix(1000, 0)
	make := func(at time.Time) *snapshot {
		return &snapshot{at: at, processors: n, busy: seconds(100), steal: seconds(1), own: seconds(5), stalled: seconds(3), starved: seconds(3), quota: seconds(0), hot: ptr(uint64(7)), load: ptr(9.0)}
	}
	return make(at), make(at.Add(span10))
}

func TestDecidesByTwoSnapshots(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		processors int
		change     func(a, b *snapshot)
		flags      []labmesh.BenchFlag // of a measurement
		unquiet    bool
		say        string
	}{
		"nothing happens, though the load is still high": {2, func(_, _ *snapshot) {}, nil, false, ""},
		"an idle node":                   {2, func(_, b *snapshot) { b.busy = seconds(100.3) }, nil, false, ""},
		"a busy thread of two":           {2, func(_, b *snapshot) { b.busy = seconds(110) }, []labmesh.BenchFlag{labmesh.FlagContended}, true, "other processes used 1.00 of 2 processors"},
		"a busy thread of one":           {1, func(_, b *snapshot) { b.busy = seconds(105) }, []labmesh.BenchFlag{labmesh.FlagContended}, true, "0.50 of the one processor"},
		"a busy thread of 64":            {64, func(_, b *snapshot) { b.busy = seconds(110) }, []labmesh.BenchFlag{labmesh.FlagContended}, true, ""},
		"what is measured uses all of 2": {2, func(_, b *snapshot) { b.busy, b.own = seconds(120), seconds(24.9) }, nil, false, ""},
		"what is measured, and another":  {2, func(_, b *snapshot) { b.busy, b.own = seconds(118), seconds(14) }, []labmesh.BenchFlag{labmesh.FlagContended}, true, "0.90"},
		"own time that runs ahead":       {2, func(_, b *snapshot) { b.own = seconds(6) }, nil, false, ""},
		"small daemons of 64":            {64, func(_, b *snapshot) { b.busy = seconds(104) }, nil, false, ""},
		"the hypervisor takes a tenth":   {2, func(_, b *snapshot) { b.steal = seconds(3) }, []labmesh.BenchFlag{labmesh.FlagContended}, true, "hypervisor gave 10.0 %"},
		"the hypervisor takes a little":  {2, func(_, b *snapshot) { b.steal = seconds(1.2) }, nil, false, ""},
		"somebody waits":                 {2, func(_, b *snapshot) { b.stalled = seconds(5) }, nil, true, "waited for a processor 20 %"},
		"memory is short":                {2, func(_, b *snapshot) { b.starved = seconds(4) }, []labmesh.BenchFlag{labmesh.FlagContended}, true, "waited for memory 10 %"},
		"hot":                            {2, func(_, b *snapshot) { b.hot = ptr(uint64(9)) }, []labmesh.BenchFlag{labmesh.FlagThrottled}, true, "slowed down 2 times"},
		"a quota":                        {2, func(_, b *snapshot) { b.quota = seconds(1.3) }, []labmesh.BenchFlag{labmesh.FlagThrottled}, true, "stopped it for 1.3s"},
		"hot and contended": {2, func(_, b *snapshot) { b.hot, b.busy, b.steal = ptr(uint64(9)), seconds(110), seconds(3) },
			[]labmesh.BenchFlag{labmesh.FlagContended, labmesh.FlagThrottled}, true, "; the hypervisor"},
		"nothing is shown": {2, func(a, b *snapshot) { *a, *b = snapshot{at: a.at}, snapshot{at: b.at} }, nil, false, ""},
		"only the load is shown": {2, func(a, b *snapshot) {
			*a, *b = snapshot{at: a.at, processors: 2}, snapshot{at: b.at, processors: 2, load: ptr(1.5)}
		}, nil, true, "the load is 1.5"},
		"own is not known":    {2, func(a, b *snapshot) { a.own, b.own, b.busy = nil, nil, seconds(110) }, nil, false, ""},
		"too short to say":    {2, func(a, b *snapshot) { b.at, b.busy, b.stalled = a.at.Add(time.Millisecond), seconds(110), seconds(4) }, nil, false, ""},
		"the clock went back": {2, func(a, b *snapshot) { b.at, b.busy = a.at.Add(-time.Second), seconds(110) }, nil, false, ""},
	} {
		a, b := still(c.processors)
		c.change(a, b)
		o := observed(disturbed(a, b, nil))
		if !slices.Equal(o.Flags, c.flags) || len(o.Reasons) != len(o.Flags) {
			t.Errorf("%s: %v, %q, want %v", name, o.Flags, o.Reasons, c.flags)
		}
		w := observed(unquiet(a, b, nil))
		if (len(w.Reasons) > 0) != c.unquiet || !strings.Contains(strings.Join(w.Reasons, "; "), c.say) {
			t.Errorf("%s: not quiet is %v: %q, want %v with %q", name, len(w.Reasons) > 0, w.Reasons, c.unquiet, c.say)
		}
	}
}

func TestNamesWhoDisturbs(t *testing.T) {
	t.Parallel()
	a, b := still(2)
	b.busy = seconds(119)
	a.processes = map[int]process{1: {"init", 1, time.Minute}, 7: {"mine", 2, 0}, 8: {"old", 3, time.Hour}}
	b.processes = map[int]process{1: {"init", 1, time.Minute}, 7: {"mine", 2, 9 * time.Second}, 8: {"bur\nner", 4, 6 * time.Second}, 9: {"late", 5, time.Second}}
	got := observed(disturbed(a, b, func(pid int) bool { return pid == 7 })).Reasons
	if want := "other processes used 1.90 of 2 processors, burner (pid 8) 0.60"; len(got) != 1 || got[0] != want {
		t.Errorf("%q, want %q", got, want)
	}
}

func TestClockDrift(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		mhz   []float64
		drift bool
	}{
		{nil, false}, {[]float64{3000, 1000}, false}, {[]float64{3000, 3010, 2990, 3000}, false}, {[]float64{3000, 2900, 2800, 2700, 2600, 2600}, true},
		{[]float64{3000, 3000, 1000, 3000, 3000}, false}, {[]float64{0, 0, 0}, false}, {[]float64{2000, 2100, 2300}, true},
	} {
		if got := drift("processor", c.mhz); (len(got) > 0) != c.drift {
			t.Errorf("%v: %v", c.mhz, got)
		}
	}
}

func gpu(change func(*bench.GPUState)) *gpuState {
	s := bench.GPUState{UUID: "GPU-1", Slices: []string{"MIG-1"}, Utilization: ptr(0.0), SMMHz: ptr(1500.0), Throttle: ptr(bench.ThrottleIdle), TempC: ptr(40.0)}
	change(&s)
	return &gpuState{s}
}

func TestDecidesOfAGPU(t *testing.T) {
	t.Parallel()
	ours := func(pid int) bool { return pid == 7 }
	with := func(pids ...int) func(*bench.GPUState) {
		return func(s *bench.GPUState) {
			s.Utilization = ptr(90.0)
			for _, pid := range pids {
				s.Processes = append(s.Processes, bench.GPUProcess{PID: pid, Name: "python"})
			}
		}
	}
	for name, c := range map[string]struct {
		before []bench.GPUProcess
		states []*gpuState
		flags  []labmesh.BenchFlag
	}{
		"idle":                      {nil, []*gpuState{gpu(with())}, nil},
		"ours":                      {nil, []*gpuState{gpu(with()), gpu(with(7))}, nil},
		"ours and another":          {nil, []*gpuState{gpu(with()), gpu(with(7, 8)), gpu(with(7))}, []labmesh.BenchFlag{labmesh.FlagForeignGPU}},
		"one that nobody knows":     {nil, []*gpuState{gpu(with(8))}, nil},
		"two that nobody knows":     {nil, []*gpuState{gpu(with(8, 9))}, []labmesh.BenchFlag{labmesh.FlagForeignGPU}},
		"one that was there before": {[]bench.GPUProcess{{PID: 9}}, []*gpuState{gpu(with(8, 9))}, []labmesh.BenchFlag{labmesh.FlagForeignGPU}},
		"hot":                       {nil, []*gpuState{gpu(func(s *bench.GPUState) { s.Throttle = ptr(bench.ThrottleThermal) })}, []labmesh.BenchFlag{labmesh.FlagThrottled}},
		"at its power limit":        {nil, []*gpuState{gpu(func(s *bench.GPUState) { s.Throttle = ptr(bench.ThrottlePowerCap) })}, nil},
		"its clock falls": {nil, []*gpuState{gpu(with()), clocked(1900), clocked(1900), clocked(1500), clocked(1300), clocked(1300), clocked(1300)},
			[]labmesh.BenchFlag{labmesh.FlagClockDrift}},
		"its clock rises at first":  {nil, []*gpuState{clocked(300), clocked(1900), clocked(1900), clocked(1900)}, nil},
		"its clock falls when idle": {nil, []*gpuState{clocked(1900), clocked(1900), clocked(1900), gpu(func(*bench.GPUState) {}), gpu(func(*bench.GPUState) {})}, nil},
	} {
		if o := observed(watched(c.states, c.before, ours)); !slices.Equal(o.Flags, c.flags) {
			t.Errorf("%s: %v %q, want %v", name, o.Flags, o.Reasons, c.flags)
		}
	}
	for name, c := range map[string]struct {
		a, b *gpuState
		say  string
	}{
		"idle":        {nil, gpu(func(*bench.GPUState) {}), ""},
		"a process":   {nil, gpu(with(8)), "another process computes on the GPU: python (pid 8)"},
		"more":        {nil, gpu(with(8, 9, 10, 11)), "4 other processes"},
		"busy":        {nil, gpu(func(s *bench.GPUState) { s.Utilization = ptr(30.0) }), "30 % busy"},
		"a desktop":   {nil, gpu(func(s *bench.GPUState) { s.Utilization = ptr(3.0) }), ""},
		"power brake": {nil, gpu(func(s *bench.GPUState) { s.Throttle = ptr(bench.ThrottlePowerBrake) }), "power brake (40 °C)"},
		"silent":      {gpu(func(*bench.GPUState) {}), nil, "did not answer"},
	} {
		a, b := still(2)
		a.gpu, b.gpu = c.a, c.b
		if got := strings.Join(observed(unquiet(a, b, ours)).Reasons, ";"); (got == "") != (c.say == "") || !strings.Contains(got, c.say) {
			t.Errorf("%s: %q, want %q", name, got, c.say)
		}
	}
}

func clocked(mhz float64) *gpuState {
	return gpu(func(s *bench.GPUState) { s.SMMHz, s.Utilization = &mhz, ptr(90.0) })
}

func TestFindsTheGPUOfADevice(t *testing.T) {
	t.Parallel()
	all := []bench.GPUState{{Index: 0, UUID: "GPU-a"}, {Index: 1, UUID: "GPU-b", Slices: []string{"MIG-x"}, PowerW: ptr(300.0), Processes: []bench.GPUProcess{{PID: 1}}}}
	for uuid, want := range map[string]string{"": "GPU-b", "gpu-A": "GPU-a", "MIG-x": "GPU-b", "GPU-c": ""} {
		got := ""
		if g := find(all, bench.Device{Class: "cuda", UUID: uuid, Index: 1}); g != nil {
			got = g.UUID
		}
		if got != want {
			t.Errorf("%q is %q, want %q", uuid, got, want)
		}
	}
	if g := find(all, bench.Device{Class: "cuda", UUID: "MIG-x"}); g.PowerW != nil || g.Processes != nil || all[1].PowerW == nil {
		t.Errorf("what the whole GPU does is said of a slice: %+v", g)
	}
}

func TestEnergyOfAGPU(t *testing.T) {
	t.Parallel()
	at := []time.Time{time.Unix(0, 0), time.Unix(1, 0), time.Unix(3, 0)}
	state := func(joules, watts *float64) *gpuState {
		return gpu(func(s *bench.GPUState) { s.EnergyJ, s.PowerW = joules, watts })
	}
	for name, c := range map[string]struct {
		states []*gpuState
		want   *float64
	}{
		"by its counter":       {[]*gpuState{state(ptr(10.0), nil), state(nil, nil), state(ptr(40.0), nil)}, ptr(30.0)},
		"by its power":         {[]*gpuState{state(nil, ptr(100.0)), state(nil, ptr(200.0)), state(nil, ptr(200.0))}, ptr(550.0)},
		"the driver was new":   {[]*gpuState{state(ptr(50.0), ptr(100.0)), state(ptr(0.0), ptr(100.0)), state(ptr(9.0), ptr(100.0))}, ptr(300.0)},
		"nothing is known":     {[]*gpuState{state(nil, nil), state(nil, ptr(5.0)), state(nil, nil)}, nil},
		"one look says little": {[]*gpuState{state(ptr(1.0), nil)}, nil},
	} {
		j, w := consumed(c.states, at[:len(c.states)])
		if (j == nil) != (c.want == nil) || j != nil && (*j != *c.want || *w != *c.want/3) {
			t.Errorf("%s: %v J, want %v", name, j, c.want)
		}
	}
}

func TestCountersOfEnergyWrap(t *testing.T) {
	t.Parallel()
	m := meter{zones: []zone{{wrap: 1000_000_000}, {}}}
	m.add([]uint64{999_000_000, 5_000_000})
	if m.joules() != nil {
		t.Error("one reading is taken for energy")
	}
	m.add([]uint64{2_000_000, 6_000_000})
	if j := m.joules(); j == nil || *j != 4 {
		t.Errorf("%v J, want 1 + 2 + 1", j)
	}
	m.add([]uint64{3_000_000, 1_000_000})
	if m.joules() != nil {
		t.Error("a counter went back, nobody knows how far, and there is still a sum")
	}
	if (&meter{}).joules() != nil {
		t.Error("no counter is 0 J")
	}
}
