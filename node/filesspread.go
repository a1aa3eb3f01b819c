package node

import (
	"context"
	"fmt"
	"time"
)

// Limits on spreading.
const (
	spreadQueue  = 4096
	spreadersMax = 4
	spreadTime   = 2 * time.Minute // for one try
	spreadAgain  = 5 * time.Second // before another
	spreadTries  = 24
	spreadLast   = 3 * time.Second // when the node stops
	lastAtOnce   = 3               // nodes that are asked at the same time then
	lastAgain    = 200 * time.Millisecond
)

// spreadLater has a tree brought to a second node as soon as may be, so that
// this one may leave. It never waits.
func (f *files) spreadLater(id string) {
	f.mu.Lock()
	l := f.note(id)
	already := l.spread
	l.spread = true
	f.mu.Unlock()
	if already {
		return
	}
	select {
	case f.spread <- id:
	default:
		f.logger.Warn("a tree stays on this node alone: too many wait to be copied to a second one", "tree", id)
	}
}

// spreadLoop spreads one tree after the other until ctx ends, and then those
// that wait, until work does.
func (f *files) spreadLoop(ctx, work context.Context) {
	for {
		select {
		case id := <-f.spread:
			f.calm(ctx)
			f.spreadNow(ctx, work, id)
			continue
		case <-ctx.Done():
		}
		select {
		case id := <-f.spread:
			f.spreadNow(ctx, work, id)
		default:
			return
		}
	}
}

func (f *files) spreadNow(ctx, work context.Context, id string) {
	spread, err := f.spreadOne(ctx, work, id)
	if err != nil {
		f.logger.WarnContext(ctx, "a tree stays on this node alone", "tree", id, "err", err)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.note(id).spread = spread
}

// spreadOne brings a tree to one other node. In a mesh of one there is none.
// Once ctx has ended it asks several at once: there is time for one of them.
func (f *files) spreadOne(ctx, work context.Context, id string) (done bool, err error) {
	for try := 0; try < spreadTries && ctx.Err() == nil; try++ {
		if len(f.peers()) == 0 {
			return false, nil
		}
		within, cancel := context.WithTimeout(ctx, spreadTime)
		_, err = f.swarm.Spread(within, id, 1, 1)
		cancel()
		if err == nil {
			return true, nil
		}
		select {
		case <-time.After(spreadAgain):
		case <-ctx.Done():
		}
	}
	if ctx.Err() == nil {
		return false, fmt.Errorf("given up after %d tries: %w", spreadTries, err)
	}
	for len(f.peers()) > 0 {
		if _, err = f.swarm.Spread(work, id, 1, lastAtOnce); err == nil {
			return true, nil
		}
		select {
		case <-time.After(lastAgain):
		case <-work.Done():
			return false, err
		}
	}
	return false, nil
}
