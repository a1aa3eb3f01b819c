package cgroup

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// CPUTime is the CPU time of all that has run in leaves of the pool, also of
// those that are gone, and false where no hierarchy counts it.
func (p *Pool) CPUTime() (time.Duration, bool) {
	for _, t := range p.trees {
		if text, err := os.ReadFile(filepath.Join(t.dir, "cpu.stat")); err == nil && t.v2 {
			return time.Duration(field(text, "usage_usec")) * time.Microsecond, true
		}
		if text, err := os.ReadFile(filepath.Join(t.dir, "cpuacct.usage")); err == nil {
			return time.Duration(number(text)), true
		}
	}
	return 0, false
}

// Holding reports whether a process is in a leaf of the pool, or below one.
func (p *Pool) Holding(pid int) bool {
	text, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/cgroup")
	return err == nil && strings.Contains(string(text), "/"+poolName(p.cfg.Dir)+"/")
}
