package swarm

import (
	"time"

	"labmesh/content"
)

// How much is asked of a peer before it has answered.
const (
	windowMin  = 2                      // chunks
	windowMax  = 8                      // chunks
	windowTime = 250 * time.Millisecond // of its rate
	// A chunk that was asked of one peer is asked of an idle second one when
	// that would have it in half the time, or when the first is silent so long.
	secondAfter = 500 * time.Millisecond
	secondWorth = 100 * time.Millisecond // less is not worth sending it twice
	rateShare   = 0.3                    // of the newest chunk in the rate
)

// book keeps who has what and who was asked for what. It decides what to ask of
// whom; it knows no streams, and the time and chance come in.
type book struct {
	chunks  []content.Chunk
	missing []int32    // in no order
	place   []int32    // of a chunk in missing, or -1
	spread  []uint16   // how many peers have a chunk or will soon
	asked   [][]*party // who was asked for a chunk and has not answered
	parties map[*party]struct{}
}

// party is a peer as the book sees it.
type party struct {
	have, soon bits // nil until it has told
	out        map[int]time.Time
	bytes      int64 // of what is out
	rate       float64
	last       time.Time // when it last answered
}

func newBook(chunks []content.Chunk, missing []int) *book {
	b := &book{
		chunks: chunks, place: make([]int32, len(chunks)), spread: make([]uint16, len(chunks)),
		asked: make([][]*party, len(chunks)), parties: map[*party]struct{}{},
	}
	for i := range b.place {
		b.place[i] = -1
	}
	for _, i := range missing {
		b.place[i] = int32(len(b.missing))
		b.missing = append(b.missing, int32(i))
	}
	return b
}

// tell takes a peer's maps.
func (b *book) tell(p *party, have, soon bits) {
	if p.have == nil {
		p.have, p.soon, p.out = newBits(len(b.chunks)), newBits(len(b.chunks)), map[int]time.Time{}
		b.parties[p] = struct{}{}
	}
	for i := range b.chunks {
		if have.has(i) {
			b.news(p, i, false)
		}
		if soon.has(i) {
			b.news(p, i, true)
		}
	}
}

// news takes that a peer has a chunk, or will soon, or has one on its way to
// another.
func (b *book) news(p *party, i int, soon bool) {
	if _, ok := b.parties[p]; !ok {
		return // it has left
	}
	set := p.have
	if soon {
		set = p.soon
	}
	if !set.has(i) {
		set.set(i)
		b.spread[i]++
	}
}

// gone takes that a peer does not have a chunk after all.
func (b *book) gone(p *party, i int) {
	b.unask(p, i)
	if _, ok := b.parties[p]; ok && p.have.has(i) {
		p.have.clear(i)
		b.spread[i]--
	}
}

// leave forgets a peer. What it was asked for can be asked of others.
func (b *book) leave(p *party) {
	if _, ok := b.parties[p]; !ok {
		return
	}
	delete(b.parties, p)
	for i := range p.out {
		b.unask(p, i)
	}
	for i := range b.chunks {
		if p.have.has(i) {
			b.spread[i]--
		}
		if p.soon.has(i) {
			b.spread[i]--
		}
	}
}

// unask takes a request back, and says whether there was one.
func (b *book) unask(p *party, i int) bool {
	if _, ok := p.out[i]; !ok {
		return false
	}
	delete(p.out, i)
	p.bytes -= int64(b.chunks[i].Size)
	for k, q := range b.asked[i] {
		if q == p {
			b.asked[i] = append(b.asked[i][:k], b.asked[i][k+1:]...)
			break
		}
	}
	return true
}

// answered takes that a peer has sent a chunk, for its rate.
func (b *book) answered(p *party, i int, now time.Time) {
	at, ok := p.out[i]
	if !ok {
		return
	}
	if p.last.After(at) {
		at = p.last // it was busy with another until then
	}
	p.last = now
	if took := now.Sub(at).Seconds(); took > 0 {
		rate := float64(b.chunks[i].Size) / took
		if p.rate > 0 {
			rate = rateShare*rate + (1-rateShare)*p.rate
		}
		p.rate = rate
	}
	b.unask(p, i)
}

// got takes that a chunk is here, and names who else was asked for it.
func (b *book) got(i int) (others []*party) {
	at := b.place[i]
	if at < 0 {
		return nil
	}
	end := b.missing[len(b.missing)-1]
	b.missing[at], b.place[end] = end, at
	b.missing = b.missing[:len(b.missing)-1]
	b.place[i] = -1
	others = append(others, b.asked[i]...)
	for _, p := range others {
		b.unask(p, i)
	}
	return others
}

// window is how many chunks may be out at a peer: enough for it never to wait
// for us, and no more, for what waits there cannot be asked of another.
func (b *book) window(p *party) int {
	mean := 1.0
	if n := len(p.out); n > 0 {
		mean = float64(p.bytes) / float64(n)
	}
	return min(max(int(p.rate*windowTime.Seconds()/mean), windowMin), windowMax)
}

// next chooses a chunk to ask of a peer, and notes that it was asked: the
// rarest that nobody was asked for, or, when there is none and the peer is
// idle, one that another is slow with.
func (b *book) next(p *party, now time.Time, chance func(n int) int) (int, bool) {
	if _, ok := b.parties[p]; !ok || len(p.out) >= b.window(p) {
		return 0, false // it has left, or not told what it has, or has enough to do
	}
	best, rarest, ties := -1, uint16(0), 0
	for _, m := range b.missing {
		i := int(m)
		if len(b.asked[i]) > 0 || !p.have.has(i) {
			continue
		}
		switch s := b.spread[i]; {
		case best < 0 || s < rarest:
			best, rarest, ties = i, s, 1
		case s == rarest:
			if ties++; chance(ties) == 0 {
				best = i
			}
		}
	}
	if best < 0 {
		best = b.second(p, now)
	}
	if best < 0 {
		return 0, false
	}
	p.out[best] = now
	p.bytes += int64(b.chunks[best].Size)
	b.asked[best] = append(b.asked[best], p)
	return best, true
}

// second chooses a chunk that another peer was asked for and is slow with, or
// -1.
func (b *book) second(p *party, now time.Time) int {
	if len(p.out) > 0 {
		return -1
	}
	best, worst := -1, time.Duration(0)
	for _, m := range b.missing {
		i := int(m)
		if len(b.asked[i]) != 1 || b.asked[i][0] == p || !p.have.has(i) {
			continue
		}
		q := b.asked[i][0]
		age := now.Sub(q.out[i])
		here := lasts(int64(b.chunks[i].Size), p.rate)
		there := lasts(q.bytes, q.rate)
		silent := age > secondAfter && now.Sub(q.last) > secondAfter
		slow := p.rate > 0 && there > 2*here+secondWorth && age > here+secondWorth
		if wait := there + age; (silent || slow) && wait > worst {
			best, worst = i, wait
		}
	}
	return best
}

// lasts is how long bytes take at a rate, 0 where that is not known.
func lasts(bytes int64, rate float64) time.Duration {
	if rate == 0 {
		return 0
	}
	return time.Duration(float64(bytes) / rate * float64(time.Second))
}
