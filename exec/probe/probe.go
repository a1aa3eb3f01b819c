// Package probe finds out what a machine really offers, and what it is doing:
// processors, memory, disk, accelerators, interpreters and toolchains. What cannot be
// known is absent; hardware that was looked for and not found is listed with
// the reason why not.
//
// A device is present when it is on a bus, of level driver when its driver answers
// and its files may be opened, and usable once an engine has run a kernel on it ([Merge]). From
// level driver on its class is a word for hardware: that is enough for tasks that bring their own
// libraries. Benchmarks go by usable.
package probe

import (
	"context"
	"math"
	"os"
	"runtime"
	"sync"
	"time"

	"github.com/shirou/gopsutil/v4/cpu"
	"github.com/shirou/gopsutil/v4/mem"
	"golang.org/x/sys/unix"

	"labmesh"
)

const (
	gib = 1 << 30
	mib = 1 << 20

	patience    = 5 * time.Second // for the GPU child, and again for nvidia-smi
	toolTimeout = 5 * time.Second // for one tool to say its version
)

// Config says where to look.
type Config struct {
	Dir string // on the disk that holds the attempts
	// GPUChild runs [GPUChild] in a process of its own and returns what it
	// wrote; nil does without NVML. [Child] makes one.
	GPUChild func(ctx context.Context) ([]byte, error)
	Environ  []string         // the node's environment; nil means that of this process
	Root     string           // of the file system with /proc, /sys and /dev; "" means /
	Declared []labmesh.Device // that the person at the machine says it has, see [ParseDeclared]
	Patience time.Duration    // for a driver to answer; 0 means 5 s
}

// Probe finds out what this machine offers. It takes as long as the slowest
// tool takes to say its version, at most some ten seconds.
func Probe(ctx context.Context, cfg Config) labmesh.Capabilities {
	if cfg.Environ == nil {
		cfg.Environ = os.Environ()
	}
	if cfg.Patience == 0 {
		cfg.Patience = patience
	}
	c := labmesh.Capabilities{Platform: runtime.GOOS + "/" + runtime.GOARCH, Absent: map[string]string{}}
	c.Hostname, _ = os.Hostname() // "" where it has none
	var parts sync.WaitGroup
	defer parts.Wait()
	parts.Go(func() { c.CPU = processors(ctx) })
	parts.Go(func() { c.Memory = memory(ctx, cfg.Root) })
	parts.Go(func() { c.Disk = diskOf(cfg.Dir) })
	parts.Go(func() { c.Tools = tools(ctx, cfg.Environ) })
	found, gpu := accelerators(ctx, cfg)
	parts.Wait()
	equip(&c, found, gpu, cfg.Declared)
	return c
}

func processors(ctx context.Context) labmesh.CPU {
	var c labmesh.CPU
	if info, err := cpu.InfoWithContext(ctx); err == nil && len(info) > 0 {
		c.Model = info[0].ModelName
		for _, i := range info {
			c.FreqMHz = max(c.FreqMHz, round(i.Mhz, 1))
		}
	}
	if n, err := cpu.CountsWithContext(ctx, false); err == nil {
		c.Cores = n
	}
	c.Threads = runtime.NumCPU() // those this process may run on
	if c.Cores == 0 || c.Cores > c.Threads {
		c.Cores = c.Threads
	}
	return c
}

// memory is the machine's, or what the cgroup leaves of it.
func memory(ctx context.Context, root string) labmesh.Memory {
	v, err := mem.VirtualMemoryWithContext(ctx)
	if err != nil {
		return labmesh.Memory{}
	}
	total, available := v.Total, v.Available
	if limit, used, ok := cgroupMemory(root); ok && limit < total {
		total, available = limit, min(available, limit-min(used, limit))
	}
	return labmesh.Memory{TotalGB: gb(total), AvailableGB: gb(available)}
}

// MemoryBytes is the memory of this machine, or what the cgroup leaves of it; 0
// where it is not known.
func MemoryBytes(ctx context.Context) int64 { return int64(memory(ctx, "").TotalGB * gib) }

func diskOf(dir string) *labmesh.Disk {
	var st unix.Statfs_t
	if unix.Statfs(dir, &st) != nil {
		return nil
	}
	size := uint64(st.Bsize) //nolint:unconvert // the type differs by system
	return &labmesh.Disk{TotalGB: gb(st.Blocks * size), FreeGB: gb(st.Bavail * size)}
}

func gb(bytes uint64) float64 { return round(float64(bytes)/gib, 2) }

func round(x float64, digits int) float64 {
	p := math.Pow10(digits)
	return math.Round(x*p) / p
}
