package node

import (
	"cmp"
	"context"
	"slices"
	"sync"

	"labmesh"
	"labmesh/node/httpapi"
	"labmesh/store"
)

// hubEvents is how many events are remembered for those who follow them. Who
// falls behind further reads on from the ledger.
const hubEvents = 4096

// hub passes events on to those who follow them. Publishing never waits.
type hub struct {
	mu      sync.Mutex
	ring    []labmesh.Event // oldest first, at most 2*hubEvents
	changed chan struct{}
}

func newHub() *hub { return &hub{changed: make(chan struct{})} }

func (h *hub) publish(events []labmesh.Event) {
	if len(events) == 0 {
		return
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.ring = append(h.ring, events...)
	if len(h.ring) > 2*hubEvents {
		kept := copy(h.ring, h.ring[len(h.ring)-hubEvents:])
		clear(h.ring[kept:]) // what it holds on to
		h.ring = h.ring[:kept]
	}
	close(h.changed)
	h.changed = make(chan struct{})
}

// after is the events that follow id, and a channel that is closed when there
// are more. gap says that some in between are remembered no more.
func (h *hub) after(id httpapi.EventID) (events []labmesh.Event, changed <-chan struct{}, gap bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	at, _ := slices.BinarySearchFunc(h.ring, id, func(e labmesh.Event, id httpapi.EventID) int {
		if c := cmp.Compare(e.Index, id.Index); c != 0 {
			return c
		}
		if e.N <= id.N {
			return -1
		}
		return 1
	})
	gap = at == 0 && len(h.ring) > 0 && h.ring[0].Index > id.Index+1
	return slices.Clone(h.ring[at:min(len(h.ring), at+hubBatch)]), h.changed, gap
}

// hubBatch is how many events a follower takes at a time.
const hubBatch = 1024

// newest is the place of the last event published.
func (h *hub) newest() httpapi.EventID {
	h.mu.Lock()
	defer h.mu.Unlock()
	if len(h.ring) == 0 {
		return httpapi.EventID{}
	}
	last := &h.ring[len(h.ring)-1]
	return httpapi.EventID{Index: last.Index, N: last.N}
}

// follow sends every event after the given one, in order, until ctx ends or
// send fails. What the hub remembers no more comes from the ledger, in the short
// form that the ledger keeps.
func (h *hub) follow(ctx context.Context, ledger store.Reader, at httpapi.EventID, send func(labmesh.Event) error) error {
	if at == (httpapi.EventID{}) {
		at = h.newest()
	}
	for ctx.Err() == nil {
		events, changed, gap := h.after(at)
		if gap {
			old, err := ledger.Events(ctx, store.Position{Index: at.Index, N: at.N}, hubBatch)
			if err != nil {
				return err
			}
			if len(old) > 0 {
				events = short(old)
			}
		}
		for _, e := range events {
			if err := send(e); err != nil {
				return err
			}
			at = httpapi.EventID{Index: e.Index, N: e.N}
		}
		if len(events) > 0 {
			continue
		}
		select {
		case <-changed:
		case <-ctx.Done():
		}
	}
	return nil
}

func short(old []store.Event) []labmesh.Event {
	out := make([]labmesh.Event, len(old))
	for i, e := range old {
		out[i] = labmesh.Event{Index: e.Index, N: e.N, At: e.At, Type: e.Type, Actor: e.Actor, Detail: e.Detail}
		if e.Task != "" {
			out[i].Task = &labmesh.Task{ID: e.Task, Attempt: e.Attempt, Worker: e.Worker}
		}
		if e.Task == "" && e.Worker != "" {
			out[i].Worker = &labmesh.Worker{ID: e.Worker}
		}
		if e.Node != "" {
			out[i].Member = &labmesh.Member{Node: e.Node}
		}
	}
	return out
}
