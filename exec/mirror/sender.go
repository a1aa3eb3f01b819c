package mirror

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"sync"
	"time"

	"labmesh"
	"labmesh/exec/output"
)

// Pace of a sender.
const (
	settleTime = 100 * time.Millisecond // an attempt that ends within it and says little is not copied
	sendEvery  = 50 * time.Millisecond  // between two looks at what an attempt prints
	turnFrames = 16                     // of one stream, before it is the other's turn
	linkWait   = 10 * time.Second       // for a keeper to take or to answer something
	avoidTime  = 10 * time.Second       // for which a keeper that failed an attempt is not chosen again
	seekEvery  = time.Second            // look for a keeper, while there is none
	lastWait   = time.Second            // for the last of the output when the sender stops
	afterWait  = time.Minute            // to find a keeper for an attempt that has ended
)

// SmallBytes is how much an attempt may print to each stream and not be copied
// if it ends at once: its result, which every replica has, holds all of it.
const SmallBytes = 3 << 10

// Streams opens streams to keepers.
type Streams interface {
	Dial(ctx context.Context, node labmesh.NodeID) (net.Conn, error)
}

// SenderConfig says how a sender works. All but Logger must be set.
type SenderConfig struct {
	Streams Streams
	// Choose names the node to keep a copy of an attempt's output, or "" when
	// there is none. It prefers the same node each time, and none of those to avoid.
	Choose func(task labmesh.TaskID, attempt int, avoid func(labmesh.NodeID) bool) labmesh.NodeID
	Alive  func(labmesh.NodeID) bool
	// Changed is closed when Choose or Alive may say something else.
	Changed func() <-chan struct{}
	Logger  *slog.Logger
}

// Sender copies what attempts here print to keepers elsewhere.
type Sender struct {
	cfg    SenderConfig
	queued chan struct{} // has one in it when there is something in queue

	mu        sync.Mutex
	queue     []*watched
	links     map[labmesh.NodeID]*link
	listening sync.WaitGroup // to keepers
}

// watched is an attempt whose output is copied.
type watched struct {
	key
	out   *output.Output
	avoid map[labmesh.NodeID]time.Time // until then
}

// NewSender makes a sender. It does nothing until it runs.
func NewSender(cfg SenderConfig) *Sender {
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	return &Sender{cfg: cfg, queued: make(chan struct{}, 1), links: make(map[labmesh.NodeID]*link)}
}

// Watch has the output of an attempt copied until the attempt ends. It does not
// block, and is meant to be called when the attempt first prints something.
func (s *Sender) Watch(task labmesh.TaskID, attempt int, o *output.Output) {
	s.mu.Lock()
	s.queue = append(s.queue, &watched{key: key{task, attempt}, out: o, avoid: make(map[labmesh.NodeID]time.Time)})
	s.mu.Unlock()
	select {
	case s.queued <- struct{}{}:
	default: // it will be looked at anyway
	}
}

// Run copies until ctx ends, and then for a bounded time what is left of
// attempts that have ended.
func (s *Sender) Run(ctx context.Context) error {
	base, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	defer context.AfterFunc(ctx, func() { time.AfterFunc(lastWait, cancel) })()
	var copying sync.WaitGroup
	defer s.hangUp()
	defer copying.Wait()
	for {
		s.mu.Lock()
		queue := s.queue
		s.queue = nil
		s.mu.Unlock()
		for _, w := range queue {
			copying.Go(func() { s.copy(base, ctx.Done(), w) })
		}
		select {
		case <-s.queued:
		case <-ctx.Done():
			return nil
		}
	}
}

// copy copies one attempt's output to one keeper after another, until it has
// all been said.
func (s *Sender) copy(ctx context.Context, stop <-chan struct{}, w *watched) {
	if !w.settle(ctx, stop) {
		return
	}
	var ended time.Time
	for ctx.Err() == nil {
		changed := s.cfg.Changed()
		node := s.cfg.Choose(w.task, w.attempt, w.avoids)
		if node != "" {
			err := s.copyTo(ctx, stop, node, w)
			if err == nil {
				return
			}
			w.avoid[node] = time.Now().Add(avoidTime)
			s.cfg.Logger.DebugContext(ctx, "output not copied on; another node is sought", "task", w.task, "attempt", w.attempt, "to", node, "err", err)
			continue
		}
		if w.out.Ended() {
			if ended.IsZero() {
				ended = time.Now()
			}
			if time.Since(ended) > afterWait {
				return
			}
		}
		select {
		case <-changed:
		case <-time.After(seekEvery):
		case <-stop:
			return
		}
	}
}

// settle waits a moment, and reports whether the attempt is worth a copy.
func (w *watched) settle(ctx context.Context, stop <-chan struct{}) bool {
	timer := time.NewTimer(settleTime)
	defer timer.Stop()
	for {
		changed := w.out.Changed()
		size := sizes(w.out)
		if max(size[0], size[1]) > SmallBytes {
			return true
		}
		if w.out.Ended() {
			return false
		}
		select {
		case <-changed:
		case <-timer.C:
			return true
		case <-stop:
			return false
		case <-ctx.Done():
			return false
		}
	}
}

func (w *watched) avoids(node labmesh.NodeID) bool { return time.Now().Before(w.avoid[node]) }

var (
	errGone    = errors.New("the node is not heard of any more")
	errRefused = errors.New("the node takes no copy")
)

// copyTo copies an attempt's output to a keeper, beginning where the keeper is.
func (s *Sender) copyTo(ctx context.Context, stop <-chan struct{}, node labmesh.NodeID, w *watched) error {
	l, err := s.link(ctx, node)
	if err != nil {
		return err
	}
	c, err := l.open(ctx, w.key)
	if err != nil {
		return err
	}
	defer l.forget(c)
	readers := make([]*output.Reader, 2)
	for i, stream := range output.Streams() {
		readers[i] = w.out.Open(ctx, output.Query{Stream: stream, Offset: c.have[i]})
		defer readers[i].Close()
	}
	for {
		changed, around := w.out.Changed(), s.cfg.Changed()
		ended := w.out.Ended()
		if err := l.drain(ctx, c, readers); err != nil {
			return err
		}
		if ended {
			return l.send(&frame{kind: ending, number: c.number, sizes: sizes(w.out)}, true)
		}
		select {
		case <-time.After(sendEvery):
		case <-stop: // what is left is sent if the attempt has ended, which it has before the sender stops
			if !w.out.Ended() {
				return nil
			}
			continue
		}
		select {
		case <-changed:
		case <-around:
		case <-c.refused:
		case <-l.broken:
		case <-stop:
			if !w.out.Ended() {
				return nil
			}
		case <-ctx.Done():
			return ctx.Err()
		}
		switch {
		case l.isBroken():
			return l.err
		case c.isRefused():
			return errRefused
		case !s.cfg.Alive(node):
			return errGone
		}
	}
}

// drain sends what there is to read now, the streams in turn.
func (l *link) drain(ctx context.Context, c *channel, readers []*output.Reader) error {
	buf := l.buffers.Get().(*[]byte)
	defer l.buffers.Put(buf)
	for more := true; more; {
		if more = false; ctx.Err() != nil {
			return ctx.Err()
		}
		for i, r := range readers {
			for range turnFrames {
				p, err := r.Next(*buf)
				if errors.Is(err, io.EOF) {
					break
				}
				if err != nil {
					return err
				}
				more = true
				if p.Gap > 0 {
					continue // the next offset says so
				}
				if err := l.send(&frame{kind: data, number: c.number, stream: output.Streams()[i], offset: p.Offset, bytes: p.Data}, false); err != nil {
					return err
				}
			}
		}
	}
	return l.send(nil, true)
}

// hangUp closes all links.
func (s *Sender) hangUp() {
	s.mu.Lock()
	links := s.links
	s.links = make(map[labmesh.NodeID]*link)
	s.mu.Unlock()
	for _, l := range links {
		l.close(net.ErrClosed)
	}
	s.listening.Wait()
}
