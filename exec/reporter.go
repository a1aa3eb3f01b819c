package exec

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"

	"labmesh"
)

// Limits on reporting.
const (
	reportsMax     = 1000                  // commands in one call
	reportBytesMax = 4 << 20               // of results in one call
	reportTimeout  = 10 * time.Second      // for one call
	retryMin       = 20 * time.Millisecond // the first wait after a call that came to nothing
	retryMax       = time.Second           // the longest
	retryPause     = 2 * time.Millisecond  // the wait when the desk has changed meanwhile

	// startLinger is how long word of a start waits for company. Nobody waits
	// for it, and an attempt that has ended well by then reports its end alone,
	// which says that it started: half the entries in the log.
	startLinger = 5 * time.Millisecond
	unsayMax    = 64 // reports among which that start is looked for

	// The same for the end of an attempt on a worker that has more at hand: its
	// slots are not idle meanwhile, if it is shorter than what waits for them takes.
	finishLingerMin  = 3 * time.Millisecond
	finishLingerMax  = 10 * time.Millisecond
	finishLingerEach = 400 * time.Microsecond // for each attempt that waits for a slot: few programs take two slots less
)

// finishLinger is how long word of an end may wait on a worker on which so many
// attempts wait for a slot. Every entry of the log that is saved so spares each
// replica a write to its disk.
func finishLinger(queued int) time.Duration {
	if queued == 0 {
		return 0
	}
	return min(max(finishLingerMin, time.Duration(queued)*finishLingerEach), finishLingerMax)
}

// reporter hands in reports, in order, as many at once as there are, and
// repeats them until each is taken or declined.
type reporter struct {
	desk     Desk
	logger   *slog.Logger
	declined func(key) // a start was declined

	mu      sync.Mutex
	queue   []labmesh.Command
	due     time.Time // when the oldest in the queue is to go at the latest
	closing bool
	wake    chan struct{}
}

func newReporter(d Desk, l *slog.Logger, declined func(key)) *reporter {
	return &reporter{desk: d, logger: l, declined: declined, wake: make(chan struct{}, 1)}
}

// add queues a report, which may wait for others for so long.
func (r *reporter) add(c labmesh.Command, linger time.Duration) {
	due := time.Now().Add(linger)
	r.mu.Lock()
	if len(r.queue) == 0 || due.Before(r.due) {
		r.due = due
	}
	if f, ok := c.(labmesh.FinishTask); ok && f.Outcome.OK {
		r.unsay(labmesh.StartTask{ID: f.ID, Attempt: f.Attempt, Worker: f.Worker})
	}
	r.queue = append(r.queue, c)
	r.mu.Unlock()
	r.nudge()
}

// unsay takes back word of a start that has not gone yet. The caller holds mu.
func (r *reporter) unsay(s labmesh.StartTask) {
	newest := max(0, len(r.queue)-unsayMax)
	for i, c := range slices.Backward(r.queue[newest:]) {
		if c == labmesh.Command(s) {
			r.queue = slices.Delete(r.queue, newest+i, newest+i+1)
			return
		}
	}
}

// close lets run return once everything is handed in.
func (r *reporter) close() {
	r.mu.Lock()
	r.closing = true
	r.mu.Unlock()
	r.nudge()
}

func (r *reporter) nudge() {
	select {
	case r.wake <- struct{}{}:
	default:
	}
}

// run hands in reports until it is closed and has handed in all, or ctx ends.
func (r *reporter) run(ctx context.Context) {
	var batch []labmesh.Command // not yet taken; older than all in the queue
	wait := retryMin
	for {
		batch = r.take(batch)
		if len(batch) == 0 {
			if r.idle(ctx) {
				continue
			}
			return
		}
		changed := r.desk.Changed()
		left, err := r.hand(ctx, batch)
		if err == nil && len(left) == 0 {
			batch, wait = batch[:0], retryMin
			continue
		}
		batch = left
		if wait == retryMin {
			r.logger.WarnContext(ctx, "reports not taken, will repeat them", "reports", len(batch), "err", err)
		}
		if !pause(ctx, changed, wait) {
			r.logger.WarnContext(ctx, "reports given up: the node stops", "reports", len(batch))
			return
		}
		wait = min(2*wait, retryMax)
	}
}

// take adds to batch what is queued, up to the limits of one call. While
// nothing of it is due it takes nothing.
func (r *reporter) take(batch []labmesh.Command) []labmesh.Command {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(batch) == 0 && !r.closing && time.Until(r.due) > 0 {
		return batch
	}
	size := 0
	for _, c := range batch {
		size += sizeOf(c)
	}
	n := 0
	for n < len(r.queue) && len(batch) < reportsMax && size < reportBytesMax {
		size += sizeOf(r.queue[n])
		batch = append(batch, r.queue[n])
		n++
	}
	if r.queue = r.queue[n:]; len(r.queue) == 0 {
		r.queue = nil
	}
	return batch
}

func sizeOf(c labmesh.Command) int {
	switch c := c.(type) {
	case labmesh.FinishTask:
		return 256 + len(c.Outcome.Result) + len(c.Outcome.Metrics) + len(c.Outcome.Error)
	case labmesh.RecordTests:
		size := 128
		for i := range c.Cases {
			size += sizeOfCase(&c.Cases[i])
		}
		return size
	case labmesh.RecordBench:
		size := 128
		for i := range c.Rows {
			size += sizeOfRow(&c.Rows[i])
		}
		return size
	}
	return 128
}

// attemptOf is the attempt that a report is about.
func attemptOf(c labmesh.Command) key {
	switch c := c.(type) {
	case labmesh.StartTask:
		return key{c.ID, c.Attempt}
	case labmesh.RecordTests:
		return key{c.ID, c.Attempt}
	case labmesh.RecordBench:
		return key{c.ID, c.Attempt}
	case labmesh.FinishTask:
		return key{c.ID, c.Attempt}
	}
	return key{}
}

// idle waits for something to do; false means that there will be nothing more.
func (r *reporter) idle(ctx context.Context) bool {
	r.mu.Lock()
	empty, closing, wait := len(r.queue) == 0, r.closing, time.Until(r.due)
	r.mu.Unlock()
	if !empty && (closing || wait <= 0) {
		return true
	}
	if closing {
		return false
	}
	var due <-chan time.Time
	if !empty {
		due = time.After(wait)
	}
	select {
	case <-r.wake:
		return true
	case <-due:
		return true
	case <-ctx.Done():
		return false
	}
}

// hand hands in batch and returns those that must be repeated.
func (r *reporter) hand(ctx context.Context, batch []labmesh.Command) (left []labmesh.Command, err error) {
	ctx, cancel := context.WithTimeout(ctx, reportTimeout)
	defer cancel()
	answers, err := r.desk.Report(ctx, batch)
	if err != nil {
		return batch, err
	}
	if len(answers) != len(batch) {
		return batch, fmt.Errorf("report: %d answers to %d reports", len(answers), len(batch))
	}
	again := make(map[key]bool) // attempts of which something must be repeated: what comes after it was not understood
	for i, a := range answers {
		if a.Refused == nil {
			continue
		}
		c := batch[i]
		if k := attemptOf(c); !again[k] {
			if c = r.refused(ctx, c, a.Refused); c == nil {
				continue
			}
			again[k] = true
		}
		left, err = append(left, c), a.Refused
	}
	return left, err
}

// refused decides what becomes of a report that was refused: nil, or the
// command to hand in next.
func (r *reporter) refused(ctx context.Context, c labmesh.Command, e *labmesh.Error) labmesh.Command {
	switch e.Reason {
	case labmesh.Unavailable, labmesh.Exhausted, labmesh.Internal:
		return c
	case labmesh.Conflict, labmesh.NotFound:
	default:
		r.logger.ErrorContext(ctx, "report refused", "command", c.CommandName(), "reason", e.Reason, "err", e.Message)
		if f, ok := c.(labmesh.FinishTask); ok && (f.Outcome.Result != nil || f.Outcome.Metrics != nil) {
			f.Outcome.Result, f.Outcome.Metrics = nil, nil // the verdict at least must arrive
			return f
		}
	}
	if s, ok := c.(labmesh.StartTask); ok {
		r.declined(key{s.ID, s.Attempt})
	}
	return nil
}

// pause waits before a repeat: for d, or only a moment once the desk changes.
// It returns false when ctx ends.
func pause(ctx context.Context, changed <-chan struct{}, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-timer.C:
		return true
	case <-changed:
	}
	timer.Reset(min(d, retryPause))
	select {
	case <-ctx.Done():
		return false
	case <-timer.C:
		return true
	}
}
