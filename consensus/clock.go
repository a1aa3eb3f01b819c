package consensus

import (
	"sync"
	"time"
)

// clock is the leader's clock. It starts from the wall clock, or from the time
// of the newest entry if that is later, and then runs by the monotonic clock
// alone: a wall clock that is set while this node leads does no harm.
type clock struct {
	mu    sync.Mutex
	base  time.Time // what the clock showed at since
	since time.Time // with a monotonic reading
}

// start sets the clock at the beginning of a leadership.
func (c *clock) start(seen time.Time) {
	now := time.Now()
	c.mu.Lock()
	defer c.mu.Unlock()
	c.base, c.since = later(now.UTC().Round(0), seen), now
}

// now reads the clock, which is never behind seen, the time of the newest entry
// applied: a new leader may have entries yet to apply when its clock starts.
func (c *clock) now(seen time.Time) time.Time {
	now := time.Now()
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.since.IsZero() {
		return later(now.UTC().Round(0), seen)
	}
	t := c.base.Add(now.Sub(c.since))
	if t.Before(seen) {
		c.base, c.since, t = seen, now, seen
	}
	return t
}

func later(a, b time.Time) time.Time {
	if a.Before(b) {
		return b
	}
	return a
}
