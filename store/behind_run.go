package store

import (
	"context"
	"fmt"
	"time"

	"labmesh"
)

// Stats says how the queue stands and what it has written since it was made.
type Stats struct {
	Applied uint64 // log index the ledger has reached
	Seen    uint64 // log index of the newest entry queued
	Events  int    // waiting
	Bytes   int    // about what they take in memory
	Written uint64 // events written
	Batches uint64 // transactions they were written in
	Err     error  // why the newest write did not succeed; nil once one did
}

// Lag is how many log entries the ledger is behind what was queued.
func (s Stats) Lag() uint64 { return s.Seen - min(s.Applied, s.Seen) }

// Stats is how the queue stands.
func (b *Behind) Stats() Stats {
	b.mu.Lock()
	defer b.mu.Unlock()
	s := b.written
	s.Applied, s.Seen, s.Events, s.Bytes, s.Err = b.applied, b.seen, b.events, b.bytes, b.err
	return s
}

// Applied is the log index that the ledger has reached on disk.
func (b *Behind) Applied() uint64 { return b.Stats().Applied }

// Err is why the ledger cannot be written at present, for status; nil while it
// can. Nothing is lost: the write is tried again until it succeeds.
func (b *Behind) Err() error { return b.Stats().Err }

// Run writes what is queued until ctx ends, then once more what is left, and
// closes the queue. It returns an error only if that last write did not succeed.
func (b *Behind) Run(ctx context.Context) error {
	defer b.close()
	var last time.Time // of the newest transaction
	for {
		select {
		case <-b.wake:
		case <-b.rush:
		case <-ctx.Done():
			return b.drain(ctx)
		}
		if !b.due(ctx, last) {
			continue // ctx has ended
		}
		b.flush(ctx)
		last = time.Now()
	}
}

// due waits until what is queued should be written: when somebody awaits it,
// when a batch is full, or when the newest transaction was long enough ago.
func (b *Behind) due(ctx context.Context, last time.Time) bool {
	timer := time.NewTimer(time.Until(last.Add(b.cfg.Interval)))
	defer timer.Stop()
	for slow := false; ; {
		b.mu.Lock()
		events, special := b.events, len(b.queue) > 0 && b.queue[0].require
		now := special || events >= b.cfg.Batch || b.bytes >= b.cfg.Bytes/2 || b.wanted > b.applied && b.seen >= b.wanted
		b.mu.Unlock()
		if now || slow && events > 0 && time.Since(last) >= b.cfg.Interval {
			return true
		}
		select {
		case <-timer.C:
			if events > 0 || slow {
				return true
			}
			slow = true // only the index would be written: that has time
			timer.Reset(IndexInterval)
		case <-b.rush:
		case <-b.wake:
		case <-ctx.Done():
			return false
		}
	}
}

// flush writes one batch. What arrives meanwhile has to wait its time: under a
// steady load transactions would otherwise follow one another without a pause.
// A batch that cannot be written is tried again, later and later, until it is or
// ctx ends.
func (b *Behind) flush(ctx context.Context) {
	for retry := RetryMin; ctx.Err() == nil; {
		n, err := b.writeBatch(ctx)
		if err == nil {
			if n > 0 {
				signal(b.wake) // there may be more
			}
			return
		}
		if ctx.Err() != nil {
			return
		}
		b.failed(ctx, err, retry)
		select {
		case <-time.After(retry):
		case <-ctx.Done():
		}
		retry = min(2*retry, RetryMax)
	}
}

// failed notes err for status, and logs it when it is the first of its kind.
func (b *Behind) failed(ctx context.Context, err error, retry time.Duration) {
	b.mu.Lock()
	first := b.err == nil || b.err.Error() != err.Error()
	b.err = err
	b.mu.Unlock()
	if first {
		b.cfg.Logger.WarnContext(ctx, "ledger not written, trying again", "retry", retry, "err", err)
	}
}

// drain writes what is queued when the node stops.
func (b *Behind) drain(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), DrainTimeout)
	defer cancel()
	for {
		n, err := b.writeBatch(ctx)
		if err != nil {
			return fmt.Errorf("write the rest of the ledger's queue (the log still has it): %w", err)
		}
		if n == 0 {
			return nil
		}
	}
}

// writeBatch writes the oldest items of the queue in one transaction and takes
// them off it. It returns how many they were.
func (b *Behind) writeBatch(ctx context.Context) (int, error) {
	b.mu.Lock()
	batch, n := b.batch()
	b.mu.Unlock()
	if n == 0 {
		return 0, nil
	}
	var err error
	if batch.require {
		err = b.backend.Require(ctx, batch.index)
	} else {
		err = b.backend.Append(ctx, batch.index, batch.events)
	}
	if err != nil {
		return 0, err
	}
	b.done(batch, n)
	return n, nil
}

// joinedMax is how many events the memory may hold that batches are joined in
// and that is kept from one to the next.
const joinedMax = 8 << 10

// batch joins the oldest items of the queue up to the size of a batch. The
// items stay in the queue until they are written; index only counts up to
// what was there, even if entries without events are added to the last one.
func (b *Behind) batch() (item, int) {
	joined := item{events: b.joined[:0]}
	for n, it := range b.queue {
		if n > 0 && (it.require || joined.require || len(joined.events)+len(it.events) > b.cfg.Batch) {
			return joined, n
		}
		joined.index, joined.require = it.index, it.require
		joined.bytes += it.bytes
		joined.events = append(joined.events, it.events...)
		b.joined = joined.events
	}
	return joined, len(b.queue)
}

// done takes the n items of a written batch off the queue.
func (b *Behind) done(batch item, n int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	// The last item may have moved on while it was written: what is left of it
	// is an entry without events.
	if last := &b.queue[n-1]; last.index > batch.index {
		*last = item{index: last.index}
		n--
	}
	clear(b.queue[:n]) // let go of the events
	if clear(b.joined); cap(b.joined) > joinedMax {
		b.joined = nil
	}
	if b.queue = b.queue[n:]; len(b.queue) == 0 {
		b.queue = nil
	}
	b.events -= len(batch.events)
	b.bytes -= batch.bytes
	b.applied = batch.index
	b.err = nil
	b.written.Written += uint64(len(batch.events))
	b.written.Batches++
	close(b.moved)
	b.moved = make(chan struct{})
}

func (b *Behind) close() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.closed = true
	close(b.moved)
	b.moved = make(chan struct{})
}

// sizeOf is about what an event takes in memory while it waits.
func sizeOf(e *labmesh.Event) int {
	const fixed = 256
	n := fixed + len(e.Detail)
	if e.Type == labmesh.TaskEnded && e.Task != nil {
		t := e.Task
		n += 2*fixed + len(t.Spec.Config) + len(t.Result) + len(t.Error)
	}
	if e.Tests != nil {
		for i := range e.Tests.Cases {
			c := &e.Tests.Cases[i]
			n += fixed + len(c.File) + len(c.Name) + len(c.Params) + len(c.Message)
		}
	}
	if e.Attempt != nil {
		n += fixed + len(e.Attempt.Error) + len(e.Attempt.Metrics)
	}
	return n
}
