package lab

import (
	"context"
	"fmt"
	"sync"
	"time"

	"labmesh"
	"labmesh/api"
)

// Sight is a verdict as one node saw it.
type Sight struct {
	Node  *Node
	Event api.Event
	Seen  time.Time // on this machine's clock
}

// Witness sees every verdict that the mesh reaches while it is open, on each of
// the nodes that it watches. Its goroutines end with Close.
type Witness struct {
	cancel context.CancelFunc
	wg     sync.WaitGroup

	mu      sync.Mutex
	changed chan struct{} // closed at the next sight
	sights  []Sight
}

// Witness watches nodes: those that are to survive.
func (m *Mesh) Witness(ctx context.Context, nodes ...*Node) *Witness {
	ctx, cancel := context.WithCancel(ctx)
	w := &Witness{cancel: cancel, changed: make(chan struct{})}
	for _, n := range nodes {
		c := n.Client()
		w.wg.Go(func() {
			_ = c.Events(ctx, "", func(e api.Event) error { // it ends with ctx
				if e.Task != nil && e.Task.Status.Final() {
					w.add(Sight{n, e, time.Now()})
				}
				return nil
			})
		})
	}
	return w
}

func (w *Witness) add(s Sight) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.sights = append(w.sights, s)
	close(w.changed)
	w.changed = make(chan struct{})
}

// After waits for the first verdict of which a leader heard after t. When t is
// when the leader was killed, only its successor can have committed it: entries
// carry the time at which their leader took them, and all nodes here have one clock.
func (w *Witness) After(ctx context.Context, t time.Time) (Sight, error) {
	for {
		w.mu.Lock()
		changed, sights := w.changed, w.sights
		w.mu.Unlock()
		for _, s := range sights {
			if s.Event.At.After(t) {
				return s, nil
			}
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return Sight{}, fmt.Errorf("wait for the next verdict: %w", context.Cause(ctx))
		}
	}
}

// Ended counts the tasks whose verdict has been seen.
func (w *Witness) Ended() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	ids := make(map[labmesh.TaskID]struct{}, len(w.sights))
	for _, s := range w.sights {
		ids[s.Event.Task.ID] = struct{}{}
	}
	return len(ids)
}

// Close stops watching. It is safe twice.
func (w *Witness) Close() {
	w.cancel()
	w.wg.Wait()
}
