package scheduler

import (
	"container/heap"
	"slices"
	"time"

	"labmesh"
	"labmesh/state"
)

// PlanMax bounds the commands of one plan. What is left goes with the next.
const PlanMax = 4096

// reserveAfter is how long a task that needs more than any worker has free may
// wait before a worker is kept free for it.
const reserveAfter = 10 * time.Second

// Input is all that a decision rests on.
type Input struct {
	View state.View
	Now  time.Time // on the leader's clock

	// Heard is what is known by gossip of each worker, by its id. Nothing is
	// placed on a worker that is not in it, unless it registered just now.
	Heard map[labmesh.WorkerID]Heard

	// Renewed is when each worker last renewed its lease with this leader. Workers that hold nothing do not.
	Renewed map[labmesh.WorkerID]time.Time

	// Led is when this leadership began. Silence before it proves nothing.
	Led time.Time
}

// Heard is the last word of a worker.
type Heard struct {
	Expires time.Time // when its lease runs out, on the leader's clock
	Accepts bool      // whether it takes new work
	Renews  bool      // whether it renews a lease while it holds attempts: then its adverts alone do not count
}

// Plan places pending tasks on free workers: the highest priority first, then
// the oldest, each on the fitting worker that is least full, and of those equally full on the
// fastest. It goes on until nothing fits any more or the plan has PlanMax commands.
func Plan(in Input) []labmesh.Command {
	p := planner{in: in}
	if p.gather(); len(p.bays) > 0 {
		p.line()
		p.fill()
	}
	if p.gatherAhead(); len(p.bays) > 0 {
		p.line()
		p.fill()
	}
	return p.out
}

// fill places tasks in the bays until no lane has a task that finds room.
func (p *planner) fill() {
	for len(p.lanes) > 0 && len(p.out) < PlanMax {
		l := p.lanes[0]
		b := l.best()
		if b == nil {
			p.block(l)
			heap.Pop(&p.lanes)
			continue
		}
		p.place(l, b)
		if l.advance(p) {
			heap.Fix(&p.lanes, 0)
		} else {
			heap.Pop(&p.lanes)
		}
	}
}

type planner struct {
	in    Input
	ahead bool // the bays are places to wait for a slot
	bays  []*bay
	lanes lanes
	out   []labmesh.Command
	done  map[string]*labmesh.Task // by class, the last task placed in a free slot
}

// bay is a worker with room, as the plan fills it.
type bay struct {
	w           *labmesh.Worker
	slots, gpus int // free
	reserved    bool
	once        bool    // it takes one task and no more
	speed       float64 // of one processor, against others
}

func newBay(w *labmesh.Worker, slots, gpus int) *bay {
	b := &bay{w: w, slots: slots, gpus: gpus, speed: 1} // what was not measured counts as usual
	if c := w.Capabilities.Calibration; c != nil && c.Speed > 0 {
		b.speed = c.Speed
	}
	return b
}

// load orders bays: the emptiest goes first.
func (b *bay) load() float64 { return 1 - float64(b.slots)/float64(b.w.Slots) }

func (b *bay) room(needs *labmesh.Requirements) bool {
	return !b.reserved && needs.Slots(b.w.Slots) <= b.slots && needs.GPUs <= b.gpus
}

func (p *planner) gather() {
	for w := range p.in.View.FreeWorkers() {
		if !p.takes(w) {
			continue
		}
		u := p.in.View.Used(w.ID)
		once := p.doubted(w.ID)
		if once && (u.Tasks > 0 || p.mustWait(w.ID)) {
			continue // one at a time, until one has done well
		}
		b := newBay(w, w.Slots-u.Slots-u.Ahead, w.Capabilities.GPUCount()-u.GPUs)
		b.once = once
		p.bays = append(p.bays, b)
	}
}

// proofWait is how long a worker that fails at once is given nothing while others have yet to show whether they do too.
const proofWait = 3 * time.Second

// doubted reports whether what a worker ran lately failed at once, and it is not known to fail elsewhere.
func (p *planner) doubted(id labmesh.WorkerID) bool {
	burns, _ := p.in.View.Burns(id)
	unproven, _ := p.in.View.Unproven(id)
	return burns+unproven > 0
}

// mustWait reports whether a worker is given nothing until others have shown how they do.
func (p *planner) mustWait(id labmesh.WorkerID) bool {
	n, last := p.in.View.Unproven(id)
	return n >= state.BurnsMax && p.in.Now.Sub(last) < proofWait
}

// firstWord is how long a worker that has just registered counts as heard: that
// it did is word enough, and its first adverts may be lost until those who pass them on have found it.
const firstWord = 3 * time.Second

// takes reports whether a worker is heard of and takes new work.
func (p *planner) takes(w *labmesh.Worker) bool {
	h, ok := p.in.Heard[w.ID]
	if !ok {
		return p.in.Now.Sub(w.Changed) < firstWord
	}
	return h.Accepts && !h.Expires.Before(p.in.Now)
}

// bigPatience is how long a task that may not wait on a worker waits before nothing
// is placed ahead of free slots any more on the workers that it fits.
const bigPatience = time.Second

// aheadWithin is how long the attempts on a worker may have run for it to be
// given more ahead: one that runs longer is not as short as those before it.
const aheadWithin = 250 * time.Millisecond

// gatherAhead makes bays of the places to wait on workers whose attempts are
// short. It comes after all free slots are filled.
func (p *planner) gatherAhead() {
	p.ahead, p.bays, p.lanes = true, nil, nil
	var big []*state.Class
	for w := range p.in.View.QuickWorkers() {
		if big == nil {
			big = p.bigOnes()
		}
		wanted := slices.ContainsFunc(big, func(c *state.Class) bool { return c.Fits(w) })
		if p.takes(w) && !wanted && !p.slow(w.ID) && !p.doubted(w.ID) {
			p.bays = append(p.bays, newBay(w, p.in.View.AheadRoom(w), 0))
		}
	}
}

// bigOnes are the classes whose first task may not wait on a worker, and has
// waited for a slot for some time: a worker that it fits must come to have one free.
func (p *planner) bigOnes() []*state.Class {
	out := []*state.Class{}
	for c := range p.in.View.Classes() {
		if head := p.in.View.Queue(c.ID, p.done[c.ID], 1, nil); len(head) > 0 && !state.MayGoAhead(head[0]) && p.in.Now.Sub(head[0].Created) > bigPatience {
			out = append(out, c)
		}
	}
	return out
}

func (p *planner) slow(id labmesh.WorkerID) bool {
	for t := range p.in.View.Held(id) {
		if t.Phase != labmesh.Assigned && p.in.Now.Sub(t.Started) > aheadWithin {
			return true
		}
	}
	return false
}

// line makes a lane of each class in which a task waits that fits a bay.
func (p *planner) line() {
	for c := range p.in.View.Classes() {
		l := &lane{class: c, last: p.done[c.ID]}
		for _, b := range p.bays {
			if c.Fits(b.w) {
				l.fits = append(l.fits, ranked{b, b.load()})
			}
		}
		if len(l.fits) == 0 {
			continue
		}
		heap.Init(&l.fits)
		if l.advance(p) {
			p.lanes = append(p.lanes, l)
		}
	}
	heap.Init(&p.lanes)
}

func (p *planner) place(l *lane, b *bay) {
	t := l.head()
	b.slots -= l.class.Needs.Slots(b.w.Slots)
	b.gpus -= l.class.Needs.GPUs
	b.reserved = b.reserved || b.once
	p.out = append(p.out, labmesh.PlaceTask{ID: t.ID, Attempt: t.Attempt + 1, Worker: b.w.ID, Ahead: p.ahead})
	if !p.ahead {
		if p.done == nil {
			p.done = map[string]*labmesh.Task{}
		}
		p.done[l.class.ID] = t
	}
}

// block is called for a lane whose head finds no room. A task that needs more
// than one slot would starve behind a stream of small ones; when it has waited
// long enough, the fitting worker with most room is kept for it.
func (p *planner) block(l *lane) {
	if p.ahead || p.in.Now.Sub(l.head().Created) < reserveAfter {
		return
	}
	var most *bay
	for _, b := range p.bays {
		if !b.reserved && l.class.Fits(b.w) && (most == nil || b.slots > most.slots) {
			most = b
		}
	}
	if most != nil {
		most.reserved = true
	}
}

// lane is the queue of one class and the bays that fit it.
type lane struct {
	class *state.Class
	buf   []*labmesh.Task // the next tasks of the queue; buf[0] is the head
	last  *labmesh.Task   // the last that was taken from the view
	dry   bool            // the view has no more
	fits  bays
}

// laneChunk is how many tasks a lane takes from the view at a time, after the first.
const laneChunk = 128

func (l *lane) head() *labmesh.Task { return l.buf[0] }

// advance makes the next task the head, and reports whether there is one.
func (l *lane) advance(p *planner) bool {
	n := 1 // most plans place little: do not take what is not needed
	if len(l.buf) > 0 {
		l.buf, n = l.buf[1:], laneChunk
	}
	if len(l.buf) == 0 && !l.dry {
		l.buf = p.in.View.Queue(l.class.ID, l.last, n, nil)
		l.dry = len(l.buf) < n
		if len(l.buf) > 0 {
			l.last = l.buf[len(l.buf)-1]
		}
	}
	return len(l.buf) > 0 && (!p.ahead || state.MayGoAhead(l.head()))
}

// best is the least full bay with room for the lane's tasks, or nil.
func (l *lane) best() *bay {
	for len(l.fits) > 0 {
		top := &l.fits[0]
		switch {
		case !top.bay.room(&l.class.Needs):
			heap.Pop(&l.fits) // a bay only fills up during a plan
		case top.load != top.bay.load():
			top.load = top.bay.load() // another lane has put something there
			heap.Fix(&l.fits, 0)
		default:
			return top.bay
		}
	}
	return nil
}

// ranked is a bay and its load when it was last looked at.
type ranked struct {
	bay  *bay
	load float64
}

type bays []ranked

func (b bays) Len() int      { return len(b) }
func (b bays) Swap(i, j int) { b[i], b[j] = b[j], b[i] }
func (b bays) Less(i, j int) bool {
	if b[i].load != b[j].load {
		return b[i].load < b[j].load
	}
	if b[i].bay.speed != b[j].bay.speed {
		return b[i].bay.speed > b[j].bay.speed
	}
	return b[i].bay.w.ID < b[j].bay.w.ID
}
func (b *bays) Push(x any) { *b = append(*b, x.(ranked)) }
func (b *bays) Pop() any {
	old := *b
	x := old[len(old)-1]
	*b = old[:len(old)-1]
	return x
}

// lanes are ordered by their heads: priority, then age.
type lanes []*lane

func (l lanes) Len() int      { return len(l) }
func (l lanes) Swap(i, j int) { l[i], l[j] = l[j], l[i] }
func (l lanes) Less(i, j int) bool {
	a, b := l[i].head(), l[j].head()
	if a.Spec.Priority != b.Spec.Priority {
		return a.Spec.Priority > b.Spec.Priority
	}
	return a.Seq < b.Seq
}
func (l *lanes) Push(x any) { *l = append(*l, x.(*lane)) }
func (l *lanes) Pop() any {
	old := *l
	x := old[len(old)-1]
	*l = old[:len(old)-1]
	return x
}
