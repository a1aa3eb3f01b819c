package swarm

import (
	"bytes"
	"sync"
	"testing"

	"labmesh/content"
)

// What is held keeps its bytes, however many chunks come after it, and what is
// kept stays within its bound.
func TestRecentChunks(t *testing.T) {
	t.Parallel()
	r := newRecent()
	fill := func(v byte, n int) (content.Hash, *held) {
		c := r.buffer(n)
		for i := range c.data {
			c.data[i] = v
		}
		h := content.Sum([]byte{v})
		r.keep(h, c)
		return h, c
	}
	first, c := fill(0, 1<<20)
	r.release(c)
	mine := r.get(first)
	var others sync.WaitGroup
	for v := byte(1); v < 60; v++ {
		others.Go(func() {
			h, c := fill(v, 1<<20)
			if got := r.get(h); got != nil {
				if !bytes.Equal(got.data, bytes.Repeat([]byte{v}, 1<<20)) {
					t.Errorf("chunk %d has other bytes", v)
				}
				r.release(got)
			}
			r.release(c)
		})
	}
	others.Wait()
	if r.get(first) != nil {
		t.Error("the oldest is still kept")
	}
	if !bytes.Equal(mine.data, make([]byte, 1<<20)) {
		t.Error("the bytes of one that is held were used again")
	}
	r.release(mine)
	if r.bytes > recentBytes || len(r.held) != len(r.order) || r.bytes != len(r.order)<<20 {
		t.Errorf("%d bytes, %d and %d chunks", r.bytes, len(r.held), len(r.order))
	}
	if r.clear(); r.bytes != 0 || len(r.held) != 0 {
		t.Errorf("after all was forgotten: %d bytes, %d chunks", r.bytes, len(r.held))
	}
}
