package swarm

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"

	"labmesh"
	"labmesh/content"
)

// silentAfter is how long a node that is asked to fetch a tree may say nothing
// until another is asked beside it: it may have left, and nobody knows yet.
const silentAfter = time.Second

// Spread asks other nodes to fetch a tree, until so many of them have it. It
// returns how many do, and an error where these are fewer. It asks as many at
// once as there are to be copies, or more where atOnce is more: who is in a hurry
// takes the first that has it, and the others go on by themselves.
func (w *Swarm) Spread(ctx context.Context, id string, copies, atOnce int) (int, error) {
	h, err := content.ParseID(id)
	if err != nil {
		return 0, err
	}
	nodes := w.others()
	rand.Shuffle(len(nodes), func(i, j int) { nodes[i], nodes[j] = nodes[j], nodes[i] })
	var asking sync.WaitGroup
	defer asking.Wait()
	within, cancel := context.WithCancel(ctx)
	defer cancel()
	ended, silent := make(chan error, len(nodes)), make(chan struct{}, len(nodes))
	asked, have := 0, 0
	ask := func() {
		if asked == len(nodes) {
			return
		}
		node := nodes[asked]
		asked++
		asking.Go(func() {
			timer := time.AfterFunc(silentAfter, func() { silent <- struct{}{} })
			defer timer.Stop()
			err := w.please(within, node, h, func() { timer.Stop() })
			if err != nil {
				err = fmt.Errorf("%s: %w", node, err)
			}
			ended <- err
		})
	}
	for range max(copies, atOnce) {
		ask()
	}
	var errs []error
	for have < copies && have+len(errs) < asked {
		select {
		case err := <-ended:
			if err == nil {
				have++
				continue
			}
			errs = append(errs, err)
			ask()
		case <-silent:
			ask()
		case <-ctx.Done():
			return have, fmt.Errorf("spread %s: %d of %d other nodes have it: %w", id, have, copies, ctx.Err())
		}
	}
	if have >= copies {
		return have, nil
	}
	return have, labmesh.Refuse(labmesh.Unavailable, "spread %s: %d of %d other nodes have it, and no more can be asked: %v", id, have, copies, errors.Join(errs...))
}

// please asks one node to fetch a tree, and waits until it has. It calls heard
// when the node says something.
func (w *Swarm) please(ctx context.Context, node labmesh.NodeID, id content.Hash, heard func()) error {
	l, stop, err := w.dial(ctx, node, askPlease, id)
	if err != nil {
		return err
	}
	defer stop()
	for {
		kind, n, err := l.head()
		if err != nil {
			return err
		}
		heard()
		switch kind {
		case frameDone:
			return nil
		case frameRefused:
			text, err := l.body(min(n, reasonMax))
			if err != nil {
				return err
			}
			return labmesh.Refuse(labmesh.Unavailable, "it does not fetch it: %s", text)
		case frameAlive:
			err = l.skip(n)
		default:
			err = labmesh.Refuse(labmesh.Invalid, "it answers with a frame %q", kind)
		}
		if err != nil {
			return err
		}
	}
}
