package suite

import (
	"cmp"
	"math"
	"slices"
	"strings"
	"time"

	"labmesh"
)

// How chunks are cut.
const (
	// Of the time that is left if all finish together, a chunk takes one part in
	// shareSure where the times of all cases are known, in shareGuess where none is.
	shareSure  = 1.25
	shareGuess = 1.8
	// shareUnproved is that of a worker that nobody knows the speed of.
	shareUnproved = 2.0
	// chunkWorth is how many times its overhead a chunk takes, at least.
	chunkWorth = 2.5
	// wholeGroups is the part of a chunk that is filled with whole groups before
	// one is split to fill it up.
	wholeGroups = 0.75
	// aheadSeconds before a slot is free its next chunk is handed out, so that word of it
	// is there when the slot is.
	aheadSeconds = 0.5
	// startPatience is how long a chunk may wait for its worker before it is
	// taken back when another would run it.
	startPatience = 2 * time.Second
	// busyPatience is that of one whose worker has a chunk in every slot.
	busyPatience = 500 * time.Millisecond

	// sureLeast is the part of what waits whose time must be known for the rest to be handed out at once, where
	// the times proved right: awayTimes the usual error is less than the start of a chunk.
	sureLeast = 0.9
	awayTimes = 2.0
	// crumbs is how many times its overhead a chunk must be worth, or it goes with another.
	crumbs = 0.5

	chunkSecondsMax = 300
	chunkCasesMax   = 2000
	chunkBytesMax   = 40 << 10 // of the ids of its cases: they may take six times that in a config

	// Where most times are unknown, each slot first gets samples of the files.
	sampleUnknown = 0.3 // part of the cases without a history
	samplePart    = 8   // one in so many is tried first, at most
	samplesLeast  = 3   // for each slot: fewer are not worth a start
)

// group is the cases that are kept together.
type group struct {
	waiting []*item // the longest first, when sorted
	sorted  bool
	seconds float64 // of all of them
	sure    float64 // of those with a history
	squares float64 // sum of the squares of the seconds
}

func (g *group) sort() {
	g.seconds, g.sure, g.squares = 0, 0, 0
	for _, it := range g.waiting {
		g.seconds += it.guess
		g.squares += it.guess * it.guess
		if it.sure {
			g.sure += it.guess
		}
	}
	slices.SortStableFunc(g.waiting, func(a, b *item) int { return cmp.Compare(b.guess, a.guess) })
	g.sorted = true
}

// slot is a place on a worker, and when it is free.
type slot struct {
	w      *worker
	free   float64 // seconds from now
	queued int     // chunks handed out that it has not begun
	soon   bool    // it has one case left, and nobody knows for how long
}

// plan is what one call of Next works with.
type plan struct {
	q      *Queue
	now    time.Time
	slots  []slot
	pieces int     // how many of them may have work at the same time
	speed  float64 // of all slots together
	work   float64 // seconds at speed 1 that are left, of what waits and of what is out
	sure   float64 // part of what waits whose time is known
	waits  float64 // seconds at speed 1 of what waits
	away   float64 // seconds by which a slot may end off its time, if each gets its share of what waits
}

// Next says what to do now. It is to be asked after everything that happened,
// and a few times a second.
func (q *Queue) Next(now time.Time) (orders []Order) {
	orders = q.recall(now)
	if q.stopped != "" || len(q.workers) == 0 || len(q.retries) == 0 && q.waiting() == 0 {
		return orders
	}
	q.guess()
	for q.opts.Parallel <= 0 || len(q.out) < q.opts.Parallel {
		p := q.plan(now)
		c := p.chunk()
		if c == nil {
			return orders
		}
		q.hand(c, now)
		orders = append(orders, Order{Start: &c.Chunk})
	}
	return orders
}

// recall takes back chunks that have not begun and will not soon, and with a
// stopped queue all.
func (q *Queue) recall(now time.Time) (orders []Order) {
	idle := 0
	for _, s := range q.plan(now).slots {
		if s.free == 0 && s.queued == 0 {
			idle++
		}
	}
	for _, id := range q.Out() {
		c := q.out[id]
		why := ""
		switch {
		case c.recalled:
			continue
		case q.stopped != "":
			why = q.stopped
		case !c.started.IsZero():
			continue
		case !slices.ContainsFunc(q.workers, func(w *worker) bool { return w.ID == c.Worker }):
			why = "its worker went away before it began"
		case idle > 0 && (now.Sub(c.handed) > startPatience || now.Sub(c.handed) > busyPatience && q.busy(c.Worker)):
			why = "another worker is free"
			idle--
		default:
			continue
		}
		c.recalled = true
		orders = append(orders, Order{Withdraw: id, Why: why})
	}
	return orders
}

// busy reports whether each slot of a worker has a chunk that has begun.
func (q *Queue) busy(id labmesh.WorkerID) bool {
	begun := 0
	for _, c := range q.out {
		if c.Worker == id && !c.started.IsZero() {
			begun++
		}
	}
	w := q.find(id)
	return w != nil && begun >= w.Slots
}

// wall is how long a chunk that is out will take from now, in seconds. One that is overdue is
// thought to take as long again as it is overdue.
func (c *chunk) wall(w *worker, now time.Time) float64 {
	rest := max(c.rest, 0) / w.speed()
	if c.started.IsZero() {
		return rest + w.overhead
	}
	if c.seen == 0 {
		rest += w.overhead
	}
	rest -= now.Sub(c.progress).Seconds()
	return max(rest, -rest)
}

// atLast reports whether a chunk has one case left, of which nobody knows how long it takes.
func (c *chunk) atLast() bool {
	for it := range c.left {
		if it.sure {
			return false
		}
	}
	return len(c.left) == 1
}

func (q *Queue) plan(now time.Time) *plan {
	p := &plan{q: q, now: now}
	for _, w := range q.workers {
		at := len(p.slots)
		for range w.Slots {
			p.slots = append(p.slots, slot{w: w})
		}
		mine := p.slots[at:]
		if len(mine) == 0 {
			continue
		}
		for _, begun := range []bool{true, false} {
			for _, id := range q.Out() {
				c := q.out[id]
				if c.Worker != w.ID || c.started.IsZero() == begun {
					continue
				}
				s := &mine[0]
				for i := range mine {
					if mine[i].free < s.free {
						s = &mine[i]
					}
				}
				wall := c.wall(w, now)
				s.soon = begun && c.atLast()
				if s.free += max(wall, caseLeast); !begun {
					s.queued++
				}
				p.work += wall * w.speed()
			}
		}
		if w.aside.After(now) {
			p.slots = p.slots[:at]
		}
	}
	if len(p.slots) == 0 { // all are set aside: better one of them than none
		for _, w := range q.workers {
			for range w.Slots {
				p.slots = append(p.slots, slot{w: w})
			}
		}
	}
	pieces := len(p.slots)
	if q.opts.Parallel > 0 {
		pieces = min(pieces, q.opts.Parallel)
	}
	p.pieces = pieces
	for i := range p.slots[:pieces] { // workers are in the order of their speed
		p.speed += p.slots[i].w.speed()
	}
	all, sure, squares := 0.0, 0.0, 0.0
	for i := range q.groups {
		all, sure, squares = all+q.groups[i].seconds, sure+q.groups[i].sure, squares+q.groups[i].squares
	}
	p.waits = all
	p.away = math.Inf(1)
	if q.noise.known() {
		p.away = awayTimes * q.noise.relative() * math.Sqrt(squares/float64(max(pieces, 1)))
	}
	p.sure = 1
	if all > 0 {
		p.sure = sure / all
	}
	for _, it := range q.retries {
		all += it.guess
	}
	p.work += all
	return p
}

// rest is how long it takes from now if all slots finish together.
func (p *plan) rest() float64 { return p.work / max(p.speed, speedLeast) }

// chunk cuts the next chunk, or nil when no slot should have one now.
func (p *plan) chunk() *chunk {
	ready := slices.DeleteFunc(slices.Clone(p.slots), func(s slot) bool { return s.free > aheadSeconds && !s.soon || s.queued > 0 })
	slices.SortStableFunc(ready, func(a, b slot) int { return cmp.Compare(a.free, b.free) })
	for _, s := range ready {
		if items, try := p.fill(s); len(items) > 0 {
			return newChunk(s.w, items, try)
		}
	}
	return nil
}

func newChunk(w *worker, items []*item, try int) *chunk {
	slices.SortStableFunc(items, func(a, b *item) int { return cmp.Compare(a.group, b.group) })
	c := &chunk{Chunk: Chunk{Worker: w.ID, Try: try}, items: items, left: make(map[*item]float64, len(items))}
	for _, it := range items {
		c.Cases = append(c.Cases, it.Case)
		c.left[it] = it.guess
		c.rest += it.guess
		c.Seconds += it.guess / w.speed()
	}
	return c
}

// hand takes the cases of a chunk out of the queue.
func (q *Queue) hand(c *chunk, now time.Time) {
	q.last++
	c.ID, c.handed = q.last, now
	q.out[c.ID] = c
	for _, it := range c.items {
		it.at, it.chunk = out, c.ID
	}
	gone := func(it *item) bool { return it.at == out }
	q.retries = slices.DeleteFunc(q.retries, gone)
	q.samples = slices.DeleteFunc(q.samples, gone)
	changed := -1
	for _, it := range c.items { // in the order of their groups
		if it.group != changed {
			changed = it.group
			g := &q.groups[changed]
			g.waiting = slices.DeleteFunc(g.waiting, gone)
			g.sort()
		}
	}
}

// fill chooses cases for a slot.
func (p *plan) fill(s slot) (items []*item, try int) {
	q := p.q
	if len(q.retries) > 0 && (q.opts.FailFast || q.waiting() == 0) {
		if it := p.retry(s.w); it != nil {
			return []*item{it}, p.tryOf(it)
		}
	}
	if q.waiting() == 0 {
		return nil, 0
	}
	if len(q.samples) > 0 {
		return p.sampled(s), 1
	}
	return p.regular(s), 1
}

func (p *plan) tryOf(it *item) int {
	if it.Case.Whole {
		return it.strikes + 1
	}
	return it.tries() + 1
}

// retry is the first case to try again that may run on w: the last try is made
// on another worker than the one before it, if there is another.
func (p *plan) retry(w *worker) *item {
	others := slices.ContainsFunc(p.slots, func(s slot) bool { return s.w != w })
	for _, it := range p.q.retries {
		last := p.tryOf(it) > p.q.opts.Retries
		if !last || !others || it.Last().Worker != w.ID {
			return it
		}
	}
	return nil
}

// goal is how many seconds a chunk for a slot should take there, and whether it is meant to be its last.
func (p *plan) goal(s slot) (seconds float64, final bool) {
	rest := p.rest()
	least := chunkWorth * s.w.overhead
	share := shareSure*p.sure + shareGuess*(1-p.sure)
	if s.w.unproved() {
		share = max(share, shareUnproved)
	}
	goal := max(rest/share, least)
	if rest-goal < s.w.overhead || p.sure >= sureLeast && !s.w.unproved() && p.away < s.w.overhead {
		goal, final = max(p.last()-s.free-s.w.overhead, least), true // what would be left is not worth another start
	}
	return min(goal, chunkSecondsMax), final
}

// last is when all is over if each slot that waits for no chunk starts one more.
func (p *plan) last() float64 {
	work := p.work
	for _, s := range p.slots[:p.pieces] {
		if s.queued == 0 {
			work += s.w.overhead * s.w.speed()
		}
	}
	return work / max(p.speed, speedLeast)
}

// filler adds cases to a chunk up to a bound.
type filler struct {
	items         []*item
	seconds, goal float64 // at speed 1
	bytes         int
	full          bool // no case at all goes in any more
}

func (f *filler) take(it *item) bool {
	size := len(it.Case.ID) + len(it.Case.File) + len(it.Case.Name) + len(it.Case.Params)
	if len(f.items) > 0 && (f.seconds+it.guess > f.goal || f.bytes+size > chunkBytesMax) || len(f.items) >= chunkCasesMax {
		f.full = f.full || len(f.items) >= chunkCasesMax || f.bytes+size > chunkBytesMax
		return false
	}
	f.items = append(f.items, it)
	f.seconds += it.guess
	f.bytes += size
	return true
}

// regular fills a chunk: with the longest case that waits and may run there,
// then what is left of its group, then whole groups, and if need be a part of one.
func (p *plan) regular(s slot) []*item {
	order := make([]*group, 0, len(p.q.groups))
	for i := range p.q.groups {
		if g := &p.q.groups[i]; len(g.waiting) > 0 {
			if !g.sorted {
				g.sort()
			}
			order = append(order, g)
		}
	}
	slices.SortStableFunc(order, func(a, b *group) int { return cmp.Compare(b.waiting[0].guess, a.waiting[0].guess) })
	goal, final := p.goal(s)
	f := &filler{goal: goal * s.w.speed()}
	enough := wholeGroups
	if final {
		enough = 1
	}
	taken := map[*group]bool{}
	for _, g := range order { // the longest case
		if at := slices.IndexFunc(g.waiting, func(it *item) bool { return p.allowed(s, it) }); at >= 0 {
			for _, it := range g.waiting[at:] {
				if !f.take(it) && f.full {
					break
				}
			}
			taken[g] = true
			break
		}
	}
	if len(f.items) == 0 {
		return nil
	}
	for _, g := range order { // whole groups
		if !f.full && !taken[g] && f.seconds+g.seconds <= f.goal && p.allowed(s, g.waiting[0]) {
			for _, it := range g.waiting {
				f.take(it)
			}
			taken[g] = true
		}
	}
	for _, g := range order { // parts
		if f.full || f.seconds >= enough*f.goal {
			break
		}
		if taken[g] {
			continue
		}
		for _, it := range g.waiting {
			if p.allowed(s, it) && !f.take(it) && f.full {
				break
			}
		}
	}
	if p.waits-f.seconds < crumbs*s.w.overhead*s.w.speed() { // crumbs
		f.goal = math.Inf(1)
		taken := make(map[*item]bool, len(f.items))
		for _, it := range f.items {
			taken[it] = true
		}
		for _, g := range order {
			for _, it := range g.waiting {
				if !taken[it] && p.allowed(s, it) {
					f.take(it)
				}
			}
		}
	}
	return f.items
}

// allowed reports whether a case may run in a slot: it ends there before all is
// over, or no other slot would end it sooner.
func (p *plan) allowed(s slot, it *item) bool {
	here := s.free + s.w.overhead + it.guess/s.w.speed()
	if here <= p.rest() {
		return true
	}
	for _, o := range p.slots {
		if o.w != s.w && o.free+o.w.overhead+it.guess/o.w.speed() < here {
			return false
		}
	}
	return true
}

// sample chooses the cases to try first where nobody knows how long they take:
// some of each file, so that the rest can be told from them.
func (q *Queue) sample() {
	unknown := len(q.items) - q.times.known
	if float64(unknown) <= sampleUnknown*float64(len(q.items)) {
		return
	}
	files := map[string][]*item{}
	var names []string
	for _, it := range q.items {
		if it.Case.Seconds > 0 || it.Case.Whole {
			continue
		}
		if files[it.Case.File] == nil {
			names = append(names, it.Case.File)
		}
		files[it.Case.File] = append(files[it.Case.File], it)
	}
	slices.SortStableFunc(names, func(a, b string) int {
		return cmp.Or(cmp.Compare(len(files[b]), len(files[a])), strings.Compare(a, b))
	})
	for round := 0; len(q.samples) < unknown/samplePart; round++ {
		before := len(q.samples)
		for _, name := range names {
			if list := files[name]; round < (len(list)+samplePart-1)/samplePart && len(q.samples) < unknown/samplePart {
				q.samples = append(q.samples, list[round*len(list)/((len(list)+samplePart-1)/samplePart)])
			}
		}
		if len(q.samples) == before {
			return
		}
	}
}

// sampled is a slot's share of the samples.
func (p *plan) sampled(s slot) []*item {
	if len(p.q.samples) < samplesLeast*len(p.slots) { // too few to learn from
		p.q.samples = nil
		return p.regular(s)
	}
	share := max(int(float64(len(p.q.samples))*s.w.speed()/max(p.idleSpeed(), speedLeast)+0.5), 1)
	return slices.Clone(p.q.samples[:min(share, len(p.q.samples), chunkCasesMax)])
}

// idleSpeed is the speed of the slots that have nothing yet.
func (p *plan) idleSpeed() (speed float64) {
	for _, s := range p.slots {
		if s.free <= aheadSeconds && s.queued == 0 {
			speed += s.w.speed()
		}
	}
	return speed
}

// ETA is how many seconds the suite will still take, as far as is known.
func (q *Queue) ETA(now time.Time) float64 {
	q.guess()
	p := q.plan(now)
	if len(p.slots) == 0 {
		return 0
	}
	return p.rest()
}

// Busy is how many chunks run, and on how many workers.
func (q *Queue) Busy() (chunks, workers int) {
	seen := map[labmesh.WorkerID]bool{}
	for _, c := range q.out {
		if !c.started.IsZero() {
			chunks++
			seen[c.Worker] = true
		}
	}
	return chunks, len(seen)
}
