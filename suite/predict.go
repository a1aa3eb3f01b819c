package suite

import (
	"math"
	"time"

	"labmesh"
)

// Assumptions, until something better is known.
const (
	overheadUsual = 0.4  // seconds: to place a chunk and start an interpreter that loads pytest
	overheadLeast = 0.05 // seconds
	overheadMost  = 30   // seconds
	caseUsual     = 1.0  // seconds
	caseLeast     = 0.001

	speedLeast, speedMost = 0.05, 20
	speedFaith            = 2.0 // seconds of work by which what was measured before the run weighs
	gaugeCases            = 3   // of a file whose times are known, for its others to tell a worker's speed
	overheadWeight        = 0.4 // of the newest measure in the mean
	noiseCases            = 20  // that have ended, until it is known how far predictions are off
	secondsKept           = 201 // of the newest cases of a file, for their mean
)

// times knows what cases took.
type times struct {
	all   []float64
	files map[string][]float64
	known int // cases with a history
}

func (t *times) init(items []*item) {
	t.files = map[string][]float64{}
	for _, it := range items {
		if it.Case.Seconds > 0 {
			t.known++
			t.add(it.Case.File, it.Case.Seconds)
		}
	}
}

func (t *times) add(file string, seconds float64) {
	keep := func(list []float64) []float64 {
		if list = append(list, seconds); len(list) > 2*secondsKept {
			list = append(list[:0], list[len(list)-secondsKept:]...)
		}
		return list
	}
	t.all = keep(t.all)
	t.files[file] = keep(t.files[file])
}

// learn takes what a case took that had no history.
func (t *times) learn(it *item, seconds float64) { t.add(it.Case.File, max(seconds, 0)) }

// mean is that of list, with one more of the usual length where one is given: a
// few say little.
func mean(list []float64, usual float64) float64 {
	sum, n := 0.0, float64(len(list))
	for _, s := range list {
		sum += s
	}
	if usual > 0 {
		sum, n = sum+usual, n+1
	}
	if n == 0 {
		return 0
	}
	return sum / n
}

// noise is how far cases were from what their history predicted.
type noise struct {
	cases         int
	off, foretold float64 // sums of squares, of the difference and of the prediction
}

func (n *noise) learn(predicted, took float64) {
	n.cases++
	n.off += (took - predicted) * (took - predicted)
	n.foretold += predicted * predicted
}

// known reports whether enough was seen to go by.
func (n *noise) known() bool { return n.cases >= noiseCases && n.foretold > 0 }

// relative is the usual error of a prediction, as a part of it.
func (n *noise) relative() float64 { return math.Sqrt(n.off / n.foretold) }

// guess makes all predictions anew: of what waits, not of what is out.
func (q *Queue) guess() {
	if !q.stale {
		return
	}
	q.stale = false
	usual := caseUsual
	if len(q.times.all) > 0 {
		usual = max(mean(q.times.all, 0), caseLeast)
	}
	files := make(map[string]float64, len(q.times.files))
	for f, list := range q.times.files {
		files[f] = max(mean(list, usual), caseLeast)
	}
	for i := range q.groups {
		g := &q.groups[i]
		if len(g.waiting) == 0 {
			continue
		}
		for _, it := range g.waiting {
			it.guess, it.sure, it.gauge = it.Case.Seconds, it.Case.Seconds > 0, true
			if !it.sure {
				if it.guess = files[it.Case.File]; it.guess == 0 {
					it.guess = usual
				}
				it.gauge = len(q.times.files[it.Case.File]) >= gaugeCases
			}
		}
		g.sort()
	}
	for _, it := range q.retries {
		if it.guess == 0 {
			it.guess = usual
		}
	}
}

// unproved reports whether nobody knows how fast w is.
func (w *worker) unproved() bool { return w.Speed <= 0 && w.took < speedFaith }

// speed is how fast w is, by what was known before and what it did since. Its machine's measured speed
// stands in for earlier runs, and less and less for what it does.
func (w *worker) speed() float64 {
	before := w.Speed
	if before <= 0 {
		before = w.gauged
	}
	return min(max((w.predicted+speedFaith)/(w.took+speedFaith/before), speedLeast), speedMost)
}

func (q *Queue) find(id labmesh.WorkerID) *worker { return q.known[id] }

func (q *Queue) speedOf(id labmesh.WorkerID) float64 {
	if w := q.find(id); w != nil {
		return w.speed()
	}
	return 1
}

func (q *Queue) learnSpeed(id labmesh.WorkerID, predicted, took float64) {
	if w := q.find(id); w != nil && predicted > 0 {
		w.predicted += predicted
		w.took += max(took, caseLeast)
	}
}

// learnOverhead takes what a chunk took besides its cases.
func (q *Queue) learnOverhead(c *chunk, end End, now time.Time) {
	w := q.find(c.Worker)
	if w == nil || c.started.IsZero() || len(c.left) > 0 || !end.OK && end.Cause != labmesh.CauseExit || c.seen == 0 {
		return
	}
	took := min(max(now.Sub(c.started).Seconds()-c.ran, overheadLeast), overheadMost)
	w.overhead += overheadWeight * (took - w.overhead)
}

// judgeWorker sets a worker aside whose chunks end without a case again and
// again: it would eat the whole queue.
func (q *Queue) judgeWorker(c *chunk, end End, now time.Time) {
	w := q.find(c.Worker)
	switch {
	case w == nil || end.Cause == labmesh.CauseCancelled:
	case c.seen > 0 || end.OK:
		w.idleEnds = 0
	default:
		if w.idleEnds++; w.idleEnds >= idleEndsMax {
			w.idleEnds, w.aside = 0, now.Add(setAside)
		}
	}
}
