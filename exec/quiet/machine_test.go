package quiet

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	osexec "os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"labmesh"
	"labmesh/bench"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// root makes a file system of its own with the given files.
func root(t testing.TB, all map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for name, text := range all {
		path := filepath.Join(dir, name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o700), os.WriteFile(path, []byte(text), 0o600)); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

const stat = "cpu  100 20 30 4000 50 6 4 9 3 2\ncpu0 50 10 15 2000 25 3 2 4 1 1\ncpu1 50 10 15 2000 25 3 2 5 2 1\nintr 1 2 3\n"

// server is what a machine with everything shows.
func server() map[string]string {
	return map[string]string{
		"proc/stat":            stat,
		"proc/loadavg":         "1.25 0.5 0.1 2/100 999\n",
		"proc/pressure/cpu":    "some avg10=1.00 avg60=0.00 avg300=0.00 total=2500000\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=0\n",
		"proc/pressure/memory": "some avg10=0.00 avg60=0.00 avg300=0.00 total=1000000\n",
		"proc/self/cgroup":     "0::/a.slice/b.scope\n",
		"proc/12/stat":         "12 (a (very) odd) name) R 1 1 1 0 -1 0 0 0 0 0 70 30 0 0 20 0 1 0 4242 0 0\n",
		"proc/13/stat":         "13 (short) R 1\n",
		"proc/cpuinfo": "processor\t: 0\nvendor_id\t: GenuineIntel\nmodel name\t: Test CPU\nmicrocode\t: 0x1\nflags\t\t: sse2 avx2 avx512f amx_tile hypervisor\n\n" +
			"processor\t: 1\nvendor_id\t: GenuineIntel\nmodel name\t: Test CPU\nmicrocode\t: 0x1\nflags\t\t: sse2 avx2\n",
		"sys/fs/cgroup/a.slice/cpu.stat":                                      "usage_usec 1\nthrottled_usec 1500000\n",
		"sys/fs/cgroup/a.slice/cpu.max":                                       "150000 100000\n",
		"sys/fs/cgroup/a.slice/b.scope/cpu.stat":                              "usage_usec 1\nthrottled_usec 500000\n",
		"sys/fs/cgroup/a.slice/b.scope/cpu.max":                               "max 100000\n",
		"sys/devices/system/cpu/cpu0/cpufreq/scaling_cur_freq":                "1200000\n",
		"sys/devices/system/cpu/cpu1/cpufreq/scaling_cur_freq":                "3400000\n",
		"sys/devices/system/cpu/cpu0/cpufreq/scaling_governor":                "powersave\n",
		"sys/devices/system/cpu/cpu1/cpufreq/scaling_governor":                "performance\n",
		"sys/devices/system/cpu/cpu0/cpufreq/scaling_driver":                  "intel_pstate\n",
		"sys/devices/system/cpu/cpu0/cpufreq/cpuinfo_max_freq":                "4000000\n",
		"sys/devices/system/cpu/intel_pstate/no_turbo":                        "0\n",
		"sys/devices/system/cpu/smt/active":                                   "1\n",
		"sys/devices/system/cpu/cpu0/thermal_throttle/core_throttle_count":    "3\n",
		"sys/devices/system/cpu/cpu0/thermal_throttle/package_throttle_count": "4\n",
		"sys/devices/system/node/node0/cpulist":                               "0\n",
		"sys/devices/system/node/node1/cpulist":                               "1\n",
		"sys/class/powercap/intel-rapl:0/name":                                "package-0\n",
		"sys/class/powercap/intel-rapl:0/energy_uj":                           "1000000\n",
		"sys/class/powercap/intel-rapl:0/max_energy_range_uj":                 "262143328850\n",
		"sys/class/powercap/intel-rapl:0:0/name":                              "core\n",
		"sys/class/powercap/intel-rapl:0:0/energy_uj":                         "5\n",
		"sys/class/powercap/intel-rapl:0:1/name":                              "dram\n",
		"sys/class/powercap/intel-rapl:0:1/energy_uj":                         "7\n",
	}
}

func TestReadsWhatTheMachineShows(t *testing.T) {
	t.Parallel()
	m := New(Config{Root: root(t, server()), Own: func() (time.Duration, bool) { return time.Second, true }})
	s := m.snapshot(t.Context(), bench.Device{Class: "cpu"})
	for what, ok := range map[string]bool{
		"processors": s.processors == 2, "busy": *s.busy == 1600*time.Millisecond, "steal": *s.steal == 90*time.Millisecond, "own": *s.own == time.Second,
		"stalled": *s.stalled == 2500*time.Millisecond, "starved": *s.starved == time.Second, "quota": *s.quota == 2*time.Second, "hot": *s.hot == 7,
		"load": *s.load == 1.25, "mhz": *s.mhz == 3400, "gpu": s.gpu == nil,
		"processes": len(s.processes) == 1 && s.processes[12] == process{"a (very) odd) name", 4242, time.Second},
		"zones":     len(m.look().energy) == 2,
	} {
		if !ok {
			t.Errorf("%s: %+v", what, s)
		}
	}
	bare := New(Config{Root: root(t, nil)})
	if s := bare.counters(); s.busy != nil || s.steal != nil || s.own != nil || s.stalled != nil || s.quota != nil || s.hot != nil || s.load != nil || s.mhz != nil || s.processors < 1 {
		t.Errorf("nothing is shown: %+v", s)
	}
}

func TestReadsBothVersionsOfCgroups(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]map[string]string{
		"v1": {"proc/self/cgroup": "3:memory:/x\n2:cpu,cpuacct:/a\n", "sys/fs/cgroup/cpu,cpuacct/a/cpu.stat": "nr_throttled 3\nthrottled_time 2000000000\n",
			"sys/fs/cgroup/cpu,cpuacct/a/cpu.cfs_quota_us": "50000\n", "sys/fs/cgroup/cpu,cpuacct/a/cpu.cfs_period_us": "100000\n", "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us": "-1\n"},
		"both": {"proc/self/cgroup": "0::/a\n1:name=systemd:/\n", "sys/fs/cgroup/unified/a/cpu.stat": "throttled_usec 2000000\n", "sys/fs/cgroup/unified/a/cpu.max": "50000 100000\n"},
	} {
		f := files{root(t, c)}
		if d, n := f.throttled(f.cgroups()), f.allowed(f.cgroups()); d == nil || *d != 2*time.Second || n == nil || *n != 0.5 {
			t.Errorf("%s: throttled %v, allowed %v", name, d, n)
		}
	}
}

// write replaces a file of a machine.
func write(t testing.TB, root, name, text string) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(root, name), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

func none() (time.Duration, bool) { return 0, true }

func TestWaitsUntilTheMachineIsQuietAndNoLongerThanTold(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		busy   time.Duration // for how long another process uses a processor
		most   time.Duration
		ok     bool
		least  time.Duration
		beyond time.Duration
	}{
		"quiet":            {0, time.Minute, true, window, 2 * window},
		"soon quiet":       {5 * time.Second, time.Minute, true, 5 * time.Second, 8 * time.Second},
		"never quiet":      {time.Hour, 10 * time.Second, false, 10 * time.Second, 10 * time.Second},
		"hardly a bound":   {time.Hour, time.Second, false, time.Second, time.Second},
		"no wait at all":   {time.Hour, -1, true, 0, 0},
		"too short to say": {time.Hour, 10 * time.Millisecond, true, 0, 10 * time.Millisecond},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := root(t, server())
			synctest.Test(t, func(t *testing.T) {
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				began := time.Now()
				go func() { // another process
					for pause(ctx, 50*time.Millisecond) && time.Since(began) < c.busy {
						write(t, dir, "proc/stat.new", fmt.Sprintf("cpu  %d 0 0 0 0 0 0 0\ncpu0 0\ncpu1 0\n", 160+time.Since(began)/(10*time.Millisecond)))
						if err := os.Rename(filepath.Join(dir, "proc/stat.new"), filepath.Join(dir, "proc/stat")); err != nil {
							t.Error(err)
						}
					}
				}()
				q := New(Config{Root: dir, Own: none}).Wait(ctx, bench.Device{Class: "cpu"}, c.most)
				took := time.Since(began)
				if q.OK != c.ok || q.OK == (len(q.Reasons) > 0) || took < c.least || took > c.beyond || q.WaitedS != took.Seconds() {
					t.Errorf("%+v after %v", q, took)
				}
			})
		})
	}
}

func TestWaitIsBrokenOff(t *testing.T) {
	t.Parallel()
	dir := root(t, server())
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
		defer cancel()
		q := New(Config{Root: dir, Own: none}).Wait(ctx, bench.Device{}, time.Minute)
		if q.OK || len(q.Reasons) != 1 || q.WaitedS != 0.3 {
			t.Errorf("%+v", q)
		}
	})
}

func TestHeavyWorkWaitsForAMeasurement(t *testing.T) {
	t.Parallel()
	dir := root(t, server())
	synctest.Test(t, func(t *testing.T) {
		m := New(Config{Root: dir, Own: none})
		if m.Held() {
			t.Error("held before anything was measured")
		}
		stop := m.Watch(t.Context(), bench.Device{Class: "cpu"})
		time.Sleep(time.Hour)
		if !m.Held() {
			t.Error("not held while something is measured")
		}
		stop()
		stop()
		if !m.Held() {
			t.Error("not held between two batches")
		}
		began := time.Now()
		if m.Calm(t.Context(), 2*time.Second); time.Since(began) != 2*time.Second {
			t.Errorf("told to wait for 2 s at most, it was %v", time.Since(began))
		}
		m.Calm(t.Context(), time.Hour)
		if time.Since(began) < restAfter || m.Held() {
			t.Errorf("held for %v", time.Since(began))
		}
	})
}

func TestWatchTellsEnergyAndDrift(t *testing.T) {
	t.Parallel()
	dir := root(t, server())
	synctest.Test(t, func(t *testing.T) {
		stop := New(Config{Root: dir, Own: none}).Watch(t.Context(), bench.Device{Class: "cpu"})
		time.Sleep(500 * time.Millisecond) // between two looks
		for i := range 10 {
			write(t, dir, "sys/class/powercap/intel-rapl:0/energy_uj", strconv.Itoa(1_000_000+(i+1)*5_000_000))
			write(t, dir, "sys/devices/system/cpu/cpu1/cpufreq/scaling_cur_freq", strconv.Itoa(3_400_000-i*100_000))
			time.Sleep(time.Second)
		}
		o := stop()
		if o.EnergyJ == nil || *o.EnergyJ != 50 || o.EnergySource != "rapl" || o.PowerW == nil || *o.PowerW != 50/10.5 || !slices.Equal(o.Flags, []labmesh.BenchFlag{labmesh.FlagClockDrift}) {
			t.Errorf("%+v", o)
		}
	})
}

// card is a GPU whose states are given.
type card struct {
	states []bench.GPUState
	next   int
	closed bool
}

func (c *card) Sample(context.Context) ([]bench.GPUState, error) {
	s := c.states[min(c.next, len(c.states)-1)]
	c.next++
	return []bench.GPUState{s}, nil
}

func (c *card) Close() error { c.closed = true; return nil }

func TestWatchesAGPU(t *testing.T) {
	t.Parallel()
	dir := root(t, server())
	synctest.Test(t, func(t *testing.T) {
		state := func(joules float64, pids ...int) bench.GPUState {
			s := gpu(func(s *bench.GPUState) { s.EnergyJ, s.Name = &joules, strings.Repeat("N", 1000) }).GPUState
			for _, pid := range pids {
				s.Processes = append(s.Processes, bench.GPUProcess{PID: pid, Name: strings.Repeat("p", 10_000)})
			}
			return s
		}
		c := &card{states: []bench.GPUState{state(1), state(1), state(1), state(100, 7), state(200, 7, 8), state(301, 7)}}
		m := New(Config{Root: dir, Own: none, Owns: func(pid int) bool { return pid == 7 }, GPUs: func(context.Context) (GPUs, error) { return c, nil }})
		d := bench.Device{Class: "cuda", UUID: "GPU-1"}
		if q := m.Wait(t.Context(), d, time.Minute); !q.OK {
			t.Errorf("%+v", q)
		}
		stop := m.Watch(t.Context(), d)
		time.Sleep(2500 * time.Millisecond)
		o := stop()
		if o.EnergyJ == nil || *o.EnergyJ != 300 || o.EnergySource != "nvml" || *o.PowerW != 120 || !slices.Equal(o.Flags, []labmesh.BenchFlag{labmesh.FlagForeignGPU}) {
			t.Errorf("%+v", o)
		}
		var e struct {
			GPU struct{ Before, After *bench.GPUState }
		}
		raw := m.Env(t.Context(), d)
		if err := json.Unmarshal(raw, &e); err != nil || len(raw) > labmesh.BenchEnvBytesMax || *e.GPU.Before.EnergyJ != 1 || *e.GPU.After.EnergyJ != 301 {
			t.Errorf("%s, %v", raw, err)
		}
		time.Sleep(gpuIdle + time.Second)
		synctest.Wait()
		if !c.closed {
			t.Error("the process that asks the driver is kept though nobody asks")
		}
		if err := m.Close(); err != nil {
			t.Error(err)
		}
	})
}

func TestFingerprint(t *testing.T) {
	t.Parallel()
	m := New(Config{Root: root(t, server()), Version: "1.2.3"})
	var got map[string]any
	if err := json.Unmarshal(m.Env(t.Context(), bench.Device{Class: "cpu"}), &got); err != nil {
		t.Fatal(err)
	}
	for field, want := range map[string]any{
		"labmesh": "1.2.3", "governor": "performance,powersave", "turbo": true, "mhz": 3400.0, "mhz_max": 4000.0, "load1": 1.25, "cgroup_cpus": 1.5, "smt": true,
		"numa_nodes": 2.0, "freq_driver": "intel_pstate", "cpu_model": "Test CPU", "microcode": "0x1", "hypervisor": true, "gpu": nil,
	} {
		if got[field] != want {
			t.Errorf("%s is %v, want %v", field, got[field], want)
		}
	}
	if flags := fmt.Sprint(got["cpu_flags"]); flags != "[amx_tile avx2 avx512f]" {
		t.Errorf("flags %s", flags)
	}
	bare := New(Config{Root: root(t, nil)})
	got = nil
	if err := json.Unmarshal(bare.Env(t.Context(), bench.Device{Class: "cuda"}), &got); err != nil {
		t.Fatal(err)
	}
	for _, field := range []string{"labmesh", "governor", "turbo", "mhz", "load1", "cgroup_cpus", "cpu_model", "hypervisor", "numa_nodes", "smt", "gpu", "cpu_flags"} {
		if v, ok := got[field]; !ok || v != nil {
			t.Errorf("%s is not known, and it is %v", field, v)
		}
	}
}

// burn starts a process that uses a processor until the test ends.
func burn(t testing.TB) (pid int) {
	t.Helper()
	cmd := osexec.Command("/bin/sh", "-c", "while :; do :; done")
	if err := cmd.Start(); err != nil {
		t.Skip(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	return cmd.Process.Pid
}

func TestAnotherProcessIsFlagged(t *testing.T) {
	t.Parallel()
	if _, err := os.Stat("/proc/stat"); err != nil {
		t.Skip("CPU times are not shown here")
	}
	m := New(Config{Own: none})
	pid := burn(t)
	stop := m.Watch(t.Context(), bench.Device{Class: "cpu"})
	pause(t.Context(), window)
	if o := stop(); !slices.Contains(o.Flags, labmesh.FlagContended) {
		t.Errorf("process %d used a processor, and was not seen: %+v", pid, o)
	}
	q := m.Wait(t.Context(), bench.Device{Class: "cpu"}, window)
	if q.OK || len(q.Reasons) == 0 || !strings.Contains(q.Reasons[0], "other processes used") {
		t.Errorf("process %d uses a processor, and the machine is quiet: %+v", pid, q)
	}
}

// BenchmarkLook is what one look of a watch costs, and a whole snapshot.
func BenchmarkLook(b *testing.B) {
	m := New(Config{Own: none})
	w := &watch{m: m, meter: meter{zones: m.look().energy}}
	b.Run("sample", func(b *testing.B) {
		for b.Loop() {
			w.take(time.Now(), m.look().mhz(), nil)
		}
	})
	b.Run("snapshot", func(b *testing.B) {
		for b.Loop() {
			_ = m.snapshot(b.Context(), bench.Device{})
		}
	})
}

func FuzzStat(f *testing.F) {
	f.Add([]byte("12 (a (very) odd) name) R 1 1 1 0 -1 0 0 0 0 0 70 30 0 0 20 0 1 0 4242 0 0\n"))
	f.Add([]byte(")("))
	f.Fuzz(func(t *testing.T, data []byte) {
		if p, ok := parseStat(data); ok && p.began == 0 && p.used < 0 {
			t.Errorf("%+v", p)
		}
	})
}
