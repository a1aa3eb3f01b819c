package cgroup

import (
	"errors"
	"slices"
	"strconv"
	"time"
)

// The controllers that limits need.
const (
	Memory = "memory"
	Pids   = "pids"
	CPU    = "cpu"
)

// Controllers lists them.
func Controllers() []string { return []string{Memory, Pids, CPU} }

// Limits bound what runs in a leaf. What is 0 is not bounded.
type Limits struct {
	CPUs   float64 // CPU seconds a second
	Memory int64   // bytes
	Pids   int     // processes and threads
}

// needs lists the controllers that hold l.
func (l Limits) needs() (out []string) {
	if l.Memory > 0 {
		out = append(out, Memory)
	}
	if l.Pids > 0 {
		out = append(out, Pids)
	}
	if l.CPUs > 0 {
		out = append(out, CPU)
	}
	return out
}

// Without is l less what the controllers that are not among have would hold,
// and the names of those.
func (l Limits) Without(have []string) (rest Limits, missing []string) {
	for _, c := range l.needs() {
		if slices.Contains(have, c) {
			continue
		}
		missing = append(missing, c)
		switch c {
		case Memory:
			l.Memory = 0
		case Pids:
			l.Pids = 0
		case CPU:
			l.CPUs = 0
		}
	}
	return l, missing
}

// Usage is what ran in a leaf used since it was taken.
type Usage struct {
	CPU        time.Duration // 0 where it is not counted
	PeakMemory int64         // bytes, with the files it had in memory; 0 where it is not known
}

// ErrEscaped says that a tree could not be ended.
var ErrEscaped = errors.New("processes of the attempt are still there after SIGKILL")

// cpuPeriod is the time over which a limit on CPU is counted, in microseconds.
const cpuPeriod = 100_000

// quota is the CPU time for each period that holds to cpus, in microseconds.
// The kernel takes nothing below a millisecond.
func quota(cpus float64) int64 { return max(int64(cpus*cpuPeriod), 1000) }

// setting is a line for a file of a cgroup.
type setting struct {
	file, value string
	optional    bool // not every kernel has the file
}

// settings hold the part of l that controller c holds. All are set anew, so that
// a cgroup that held other limits before holds these.
func settings(v2 bool, c string, l Limits) []setting {
	switch {
	case c == Memory && v2:
		return []setting{
			{file: "memory.max", value: most(l.Memory, "max")},
			// Memory that is only moved to disk is not given back.
			{file: "memory.swap.max", value: map[bool]string{true: "0", false: "max"}[l.Memory > 0], optional: true},
			// One process less is a program that half works: all go.
			{file: "memory.oom.group", value: "1", optional: true},
		}
	case c == Memory:
		return []setting{
			{file: "memory.limit_in_bytes", value: most(l.Memory, "-1")},
			{file: "memory.memsw.limit_in_bytes", value: most(l.Memory, "-1"), optional: true},
		}
	case c == Pids:
		return []setting{{file: "pids.max", value: most(int64(l.Pids), "max")}}
	case c == CPU && v2:
		q := "max"
		if l.CPUs > 0 {
			q = strconv.FormatInt(quota(l.CPUs), 10)
		}
		return []setting{{file: "cpu.max", value: q + " " + strconv.Itoa(cpuPeriod)}}
	case c == CPU:
		q := "-1"
		if l.CPUs > 0 {
			q = strconv.FormatInt(quota(l.CPUs), 10)
		}
		return []setting{{file: "cpu.cfs_period_us", value: strconv.Itoa(cpuPeriod)}, {file: "cpu.cfs_quota_us", value: q}}
	}
	return nil
}

func most(n int64, unbounded string) string {
	if n <= 0 {
		return unbounded
	}
	return strconv.FormatInt(n, 10)
}

// Of the machine, what the programs of a pool leave to the node.
const (
	reserveFraction = 10 // one part in so many of the memory, within
	reserveMin      = 256 << 20
	reserveMax      = 2 << 30

	// On each processor all tasks together weigh as much as one thread of the node.
	taskWeight  = 100
	agentWeight = 200
	weightMax   = 10_000
	shares      = 1024 // of v1, for a weight of 100
)

// memoryFor is how much of a machine's memory its tasks may take together.
func memoryFor(total int64) int64 {
	if total <= 0 {
		return 0
	}
	return max(total-min(max(total/reserveFraction, reserveMin), reserveMax), total/2)
}

// weights are those of tasks and of the node on a machine with so many processors.
func weights(cpus int) (tasks, agent int) {
	cpus = max(cpus, 1)
	return min(taskWeight*cpus, weightMax/2), min(agentWeight*cpus, weightMax)
}
