package probe

import (
	"context"
	"os"
	"sync"

	"github.com/shirou/gopsutil/v4/cpu"
	"github.com/shirou/gopsutil/v4/load"
	"github.com/shirou/gopsutil/v4/mem"
	"github.com/shirou/gopsutil/v4/process"

	"labmesh"
)

// Sampler tells what the machine is doing now. It is safe for many goroutines.
type Sampler struct {
	dir  string
	self *process.Process

	mu   sync.Mutex
	last cpu.TimesStat
}

// NewSampler samples this machine, and the disk that holds dir.
func NewSampler(dir string) *Sampler {
	s := &Sampler{dir: dir, self: &process.Process{Pid: int32(os.Getpid())}}
	if t, err := cpu.Times(false); err == nil && len(t) == 1 {
		s.last = t[0]
	}
	return s
}

// Sample is what the machine is doing; CPUPercent is since the last call. How
// many attempts run is for the worker to add. It takes less than a millisecond.
func (s *Sampler) Sample(ctx context.Context) labmesh.Metrics {
	var m labmesh.Metrics
	m.CPUPercent = s.busy(ctx)
	if l, err := load.AvgWithContext(ctx); err == nil {
		m.Load1 = l.Load1
	}
	if v, err := mem.VirtualMemoryWithContext(ctx); err == nil {
		m.MemoryAvailableGB = gb(v.Available)
	}
	if d := diskOf(s.dir); d != nil {
		m.DiskFreeGB = d.FreeGB
	}
	if i, err := s.self.MemoryInfoWithContext(ctx); err == nil {
		m.RSSMB = round(float64(i.RSS)/mib, 1)
	}
	return m
}

// busy is the share of CPU time spent working since the last call, in percent.
func (s *Sampler) busy(ctx context.Context) float64 {
	t, err := cpu.TimesWithContext(ctx, false)
	if err != nil || len(t) != 1 {
		return 0
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	idle := t[0].Idle + t[0].Iowait - s.last.Idle - s.last.Iowait
	all := total(t[0]) - total(s.last)
	s.last = t[0]
	if all <= 0 {
		return 0
	}
	return round(100*min(max(1-idle/all, 0), 1), 1)
}

// total is all CPU time; guests are counted in user and nice.
func total(t cpu.TimesStat) float64 {
	return t.User + t.Nice + t.System + t.Idle + t.Iowait + t.Irq + t.Softirq + t.Steal
}
