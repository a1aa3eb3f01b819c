package chaos

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/google/uuid"

	"labmesh"
	"labmesh/client"
	"labmesh/lab"
)

// tryWait bounds one attempt of a client to submit by one node.
const tryWait = 3 * time.Second

// Ack is the mesh's word that it has a task.
type Ack struct {
	Task  labmesh.TaskID
	Began time.Time // when its client first asked
	Had   time.Time // when it had its answer
}

// Load is clients that submit, each one task after the other with a pause between,
// and go to another node when theirs does not answer. A repeated submit carries
// the same idempotency key, as labmesh's own client does.
type Load struct {
	cancel context.CancelFunc
	wg     sync.WaitGroup

	mu    sync.Mutex
	nodes []*client.Client
	acks  []Ack
}

// StartLoad starts clients against nodes. They end with Stop.
func StartLoad(ctx context.Context, nodes []*lab.Node, clients int, pause time.Duration, task func() labmesh.Spec) (*Load, error) {
	ctx, cancel := context.WithCancel(ctx)
	l := &Load{cancel: cancel}
	if err := l.Aim(nodes); err != nil {
		cancel()
		return nil, err
	}
	for i := range clients {
		l.wg.Go(func() {
			for next := i; ctx.Err() == nil; {
				next = l.submit(ctx, task(), next)
				select {
				case <-time.After(pause):
				case <-ctx.Done():
				}
			}
		})
	}
	return l, nil
}

// Aim has the clients talk to these nodes from now on, such as after one came back under another port.
func (l *Load) Aim(nodes []*lab.Node) error {
	fresh := make([]*client.Client, len(nodes))
	for i, n := range nodes {
		cfg := n.API()
		cfg.Patience = -1 // clients go on to the next node instead
		c, err := client.New(cfg)
		if err != nil {
			return fmt.Errorf("aim at %s: %w", n.Name, err)
		}
		fresh[i] = c
	}
	l.mu.Lock()
	old := l.nodes
	l.nodes = fresh
	l.mu.Unlock()
	for _, c := range old {
		_ = c.Close() // lets go of idle connections
	}
	return nil
}

// submit gets one task in, and returns the node to begin with next time.
func (l *Load) submit(ctx context.Context, spec labmesh.Spec, node int) int {
	spec.IdempotencyKey = uuid.NewString()
	for began := time.Now(); ; node++ {
		l.mu.Lock()
		c := l.nodes[node%len(l.nodes)]
		l.mu.Unlock()
		one, cancel := context.WithTimeout(ctx, tryWait)
		reply, err := c.Submit(one, spec)
		cancel()
		if err == nil {
			l.mu.Lock()
			l.acks = append(l.acks, Ack{labmesh.TaskID(reply.ID), began, time.Now()})
			l.mu.Unlock()
			return node
		}
		select {
		case <-time.After(5 * time.Millisecond):
		case <-ctx.Done():
			return node
		}
	}
}

// Acks are what has been acknowledged so far.
func (l *Load) Acks() []Ack {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Clone(l.acks)
}

// Tasks are the ids of what has been acknowledged so far.
func (l *Load) Tasks() []labmesh.TaskID {
	acks := l.Acks()
	ids := make([]labmesh.TaskID, len(acks))
	for i, a := range acks {
		ids[i] = a.Task
	}
	return ids
}

// Outage is the longest time after t in which no submit was acknowledged, and
// false while there is no acknowledgement after t of a submit that began after it.
func (l *Load) Outage(t time.Time) (longest time.Duration, over bool) {
	last := t
	for _, a := range l.Acks() {
		if a.Had.Before(t) {
			continue
		}
		longest = max(longest, a.Had.Sub(last))
		last = a.Had
		over = over || a.Began.After(t)
	}
	return longest, over
}

// Stop ends the clients. It is safe twice.
func (l *Load) Stop() {
	l.cancel()
	l.wg.Wait()
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, c := range l.nodes {
		_ = c.Close() // lets go of idle connections
	}
}
