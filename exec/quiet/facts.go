package quiet

import (
	"bytes"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
)

// ticks are what /proc counts CPU time in: USER_HZ is 100 on every architecture
// that Linux shows to programs.
const ticks = 100

// snapshot is what the machine shows at one time. Counters only grow; what is
// nil is not known.
type snapshot struct {
	at         time.Time
	processors int            // those that are online
	busy       *time.Duration // CPU time that all processes, and the kernel, have used
	steal      *time.Duration // CPU time that the hypervisor gave to others
	own        *time.Duration // CPU time of what this node runs for tasks
	stalled    *time.Duration // time in which somebody waited for a processor (PSI, "some")
	starved    *time.Duration // time in which somebody waited for memory (PSI, "some")
	quota      *time.Duration // time in which the cgroup of this node was stopped by its CPU quota
	hot        *uint64        // times that a processor was slowed down because of heat
	load       *float64       // average of the last minute
	mhz        *float64       // clock of the fastest processor, of those looked at
	processes  map[int]process
	gpu        *gpuState
}

// process is the CPU time of a process.
type process struct {
	name  string
	began uint64 // ticks since boot: with the pid it names a process
	used  time.Duration
}

// files reads facts from /proc and /sys below a root.
type files struct{ root string }

func (f files) path(path string) string { return filepath.Join("/", f.root, path) }

// text is what a small file holds, without white space around it; "" where there is none.
func (f files) text(path string) string {
	data, err := os.ReadFile(f.path(path))
	if err != nil {
		return ""
	}
	return string(bytes.TrimSpace(data))
}

// number is what a file with one number holds, or nil.
func (f files) number(path string) *float64 {
	n, err := strconv.ParseFloat(f.text(path), 64)
	if err != nil {
		return nil
	}
	return &n
}

// cpu reads the times of all processors together.
func (f files) cpu(s *snapshot) {
	for line := range strings.Lines(f.text("proc/stat")) {
		name, rest, _ := strings.Cut(line, " ")
		if !strings.HasPrefix(name, "cpu") {
			return // what follows is long and of no use
		}
		if name != "cpu" {
			s.processors++
			continue
		}
		// user nice system idle iowait irq softirq steal guest guest_nice; guests are counted in user and nice
		var n [8]float64
		fields := strings.Fields(rest)
		if len(fields) < 4 {
			return
		}
		for i := range min(len(n), len(fields)) {
			n[i], _ = strconv.ParseFloat(fields[i], 64) // it is the kernel's
		}
		s.busy = inTicks(n[0] + n[1] + n[2] + n[5] + n[6])
		if len(fields) >= len(n) {
			s.steal = inTicks(n[7])
		}
	}
}

func inTicks(n float64) *time.Duration {
	d := time.Duration(n) * (time.Second / ticks)
	return &d
}

// pressure is the time, since boot, in which some task waited for a resource: cpu or memory.
func (f files) pressure(resource string) *time.Duration {
	for line := range strings.Lines(f.text("proc/pressure/" + resource)) {
		_, total, found := strings.Cut(strings.TrimSpace(line), "total=")
		if !strings.HasPrefix(line, "some ") || !found {
			continue
		}
		us, err := strconv.ParseInt(total, 10, 64)
		if err != nil {
			return nil
		}
		d := time.Duration(us) * time.Microsecond
		return &d
	}
	return nil
}

func (f files) load() *float64 {
	one, _, _ := strings.Cut(f.text("proc/loadavg"), " ")
	n, err := strconv.ParseFloat(one, 64)
	if err != nil {
		return nil
	}
	return &n
}

// cgroup is a cgroup that this process is in, or one above it.
type cgroup struct {
	dir string
	v2  bool
}

// cgroups lists the cgroups that hold the CPU time of this process, from its own upwards.
func (f files) cgroups() (out []cgroup) {
	for line := range strings.Lines(f.text("proc/self/cgroup")) {
		parts := strings.SplitN(strings.TrimSpace(line), ":", 3)
		if len(parts) != 3 {
			continue
		}
		v2 := parts[0] == "0" && parts[1] == ""
		if !v2 && !slices.Contains(strings.Split(parts[1], ","), "cpu") {
			continue
		}
		mount := "sys/fs/cgroup"
		if !v2 {
			mount = "sys/fs/cgroup/" + parts[1]
		} else if _, err := os.Stat(f.path("sys/fs/cgroup/unified")); err == nil {
			mount = "sys/fs/cgroup/unified" // beside those of v1
		}
		for path := filepath.Clean("/" + parts[2]); ; path = filepath.Dir(path) {
			out = append(out, cgroup{filepath.Join(mount, path), v2})
			if path == "/" {
				break
			}
		}
	}
	return out
}

// throttled is for how long the quotas of cgroups have stopped this process and those with it.
func (f files) throttled(groups []cgroup) *time.Duration {
	var sum *time.Duration
	for _, g := range groups {
		for line := range strings.Lines(f.text(g.dir + "/cpu.stat")) {
			key, value, _ := strings.Cut(strings.TrimSpace(line), " ")
			unit := time.Duration(0)
			switch key {
			case "throttled_usec":
				unit = time.Microsecond
			case "throttled_time":
				unit = time.Nanosecond
			default:
				continue
			}
			if n, err := strconv.ParseInt(value, 10, 64); err == nil {
				if sum == nil {
					sum = new(time.Duration)
				}
				*sum += time.Duration(n) * unit
			}
		}
	}
	return sum
}

// allowed is the tightest CPU quota of the cgroups, in processors, or nil.
func (f files) allowed(groups []cgroup) *float64 {
	var least *float64
	for _, g := range groups {
		quota, period := f.text(g.dir+"/cpu.cfs_quota_us"), f.text(g.dir+"/cpu.cfs_period_us")
		if g.v2 {
			quota, period, _ = strings.Cut(f.text(g.dir+"/cpu.max"), " ")
		}
		q, err := strconv.ParseFloat(quota, 64)
		p, err2 := strconv.ParseFloat(period, 64)
		if err != nil || err2 != nil || q <= 0 || p <= 0 {
			continue // max, or -1
		}
		if n := q / p; least == nil || n < *least {
			least = &n
		}
	}
	return least
}

// look are the files of sysfs that are looked at again and again: found once.
type look struct {
	clocks []string // current frequency of some processors
	heat   []string // how often a processor, or a package, was slowed down because of heat
	groups []cgroup
	energy []zone
}

// clocksMax bounds how many processors' clocks are read: to read the clock of an
// idle processor wakes it.
const clocksMax = 4

func (f files) look() (l look) {
	l.clocks, _ = filepath.Glob(f.path("sys/devices/system/cpu/cpu[0-9]*/cpufreq/scaling_cur_freq"))
	l.clocks = spread(l.clocks, clocksMax)
	l.heat, _ = filepath.Glob(f.path("sys/devices/system/cpu/cpu[0-9]*/thermal_throttle/*_throttle_count"))
	l.groups, l.energy = f.cgroups(), f.zones()
	return l
}

// spread picks n of all, as far apart as can be.
func spread(all []string, n int) []string {
	if len(all) <= n {
		return all
	}
	out := make([]string, n)
	for i := range out {
		out[i] = all[i*len(all)/n]
	}
	return out
}

// readNumber is the number in a file, which is given with its root.
func readNumber(path string) (uint64, bool) {
	data, err := os.ReadFile(path)
	if err != nil {
		return 0, false
	}
	n, err := strconv.ParseUint(string(bytes.TrimSpace(data)), 10, 64)
	return n, err == nil
}

// mhz is the clock of the fastest of the processors looked at.
func (l look) mhz() *float64 {
	var most *float64
	for _, path := range l.clocks {
		if khz, ok := readNumber(path); ok && khz > 0 {
			if mhz := float64(khz) / 1000; most == nil || mhz > *most {
				most = &mhz
			}
		}
	}
	return most
}

func (l look) hot() *uint64 {
	var sum *uint64
	for _, path := range l.heat {
		if n, ok := readNumber(path); ok {
			if sum == nil {
				sum = new(uint64)
			}
			*sum += n
		}
	}
	return sum
}

// processesMax bounds how many processes are looked at, to name the one that disturbs.
const processesMax = 20_000

// processes lists the CPU time of every process; nil where that is not shown.
func (f files) processes() map[int]process {
	dir, err := os.Open(f.path("proc"))
	if err != nil {
		return nil
	}
	defer dir.Close()
	names, _ := dir.Readdirnames(-1)
	all := make(map[int]process)
	for _, name := range names {
		pid, err := strconv.Atoi(name)
		if err != nil || len(all) >= processesMax {
			continue
		}
		if data, err := os.ReadFile(f.path("proc/" + name + "/stat")); err == nil {
			if p, ok := parseStat(data); ok {
				all[pid] = p
			}
		}
	}
	return all
}

// parseStat reads /proc/PID/stat.
func parseStat(data []byte) (p process, ok bool) {
	// The second field is a name in brackets and may hold anything.
	from, to := bytes.IndexByte(data, '('), bytes.LastIndexByte(data, ')')
	if from < 0 || to < from {
		return p, false
	}
	fields := bytes.Fields(data[to+1:]) // the first is the third of the line
	const user, system, start = 14 - 3, 15 - 3, 22 - 3
	if len(fields) <= start {
		return p, false
	}
	u, err := strconv.ParseFloat(string(fields[user]), 64)
	s, err2 := strconv.ParseFloat(string(fields[system]), 64)
	began, err3 := strconv.ParseUint(string(fields[start]), 10, 64)
	if err != nil || err2 != nil || err3 != nil {
		return p, false
	}
	return process{name: string(data[from+1 : to]), began: began, used: *inTicks(u + s)}, true
}
