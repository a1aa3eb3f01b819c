package process

import (
	"bytes"
	"os"
	"strconv"
	"strings"
	"time"
)

// ticksPerSecond is what Linux counts CPU time in for programs, everywhere.
const ticksPerSecond = 100

// CPUTime is the CPU time of all that this host has run, and false where that
// is not known. Without cgroups it is that of what runs now, with the children it
// has waited for.
func (h *Host) CPUTime() (time.Duration, bool) {
	if h.cgroups != nil {
		if d, ok := h.cgroups.CPUTime(); ok {
			return d, true
		}
	}
	names, err := processNames()
	if err != nil {
		return 0, false
	}
	var sum time.Duration
	for _, name := range names {
		if pid, err := strconv.Atoi(name); err == nil && h.Owns(pid) {
			sum += cpuTime(pid)
		}
	}
	return sum, true
}

// Owns reports whether a process is one that this host runs.
func (h *Host) Owns(pid int) bool {
	if h.cgroups != nil {
		return h.cgroups.Holding(pid)
	}
	return strings.HasPrefix(tokenOf(pid), h.prefix)
}

func processNames() ([]string, error) {
	dir, err := os.Open("/proc")
	if err != nil {
		return nil, err
	}
	defer dir.Close()
	return dir.Readdirnames(-1)
}

// cpuTime is the CPU time of a process and of those children that it has waited for.
func cpuTime(pid int) time.Duration {
	data, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return 0
	}
	fields := bytes.Fields(data[bytes.LastIndexByte(data, ')')+1:]) // the first is the third of the line
	const from, to = 14 - 3, 17 - 3                                 // utime, stime, cutime and cstime
	if len(fields) <= to {
		return 0
	}
	var sum int64
	for _, f := range fields[from : to+1] {
		n, _ := strconv.ParseInt(string(f), 10, 64) // it is the kernel's
		sum += n
	}
	return time.Duration(sum) * (time.Second / ticksPerSecond)
}
