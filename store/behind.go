package store

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"labmesh"
)

// Limits of the queue between the log and the ledger.
const (
	QueueEvents    = 100_000               // default: events waiting to be written
	QueueBytes     = 64 << 20              // default: about as much memory
	BatchEvents    = 20_000                // default: events written in one transaction
	CommitInterval = 20 * time.Millisecond // default: the least time between two transactions that nobody waits for
	IndexInterval  = time.Second           // the same where only the applied index would be written
	RetryMin       = 50 * time.Millisecond // wait after a first write that did not succeed
	RetryMax       = 5 * time.Second       // the longest such wait
	DrainTimeout   = 10 * time.Second      // for writing what is queued when Run ends
)

// ErrClosed says that the queue takes no more.
var ErrClosed = errors.New("the ledger's queue is closed")

// BehindConfig sets the limits of a [Behind]. Zero fields stand for the defaults.
type BehindConfig struct {
	Events   int           // QueueEvents
	Bytes    int           // QueueBytes
	Batch    int           // BatchEvents
	Interval time.Duration // CommitInterval
	Logger   *slog.Logger  // required
}

// Behind writes a ledger behind the log. The state machine appends the events
// of each entry to its queue and goes on; Run writes them, many entries in one
// transaction. When the queue is full Append blocks: the log slows down to what
// the disk can take. Events that could not be written are kept and tried again.
type Behind struct {
	backend Backend
	cfg     BehindConfig

	mu      sync.Mutex
	queue   []item
	joined  []labmesh.Event // memory for the next batch
	events  int             // in queue
	bytes   int             // in queue
	seen    uint64          // index of the newest entry appended
	applied uint64          // index that the backend reached
	wanted  uint64          // highest index that somebody awaits
	moved   chan struct{}   // closed and replaced when a write succeeded
	err     error           // why the last write did not succeed
	closed  bool
	written Stats

	wake chan struct{} // holds one token when there is something to write
	rush chan struct{} // holds one token when somebody waits for it
}

// item is what one or more entries of the log left for the ledger.
type item struct {
	index   uint64
	events  []labmesh.Event
	bytes   int
	require bool // the entry is a snapshot: what is before it is missing
}

// NewBehind puts a queue before backend. Nothing is written until Run.
func NewBehind(backend Backend, cfg BehindConfig) (*Behind, error) {
	applied, err := backend.Applied()
	if err != nil {
		return nil, fmt.Errorf("read the ledger's applied index: %w", err)
	}
	if cfg.Events <= 0 {
		cfg.Events = QueueEvents
	}
	if cfg.Bytes <= 0 {
		cfg.Bytes = QueueBytes
	}
	if cfg.Batch <= 0 {
		cfg.Batch = BatchEvents
	}
	if cfg.Interval <= 0 {
		cfg.Interval = CommitInterval
	}
	return &Behind{
		backend: backend,
		cfg:     cfg,
		applied: applied,
		seen:    applied,
		moved:   make(chan struct{}),
		wake:    make(chan struct{}, 1),
		rush:    make(chan struct{}, 1),
	}, nil
}

// Append queues the events of the log entry at index. It is called for every
// entry in order, also for those without events, and blocks while the queue is
// full. Entries that the ledger already has are skipped.
func (b *Behind) Append(index uint64, events []labmesh.Event) error {
	size := 0
	for i := range events {
		size += sizeOf(&events[i])
	}
	return b.put(item{index: index, events: events, bytes: size})
}

// Require tells the ledger that the state stands at index by a snapshot: what
// the ledger lacks up to there is a gap, to be filled from a peer.
func (b *Behind) Require(index uint64) error {
	return b.put(item{index: index, require: true})
}

func (b *Behind) put(it item) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	for {
		if b.closed {
			return ErrClosed
		}
		if it.index <= b.seen {
			return nil // replayed
		}
		// An item larger than the whole queue goes in when it is alone.
		full := b.events+len(it.events) > b.cfg.Events || b.bytes+it.bytes > b.cfg.Bytes
		if len(it.events) == 0 || !full || b.events == 0 {
			break
		}
		b.wait()
	}
	b.push(it)
	signal(b.wake)
	if b.wanted > b.applied && it.index >= b.wanted {
		signal(b.rush)
	}
	return nil
}

// push adds it to the queue; entries without events only move the index of the
// item before them.
func (b *Behind) push(it item) {
	b.seen = it.index
	if n := len(b.queue); n > 0 && len(it.events) == 0 && !it.require && !b.queue[n-1].require {
		b.queue[n-1].index = it.index
		return
	}
	b.queue = append(b.queue, it)
	b.events += len(it.events)
	b.bytes += it.bytes
}

// wait gives up the lock until something moved.
func (b *Behind) wait() {
	moved := b.moved
	b.mu.Unlock()
	<-moved
	b.mu.Lock()
}

func signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// Await returns when the ledger has reached index.
func (b *Behind) Await(ctx context.Context, index uint64) error {
	for {
		b.mu.Lock()
		if b.applied >= index {
			b.mu.Unlock()
			return nil
		}
		if b.closed {
			b.mu.Unlock()
			return ErrClosed
		}
		b.wanted = max(b.wanted, index)
		moved := b.moved
		b.mu.Unlock()
		signal(b.rush)
		select {
		case <-moved:
		case <-ctx.Done():
			return fmt.Errorf("wait for the ledger to reach %d: %w", index, ctx.Err())
		}
	}
}
