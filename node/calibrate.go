package node

import (
	"context"
	"errors"
	"math/rand/v2"
	"path/filepath"
	"sync"
	"time"

	"labmesh"
	"labmesh/exec/calibrate"
	"labmesh/exec/probe"
)

// When the machine is measured: some time after the worker came, each day, and only
// while it has nothing to do.
const (
	speedFile       = "speed.json"     // what was measured, in the data dir
	calibrateFirst  = 30 * time.Second // after the worker came: what it joined for goes first
	calibrateEvery  = 24 * time.Hour
	calibrateIdle   = 5 * time.Second  // between looks whether the worker has nothing to do
	calibrateRest   = time.Minute      // after it was disturbed, and before a machine that seems slower is measured again
	calibrateBusy   = 10 * time.Minute // after others used the processors meanwhile
	calibrateTries  = 3                // measurements that others disturbed, until one counts all the same
	calibrateJitter = 0.1              // so that nodes that were started together do not go on together
)

// gauge measures how fast the machine is.
type gauge struct {
	l       *labour
	measure func(ctx context.Context, dir string, memory int64) (calibrate.Result, error)
	dir     string
	memory  int64
	every   time.Duration
	book    *calibrate.Book
}

// openGauge readies what measures; nil where nothing shall.
func openGauge(ctx context.Context, l *labour, cfg Config) *gauge {
	if cfg.Calibrate == nil {
		return nil
	}
	g := &gauge{l: l, measure: cfg.Calibrate, dir: cfg.DataDir, memory: probe.MemoryBytes(ctx), every: cfg.Parts.CalibrateEvery}
	if g.every <= 0 {
		g.every = calibrateEvery
	}
	var err error
	if g.book, err = calibrate.OpenBook(filepath.Join(cfg.DataDir, speedFile)); err != nil {
		cfg.Logger.WarnContext(ctx, "earlier measurements of this machine are not known", "err", err)
	}
	if last, ok := g.book.Last(); ok {
		l.self.Capabilities.Calibration = &last.Calibration
	}
	return g
}

// run measures when it is time, until ctx ends.
func (g *gauge) run(ctx context.Context) error {
	if g == nil {
		return nil
	}
	for disturbed := 0; ; {
		wait := calibrateFirst
		switch {
		case disturbed > 0:
			wait = calibrateBusy
		default:
			wait = max(wait, time.Until(g.book.Due(time.Now(), g.every)))
		}
		wait += time.Duration(calibrateJitter * rand.Float64() * float64(wait))
		r, err := g.once(ctx, wait)
		switch {
		case ctx.Err() != nil:
			return nil
		case err != nil: // a full disk, or a program that is being replaced
			g.l.logger.WarnContext(ctx, "this machine was not measured", "err", err)
			disturbed++
			continue
		case r.Busy != "" && disturbed+1 < calibrateTries:
			g.l.logger.DebugContext(ctx, "a measurement of this machine does not count", "because", r.Busy)
			disturbed++
			continue
		}
		disturbed = 0
		if err := g.publish(ctx, r); err != nil {
			return err
		}
	}
}

// once measures after a wait, when the worker has nothing to do. A machine that
// seems to have become slower is measured once more before that is believed.
func (g *gauge) once(ctx context.Context, wait time.Duration) (calibrate.Result, error) {
	r, err := g.undisturbed(ctx, wait)
	if err != nil || r.Busy != "" || g.book.Slower(r) == "" {
		return r, err
	}
	r, err = g.undisturbed(ctx, calibrateRest)
	if err == nil && r.Busy == "" {
		r.Slower = g.book.Slower(r)
	}
	return r, err
}

// undisturbed measures after a wait, as often as it takes for no attempt to come between.
func (g *gauge) undisturbed(ctx context.Context, wait time.Duration) (calibrate.Result, error) {
	for {
		if err := sleep(ctx, wait); err != nil {
			return calibrate.Result{}, err
		}
		for g.l.busy() {
			if err := sleep(ctx, calibrateIdle); err != nil {
				return calibrate.Result{}, err
			}
		}
		r, err := g.whileIdle(ctx)
		if !errors.Is(err, context.Canceled) || ctx.Err() != nil {
			return r, err
		}
		wait = calibrateRest
	}
}

// whileIdle measures, and stops at once when an attempt arrives.
func (g *gauge) whileIdle(ctx context.Context) (calibrate.Result, error) {
	var watching sync.WaitGroup
	defer watching.Wait()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	watching.Go(func() {
		for {
			changed := g.l.desk.Changed()
			if g.l.busy() {
				cancel()
				return
			}
			select {
			case <-changed:
			case <-ctx.Done():
				return
			}
		}
	})
	return g.measure(ctx, g.dir, g.memory)
}

// busy reports whether the worker has, or is given, anything to do.
func (l *labour) busy() bool { return l.worker.Running() > 0 || len(l.desk.Assigned()) > 0 }

// publish remembers a measurement and tells the mesh.
func (g *gauge) publish(ctx context.Context, r calibrate.Result) error {
	if err := g.book.Add(r); err != nil {
		g.l.logger.WarnContext(ctx, "a measurement of this machine is not remembered", "err", err)
	}
	if r.Slower != "" {
		g.l.logger.WarnContext(ctx, "this machine has become slower", "how", r.Slower)
	} else {
		g.l.logger.InfoContext(ctx, "this machine was measured", "speed", r.Speed, "gflops", r.GFLOPS, "kernel", r.Kernel, "memory_gb_s", r.MemoryGBs, "disk_mb_s", r.DiskMBs)
	}
	return g.l.offer(ctx, func(c *labmesh.Capabilities) { c.Calibration = &r.Calibration })
}

// sleep waits, unless ctx ends first.
func sleep(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
