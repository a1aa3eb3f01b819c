package swarm

import (
	"sync"

	pool "github.com/libp2p/go-buffer-pool"

	"labmesh/content"
)

// recentBytes is how much of what came last is kept in memory.
const recentBytes = 8 << 20

// recent holds the chunks that came last, for who asks for them next: others
// fetch what is rare, and so just what has come. They need not be read from the
// disk again. It is empty while no tree is fetched or served.
type recent struct {
	mu    sync.Mutex
	held  map[content.Hash]*held
	order []*held // the oldest first
	bytes int
}

// held is a chunk in memory. Its bytes are used again when nobody holds it.
type held struct {
	hash content.Hash
	data []byte
	uses int // the lock of recent guards it
}

func newRecent() *recent { return &recent{held: map[content.Hash]*held{}} }

// buffer is room for a chunk that is to come. Who asks for it holds it.
func (r *recent) buffer(n int) *held { return &held{data: pool.Get(n), uses: 1} }

// keep takes a chunk that was checked, for a while.
func (r *recent) keep(h content.Hash, c *held) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.held[h] != nil {
		return
	}
	c.hash = h
	c.uses++
	r.held[h] = c
	r.order = append(r.order, c)
	r.bytes += len(c.data)
	for r.bytes > recentBytes {
		r.dropOldest()
	}
}

// get is a chunk, or nil. Who gets it holds it.
func (r *recent) get(h content.Hash) *held {
	r.mu.Lock()
	defer r.mu.Unlock()
	c := r.held[h]
	if c != nil {
		c.uses++
	}
	return c
}

// release ends a hold.
func (r *recent) release(c *held) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.unuse(c)
}

// clear forgets all.
func (r *recent) clear() {
	r.mu.Lock()
	defer r.mu.Unlock()
	for len(r.order) > 0 {
		r.dropOldest()
	}
	r.order = nil
}

// dropOldest forgets a chunk. The lock is held, here and below.
func (r *recent) dropOldest() {
	c := r.order[0]
	r.order[0], r.order = nil, r.order[1:]
	r.bytes -= len(c.data)
	delete(r.held, c.hash)
	r.unuse(c)
}

func (r *recent) unuse(c *held) {
	if c.uses--; c.uses == 0 {
		pool.Put(c.data)
		c.data = nil
	}
}
