package swarm

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"

	"labmesh"
	"labmesh/content"
)

// Spread asks other nodes to fetch a tree, until so many of them have it. It
// returns how many do, and an error where these are fewer.
func (w *Swarm) Spread(ctx context.Context, id string, copies int) (int, error) {
	h, err := content.ParseID(id)
	if err != nil {
		return 0, err
	}
	nodes := w.others()
	rand.Shuffle(len(nodes), func(i, j int) { nodes[i], nodes[j] = nodes[j], nodes[i] })
	var mu sync.Mutex
	have := 0
	var errs []error
	next := func() (labmesh.NodeID, bool) {
		mu.Lock()
		defer mu.Unlock()
		if len(nodes) == 0 || ctx.Err() != nil {
			return "", false
		}
		n := nodes[0]
		nodes = nodes[1:]
		return n, true
	}
	var asking sync.WaitGroup
	for range min(copies, len(nodes)) {
		asking.Go(func() { // each brings about one copy
			for {
				node, ok := next()
				if !ok {
					return
				}
				err := w.please(ctx, node, h)
				mu.Lock()
				if err == nil {
					have++
				} else {
					errs = append(errs, fmt.Errorf("%s: %w", node, err))
				}
				mu.Unlock()
				if err == nil {
					return
				}
			}
		})
	}
	asking.Wait()
	if have >= copies {
		return have, nil
	}
	if err := ctx.Err(); err != nil {
		return have, fmt.Errorf("spread %s: %d of %d other nodes have it: %w", id, have, copies, err)
	}
	return have, labmesh.Refuse(labmesh.Unavailable, "spread %s: %d of %d other nodes have it, and no more can be asked: %v", id, have, copies, errors.Join(errs...))
}

// please asks one node to fetch a tree, and waits until it has.
func (w *Swarm) please(ctx context.Context, node labmesh.NodeID, id content.Hash) error {
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
