package exec

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"labmesh"
	"labmesh/exec/output"
)

// Limits of a worker.
const (
	lastWordsMax  = 3 * time.Second  // for the reports that are still open when the node stops
	sweepEvery    = 10 * time.Minute // look for attempt directories to remove
	pressureEvery = time.Second      // look whether the disk is below its floor
	pressureRest  = 30 * time.Second // between sweeps while it stays there
	heldMax       = 30 * time.Minute // for which a sweep waits for measurements
	errorBytesMax = 2 << 10          // of the message of one outcome
)

// Config says how a worker works. Worker, Dir, Desk and Runners must be set.
type Config struct {
	Worker  labmesh.WorkerID
	Dir     string // holds <task>/<attempt>/ for every attempt; nothing else lives there
	Slots   int    // how many slots it has; at least 1
	Desk    Desk
	Runners map[labmesh.Kind]Runner
	// Programs are the programs that runners run; nil where they end with this process.
	Programs Programs
	// Detach is asked, when Run is to end, whether what runs shall go on without
	// this process. nil means that it shall not.
	Detach func() bool
	Files  Files // nil where there are no bundles, and nothing that attempts leave is kept
	// Secrets is the value of a secret of the mesh, asked for when an attempt starts that wants it. nil knows none.
	Secrets func(name string) (value string, ok bool)
	// Lease is asked before an attempt is begun. nil means that the worker need not fear to be cut off.
	Lease     Lease
	LeaseTime time.Duration // how long a silence it bears
	Logger    *slog.Logger
	Keep      Keep // which ended attempts stay on disk; the zero value means [DefaultKeep]
	// Printed is told of each attempt that prints something, once, when it first
	// does. It must not block. nil means nobody is.
	Printed func(task labmesh.TaskID, attempt int, o *output.Output)
	// Held reports whether something is measured on this machine, so that work which
	// is heavy and can wait should. nil means that nothing ever is.
	Held  func() bool
	Floor uint64 // free bytes below which no work is taken; 0 means [DiskFloor] of the disk
}

// Worker runs the attempts that its desk shows, and reports on them.
type Worker struct {
	cfg     Config
	reports *reporter
	dirs    *dirs
	journal *journal
	freed   chan struct{} // has one in it when a slot may have come free

	mu      sync.Mutex
	have    map[key]*run
	states  map[key]state            // of have, for reconcile
	used    int                      // slots taken by live attempts
	live    int                      // attempts that are live
	waiting bool                     // something could begin if the lease held
	early   []*run                   // live attempts that wait for a slot, in order
	queued  int                      // attempts held that wait for a slot
	left    map[string]time.Duration // by name, attempts of an earlier life until the first look at the desk
	drops   []string                 // those that could not be taken up

	idle     atomic.Int32 // goroutines that wait for an attempt to run
	dropping sync.WaitGroup
	detached atomic.Bool
}

// run is an attempt that the worker knows of.
type run struct {
	kind   labmesh.Kind
	state  state
	slots  int
	stop   context.CancelCauseFunc
	output *output.Output

	outlasts time.Duration // how long it goes on without word from the mesh
	cut      bool          // that has passed

	began   time.Time
	early   earlyRun      // how it begins before it has a slot; nil if it does not
	wants   int           // slots, of one that waits
	granted chan struct{} // closed when it has them

	resumed bool          // an earlier life began it
	age     time.Duration // and so long before this one took it up
}

// Open makes the directory for attempts. Whatever a previous life of the worker
// left running, and cfg.Programs does not list, must have been ended before:
// process.Open does.
func Open(_ context.Context, cfg Config) (*Worker, error) {
	switch {
	case cfg.Worker == "" || cfg.Dir == "" || cfg.Desk == nil || len(cfg.Runners) == 0:
		return nil, errors.New("open worker: it needs an id, a directory, a desk and runners")
	case cfg.Logger == nil:
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	cfg.Slots = max(cfg.Slots, 1)
	if cfg.Keep == (Keep{}) {
		cfg.Keep = DefaultKeep()
	}
	if err := os.MkdirAll(cfg.Dir, 0o700); err != nil {
		return nil, fmt.Errorf("open worker: %w", err)
	}
	if cfg.Floor == 0 {
		var err error
		if cfg.Floor, err = DiskFloor(cfg.Dir); err != nil {
			return nil, fmt.Errorf("open worker: %w", err)
		}
	}
	w := &Worker{cfg: cfg, freed: make(chan struct{}, 1), have: make(map[key]*run), states: make(map[key]state)}
	var err error
	if w.dirs, err = openDirs(cfg.Dir); err != nil {
		return nil, fmt.Errorf("open worker: %w", err)
	}
	if w.journal, err = openJournal(cfg.Dir); err != nil {
		return nil, fmt.Errorf("open worker: %w", err)
	}
	w.reports = newReporter(cfg.Desk, cfg.Logger, w.declined)
	if cfg.Programs != nil {
		w.left = cfg.Programs.Attempts()
	}
	return w, nil
}

// Close releases what Open took. It is safe twice.
func (w *Worker) Close() error { return w.journal.close() }

// Kinds is the kinds of task it can run, in the order of [labmesh.Kinds].
func (w *Worker) Kinds() []labmesh.Kind {
	var kinds []labmesh.Kind
	for _, k := range labmesh.Kinds() {
		if _, ok := w.cfg.Runners[k]; ok {
			kinds = append(kinds, k)
		}
	}
	return kinds
}

// Running is how many attempts are under way.
func (w *Worker) Running() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	n := 0
	for _, r := range w.have {
		if r.state == live && r.slots > 0 {
			n++
		}
	}
	return n
}

// Run works until ctx ends. Then it stops what still runs, reports that as lost
// with the node, within a bounded time, and returns; or it leaves it to go on, if
// [Config.Detach] says so. It is for one call.
func (w *Worker) Run(ctx context.Context) error {
	base := context.WithoutCancel(ctx) // attempts and reports end in their own way
	work, stopWork := context.WithCancelCause(base)
	defer stopWork(nil)
	say, hush := context.WithCancel(base)
	defer hush()

	var loops, attempts sync.WaitGroup
	loops.Go(func() { w.reports.run(say) })
	loops.Go(func() { w.sweepLoop(ctx) })

	next, idle := make(chan begun), make(chan struct{})
	for ctx.Err() == nil {
		changed := w.cfg.Desk.Changed()
		for _, b := range w.step(work, w.cfg.Desk.Assigned()) {
			select {
			case next <- b:
			default:
				attempts.Go(func() { w.attempts(b, next, idle) })
			}
		}
		select {
		case <-changed:
		case <-w.freed:
		case <-ctx.Done():
		}
	}

	why := ErrShutdown
	if w.detach() {
		why = ErrDetached
	}
	stopWork(why)
	close(idle)
	attempts.Wait()
	w.dropping.Wait()
	w.handBack()
	w.reports.close()
	defer time.AfterFunc(lastWordsMax, hush).Stop()
	loops.Wait()
	return nil
}

// begun is an attempt that is to be run now.
type begun struct {
	ctx  context.Context //nolint:containedctx // it is the attempt's own, handed to its goroutine
	task labmesh.Task
	run  *run
}

// attempts runs one attempt after the other, as they come by next, until idle is
// closed: to run each in a goroutine of its own would have every one grow its stack anew.
func (w *Worker) attempts(b begun, next <-chan begun, idle <-chan struct{}) {
	for {
		w.attempt(b.ctx, b.task, b.run)
		if int(w.idle.Add(1)) > w.cfg.Slots {
			w.idle.Add(-1)
			return
		}
		var ok bool
		select {
		case b, ok = <-next:
		case <-idle:
		}
		w.idle.Add(-1)
		if !ok {
			return
		}
	}
}

// step does what the desk asks for now, and returns the attempts to run.
func (w *Worker) step(work context.Context, held []*labmesh.Task) (start []begun) {
	w.mu.Lock()
	defer w.mu.Unlock()
	clear(w.states)
	for k, r := range w.have {
		w.states[k] = r.state
	}
	p := reconcile(held, w.states, w.wasLeft)
	for _, k := range p.forget {
		delete(w.have, k)
		if w.cfg.Programs != nil {
			w.cfg.Programs.Forget(k.name())
		}
	}
	for _, t := range p.resume {
		if b, ok := w.resume(work, t); ok {
			start = append(start, b)
		}
	}
	w.dropLeft()
	for _, k := range p.cancel {
		w.have[k].stop(ErrCancelled)
	}
	for _, k := range p.drop {
		w.have[k].stop(ErrSuperseded)
	}
	for _, t := range p.orphaned {
		w.reportOrphan(t)
	}
	w.waiting = false
	if (len(p.start) > 0 || len(w.early) > 0) && !w.inTouch() {
		w.waiting = true
		w.cfg.Lease.Wanted()
		return start
	}
	w.grant()
	w.queued = len(w.early)
	for i, t := range p.start {
		if w.queued == 0 && w.used+w.slotsOf(t) > w.cfg.Slots {
			w.queued = len(p.start) - i
		}
		if w.queued == 0 {
			start = append(start, w.admit(work, t, output.New(attemptDir(w.cfg.Dir, keyOf(t)))))
			continue
		}
		early := w.earlyRun(t)
		if early == nil || len(w.early) == w.cfg.Slots {
			break // in order: a big attempt is not overtaken for ever
		}
		start = append(start, w.admitEarly(work, t, output.New(attemptDir(w.cfg.Dir, keyOf(t))), early))
	}
	return start
}

// slotsOf is how many slots t takes here.
func (w *Worker) slotsOf(t *labmesh.Task) int {
	return min(t.Spec.Requirements.Slots(w.cfg.Slots), w.cfg.Slots)
}

// admit makes an attempt a live one. The caller holds mu.
func (w *Worker) admit(work context.Context, t *labmesh.Task, o *output.Output) begun {
	actx, stop := context.WithCancelCause(work)
	r := &run{kind: t.Spec.Kind, state: live, slots: w.slotsOf(t), outlasts: w.outlasts(t), stop: stop, output: w.watched(keyOf(t), o)}
	w.have[keyOf(t)] = r
	w.begins()
	w.used += r.slots
	return begun{actx, *t, r}
}

// begins counts an attempt that becomes live, for which the lease must hold. The caller holds mu.
func (w *Worker) begins() {
	w.live++
	if w.live == 1 && w.cfg.Lease != nil {
		w.cfg.Lease.Wanted()
	}
}

// watched is o, of which [Config.Printed] is told.
func (w *Worker) watched(k key, o *output.Output) *output.Output {
	if w.cfg.Printed != nil {
		o.OnPrint(func() { w.cfg.Printed(k.task, k.attempt, o) })
	}
	return o
}

// reportOrphan reports the end of an attempt that the mesh believes in and that
// is not here.
func (w *Worker) reportOrphan(t *labmesh.Task) {
	o := labmesh.Outcome{Cause: labmesh.CauseWorkerLost, Error: restarted}
	if t.Phase == labmesh.Cancelling {
		o = labmesh.Outcome{Cause: labmesh.CauseCancelled, Error: ErrCancelled.Error()}
	}
	w.have[keyOf(t)] = &run{state: ended}
	w.finish(keyOf(t), o)
}

// handBack gives up, as the node stops, what was placed here and not started.
func (w *Worker) handBack() {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, t := range w.cfg.Desk.Assigned() {
		if _, known := w.have[keyOf(t)]; known || w.wasLeft(keyOf(t)) {
			continue // or never looked at: the next life will
		}
		if t.Phase != labmesh.Assigned {
			w.reportOrphan(t)
			continue
		}
		w.have[keyOf(t)] = &run{state: ended}
		w.finish(keyOf(t), labmesh.Outcome{Cause: labmesh.CauseOffer, Error: ErrShutdown.Error()})
	}
}

// declined is told of a start that the mesh did not want.
func (w *Worker) declined(k key) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if r := w.have[k]; r != nil && r.state == live {
		r.stop(ErrSuperseded)
	}
}

func (w *Worker) finish(k key, o labmesh.Outcome) {
	w.reports.add(labmesh.FinishTask{ID: k.task, Attempt: k.attempt, Worker: w.cfg.Worker, Outcome: o}, finishLinger(w.queued))
}
