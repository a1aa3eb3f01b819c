package bench

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"labmesh"
	"labmesh/bench"
	"labmesh/exec/process"
)

// Limits on a process of a runner.
const (
	// startMax is how long a runner may take to import what it needs, to make the
	// model, or to get from the start of a batch size to its first times, beside
	// what the config gives its warm-up.
	startMax    = 2 * time.Minute
	compileMax  = 10 * time.Minute // the same where the model is compiled
	silenceMin  = 30 * time.Second // without a word, once times come
	silenceTurn = 20               // or so many times its longest iteration
	endMax      = 10 * time.Second // to end, once it has said that it is done or gives up
	heardMax    = 64               // events under way from who reads to who acts
	samplesMax  = 1 << 20          // times kept of one batch size
	showEvery   = 250 * time.Millisecond
	lookMin     = 3 * time.Second // for a look whether the machine is quiet
	showOf      = 500             // the newest times that a line of progress gives the median of
)

// Why a process of a runner is ended before its time.
var (
	errSilent = errors.New("the runner said nothing for too long")
	errOver   = errors.New("the runner went on long after its time was up")
	errDevice = errors.New("the runner runs on another device than it was to")
)

// session is one process of a runner, from its launch to its end.
type session struct {
	r     *run
	t     turn
	id    string // of the run
	quiet bench.Quiet
	kill  context.CancelCauseFunc

	left   []int // batch sizes not measured yet
	hello  bench.Event
	model  bench.Event
	open   *batch
	made   int // rows
	fatal  *bench.Event
	faults int  // that its decoder counted
	wrong  int  // events that were not in their turn
	deaf   bool // nothing more of what it says counts
	done   bool // it has said so

	perItem float64   // milliseconds that the slowest iteration took, by item
	since   time.Time // when it came to do what it does: load, measure a batch size, or end
	shown   time.Time
}

// batch is a batch size while it is measured.
type batch struct {
	size     int
	began    time.Time
	faults   int // before it
	warmup   int
	firstMS  *float64
	wall     []float64 // milliseconds, of the first samplesMax iterations
	device   []float64
	n        int // iterations, also those not kept
	observed func() bench.Observed
}

// ending is how a session ended.
type ending struct {
	exit  process.Exit
	why   error        // why it was killed, nil when it was not
	fatal *bench.Event // what it said of that, if anything
	left  []int        // batch sizes without a row
	made  int          // rows
}

// quiet waits until the machine is quiet. The config's bound is on all waits of the
// task together, so that a machine that is always busy does not cost it for each process;
// a look the machine gets in any case.
func (r *run) quiet(ctx context.Context, a *arm) bench.Quiet {
	most := seconds(a.conf.QuietSeconds)
	if most < 0 {
		return bench.Quiet{OK: true} // nobody asked; what disturbs the measurement itself is still seen
	}
	if most > lookMin {
		most = max(most-r.waited, lookMin)
	}
	r.tell("run %d/%d: waiting for a quiet machine, %.3g s at most", r.at+1, len(r.turns), most.Seconds())
	q := r.machine.Wait(ctx, a.device, most)
	r.waited += seconds(q.WaitedS)
	if !q.OK && ctx.Err() == nil {
		r.tell("it is not quiet: %s; measuring all the same", strings.Join(q.Reasons, "; "))
	}
	return q
}

// launch runs a process of the runner to its end. The batch sizes in left are to
// be measured. An error means that there was no process.
func (r *run) launch(ctx context.Context, t turn, left []int) (ending, error) {
	s := &session{r: r, t: t, left: slices.Clone(left)}
	if s.quiet = r.quiet(ctx, t.arm); ctx.Err() != nil {
		return ending{left: left}, nil
	}
	r.launches++
	s.id = fmt.Sprintf("%s/%d/%d", r.a.Task.ID, r.a.Number, r.launches)
	file, refused := modelFile(t.arm.conf, r.a.Work())
	if refused != nil {
		return ending{}, refused
	}
	spec, err := json.Marshal(specOf(t.arm, left, file))
	if err != nil {
		return ending{}, err
	}
	command := t.arm.engine.Command
	return s.run(ctx, Program{
		Name: command[0], Args: append(slices.Clone(command[1:]), "run"), Env: environment(t.arm), Over: t.arm.conf.Env, Stdin: string(spec),
	})
}

// run runs the process, and takes what it says until it has ended.
func (s *session) run(task context.Context, p Program) (ending, error) {
	ctx, kill := context.WithCancelCause(task)
	defer kill(nil)
	s.kill, s.since = kill, time.Now()
	var exit process.Exit
	var err error
	heard := make(chan said, heardMax)
	d := &decoder{emit: func(m said) { heard <- m }}
	p.Stdout = d
	go func() { // ends with the process; heard is read until then
		defer close(heard)
		exit, err = s.r.h.Launcher.Launch(ctx, s.r.a, p)
		d.flush()
	}()
	silence := time.NewTimer(s.patience())
	defer silence.Stop()
	for {
		select {
		case m, ok := <-heard:
			if !ok {
				return s.conclude(task, exit, err, context.Cause(ctx))
			}
			if s.faults = m.faults; m.event != nil {
				s.take(task, m.event)
				silence.Reset(s.patience())
				if time.Since(s.since) > s.bound() {
					kill(errOver)
				}
			}
		case <-silence.C:
			kill(errSilent)
		}
	}
}

// patience is how long the runner may say nothing now.
func (s *session) patience() time.Duration {
	c := s.t.arm.conf
	switch {
	case c.SilenceSeconds > 0:
		return seconds(c.SilenceSeconds)
	case s.done || s.fatal != nil:
		return endMax
	case s.open != nil && s.open.n > 0:
		return max(silenceMin, s.slow())
	}
	return s.starting()
}

// bound is how long the runner may take for what it does now, whatever it says.
func (s *session) bound() time.Duration {
	return s.starting() + seconds(2*s.t.arm.conf.MaxSeconds) + s.slow()
}

// starting is how long the runner may take before its first times come.
func (s *session) starting() time.Duration {
	c := s.t.arm.conf
	most := startMax + seconds(10*c.WarmupSeconds+c.MaxSeconds)
	if c.Compile {
		most += compileMax
	}
	return max(most, s.slow())
}

// slow is how long some iterations may take, by those there were.
func (s *session) slow() time.Duration {
	batch := slices.Max(s.t.arm.conf.BatchSizes)
	if s.open != nil {
		batch = s.open.size
	}
	return seconds(silenceTurn * s.perItem * float64(batch) / 1000)
}

// take acts on an event.
func (s *session) take(ctx context.Context, e *bench.Event) {
	if s.deaf {
		return
	}
	switch e.Kind {
	case bench.EventHello:
		s.once(&s.hello, e)
	case bench.EventModel:
		s.once(&s.model, e)
		if e.DeviceClass != "" && e.DeviceClass != s.t.arm.device.Class {
			s.fatal = &bench.Event{Code: "no_device", Message: fmt.Sprintf("the runner runs on %s, not on %s", e.DeviceClass, s.t.arm.device.Class)}
			s.deaf = true
			s.kill(errDevice)
		}
	case bench.EventBatchStart:
		s.begin(ctx, e)
	case bench.EventWarmup:
		if s.isOpen(e) {
			s.open.warmup, s.open.firstMS = e.N, e.FirstMS
			s.open.observed() // what was seen of the warm-up is no part of the measurement
			s.open.observed = s.r.machine.Watch(ctx, s.t.arm.device)
		}
	case bench.EventSamples:
		if s.isOpen(e) {
			s.sample(e)
			s.show()
		}
	case bench.EventBatchEnd:
		if s.isOpen(e) {
			s.end(ctx, e)
		}
	case bench.EventFatal:
		if s.fatal == nil {
			s.fatal = e
		}
	case bench.EventDone:
		s.done = true
	}
}

// once keeps an event of which there is one.
func (s *session) once(to, e *bench.Event) {
	if to.Kind != "" {
		s.wrong++
		return
	}
	*to = *e
}

// begin begins a batch size.
func (s *session) begin(ctx context.Context, e *bench.Event) {
	if s.open != nil {
		s.wrong++
		s.close(ctx, labmesh.BenchError, "the runner went on without saying how it ended")
	}
	at := slices.Index(s.left, e.Batch)
	if at < 0 {
		s.wrong++ // nobody asked
		return
	}
	s.left = slices.Delete(s.left, at, at+1)
	s.open = &batch{size: e.Batch, began: time.Now(), faults: s.faults + s.wrong, observed: s.r.machine.Watch(ctx, s.t.arm.device)}
	s.since, s.shown = s.open.began, time.Time{}
	if s.model.Kind == "" {
		s.wrong++ // nobody knows what it measures
	}
}

// isOpen reports whether e is about the batch size that is being measured.
func (s *session) isOpen(e *bench.Event) bool {
	ok := s.open != nil && s.open.size == e.Batch
	if !ok {
		s.wrong++
	}
	return ok
}

// sample takes times.
func (s *session) sample(e *bench.Event) {
	b := s.open
	if e.I0 != b.n {
		s.wrong++
	}
	for _, ms := range e.MS {
		if len(ms) == 0 || !plausible(ms[0]) || len(ms) > 1 && !plausible(ms[1]) {
			s.wrong++
			continue
		}
		if b.n++; len(b.wall) >= samplesMax {
			continue
		}
		b.wall = append(b.wall, ms[0])
		if len(ms) > 1 {
			b.device = append(b.device, ms[1])
		}
		s.perItem = max(s.perItem, ms[0]/float64(b.size))
	}
}

// plausible reports whether an iteration can have taken so long.
func plausible(ms float64) bool { return ms > 0 && ms <= iterationMSMax }

// show tells how far the batch size has come, if that was not just told.
func (s *session) show() {
	if now := time.Now(); now.Sub(s.shown) >= showEvery {
		s.shown = now
		s.r.progress(s, "", "")
	}
}

func seconds(s float64) time.Duration { return time.Duration(s * float64(time.Second)) }
