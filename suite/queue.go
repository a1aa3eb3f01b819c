package suite

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	"labmesh"
)

// Limits on what the queue puts up with.
const (
	// strikesMax is how often a case may be the first one left of a chunk that
	// broke off before it is given up: it takes its workers with it.
	strikesMax = 3
	// idleEndsMax is how often in a row the chunks of a worker may end without a
	// case before it is set aside.
	idleEndsMax = 3
	setAside    = 30 * time.Second
)

// failFast is why a queue stops at the first failure.
const failFast = "a test failed, and --fail-fast was given"

// place says where a case is.
type place uint8

const (
	waiting  place = iota // in a group, to be run for the first time
	retrying              // in the list of retries
	out                   // in a chunk
	settled               // it has its verdict
)

// item is a case as the queue keeps it.
type item struct {
	Result
	at      place
	chunk   ChunkID
	group   int
	strikes int                // chunks that broke off when it was next
	struck  []labmesh.WorkerID // where
	losses  int                // chunks that the mesh could not run
	guess   float64            // predicted seconds at speed 1
	sure    bool               // the guess comes from its own history
	gauge   bool               // the guess is good enough to tell a worker's speed by
}

// tries is how often it ran.
func (it *item) tries() int { return len(it.Runs) }

// chunk is a chunk that is out.
type chunk struct {
	Chunk
	items    []*item
	left     map[*item]float64 // those without a record, with what was predicted
	rest     float64           // of it together
	seen     int               // records
	handed   time.Time
	started  time.Time // zero before
	progress time.Time // when the last case ended
	ran      float64   // seconds of the cases that ended
	recalled bool
}

// worker is a worker as the queue knows it.
type worker struct {
	Worker
	gauged          float64 // its machine's speed against the middle of those here; 1 where it was not measured
	predicted, took float64 // of cases whose time was known before
	overhead        float64 // of a chunk, learned
	idleEnds        int
	aside           time.Time // it gets nothing until then
}

// Queue is a suite that is being run. It is for one goroutine.
type Queue struct {
	opts     Options
	items    []*item // in the order of collection; those first seen in a record at the end
	byKey    map[key]*item
	groups   []group
	retries  []*item
	workers  []*worker
	known    map[labmesh.WorkerID]*worker // all that were there once, with what was learned of them
	out      map[ChunkID]*chunk
	last     ChunkID
	counts   Counts
	failures int    // runs that failed, and those after them
	stopped  string // why no more is handed out
	times    times
	noise    noise
	samples  []*item // unknown cases of each file to try first
	stale    bool    // guesses are to be made anew
}

// New makes the queue of a suite.
func New(cases []Case, opts Options) *Queue {
	if opts.Overhead <= 0 {
		opts.Overhead = overheadUsual
	}
	q := &Queue{opts: opts, byKey: make(map[key]*item, len(cases)), known: map[labmesh.WorkerID]*worker{}, out: map[ChunkID]*chunk{}, stale: true}
	index := map[string]int{}
	for _, c := range cases {
		k := key{c.File, c.Name, c.Params}
		if q.byKey[k] != nil {
			continue // a case is run once however often it was named
		}
		it := &item{Result: Result{Case: c}}
		name := groupOf(c)
		g, ok := index[name]
		if !ok {
			g = len(q.groups)
			index[name] = g
			q.groups = append(q.groups, group{})
		}
		it.group = g
		q.groups[g].waiting = append(q.groups[g].waiting, it)
		q.items = append(q.items, it)
		q.byKey[k] = it
		q.counts.add(&it.Result, 1)
	}
	q.times.init(q.items)
	q.sample()
	return q
}

// groupOf names what a case is kept together with: its class, or its file.
func groupOf(c Case) string {
	if i := strings.LastIndex(c.Name, "::"); i >= 0 {
		return c.File + "::" + c.Name[:i]
	}
	return c.File
}

// SetWorkers says which workers there are now.
func (q *Queue) SetWorkers(ws []Worker) {
	q.workers = q.workers[:0]
	for _, w := range ws {
		have := q.known[w.ID]
		if have == nil {
			have = &worker{overhead: q.opts.Overhead}
			q.known[w.ID] = have
		}
		have.Worker = w
		q.workers = append(q.workers, have)
	}
	q.gauge()
	slices.SortFunc(q.workers, func(a, b *worker) int {
		return cmp.Or(cmp.Compare(b.speed(), a.speed()), strings.Compare(string(a.ID), string(b.ID)))
	})
}

// gauge compares the machines of the workers with one another.
func (q *Queue) gauge() {
	var measured []float64
	for _, w := range q.workers {
		if w.Gauged > 0 {
			measured = append(measured, w.Gauged)
		}
	}
	slices.Sort(measured)
	for _, w := range q.workers {
		if w.gauged = 1; w.Gauged > 0 {
			w.gauged = w.Gauged / measured[len(measured)/2]
		}
	}
}

// Started says that a chunk began to run.
func (q *Queue) Started(id ChunkID, now time.Time) {
	if c := q.out[id]; c != nil && c.started.IsZero() {
		c.started, c.progress = now, now
	}
}

// Recorded takes the records of a chunk, of which from came before. It reports
// false when some before them are missing; then it has taken none.
func (q *Queue) Recorded(id ChunkID, src Source, from int, cases []labmesh.TestCase, now time.Time) bool {
	c := q.out[id]
	if c == nil {
		return true // it has ended: all that counts was there before
	}
	if from > c.seen {
		return false
	}
	q.Started(id, now)
	for i, tc := range cases {
		if from+i < c.seen {
			continue // sent twice
		}
		c.seen++
		q.record(c, src, tc)
	}
	c.progress = now
	return true
}

// Seen is how many records of a chunk were taken.
func (q *Queue) Seen(id ChunkID) int {
	if c := q.out[id]; c != nil {
		return c.seen
	}
	return 0
}

func (q *Queue) record(c *chunk, src Source, tc labmesh.TestCase) {
	tc.Try = cmp.Or(tc.Try, c.Try)
	c.ran += max(tc.Seconds, 0)
	it := q.byKey[key{tc.File, tc.Name, tc.Params}]
	if it == nil || it.Case.Whole {
		it = q.strange(tc)
	}
	predicted, mine := c.left[it]
	if !mine && it.at == out && it.chunk != c.ID || !mine && slices.Contains(c.items, it) {
		return // it belongs to another chunk, or had its verdict in this one
	}
	delete(c.left, it)
	c.rest -= predicted
	if mine && it.Case.Seconds <= 0 && tc.Verdict != labmesh.TestSkipped {
		q.times.learn(it, tc.Seconds*q.speedOf(src.Worker))
		q.stale = true
	}
	if mine && it.sure && tc.Verdict == labmesh.TestPassed {
		q.noise.learn(predicted, tc.Seconds*q.speedOf(src.Worker))
	}
	if mine && it.gauge && tc.Verdict == labmesh.TestPassed {
		q.learnSpeed(src.Worker, predicted, tc.Seconds)
	}
	q.ran(it, Run{tc, src}, mine)
}

// strange makes a case of a record of one that nobody had collected.
func (q *Queue) strange(tc labmesh.TestCase) *item {
	c := Case{File: tc.File, Name: tc.Name, Params: tc.Params, ID: caseID(tc), Quarantined: tc.Quarantined}
	if q.opts.Quarantined != nil {
		c.Quarantined = c.Quarantined || q.opts.Quarantined(c.ID)
	}
	k := key{tc.File, tc.Name, tc.Params}
	if it := q.byKey[k]; it != nil { // a whole file with a case of its own name
		k.name += " "
		if again := q.byKey[k]; again != nil {
			return again
		}
	}
	it := &item{Result: Result{Case: c}, at: settled}
	q.items = append(q.items, it)
	q.byKey[k] = it
	q.counts.add(&it.Result, 1)
	return it
}

func caseID(tc labmesh.TestCase) string {
	id := tc.File
	if tc.Name != "" {
		id += "::" + tc.Name
	}
	if tc.Params != "" {
		id += "[" + tc.Params + "]"
	}
	return id
}

// ran takes a run of a case, and decides whether it is tried again.
func (q *Queue) ran(it *item, run Run, mine bool) {
	q.counts.add(&it.Result, -1)
	if run.Verdict.Bad() || len(it.Runs) > 0 {
		q.failures++
	}
	bad := slices.ContainsFunc(it.Runs, func(r Run) bool { return r.Verdict.Bad() })
	it.Runs = append(it.Runs, run)
	it.Verdict = run.Verdict
	it.Flaky = bad && !run.Verdict.Bad()
	it.Case.Quarantined = it.Case.Quarantined || run.Quarantined
	q.counts.add(&it.Result, 1)
	if !mine {
		return // the case that it belongs to decides
	}
	it.at = settled
	if !run.Verdict.Bad() {
		return
	}
	switch {
	case it.tries() <= q.opts.Retries && q.stopped == "":
		it.at = retrying
		q.retries = append(q.retries, it)
	case q.opts.FailFast && it.Bad():
		q.Stop(failFast)
	}
}

// Ended says that a chunk ended. Its cases without a record go back into the queue.
func (q *Queue) Ended(id ChunkID, src Source, end End, now time.Time) {
	c := q.out[id]
	if c == nil {
		return
	}
	delete(q.out, id)
	q.learnOverhead(c, end, now)
	q.judgeWorker(c, end, now)
	first := true
	for _, it := range c.items {
		if _, left := c.left[it]; !left {
			continue
		}
		if it.Case.Whole && (end.OK || end.Cause == labmesh.CauseExit) {
			q.wholeEnded(it, c, src, end)
			continue
		}
		q.back(it, c, src, end, first)
		first = false
	}
}

// back puts a case that did not end back into the queue, unless it was the next
// one of too many chunks that broke off: whatever ends with a worker, a case that takes
// its worker with it must not go round for ever.
func (q *Queue) back(it *item, c *chunk, src Source, end End, first bool) {
	infra := end.Cause.Infra() && end.Cause != labmesh.CauseWorkerLost
	own := end.Cause != labmesh.CauseCancelled && !infra && end.Started && (first || c.seen == 0 && end.Cause != labmesh.CauseWorkerLost)
	if own {
		it.strikes++
		if !slices.Contains(it.struck, c.Worker) {
			it.struck = append(it.struck, c.Worker)
		}
	}
	if infra {
		it.losses++
	}
	if own && q.hopeless(it) || it.losses > labmesh.InfraRetriesMax || own && end.Cause == labmesh.CauseConfig {
		verdict, message := labmesh.TestError, "it could not be run: "+end.Error
		if end.Cause == labmesh.CauseWorkerLost || end.Cause == labmesh.CauseOOM || end.Cause == labmesh.CauseSignal {
			verdict, message = labmesh.TestCrashed, fmt.Sprintf("whatever ran it came to an end, %d times: %s", it.strikes, end.Error)
		}
		q.ran(it, Run{labmesh.TestCase{File: it.Case.File, Name: it.Case.Name, Params: it.Case.Params, Verdict: verdict, Message: message, Try: c.Try}, src}, true)
		if it.at == retrying { // it has been tried often enough
			q.retries = slices.DeleteFunc(q.retries, func(r *item) bool { return r == it })
			it.at = settled
		}
		return
	}
	if c.Try > 1 {
		it.at = retrying
		q.retries = append(q.retries, it)
		return
	}
	it.at = waiting
	g := &q.groups[it.group]
	g.waiting = append(g.waiting, it)
	g.sorted = false
	q.stale = true
}

// hopeless reports whether enough chunks broke off at a case, on as many workers
// as there are: one worker that can run nothing proves nothing.
func (q *Queue) hopeless(it *item) bool {
	return it.strikes >= strikesMax && len(it.struck) >= min(strikesMax, len(q.workers)) || it.strikes >= strikesMax*strikesMax
}

// wholeEnded settles a file that was run as one: its cases have their verdicts.
// One that yielded none is a case itself.
func (q *Queue) wholeEnded(it *item, c *chunk, src Source, end End) {
	bad, cases := false, 0
	files := map[string]bool{}
	for _, one := range c.items {
		files[one.Case.File] = true
	}
	for _, other := range q.items {
		last := other.Last()
		if last.Task != src.Task || last.Attempt != src.Attempt || last.Task == "" {
			continue
		}
		if f := other.Case.File; f == it.Case.File || !files[f] { // what names no file of the chunk may be of any
			bad = bad || other.Verdict.Bad()
			cases++
		}
	}
	if cases > 0 {
		if it.strikes == 0 { // it is no case itself
			q.counts.add(&it.Result, -1)
			q.items = slices.DeleteFunc(q.items, func(o *item) bool { return o == it })
		}
		it.at = settled
		it.strikes++ // of a file: its tries
		switch {
		case bad && it.strikes <= q.opts.Retries && q.stopped == "":
			it.at = retrying
			q.retries = append(q.retries, it)
		case bad && q.opts.FailFast:
			q.Stop(failFast)
		}
		return
	}
	run := Run{labmesh.TestCase{File: it.Case.File, Name: it.Case.Name, Verdict: labmesh.TestPassed, Message: "no result of a test was found in what it wrote", Try: c.Try}, src}
	if !end.OK {
		run.Verdict, run.Message = labmesh.TestError, cmp.Or(end.Error, run.Message)
	}
	q.ran(it, run, true)
}

// Stop says that no more is to be handed out; what is out should be cancelled.
func (q *Queue) Stop(why string) {
	if q.stopped == "" {
		q.stopped = why
	}
}

// Stopped says why no more is handed out; "" while that goes on.
func (q *Queue) Stopped() string { return q.stopped }

// Out lists the chunks that were handed out and have not ended.
func (q *Queue) Out() []ChunkID {
	ids := make([]ChunkID, 0, len(q.out))
	for id := range q.out {
		ids = append(ids, id)
	}
	slices.Sort(ids)
	return ids
}

// Done reports whether there is nothing more to do or to wait for.
func (q *Queue) Done() bool {
	return len(q.out) == 0 && (q.stopped != "" || len(q.retries) == 0 && q.waiting() == 0)
}

func (q *Queue) waiting() (n int) {
	for i := range q.groups {
		n += len(q.groups[i].waiting)
	}
	return n
}

// Counts is how the suite stands.
func (q *Queue) Counts() Counts { return q.counts }

// Failures counts the runs that failed, and those of the same cases after them: where it
// has not changed nothing is to be told of failures.
func (q *Queue) Failures() int { return q.failures }

// Results are all cases with what became of them, in the order in which they were collected.
func (q *Queue) Results() []Result {
	rs := make([]Result, len(q.items))
	for i, it := range q.items {
		rs[i] = it.Result
	}
	return rs
}
