package swarm

import (
	"slices"
	"sync"

	"labmesh/content"
	"labmesh/content/store"
)

// tree is what this node knows of a tree that it fetches or serves: which
// chunks it has, and which are on their way, to it or from it to others. All
// streams of the tree share it, and each tells its peer what changes.
type tree struct {
	id content.Hash

	mu     sync.Mutex
	users  int             // streams and fetches; the swarm's lock guards it
	chunks []content.Chunk // each once; nil until the manifest is known
	known  bool
	have   bits
	soon   bits
	news   []uint32      // what changed, as frameNews has it
	wake   chan struct{} // closed at the next change
}

// share takes hold of a tree. Every share is followed by one unshare.
func (w *Swarm) share(id content.Hash) *tree {
	w.mu.Lock()
	defer w.mu.Unlock()
	t := w.trees[id]
	if t == nil {
		t = &tree{id: id, wake: make(chan struct{})}
		w.trees[id] = t
	}
	t.users++
	return t
}

func (w *Swarm) unshare(t *tree) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if t.users--; t.users == 0 {
		delete(w.trees, t.id)
		if len(w.trees) == 0 {
			w.recent.clear()
		}
	}
}

// load looks into the store, unless the tree is known already.
func (t *tree) load(s *store.Store) bool {
	t.mu.Lock()
	known := t.known
	t.mu.Unlock()
	if known {
		return true
	}
	if !s.Has(t.id) {
		return false
	}
	m, err := s.Manifest(t.id.String())
	if err != nil {
		return false
	}
	t.learn(m, s)
	return true
}

// learn takes the manifest, and what the store has of its chunks.
func (t *tree) learn(m *content.Manifest, s *store.Store) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.known {
		return
	}
	t.chunks = m.Unique()
	t.have, t.soon = newBits(len(t.chunks)), newBits(len(t.chunks))
	for i, c := range t.chunks {
		if s.Has(c.Hash) {
			t.have.set(i)
		}
	}
	t.known = true
	t.changed()
}

// size is the number of chunks, 0 while that is not known.
func (t *tree) size() int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return len(t.chunks)
}

// changed wakes who waits for news. The lock is held.
func (t *tree) changed() {
	close(t.wake)
	t.wake = make(chan struct{})
}

// got notes that chunks are here.
func (t *tree) got(i int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if !t.have.has(i) {
		t.have.set(i)
		t.news = append(t.news, uint32(i)<<1)
		t.changed()
	}
}

// moving notes that chunks are on their way, to here or from here.
func (t *tree) moving(chunks []uint32) {
	t.mu.Lock()
	defer t.mu.Unlock()
	any := false
	for _, i := range chunks {
		if !t.soon.has(int(i)) {
			t.soon.set(int(i))
			t.news = append(t.news, i<<1|1)
			any = true
		}
	}
	if any {
		t.changed()
	}
}

// lost notes that a chunk is not here any more. Peers learn it when they ask.
func (t *tree) lost(i int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.have.clear(i)
}

func (t *tree) has(i int) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.have.has(i)
}

// missing are the chunks that are not here.
func (t *tree) missing() []int {
	t.mu.Lock()
	defer t.mu.Unlock()
	var out []int
	for i := range t.chunks {
		if !t.have.has(i) {
			out = append(out, i)
		}
	}
	return out
}

// maps are both bitmaps, and the place in the news that they include.
func (t *tree) maps() (body []byte, seen int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	return slices.Concat(t.have, t.soon), len(t.news)
}

// since is the news after a place, where there are now, and what tells of more.
func (t *tree) since(seen int) (news []uint32, now int, more <-chan struct{}) {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.news[seen:len(t.news):len(t.news)], len(t.news), t.wake
}
