package bench

import (
	"context"
	"fmt"
	"slices"
	"time"

	"labmesh"
	"labmesh/bench"
	"labmesh/exec"
	"labmesh/exec/bench/engines"
	"labmesh/exec/output"
	"labmesh/stats"
)

// Limits on launching a runner again.
const (
	barrenMax = 2 // processes in a row that measured nothing
	lostMax   = 3 // processes whose device was lost
	triesMax  = 2 // runs in which the runner may crash, fall silent or fail at one batch size
)

// run is a benchmark task under way.
type run struct {
	h        Host
	a        exec.Attempt
	machine  Machine
	arms     []*arm
	turns    []turn
	at       int // which of turns is under way
	samples  samples
	spots    []*spot
	launches int
	lost     int           // devices
	waited   time.Duration // for a quiet machine
}

// Run runs a benchmark task. An error means that it could not be run at all.
func Run(ctx context.Context, h Host, a exec.Attempt) (labmesh.Outcome, error) {
	r := &run{h: h, a: a, machine: h.Machine, samples: samples{dir: a.Keep()}}
	if r.machine == nil {
		r.machine = blind{}
	}
	if err := r.prepare(ctx); err != nil {
		return labmesh.Outcome{}, err
	}
	for i, t := range r.turns {
		r.at = i
		if o, over, err := r.turn(ctx, t); over || err != nil {
			return o, err
		}
	}
	return r.outcome(), nil
}

// prepare reads the config and chooses what it is run by.
func (r *run) prepare(ctx context.Context) error {
	conf, refused := bench.Parse(r.a.Task.Spec.Config)
	if refused != nil {
		return refused
	}
	var there []engines.Found
	if r.h.Engines != nil {
		there = r.h.Engines(ctx)
	}
	confs := []bench.Config{conf}
	if len(conf.Candidate) > 0 {
		b, refused := conf.B()
		if refused != nil {
			return refused
		}
		confs = append(confs, b)
	}
	for i, c := range confs {
		ch, refused := choose(c, r.a.Task.Spec.Requirements, there)
		if refused == nil {
			_, refused = modelFile(c, r.a.Work())
		}
		if refused != nil {
			return refused
		}
		if c.Threads == 0 && ch.device.Class == labmesh.ClassCPU && ch.engine.Name != bench.EngineCommand {
			c.Threads = processors(r.a.Task.Spec.Limits)
		}
		arm := &arm{conf: c, choice: ch}
		if len(confs) > 1 {
			arm.name = string(rune('a' + i))
		}
		r.arms = append(r.arms, arm)
		for _, n := range c.BatchSizes {
			r.spots = append(r.spots, &spot{arm: arm.name, batch: n})
		}
		r.tell("%s%s in %s on %s by %s: %s", prefix(arm.name), c.Model, c.Precision, ch.device.Class, engineName(ch.engine), ch.why)
	}
	r.turns = turns(r.arms, conf.Repeats)
	return nil
}

// turn is one run: the batch sizes of an arm, measured by as many processes as that
// takes. With over the task has ended, in the way of o.
func (r *run) turn(ctx context.Context, t turn) (o labmesh.Outcome, over bool, err error) {
	left := r.wanted(t.arm)
	for barren := 0; len(left) > 0; {
		if cause, message, stopped := exec.Stopped(ctx); stopped {
			return r.fail(cause, message), true, nil
		}
		e, err := r.launch(ctx, t, left)
		if err != nil {
			return o, true, err
		}
		if left = e.left; len(left) == 0 || ctx.Err() != nil {
			continue
		}
		if e.fatal != nil && e.fatal.Code == codeDeviceLost {
			r.lost++
		}
		if barren++; e.made > 0 {
			barren = 0
		}
		if e.final() || barren >= barrenMax || r.lost > lostMax {
			return r.fail(e.cause(), e.how()+r.lastWords()), true, nil
		}
		r.tell("%s; going on with a fresh process", e.how())
	}
	if cause, message, stopped := exec.Stopped(ctx); stopped {
		return r.fail(cause, message), true, nil
	}
	return o, false, nil
}

// wanted are the batch sizes of an arm that are worth measuring in another run.
func (r *run) wanted(a *arm) (out []int) {
	for _, n := range a.conf.BatchSizes {
		if s := r.spot(a.name, n); s.settled == "" && s.failures < triesMax {
			out = append(out, n)
		}
	}
	return out
}

func (r *run) spot(arm string, n int) *spot {
	return r.spots[slices.IndexFunc(r.spots, func(s *spot) bool { return s.arm == arm && s.batch == n })]
}

// add hands in a row.
func (r *run) add(s *session, row labmesh.BenchRow) {
	r.spot(row.Arm, row.Work.Batch).add(&row)
	s.t.arm.ran = &row.Work
	if r.a.RecordRows != nil {
		r.a.RecordRows([]labmesh.BenchRow{row})
	}
	p := r.place(s)
	p.Batch, p.N, p.Status, p.Reason = row.Work.Batch, row.N, row.Status, row.Reason
	if row.Wall != nil {
		p.P50 = row.Wall.P50
	}
	r.tell("%s", p)
}

// progress tells how far the batch size at hand has come.
func (r *run) progress(s *session, status labmesh.BenchStatus, reason string) {
	b := s.open
	p := r.place(s)
	p.Batch, p.N, p.Status, p.Reason = b.size, b.n, status, reason
	if len(b.wall) > 0 {
		p.P50 = stats.Median(b.wall[max(0, len(b.wall)-showOf):])
	}
	r.tell("%s", p)
}

func (r *run) place(s *session) bench.Progress {
	return bench.Progress{Run: r.at + 1, Runs: len(r.turns), Arm: s.t.arm.name, Of: s.t.arm.conf.Iterations}
}

// tell writes a line to the log of the attempt.
func (r *run) tell(format string, args ...any) {
	r.a.Output.Write(output.Stdout, append([]byte(oneLine(fmt.Sprintf(format, args...))), '\n'))
}

// complain writes a line to the log of the attempt, where errors are.
func (r *run) complain(format string, args ...any) {
	r.a.Output.Write(output.Stderr, append([]byte("[labmesh: "+oneLine(fmt.Sprintf(format, args...))), "]\n"...))
}
