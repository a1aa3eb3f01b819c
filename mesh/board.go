package mesh

import (
	"context"
	"sync"
	"time"

	"labmesh"
)

// board is a Roster that many may use: the thin shell with the lock and the
// clock.
type board struct {
	mu      sync.Mutex
	roster  Roster
	snap    map[labmesh.NodeID]Heard // nil when the roster has changed since
	changed chan struct{}
	heard   chan struct{} // wakes the loop that lets leases run out
}

func newBoard() *board {
	return &board{changed: make(chan struct{}), heard: make(chan struct{}, 1)}
}

// hear takes an advert in and says whether it was new. Face to face a node may
// have any boot: its clock may have been set back, and nobody can have kept its
// word for later.
func (b *board) hear(a labmesh.Advert, faceToFace bool) (taken, news bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if last, ok := b.roster.last[a.Node]; ok && faceToFace && last.boot > a.Boot {
		b.roster.Forget(a.Node)
	}
	taken, news = b.roster.Hear(a, time.Now())
	if taken {
		b.snap = nil
	}
	if news {
		b.announce()
		select {
		case b.heard <- struct{}{}:
		default:
		}
	}
	return taken, news
}

// announce wakes those who wait for a change. The lock is held.
func (b *board) announce() {
	close(b.changed)
	b.changed = make(chan struct{})
}

func (b *board) expire(now time.Time) []labmesh.NodeID {
	b.mu.Lock()
	defer b.mu.Unlock()
	gone := b.roster.Expire(now)
	if len(gone) > 0 {
		b.snap = nil
		b.announce()
	}
	return gone
}

func (b *board) forget(node labmesh.NodeID) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.roster.Forget(node)
	b.snap = nil
	b.announce()
}

// snapshot is shared by all who ask until the next advert: it is not to be
// written to.
func (b *board) snapshot() map[labmesh.NodeID]Heard {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.snap == nil {
		b.snap = b.roster.Snapshot()
	}
	return b.snap
}

func (b *board) wait() <-chan struct{} {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.changed
}

func (b *board) alive(node labmesh.NodeID) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.roster.Alive(node, time.Now())
}

func (b *board) of(node labmesh.NodeID) (labmesh.Advert, bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	h, ok := b.roster.heard[node]
	return h.Advert, ok
}

func (b *board) nextExpiry() (time.Time, bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.roster.NextExpiry()
}

// run lets leases run out until ctx ends, and tells lost of the nodes.
func (b *board) run(ctx context.Context, lost func(labmesh.NodeID)) error {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-b.heard:
		case <-timer.C:
			for _, node := range b.expire(time.Now()) {
				lost(node)
			}
		}
		if next, ok := b.nextExpiry(); ok {
			timer.Reset(time.Until(next))
		}
	}
}
