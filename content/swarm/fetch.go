package swarm

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"labmesh"
	"labmesh/content"
)

const (
	tickEvery   = 100 * time.Millisecond // how often a fetch looks after its peers
	patience    = 30 * time.Second       // without a chunk, before a fetch gives up
	retryAfter  = 2 * time.Second        // a node that could not be reached, or left
	idleMax     = 3 * time.Second        // a node that has nothing for us, when others wait
	stallMax    = 15 * time.Second       // a node that owes us chunks and sends nothing
	manifestsAt = 8                      // nodes asked for a manifest at once
	retryEvery  = 500 * time.Millisecond // asking all of them again
)

// Fetch brings a tree here: when it returns nil the manifest and all chunks are
// in the store, each checked as it came. Chunks that were there before are not
// read; if one turns out to be damaged when it is used, the store drops it, and
// another Fetch brings it again.
//
// It gives up, with reason Unavailable, when for half a minute no node that can
// be reached had anything that is missing.
func (w *Swarm) Fetch(ctx context.Context, id string) error {
	h, err := content.ParseID(id)
	if err != nil {
		return err
	}
	for !w.store.Complete(id) {
		fl, ours := w.fly(h)
		if ours {
			fl.err = w.fetch(ctx, h, nil)
			fl.broken = ctx.Err() != nil
			w.land(h, fl)
		} else {
			select {
			case <-fl.ended:
			case <-ctx.Done():
				return fmt.Errorf("fetch %s: %w", id, ctx.Err())
			}
			if fl.broken {
				continue // who began it wants it no more: now it is ours
			}
		}
		if fl.err != nil {
			return fmt.Errorf("fetch %s: %w", id, fl.err)
		}
		return nil
	}
	return nil
}

// FetchSome brings the manifest of a tree here, and those of its chunks that
// need names: enough to list it, or to read one file. Else it is as [Swarm.Fetch].
func (w *Swarm) FetchSome(ctx context.Context, id string, need func(*content.Manifest) []content.Chunk) error {
	h, err := content.ParseID(id)
	if err != nil {
		return err
	}
	if err := w.fetch(ctx, h, need); err != nil {
		return fmt.Errorf("fetch some of %s: %w", id, err)
	}
	return nil
}

// flight is a fetch that several may wait for.
type flight struct {
	ended  chan struct{} // closed when the rest is written
	err    error
	broken bool // it was broken off by who began it
}

// fly says whether the fetch of a tree is ours to do, or another's that is
// under way.
func (w *Swarm) fly(h content.Hash) (fl *flight, ours bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if fl, ok := w.flights[h]; ok {
		return fl, false
	}
	fl = &flight{ended: make(chan struct{})}
	w.flights[h] = fl
	return fl, true
}

func (w *Swarm) land(h content.Hash, fl *flight) {
	w.mu.Lock()
	defer w.mu.Unlock()
	close(fl.ended)
	delete(w.flights, h)
}

// fetch brings what is needed of a tree, or all of it where need is nil.
func (w *Swarm) fetch(ctx context.Context, h content.Hash, need func(*content.Manifest) []content.Chunk) error {
	select {
	case w.slots <- struct{}{}:
		defer func() { <-w.slots }()
	case <-ctx.Done():
		return ctx.Err()
	}
	var first labmesh.NodeID // who had the manifest is the best hope for the rest
	m, err := w.store.Manifest(h.String())
	if labmesh.ReasonOf(err) == labmesh.NotFound {
		m, first, err = w.fetchManifest(ctx, h)
	}
	if err != nil {
		return err
	}
	if err := (content.Limits{}).Check(m); err != nil {
		return err
	}
	chunks := m.Chunks
	if need != nil {
		chunks = need(m)
	}
	var size int64
	needed := make(map[content.Hash]bool, len(chunks))
	for _, c := range chunks {
		size += int64(c.Size)
		needed[c.Hash] = true
	}
	if _, limit := w.store.Usage(); size > limit {
		return labmesh.Refuse(labmesh.TooLarge, "it has %d bytes, and the store of this node holds %d", size, limit)
	}
	release, err := w.store.Pin(h.String())
	if err != nil {
		return err
	}
	defer release()
	t := w.share(h)
	defer w.unshare(t)
	t.learn(m, w.store)
	for i, c := range t.chunks {
		if t.has(i) && !w.store.Has(c.Hash) {
			t.lost(i) // it was evicted while others fetched it from here
		}
	}
	return w.fetchChunks(ctx, t, needed, first)
}

// fetchManifest asks several nodes at once, until one has it.
func (w *Swarm) fetchManifest(ctx context.Context, h content.Hash) (*content.Manifest, labmesh.NodeID, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	for began := time.Now(); ; {
		nodes := w.others()
		rand.Shuffle(len(nodes), func(i, j int) { nodes[i], nodes[j] = nodes[j], nodes[i] })
		if m, node := w.manifestFrom(ctx, nodes, h); m != nil {
			_, err := w.store.PutManifest(ctx, m)
			return m, node, err
		}
		if time.Since(began) > patience {
			return nil, "", labmesh.Refuse(labmesh.Unavailable, "none of the %d nodes that can be reached has it", len(nodes))
		}
		select {
		case <-ctx.Done():
			return nil, "", ctx.Err()
		case <-time.After(retryEvery):
		}
	}
}

func (w *Swarm) manifestFrom(ctx context.Context, nodes []labmesh.NodeID, h content.Hash) (*content.Manifest, labmesh.NodeID) {
	ctx, cancel := context.WithCancel(ctx)
	asked := make(chan labmesh.NodeID, len(nodes))
	for _, n := range nodes {
		asked <- n
	}
	close(asked)
	type find struct {
		*content.Manifest
		node labmesh.NodeID
	}
	found := make(chan find, 1)
	var asking sync.WaitGroup
	for range manifestsAt {
		asking.Go(func() {
			for node := range asked {
				if ctx.Err() != nil {
					return
				}
				m, err := w.askManifest(ctx, node, h)
				if err != nil {
					if ctx.Err() == nil {
						w.log.DebugContext(ctx, "no manifest", "node", node, "tree", h, "err", err)
					}
					continue
				}
				select {
				case found <- find{m, node}:
					cancel()
				default: // another was faster
				}
			}
		})
	}
	asking.Wait()
	cancel()
	select {
	case f := <-found:
		return f.Manifest, f.node
	default:
		return nil, ""
	}
}

func (w *Swarm) askManifest(ctx context.Context, node labmesh.NodeID, h content.Hash) (*content.Manifest, error) {
	l, stop, err := w.dial(ctx, node, askManifest, h)
	if err != nil {
		return nil, err
	}
	defer stop()
	kind, n, err := l.head()
	if err != nil {
		return nil, err
	}
	if kind != frameManifest || n == 0 {
		return nil, labmesh.Refuse(labmesh.NotFound, "it does not have it")
	}
	data, err := l.body(n)
	if err != nil {
		return nil, err
	}
	if content.Sum(data) != h {
		w.wrong(ctx, node, h)
		return nil, labmesh.Refuse(labmesh.Invalid, "it sent something else")
	}
	return content.DecodeManifest(data)
}

// wrong notes that a node sent wrong bytes.
func (w *Swarm) wrong(ctx context.Context, node labmesh.NodeID, tree content.Hash) {
	w.ban(node)
	w.log.WarnContext(ctx, "a node sent wrong bytes, and is not asked for a while", "node", node, "tree", tree, "for", bannedFor)
}

// fetching is one fetch under way.
type fetching struct {
	w *Swarm
	t *tree

	mu       sync.Mutex
	book     *book
	peers    map[labmesh.NodeID]*peer
	retry    map[labmesh.NodeID]time.Time // not before
	progress time.Time
	done     chan struct{} // closed when nothing is missing
	failed   chan error    // what no other peer would mend
}

func (w *Swarm) fetchChunks(ctx context.Context, t *tree, needed map[content.Hash]bool, first labmesh.NodeID) error {
	missing := slices.DeleteFunc(t.missing(), func(i int) bool { return !needed[t.chunks[i].Hash] })
	if len(missing) == 0 {
		return nil
	}
	f := &fetching{
		w: w, t: t, book: newBook(t.chunks, missing), peers: map[labmesh.NodeID]*peer{}, retry: map[labmesh.NodeID]time.Time{},
		progress: time.Now(), done: make(chan struct{}), failed: make(chan error, 1),
	}
	ctx, cancel := context.WithCancel(ctx)
	var running sync.WaitGroup
	defer running.Wait()
	defer cancel() // ends the peers
	tick := time.NewTicker(tickEvery)
	defer tick.Stop()
	for {
		for _, p := range f.recruit(time.Now(), first) {
			running.Go(func() { f.run(ctx, p) })
		}
		select {
		case <-f.done:
			return nil
		case err := <-f.failed:
			return err
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
			if err := f.tend(time.Now()); err != nil {
				return err
			}
		}
	}
}

// recruit chooses nodes to open streams to: one before all others, the rest by
// chance.
func (f *fetching) recruit(now time.Time, first labmesh.NodeID) (fresh []*peer) {
	nodes := f.w.others()
	rand.Shuffle(len(nodes), func(i, j int) { nodes[i], nodes[j] = nodes[j], nodes[i] })
	if i := slices.Index(nodes, first); i > 0 {
		nodes[0], nodes[i] = nodes[i], nodes[0]
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	waiting := 0
	for _, n := range nodes {
		if f.peers[n] != nil || now.Before(f.retry[n]) {
			continue
		}
		if len(f.peers) >= peersMax {
			waiting++
			continue
		}
		p := newPeer(f, n, now)
		f.peers[n] = p
		fresh = append(fresh, p)
	}
	if waiting == 0 {
		return fresh
	}
	for _, p := range f.peers { // one that is of no use makes room
		if len(p.out) == 0 && now.Sub(p.since) > idleMax {
			p.hangUp()
			break
		}
	}
	return fresh
}

// tend ends the fetch when there is no hope, drops peers that owe us chunks and
// send none, and gives idle peers what others are slow with.
func (f *fetching) tend(now time.Time) error {
	f.mu.Lock()
	idle := now.Sub(f.progress)
	var all []*peer
	for _, p := range f.peers {
		all = append(all, p)
		if len(p.out) > 0 && now.Sub(p.lastMoved()) > stallMax && now.Sub(p.oldest()) > stallMax {
			p.hangUp()
		}
	}
	missing, total := len(f.book.missing), len(f.t.chunks)
	f.mu.Unlock()
	if idle > patience {
		return labmesh.Refuse(labmesh.Unavailable, "%d of its %d chunks are at none of the %d nodes that can be reached", missing, total, len(all))
	}
	for _, p := range all {
		f.fill(p)
	}
	return nil
}

// fill asks a peer for as much as it should be asked for.
func (f *fetching) fill(p *peer) {
	var want []uint32
	f.mu.Lock()
	for now := time.Now(); ; {
		i, ok := f.book.next(&p.party, now, rand.IntN)
		if !ok {
			break
		}
		want = append(want, uint32(i))
	}
	f.mu.Unlock()
	if len(want) > 0 {
		f.t.moving(want)
		p.owed.Add(int64(len(want)))
		p.post(appendNumbers(nil, frameWant, want))
	}
}

// arrived takes a chunk that is in the store.
func (f *fetching) arrived(p *peer, i int) {
	f.t.got(i)
	now := time.Now()
	f.mu.Lock()
	f.book.answered(&p.party, i, now)
	had := f.book.place[i] < 0
	others := f.book.got(i)
	f.progress, p.since = now, now
	if len(f.book.missing) == 0 && !had {
		close(f.done)
	}
	var slow []*peer
	for _, q := range f.peers {
		for _, o := range others {
			if &q.party == o {
				slow = append(slow, q)
			}
		}
	}
	f.mu.Unlock()
	for _, q := range slow {
		q.post(appendNumbers(nil, frameCancel, []uint32{uint32(i)}))
		f.fill(q)
	}
	f.fill(p)
}

// fail ends the fetch.
func (f *fetching) fail(err error) {
	select {
	case f.failed <- err:
	default: // it has ended already
	}
}

// run is a peer from its first word to its last.
func (f *fetching) run(ctx context.Context, p *peer) {
	err := p.run(ctx)
	f.mu.Lock()
	f.book.leave(&p.party)
	delete(f.peers, p.node)
	f.retry[p.node] = time.Now().Add(retryAfter)
	var rest []*peer
	for _, q := range f.peers {
		rest = append(rest, q)
	}
	f.mu.Unlock()
	if ctx.Err() != nil {
		return
	}
	if err != nil && !errors.Is(err, context.Canceled) {
		f.w.log.DebugContext(ctx, "a peer left", "node", p.node, "tree", f.t.id, "err", err)
	}
	for _, q := range rest {
		f.fill(q) // with what the one that left still owed
	}
}
