package serve

import (
	"context"
	"errors"
	"time"

	"labmesh"
	"labmesh/bench"
	"labmesh/infer"
	"labmesh/stats"
)

// Samples are sent in events of so many at most, and otherwise no oftener than this.
const (
	samplesMax   = 256
	samplesPause = 250 * time.Millisecond
)

// warmupFactor is how much longer than it should a warm-up may take to become steady.
const warmupFactor = 10

// batch measures one batch size and says how that ended. ctx asks it to end after the
// iteration under way, abandon in the middle of it. An error is one of saying so.
func (r *runner) batch(ctx, abandon context.Context, m *infer.Model, n int) error {
	if err := r.say(bench.Event{Kind: bench.EventBatchStart, Batch: n}); err != nil {
		return err
	}
	resettable := resetPeak()
	b, err := m.Prepare(n)
	switch {
	case errors.Is(err, infer.ErrMemory):
		return r.end(bench.Event{Batch: n, Status: labmesh.BenchOOM, Reason: err.Error()})
	case err != nil:
		return r.end(bench.Event{Batch: n, Status: labmesh.BenchError, Reason: err.Error()})
	}
	defer b.Close()
	run := &measurement{runner: r, batch: n, iterate: func() error { return b.Run(abandon) }}
	cancelled, err := run.warmUp(ctx)
	if err != nil {
		return err
	}
	if cancelled {
		return r.end(bench.Event{Batch: n, Status: labmesh.BenchCancelled})
	}
	e, err := run.measure(ctx)
	if err != nil {
		return err
	}
	if resettable {
		e.HostPeak = peak()
	}
	if e.N > 0 {
		s := b.Summary()
		e.Finite = &s.Finite
		if s.Finite {
			e.Checksum = s.String()
		}
	}
	return r.end(e)
}

// measurement is what one batch size has come to.
type measurement struct {
	runner  *runner
	batch   int
	iterate func() error // errs when it was abandoned

	pending [][]float64 // times that have not been sent
	sent    int
	last    time.Time // when some were
}

// warmUp runs until the times are steady or the time for that is over. It returns whether it was asked to stop.
func (m *measurement) warmUp(ctx context.Context) (cancelled bool, _ error) {
	spec := &m.runner.spec
	start := time.Now()
	var times []float64
	steady := false
	for {
		began := time.Now()
		if ctx.Err() != nil || m.iterate() != nil {
			return true, nil
		}
		times = append(times, milliseconds(time.Since(began)))
		took := time.Since(start).Seconds()
		steady = stats.Steady(times)
		if len(times) >= spec.WarmupIterations && took >= spec.WarmupSeconds && (steady || took >= warmupFactor*spec.WarmupSeconds) {
			break
		}
		if spec.MaxSeconds > 0 && took >= max(spec.MaxSeconds, warmupFactor*spec.WarmupSeconds) { // as many as it should do would take for ever
			break
		}
	}
	return false, m.runner.say(bench.Event{Kind: bench.EventWarmup, Batch: m.batch, N: len(times), FirstMS: &times[0], TotalS: new(time.Since(start).Seconds()), Stable: &steady})
}

// measure iterates as often and as long as the spec asks for, and no longer than it allows.
func (m *measurement) measure(ctx context.Context) (bench.Event, error) {
	spec := &m.runner.spec
	e := bench.Event{Batch: m.batch, Status: labmesh.BenchOK}
	used, counted := cpuTime()
	start := time.Now()
	m.last = start
	for {
		took := time.Since(start).Seconds()
		enough := e.N >= max(spec.Iterations, 1)
		if enough && took >= spec.MinSeconds {
			break
		}
		if e.N > 0 && spec.MaxSeconds > 0 && took >= spec.MaxSeconds {
			if !enough {
				e.Status, e.Reason = labmesh.BenchTruncated, "max_seconds_per_batch were over"
			}
			break
		}
		began := time.Now()
		if ctx.Err() != nil || m.iterate() != nil {
			e.Status = labmesh.BenchCancelled
			break
		}
		e.N++
		if err := m.sample(began); err != nil {
			return e, err
		}
	}
	e.WallS = new(time.Since(start).Seconds())
	if now, ok := cpuTime(); ok && counted {
		e.CPUMS = new(milliseconds(now - used))
	}
	return e, m.flush()
}

// sample notes the time of an iteration that has just ended.
func (m *measurement) sample(began time.Time) error {
	now := time.Now()
	m.pending = append(m.pending, []float64{milliseconds(now.Sub(began))})
	if len(m.pending) < samplesMax && now.Sub(m.last) < samplesPause {
		return nil
	}
	m.last = now
	return m.flush()
}

func (m *measurement) flush() error {
	if len(m.pending) == 0 {
		return nil
	}
	err := m.runner.say(bench.Event{Kind: bench.EventSamples, Batch: m.batch, I0: m.sent, MS: m.pending})
	m.sent += len(m.pending)
	m.pending = m.pending[:0]
	return err
}

func milliseconds(d time.Duration) float64 { return d.Seconds() * 1000 }
