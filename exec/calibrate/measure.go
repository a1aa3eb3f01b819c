package calibrate

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"sync"
	"time"

	"labmesh"
	"labmesh/infer"
)

// How it is measured: everything in turn, several times, and of each the median
// counts, so that what disturbs for a second does not. What one processor does is counted by the
// time that it was ours; all else by the clock.
const (
	rounds      = 5
	computeTime = 600 * time.Millisecond // of one processor, of all, and of the mix, in each round
	copyTime    = 300 * time.Millisecond
	diskBytes   = 32 << 20 // written in each round
	diskPiece   = 1 << 20
	copyBytes   = 128 << 20 // copied at a time, by all processors together: more than most caches hold
	copyLeast   = 4 << 20   // on a machine with little memory

	// quietShare is the part of a processor that the measurement must have had; with less, others did.
	quietShare = 0.9
)

// Reference is the speed, in 10⁶ steps of [mix] a second, of the processor that
// counts as 1: one of a cloud machine of 2026, an AMD EPYC at about 2.6 GHz.
const Reference = 120.0

// Result is what was measured.
type Result struct {
	labmesh.Calibration
	Kernel string `json:"kernel"` // of the matrix product
	// Busy says that others used the processors meanwhile: the figures are too low.
	Busy string `json:"busy,omitempty"`
}

// Config says what to measure on.
type Config struct {
	Dir         string // on the disk to measure; "" leaves the disk out
	MemoryBytes int64  // of the machine; 0 when it is not known

	scale  float64 // of all durations and sizes, for tests; 0 means 1
	rounds int     // for tests; 0 means the usual number
}

// Measure measures this machine. It uses all of it for as long as it takes, and
// ends early only with ctx.
func Measure(ctx context.Context, cfg Config) (Result, error) {
	if cfg.scale == 0 {
		cfg.scale, cfg.rounds = 1, rounds
	}
	all := runtime.GOMAXPROCS(0)
	from, to := buffers(cfg)
	var one, every, mixed, memory, disk, share []float64
	r := Result{}
	r.At = time.Now().UTC().Truncate(time.Second)
	for range cfg.rounds {
		had := watch()
		m := mixRate(ctx, cfg.time(computeTime))
		s := had()
		mixed, share = append(mixed, m/s), append(share, s)
		had = watch()
		g, kernel := infer.MeasureGFLOPS(ctx, 1, cfg.time(computeTime))
		one, r.Kernel = append(one, g/had()), kernel
		g, _ = infer.MeasureGFLOPS(ctx, all, cfg.time(computeTime))
		every = append(every, g)
		memory = append(memory, copyRate(ctx, from, to, all, cfg.time(copyTime)))
		if ctx.Err() != nil {
			return Result{}, ctx.Err()
		}
		if cfg.Dir == "" {
			continue
		}
		rate, err := writeRate(ctx, cfg.Dir, int(diskBytes*cfg.scale))
		if err != nil {
			return Result{}, err
		}
		disk = append(disk, rate)
	}
	r.GFLOPSOne, r.GFLOPS, r.MemoryGBs = round(median(one)), round(median(every)), round(median(memory)/1e9)
	if len(disk) > 0 {
		r.DiskMBs = round(median(disk) / 1e6)
	}
	r.Speed = round(median(mixed) / 1e6 / Reference)
	if s := median(share); s < quietShare {
		r.Busy = fmt.Sprintf("other programs left the measurement %.0f %% of a processor", 100*s)
	}
	return r, nil
}

func (cfg Config) time(d time.Duration) time.Duration { return time.Duration(cfg.scale * float64(d)) }

// mixRate is how many steps of mix one processor takes in a second.
func mixRate(ctx context.Context, d time.Duration) float64 {
	const batch = 1 << 16
	m, steps := newMix(), 0
	began := time.Now()
	for time.Since(began) < d && ctx.Err() == nil {
		m.run(batch)
		steps += batch
	}
	runtime.KeepAlive(m)
	return float64(steps) / time.Since(began).Seconds()
}

// mix is work as programs do it: integers, branches that cannot be foretold, and
// loads from a table that the second-level cache holds. It is plain Go on purpose, and must never change: all
// speeds are counted in its steps.
type mix struct {
	table []uint32
	x     uint32
	sum   uint64
}

const mixTable = 1 << 16 // words

func newMix() *mix {
	m := &mix{table: make([]uint32, mixTable), x: 2463534242}
	for i := range m.table {
		m.table[i] = m.next()
	}
	return m
}

// next is a step of xorshift32 (Marsaglia 2003).
func (m *mix) next() uint32 {
	m.x ^= m.x << 13
	m.x ^= m.x >> 17
	m.x ^= m.x << 5
	return m.x
}

func (m *mix) run(steps int) {
	for range steps {
		v := m.table[m.next()%mixTable]
		if v&1 == 0 {
			m.sum += uint64(v)
		} else {
			m.sum ^= uint64(v) << 7
		}
		m.table[v%mixTable] = m.x
	}
}

// buffers are what memory is copied between.
func buffers(cfg Config) (from, to []byte) {
	n := int64(copyBytes)
	if cfg.MemoryBytes > 0 {
		n = max(min(n, cfg.MemoryBytes/32), copyLeast)
	}
	n = int64(float64(n) * cfg.scale)
	from, to = make([]byte, n), make([]byte, n)
	for i := range from {
		from[i] = byte(i) // pages that were never written are all one page of zeros
	}
	copy(to, from)
	return from, to
}

// copyRate is how many bytes a second so many threads copy together. What is copied counts once.
func copyRate(ctx context.Context, from, to []byte, threads int, d time.Duration) float64 {
	copied, began := 0, time.Now()
	for time.Since(began) < d && ctx.Err() == nil {
		var working sync.WaitGroup
		for t := range threads {
			lo, hi := t*len(from)/threads, (t+1)*len(from)/threads
			working.Go(func() { copy(to[lo:hi], from[lo:hi]) })
		}
		working.Wait()
		copied += len(from)
	}
	return float64(copied) / time.Since(began).Seconds()
}

// writeRate is how many bytes a second reach the disk: written in pieces to a
// new file, and synced once.
func writeRate(ctx context.Context, dir string, bytes int) (rate float64, err error) {
	path := filepath.Join(dir, "calibrate.tmp")
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return 0, fmt.Errorf("measure the disk: %w", err)
	}
	defer func() { err = errors.Join(err, f.Close(), os.Remove(path)) }()
	piece := make([]byte, diskPiece)
	m := newMix()
	for i := range piece {
		piece[i] = byte(m.next()) // disks and file systems that compress must not
	}
	began := time.Now()
	for written := 0; written < bytes; written += diskPiece {
		if ctx.Err() != nil {
			return 0, ctx.Err()
		}
		if _, err := f.Write(piece[:min(diskPiece, bytes-written)]); err != nil {
			return 0, fmt.Errorf("measure the disk: %w", err)
		}
	}
	if err := f.Sync(); err != nil {
		return 0, fmt.Errorf("measure the disk: %w", err)
	}
	return float64(bytes) / time.Since(began).Seconds(), nil
}

// median of numbers; 0 of none.
func median(of []float64) float64 {
	if len(of) == 0 {
		return 0
	}
	s := slices.Sorted(slices.Values(of))
	if n := len(s); n%2 == 0 {
		return (s[n/2-1] + s[n/2]) / 2
	}
	return s[len(s)/2]
}

// round keeps three digits: more say nothing.
func round(x float64) float64 {
	y, err := strconv.ParseFloat(strconv.FormatFloat(x, 'g', 3, 64), 64)
	if err != nil {
		return x
	}
	return y
}
