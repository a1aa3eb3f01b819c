package swarm

import (
	"testing"
	"time"

	"pgregory.net/rapid"

	"labmesh/content"
)

// Whatever peers say and do: nobody is asked for what it has not, or twice for
// the same, nothing is asked of more than two, what is here is not asked for,
// the books balance, and in the end every chunk that somebody has is here.
func TestTheBookBalances(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		n := rapid.IntRange(1, 40).Draw(t, "chunks")
		chunks := make([]content.Chunk, n)
		var missing []int
		for i := range chunks {
			chunks[i] = content.Chunk{Size: uint32(rapid.IntRange(1, content.ChunkBytesMax).Draw(t, "size"))}
			if rapid.Bool().Draw(t, "missing") {
				missing = append(missing, i)
			}
		}
		b := newBook(chunks, missing)
		parties := []*party{{}, {}, {}, {}}
		now := time.Unix(1000, 0)
		chance := func(n int) int { return rapid.IntRange(0, n-1).Draw(t, "chance") }
		number := func() int { return rapid.IntRange(0, n-1).Draw(t, "chunk") }
		check := func() {
			for i := range chunks {
				if len(b.asked[i]) > 2 || b.place[i] < 0 && len(b.asked[i]) > 0 {
					t.Fatalf("chunk %d was asked of %d", i, len(b.asked[i]))
				}
				var spread uint16
				for p := range b.parties {
					if p.have.has(i) {
						spread++
					}
					if p.soon.has(i) {
						spread++
					}
				}
				if spread != b.spread[i] {
					t.Fatalf("chunk %d is spread %d times, and the book says %d", i, spread, b.spread[i])
				}
			}
			for p := range b.parties {
				var bytes int64
				for i := range p.out {
					bytes += int64(chunks[i].Size)
				}
				if bytes != p.bytes {
					t.Fatalf("%d bytes are out, and the book says %d", bytes, p.bytes)
				}
			}
		}
		for range rapid.IntRange(1, 200).Draw(t, "steps") {
			now = now.Add(time.Duration(rapid.IntRange(0, 2000).Draw(t, "ms")) * time.Millisecond)
			p := rapid.SampledFrom(parties).Draw(t, "party")
			_, here := b.parties[p]
			switch rapid.IntRange(0, 6).Draw(t, "step") {
			case 0:
				have, soon := newBits(n), newBits(n)
				for i := range chunks {
					if rapid.Bool().Draw(t, "has") {
						have.set(i)
					}
				}
				b.tell(p, have, soon)
			case 1:
				if p.have != nil {
					b.news(p, number(), rapid.Bool().Draw(t, "soon"))
				}
			case 2:
				if p.have != nil {
					b.gone(p, number())
				}
			case 3:
				b.leave(p)
				*p = party{}
			case 4, 5:
				was := len(p.out)
				if i, ok := b.next(p, now, chance); ok {
					if !here || !p.have.has(i) || b.place[i] < 0 || len(p.out) != was+1 || len(p.out) > windowMax {
						t.Fatalf("asked for chunk %d", i)
					}
				}
			case 6:
				for i := range p.out {
					b.answered(p, i, now)
					b.got(i)
					break
				}
			}
			check()
		}
		all := newBits(n)
		for i := range chunks {
			all.set(i)
		}
		p := &party{}
		for _, q := range parties {
			b.leave(q)
		}
		b.tell(p, all, newBits(n))
		for len(b.missing) > 0 {
			i, ok := b.next(p, now, chance)
			if !ok {
				t.Fatalf("%d chunks are missing, and none is asked for", len(b.missing))
			}
			now = now.Add(time.Millisecond)
			b.answered(p, i, now)
			b.got(i)
			check()
		}
	})
}

func TestTheRarestGoesFirst(t *testing.T) {
	t.Parallel()
	chunks := make([]content.Chunk, 10)
	missing := make([]int, len(chunks))
	for i := range chunks {
		chunks[i].Size, missing[i] = 1000, i
	}
	b := newBook(chunks, missing)
	all := bits{0xff, 0xff}
	source, other := &party{}, &party{}
	b.tell(source, all, newBits(10))
	b.tell(other, bits{0xff, 0x01}, newBits(10))    // all but number 9
	b.news(other, 3, true)                          // and one is there twice
	first := func(n int) int { return min(1, n-1) } // never the later of two
	if i, ok := b.next(source, time.Now(), first); !ok || i != 9 {
		t.Errorf("first %d", i)
	}
	if i, ok := b.next(other, time.Now(), first); !ok || i != 0 {
		t.Errorf("then %d", i)
	}
}

func TestASlowPeersChunkIsAskedOfAnother(t *testing.T) {
	t.Parallel()
	now := time.Unix(1000, 0)
	zero := func(int) int { return 0 }
	b := newBook([]content.Chunk{{Size: 1000}}, []int{0})
	slow, fast := &party{}, &party{}
	b.tell(slow, bits{1}, bits{0})
	b.tell(fast, bits{1}, bits{0})
	slow.rate, fast.rate = 1000, 100_000
	if _, ok := b.next(slow, now, zero); !ok {
		t.Fatal("it was not asked")
	}
	if _, ok := b.next(fast, now.Add(50*time.Millisecond), zero); ok {
		t.Error("another was asked at once")
	}
	if _, ok := b.next(fast, now.Add(200*time.Millisecond), zero); !ok {
		t.Error("another was not asked")
	}
	if others := b.got(0); len(others) != 2 || len(slow.out)+len(fast.out) != 0 {
		t.Errorf("%d others", len(others))
	}
}
