package run

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"labmesh"
	"labmesh/api"
	"labmesh/suite"
)

// Times of a run.
const (
	tickEvery     = 100 * time.Millisecond // between two looks at what is due
	showEvery     = 200 * time.Millisecond
	workersEvery  = 2 * time.Second  // between two looks at the workers
	checkEvery    = 5 * time.Second  // without a word of a chunk, until it is asked after
	patienceUsual = 2 * time.Minute  // with a mesh out of reach
	orderlyEnd    = 15 * time.Second // for what is cancelled to end
	ledgerWait    = 30 * time.Second // for the ledger to have what the log has
	eventsQueued  = 1024
)

// runner is a run under way. Its loop is one goroutine.
type runner struct {
	Config
	work  context.Context // of requests: it outlives the user's patience by a little
	queue *suite.Queue
	began time.Time

	events chan api.Event
	gaps   chan struct{} // events may have been missed
	failed chan error    // of a submit, or the feed: the run cannot go on
	jobs   sync.WaitGroup

	chunks map[labmesh.TaskID]*task
	byID   map[suite.ChunkID]*task

	fleet    fleet
	shares   map[labmesh.WorkerID]Share
	errors   []suite.CollectError
	history  int
	overhead float64 // seconds that a chunk is thought to take besides its cases
	shown    time.Time
	told     map[string]bool // cases whose failure was shown
	seen     int             // how many there were
	waiting  string
}

// task is a chunk as a task of the mesh.
type task struct {
	id       labmesh.TaskID
	chunk    *suite.Chunk
	heard    time.Time // when there was last word of it
	sent     bool      // the submit was answered
	recalled bool
	behind   bool // records of it are only in the ledger
	attempt  int
}

// Run runs a suite and returns when every case has its verdict. When ctx ends
// it cancels what is out and returns what there is, with Interrupted set. An
// error says why there is no more to tell; then the report holds what there was.
func Run(ctx context.Context, cfg Config) (*Report, error) {
	r := &runner{
		Config: cfg, began: time.Now(), events: make(chan api.Event, eventsQueued), gaps: make(chan struct{}, 1), failed: make(chan error, 1),
		chunks: map[labmesh.TaskID]*task{}, byID: map[suite.ChunkID]*task{}, shares: map[labmesh.WorkerID]Share{}, told: map[string]bool{},
	}
	r.Patience = cmp.Or(r.Patience, patienceUsual)
	if r.Note == nil {
		r.Note = func(string, ...any) {}
	}
	if r.Show == nil {
		r.Show = func(Progress) {}
	}
	work, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer r.jobs.Wait()
	defer stop()
	r.work = work
	r.fleet = fleet{r: r, fits: map[labmesh.WorkerID]fit{}}
	ready := make(chan struct{})
	r.jobs.Go(func() { r.feed(ready) })
	select {
	case <-ready:
	case <-ctx.Done():
		return r.report(), context.Cause(ctx)
	case err := <-r.failed:
		return r.report(), err
	}
	err := r.all(ctx)
	rep := r.report()
	rep.Interrupted = ctx.Err() != nil
	return rep, err
}

func (r *runner) all(ctx context.Context) error {
	cases, err := r.cases(ctx)
	if err != nil || ctx.Err() != nil {
		return err
	}
	r.queue = suite.New(cases, suite.Options{
		Retries: r.Retries, FailFast: r.FailFast, Parallel: r.Shards.Parallel, Overhead: r.overhead,
		Quarantined: func(id string) bool { return r.Quarantine.Holds(id, r.began) },
	})
	if r.FailFast && len(r.errors) > 0 {
		r.queue.Stop("not all could be collected, and --fail-fast was given")
	}
	return r.loop(ctx)
}

// loop runs the queue to its end.
func (r *runner) loop(ctx context.Context) error {
	tick := time.NewTicker(tickEvery)
	defer tick.Stop()
	done := ctx.Done()
	var leave <-chan time.Time
	var fatal error
	r.fleet.look()
	for {
		r.obey()
		r.show(false)
		if r.queue.Done() {
			r.show(true)
			return fatal
		}
		select {
		case ev := <-r.events:
			r.hear(ev)
			r.drain()
		case <-r.gaps:
			r.catchUp(false)
		case <-tick.C:
			r.fleet.refresh()
			r.catchUp(true)
		case ws := <-r.fleet.news:
			r.fleet.take(ws)
		case err := <-r.failed:
			if fatal == nil {
				fatal = err
			}
			r.queue.Stop(err.Error())
			leave = cmp.Or(leave, time.After(orderlyEnd))
		case <-done:
			done = nil
			r.queue.Stop("interrupted")
			leave = cmp.Or(leave, time.After(orderlyEnd))
		case <-leave:
			r.Note("labmesh: not all that was cancelled has ended; see `labmesh tasks`")
			return fatal
		}
	}
}

// drain takes all events that are there, so that what was decided rests on them all.
func (r *runner) drain() {
	for {
		select {
		case ev := <-r.events:
			r.hear(ev)
		default:
			return
		}
	}
}

// obey does what the queue says.
func (r *runner) obey() {
	for _, o := range r.queue.Next(time.Now()) {
		if o.Start == nil {
			if t := r.byID[o.Withdraw]; t != nil {
				t.recalled = true
				r.cancel(t, o.Why)
			}
			continue
		}
		r.start(o.Start)
	}
}

// start submits a chunk as a task.
func (r *runner) start(c *suite.Chunk) {
	t := &task{id: labmesh.TaskID(fmt.Sprintf("suite-%s-%d", r.ID, c.ID)), chunk: c, heard: time.Now()}
	r.chunks[t.id], r.byID[c.ID] = t, t
	s := r.chunkSpec(t)
	r.jobs.Go(func() {
		err := r.again(func() error {
			_, err := r.Mesh.Submit(r.work, s)
			return err
		})
		if err != nil && r.work.Err() == nil {
			r.fail(fmt.Errorf("submit %s: %w", t.id, err))
		}
	})
}

func (r *runner) fail(err error) {
	select {
	case r.failed <- err:
	default: // one is enough
	}
}

func (r *runner) cancel(t *task, why string) {
	r.jobs.Go(func() {
		_ = r.again(func() error { // a task that has ended stays as it is, and one that cannot be cancelled runs to its end
			_, err := r.Mesh.Cancel(r.work, t.id, why)
			return err
		})
	})
}

// again repeats what may work later for as long as there is patience.
func (r *runner) again(try func() error) error {
	deadline := time.Now().Add(r.Patience)
	for wait := 100 * time.Millisecond; ; wait = min(2*wait, 2*time.Second) {
		err := try()
		reason := labmesh.ReasonOf(err)
		if err == nil || reason != labmesh.Unavailable && reason != labmesh.Exhausted || time.Now().Add(wait).After(deadline) {
			return err
		}
		if !sleep(r.work, wait) {
			return errors.Join(context.Cause(r.work), err)
		}
	}
}

func sleep(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// show says how far the run is.
func (r *runner) show(final bool) {
	now := time.Now()
	if !final && now.Sub(r.shown) < showEvery {
		return
	}
	r.shown = now
	p := Progress{Final: final, Waiting: r.waiting}
	if r.queue == nil {
		p.Collecting = true
		r.Show(p)
		return
	}
	p.Counts = r.queue.Counts()
	p.Chunks, p.Workers = r.queue.Busy()
	p.ETA = time.Duration(r.queue.ETA(now) * float64(time.Second))
	if p.Waiting = ""; p.Chunks == 0 && !final {
		p.Waiting = r.fleet.waits()
	}
	if n := r.queue.Failures(); n != r.seen || final {
		r.seen = n
		for _, res := range r.queue.Results() {
			again := res.Verdict.Bad() && len(res.Runs) <= r.Retries && !final // it may still pass
			if r.told[res.Case.ID] || again || !res.Verdict.Bad() && !res.Flaky {
				continue
			}
			r.told[res.Case.ID] = true
			switch {
			case res.Flaky:
				p.Flaky = append(p.Flaky, res.Case.ID)
			case res.Bad():
				p.Failed = append(p.Failed, res.Case.ID)
			default:
				p.Quarantined = append(p.Quarantined, res.Case.ID)
			}
		}
	}
	r.Show(p)
}

func (r *runner) report() *Report {
	rep := &Report{ID: r.ID, Name: r.Name, Framework: r.Framework, Began: r.began, Took: time.Since(r.began), Errors: r.errors,
		Chunks: len(r.byID), Workers: r.shares, History: r.history}
	if r.queue != nil {
		rep.Results, rep.Counts, rep.Stopped = r.queue.Results(), r.queue.Counts(), r.queue.Stopped()
	}
	for _, res := range rep.Results {
		for _, run := range res.Runs {
			s := r.shares[run.Worker]
			s.Cases++
			s.Seconds += max(run.Seconds, 0)
			r.shares[run.Worker] = s
		}
	}
	for id, s := range r.shares {
		s.Hostname = r.fleet.fits[id].host
		r.shares[id] = s
	}
	return rep
}

// chunkConfig is the config of a task that runs a chunk, or collects.
type chunkConfig struct {
	Suite      string    `json:"suite"`
	Framework  Framework `json:"framework"`
	Collect    bool      `json:"collect,omitempty"`
	Paths      []string  `json:"paths,omitempty"`
	Cases      []string  `json:"cases,omitempty"`
	Args       []string  `json:"args,omitempty"`
	Timeout    float64   `json:"case_timeout_seconds,omitempty"`
	Try        int       `json:"try,omitempty"`
	FailFast   bool      `json:"fail_fast,omitempty"`
	Quarantine []string  `json:"quarantine,omitempty"`
	Command    []string  `json:"command,omitempty"`
	Files      []string  `json:"files,omitempty"`
}

func (r *runner) chunkSpec(t *task) labmesh.Spec {
	c := t.chunk
	conf := chunkConfig{
		Suite: r.ID, Framework: r.Framework, Args: r.Args, Timeout: r.CaseTimeout.Seconds(), Try: c.Try,
		FailFast: r.FailFast && r.Retries == 0, Command: r.Command,
	}
	for _, one := range c.Cases {
		if one.Whole {
			conf.Files = append(conf.Files, one.File)
		} else {
			conf.Cases = append(conf.Cases, one.ID)
		}
		if one.Quarantined {
			conf.Quarantine = append(conf.Quarantine, one.ID)
		}
	}
	s := r.spec(conf, fmt.Sprintf("%s, chunk %d", r.Name, c.ID))
	s.TaskID, s.MaxAttempts = t.id, 1 // what does not end goes back into the queue
	s.Requirements.WorkerID = c.Worker
	return s
}

// spec is a task of the suite.
func (r *runner) spec(conf chunkConfig, name string) labmesh.Spec {
	s := r.Task
	s.Kind = labmesh.Test
	s.Config = encode(conf)
	if runes := []rune(name); len(runes) > api.NameCharsMax {
		name = string(runes[:api.NameCharsMax-1]) + "…"
	}
	s.Name = name
	tools := slices.Concat(s.Requirements.Tools, r.Framework.tools())
	slices.Sort(tools)
	s.Requirements.Tools = slices.Compact(tools)
	labels := map[string]string{"suite": r.ID}
	for k, v := range r.Task.Labels {
		labels[k] = v
	}
	s.Labels = labels
	return s
}
