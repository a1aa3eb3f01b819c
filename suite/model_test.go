package suite_test

import (
	"container/heap"
	"fmt"
	"math"
	"slices"
	"time"

	"labmesh"
	"labmesh/suite"
)

// model is a mesh with unequal workers that a queue is run on, in time of its
// own: chunks start, cases end, workers are lost and come back.
type model struct {
	q       *suite.Queue
	cases   map[string]truth
	workers []*machine
	latency float64 // seconds from an order to its start, and from what happens to word of it

	now     float64
	agenda  agenda
	chunks  map[suite.ChunkID]*running
	last    *running // the one that ended last
	starts  int
	runs    map[string]int // recorded runs of each case
	maxSecs float64        // gives up after
}

// truth is what a case really is.
type truth struct {
	seconds float64 // at speed 1
	fails   int     // how many of its first tries fail
	crashes bool    // its interpreter, at its first try
	kills   bool    // whatever runs it, always
}

type machine struct {
	suite.Worker
	speed    float64 // true
	overhead float64
	up       bool
	busy     []*running // one for each slot under way
	line     []*running // handed out, not begun
}

type running struct {
	suite.Chunk
	src   suite.Source
	done  int // cases
	at    *machine
	begun bool
	over  bool
}

type event struct {
	at float64
	n  int // in the order of their making
	do func()
}

type agenda []event

func (a agenda) Len() int { return len(a) }
func (a agenda) Less(i, j int) bool {
	if a[i].at != a[j].at {
		return a[i].at < a[j].at
	}
	return a[i].n < a[j].n
}
func (a agenda) Swap(i, j int) { a[i], a[j] = a[j], a[i] }
func (a *agenda) Push(x any)   { *a = append(*a, x.(event)) }
func (a *agenda) Pop() any {
	old := *a
	e := old[len(old)-1]
	*a = old[:len(old)-1]
	return e
}

func (m *model) in(d float64, do func()) {
	m.starts++
	heap.Push(&m.agenda, event{m.now + d, m.starts, do})
}

func (m *model) clock() time.Time {
	return time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC).Add(time.Duration(m.now * float64(time.Second)))
}

func (m *model) tellWorkers() {
	var ws []suite.Worker
	for _, w := range m.workers {
		if w.up {
			ws = append(ws, w.Worker)
		}
	}
	m.q.SetWorkers(ws)
}

// run runs the suite and returns when its last verdict was known, or an error.
func (m *model) run() error {
	m.chunks, m.runs = map[suite.ChunkID]*running{}, map[string]int{}
	if m.maxSecs == 0 {
		m.maxSecs = 1e6
	}
	m.tellWorkers()
	var tick func()
	tick = func() { m.in(0.1, tick) }
	tick()
	m.ask()
	for !m.q.Done() {
		if len(m.agenda) == 0 || m.now > m.maxSecs {
			return fmt.Errorf("it hangs at %.1f s: %d out, %+v", m.now, len(m.q.Out()), m.q.Counts())
		}
		e := heap.Pop(&m.agenda).(event)
		m.now = e.at
		e.do()
		m.ask()
	}
	return nil
}

func (m *model) ask() {
	for _, o := range m.q.Next(m.clock()) {
		if o.Start == nil {
			if r := m.chunks[o.Withdraw]; r != nil && !r.over {
				m.in(m.latency, func() { m.end(r, suite.End{Started: r.begun, Cause: labmesh.CauseCancelled}) })
			}
			continue
		}
		at := slices.IndexFunc(m.workers, func(w *machine) bool { return w.ID == o.Start.Worker })
		r := &running{Chunk: *o.Start, at: m.workers[at], src: suite.Source{Task: labmesh.TaskID(fmt.Sprint("t", o.Start.ID)), Attempt: 1, Worker: o.Start.Worker}}
		m.chunks[r.ID] = r
		m.in(m.latency, func() {
			r.at.line = append(r.at.line, r)
			m.begin(r.at)
		})
	}
}

// begin starts what waits on a machine with a free slot.
func (m *model) begin(w *machine) {
	w.line = slices.DeleteFunc(w.line, func(r *running) bool { return r.over })
	for w.up && len(w.line) > 0 && len(w.busy) < w.Slots {
		r := w.line[0]
		w.line, w.busy = w.line[1:], append(w.busy, r)
		r.begun = true
		m.q.Started(r.ID, m.clock())
		m.in(w.overhead, func() { m.step(r) })
	}
}

// step runs the next case of a chunk.
func (m *model) step(r *running) {
	if r.over {
		return
	}
	if r.done == len(r.Cases) {
		m.end(r, suite.End{OK: true, Started: true})
		return
	}
	c := r.Cases[r.done]
	t := m.cases[c.ID]
	if t.kills {
		m.in(t.seconds/r.at.speed, func() {
			m.end(r, suite.End{Started: true, Cause: labmesh.CauseWorkerLost, Error: "the worker was lost"})
		})
		return
	}
	took := t.seconds / r.at.speed
	m.in(took, func() {
		if r.over {
			return
		}
		tc := labmesh.TestCase{File: c.File, Name: c.Name, Params: c.Params, Verdict: labmesh.TestPassed, Seconds: took, Try: r.Try}
		again := 0.0
		switch {
		case t.crashes && r.Try == 1:
			tc.Verdict, again = labmesh.TestCrashed, r.at.overhead
		case r.Try <= t.fails:
			tc.Verdict = labmesh.TestFailed
		}
		m.runs[c.ID]++
		if !m.q.Recorded(r.ID, r.src, r.done, []labmesh.TestCase{tc}, m.clock()) {
			panic("a record was missed")
		}
		m.q.Recorded(r.ID, r.src, r.done, []labmesh.TestCase{tc}, m.clock()) // sent twice
		r.done++
		m.in(again, func() { m.step(r) })
	})
}

func (m *model) end(r *running, e suite.End) {
	if r.over {
		return
	}
	r.over, m.last = true, r
	w := r.at
	w.busy = slices.DeleteFunc(w.busy, func(o *running) bool { return o == r })
	m.q.Ended(r.ID, r.src, e, m.clock())
	m.begin(w)
}

// lose takes a worker away, and all it runs with it. Word of it comes later.
func (m *model) lose(i int, back float64) {
	w := m.workers[i]
	if !w.up {
		return
	}
	w.up = false
	held := slices.Clone(w.busy)
	for _, r := range held {
		r := r
		r.over = true // it does nothing more
		m.in(0.8, func() {
			r.over = false
			m.end(r, suite.End{Started: true, Cause: labmesh.CauseWorkerLost, Error: "the worker was lost"})
		})
	}
	w.busy = nil
	m.in(0.8, m.tellWorkers)
	m.in(0.8+back, func() { w.up = true; m.tellWorkers(); m.begin(w) })
}

// ideal is the time in which the workers could do all cases if these could be cut as one liked.
func (m *model) ideal() float64 {
	work, speed, longest, fastest := 0.0, 0.0, 0.0, 0.0
	for _, t := range m.cases {
		work += t.seconds
		longest = max(longest, t.seconds)
	}
	for _, w := range m.workers {
		speed += w.speed * float64(w.Slots)
		fastest = max(fastest, w.speed)
	}
	return max(work/speed, longest/fastest)
}

// issue is the suite of the benchmark: cases in files of uneven sizes, of which each has a scale of its own.
func issueSuite(files, cases int, total float64) (list []suite.Case, truths map[string]truth) {
	truths = map[string]truth{}
	sum := 0.0
	for i := range cases {
		f := int(float64(files) * math.Pow(float64(i)/float64(cases), 1.7))
		c := suite.Case{File: fmt.Sprintf("tests/test_%02d.py", f), Name: fmt.Sprintf("test_%03d", i)}
		c.ID = c.File + "::" + c.Name
		s := math.Pow(1.25, float64(f%11)) * (1 + float64(i*7919%13)/4)
		if i%50 == 7 {
			s *= 6
		}
		list = append(list, c)
		truths[c.ID] = truth{seconds: s}
		sum += s
	}
	for id, t := range truths {
		t.seconds *= total / sum
		truths[id] = t
	}
	return list, truths
}
