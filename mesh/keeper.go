package mesh

import (
	"context"
	"math/rand/v2"
	"sync"
	"time"

	"labmesh"
)

// Waits of the loop that keeps connections.
const (
	retryMin    = 100 * time.Millisecond
	retryMax    = 1500 * time.Millisecond // and up to a third more
	keepDial    = 2 * time.Second         // one try to connect with the addresses at hand
	keepTimeout = 5 * time.Second         // one try, with asking others
	greetWait   = 3 * time.Second
	tendingMax  = 16 // tries under way at once
)

// link is how this node stands with one member.
type link struct {
	met   bool // connected, and adverts were exchanged over that connection
	busy  bool // a try is under way
	tries int  // that came to nothing since the member was last heard of
	next  time.Time
}

// retryAfter is how long to wait after so many tries, by a jitter in [0, 1).
func retryAfter(tries int, jitter float64) time.Duration {
	wait := retryMax
	if tries < 5 {
		wait = min(retryMax, retryMin<<tries)
	}
	return wait + time.Duration(jitter*float64(wait)/3)
}

// due picks the members that need a try now, at most room of them.
func due(links map[labmesh.NodeID]link, members []labmesh.NodeID, now time.Time, room int) []labmesh.NodeID {
	var picked []labmesh.NodeID
	for _, m := range members {
		l := links[m]
		if len(picked) < room && !l.met && !l.busy && !now.Before(l.next) {
			picked = append(picked, m)
		}
	}
	return picked
}

// keeper keeps this node met with all members: connected, and adverts exchanged.
type keeper struct {
	tend func(ctx context.Context, node labmesh.NodeID, tries int) error
	wake chan struct{}

	mu    sync.Mutex
	links map[labmesh.NodeID]link
	busy  int
}

func newKeeper(tend func(context.Context, labmesh.NodeID, int) error) *keeper {
	return &keeper{tend: tend, wake: make(chan struct{}, 1), links: map[labmesh.NodeID]link{}}
}

func (k *keeper) poke() {
	select {
	case k.wake <- struct{}{}:
	default:
	}
}

// change changes the link to a node and wakes the loop.
func (k *keeper) change(node labmesh.NodeID, f func(*link)) {
	k.mu.Lock()
	l := k.links[node]
	f(&l)
	k.links[node] = l
	k.mu.Unlock()
	k.poke()
}

// heardOf ends the wait before the next try: the member is there.
func (k *keeper) heardOf(node labmesh.NodeID) {
	k.change(node, func(l *link) { l.tries, l.next = 0, time.Time{} })
}

// lost says that the last connection to a node has gone.
func (k *keeper) lost(node labmesh.NodeID) {
	k.mu.Lock()
	l, there := k.links[node] // strangers leave no trace
	if there && l.met {
		k.links[node] = link{busy: l.busy}
	}
	k.mu.Unlock()
	k.poke()
}

// meet says that adverts were exchanged with a node. It returns whether that is new.
func (k *keeper) meet(node labmesh.NodeID) (first bool) {
	k.change(node, func(l *link) { first = !l.met; l.met, l.tries = true, 0 })
	return first
}

func (k *keeper) met(node labmesh.NodeID) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.links[node].met
}

func (k *keeper) forget(node labmesh.NodeID) {
	k.mu.Lock()
	defer k.mu.Unlock()
	delete(k.links, node)
}

// begin marks those that are due as busy.
func (k *keeper) begin(members []labmesh.NodeID, now time.Time) map[labmesh.NodeID]int {
	k.mu.Lock()
	defer k.mu.Unlock()
	tries := map[labmesh.NodeID]int{}
	for _, node := range due(k.links, members, now, tendingMax-k.busy) {
		l := k.links[node]
		l.busy = true
		k.links[node] = l
		tries[node] = l.tries
	}
	k.busy += len(tries)
	return tries
}

// end takes note of how a try went.
func (k *keeper) end(node labmesh.NodeID, tries int, err error) {
	k.mu.Lock()
	k.busy--
	if l, there := k.links[node]; there { // it may have been forgotten since
		l.busy = false
		if err != nil && l.tries == tries { // and not heard of since
			l.tries++
			l.next = time.Now().Add(retryAfter(tries, rand.Float64()))
		}
		k.links[node] = l
	}
	k.mu.Unlock()
	k.poke()
}

// nextTry is when the loop must look again, at the latest after idle.
func (k *keeper) nextTry(members []labmesh.NodeID, now time.Time, idle time.Duration) time.Duration {
	k.mu.Lock()
	defer k.mu.Unlock()
	wait := idle
	for _, m := range members {
		if l := k.links[m]; !l.met && !l.busy && l.next.After(now) {
			wait = min(wait, l.next.Sub(now))
		}
	}
	return max(wait, time.Millisecond)
}

// run tends the links to members until ctx ends.
func (k *keeper) run(ctx context.Context, members func() []labmesh.NodeID, idle time.Duration) error {
	var tending sync.WaitGroup
	defer tending.Wait()
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-k.wake:
		case <-timer.C:
		}
		now, all := time.Now(), members()
		for node, tries := range k.begin(all, now) {
			tending.Go(func() { k.end(node, tries, k.tend(ctx, node, tries)) })
		}
		timer.Reset(k.nextTry(all, now, idle))
	}
}

// allMet are the nodes believed to be met.
func (k *keeper) allMet() []labmesh.NodeID {
	k.mu.Lock()
	defer k.mu.Unlock()
	var nodes []labmesh.NodeID
	for node, l := range k.links {
		if l.met {
			nodes = append(nodes, node)
		}
	}
	return nodes
}
