package client

import (
	"context"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"labmesh"
	"labmesh/api"
)

// Bounds on the wait between two looks at tasks whose events cannot be had.
const (
	pollWaitMin = 100 * time.Millisecond
	pollWaitMax = 2 * time.Second
)

// Verdict is how a task ended.
type Verdict struct {
	ID     labmesh.TaskID   `json:"task_id"`
	Status labmesh.Phase    `json:"status"`
	Name   string           `json:"name,omitempty"`
	Error  string           `json:"error,omitempty"`
	Worker labmesh.WorkerID `json:"worker_id,omitempty"`
}

// OK reports whether the task completed.
func (v Verdict) OK() bool { return v.Status == labmesh.Completed }

// Watch hears of every task that ends, from when it was opened. Open it before
// a submit, and no verdict of the submitted tasks can be missed: following ten
// thousand tasks costs one connection. Where the node's events cannot be had it
// asks for the tasks one by one.
type Watch struct {
	c      *Client
	cancel context.CancelFunc
	done   chan struct{}
	tried  chan struct{} // closed once the events were had, or could not be
	first  sync.Once

	mu      sync.Mutex
	ended   []Verdict     // in the order of their end
	gaps    int           // how often verdicts may have been missed
	live    bool          // events come in
	changed chan struct{} // closed at the next change
}

// Watch opens a watch and starts its one goroutine, which ends with ctx or
// with Close. It returns when the watch is open, or the first try to
// open it came to nothing: until it is, waiting falls back to polling.
func (c *Client) Watch(ctx context.Context) *Watch {
	ctx, cancel := context.WithCancel(ctx)
	w := &Watch{c: c, cancel: cancel, done: make(chan struct{}), tried: make(chan struct{}), changed: make(chan struct{})}
	go w.run(ctx)
	<-w.tried
	return w
}

// Close ends the watch and waits for its goroutine. It is safe twice.
func (w *Watch) Close() error {
	w.cancel()
	<-w.done
	return nil
}

// run follows the events for as long as they can be had.
func (w *Watch) run(ctx context.Context) {
	defer close(w.done)
	defer w.ready()
	had := false // events, once
	for again := false; ctx.Err() == nil; again = true {
		late := again // what ended before the first connection was not heard
		s := eventStream{c: w.c, each: w.take}
		s.failed = func() { late = late || s.conns == 0; w.ready() }
		s.opened = func(gap bool) { w.opened(gap || late); late = false }
		err := s.run(ctx)
		w.update(func() { w.live = false; w.gaps++ })
		had = had || s.conns > 0
		if final(err) && !had || !sleep(ctx, pollWaitMax) {
			return // these events can never be had; who waits polls
		}
	}
}

func (w *Watch) ready() { w.first.Do(func() { close(w.tried) }) }

func (w *Watch) opened(gap bool) {
	w.update(func() {
		w.live = true
		if gap {
			w.gaps++
		}
	})
	w.ready()
}

func (w *Watch) take(ev api.Event) error {
	if ev.Type == labmesh.TaskEnded && ev.Task != nil {
		t := ev.Task
		w.update(func() {
			w.ended = append(w.ended, Verdict{t.ID, t.Status, string(t.Name), string(t.Error), labmesh.WorkerID(t.Worker)})
		})
	}
	return nil
}

func (w *Watch) update(change func()) {
	w.mu.Lock()
	defer w.mu.Unlock()
	change()
	close(w.changed)
	w.changed = make(chan struct{})
}

// news is what a watch has to tell to somebody who has heard the first n verdicts.
func (w *Watch) news(n int) (ended []Verdict, gaps int, live bool, changed <-chan struct{}) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.ended[n:len(w.ended):len(w.ended)], w.gaps, w.live, w.changed
}

// Wait blocks until all of ids have ended and calls each, unless it is nil, with
// every verdict as it comes. With check set it first asks for each of them: tasks may have ended
// before the watch was opened. A task that is not there is an error.
func (w *Watch) Wait(ctx context.Context, ids []labmesh.TaskID, check bool, each func(Verdict)) error {
	left := make(map[labmesh.TaskID]bool, len(ids))
	for _, id := range ids {
		left[id] = true
	}
	tell := func(v Verdict) {
		if left[v.ID] {
			delete(left, v.ID)
			if each != nil {
				each(v)
			}
		}
	}
	heard, known, pause := 0, 0, pollWaitMin
	var trouble time.Time // since when asking has not worked
	for {
		ended, gaps, live, changed := w.news(heard)
		heard += len(ended)
		for _, v := range ended {
			tell(v)
		}
		if len(left) == 0 {
			return nil
		}
		if check || gaps != known || !live {
			err := w.c.poll(ctx, left, tell)
			switch {
			case err == nil:
				check, known, trouble = false, gaps, time.Time{}
			case ctx.Err() != nil:
				return context.Cause(ctx)
			case trouble.IsZero():
				trouble = time.Now()
			}
			if err != nil && (check || time.Since(trouble) >= w.c.cfg.Patience) {
				return err // a node that restarts knows its tasks again before that
			}
			if len(left) == 0 {
				return nil
			}
			live = live && err == nil
		}
		if live {
			pause = pollWaitMin
			select {
			case <-changed:
			case <-ctx.Done():
				return context.Cause(ctx)
			}
			continue
		}
		if !sleep(ctx, pause) {
			return context.Cause(ctx)
		}
		pause = min(2*pause, pollWaitMax)
	}
}

// poll asks for each of left once, a few at a time, and tells of those that ended.
func (c *Client) poll(ctx context.Context, left map[labmesh.TaskID]bool, tell func(Verdict)) error {
	var g errgroup.Group
	g.SetLimit(pollersMax)
	var mu sync.Mutex
	var found []Verdict
	for id := range left {
		g.Go(func() error {
			t, err := c.Task(ctx, id)
			if err != nil || !t.Status.Final() {
				return err
			}
			mu.Lock()
			defer mu.Unlock()
			found = append(found, Verdict{t.ID, t.Status, string(t.Name), string(t.Error), labmesh.WorkerID(t.Worker)})
			return nil
		})
	}
	err := g.Wait()
	for _, v := range found {
		tell(v)
	}
	return err
}

// Wait blocks until all of ids have ended, whenever they were submitted, and
// calls each with every verdict as it comes.
func (c *Client) Wait(ctx context.Context, ids []labmesh.TaskID, each func(Verdict)) error {
	w := c.Watch(ctx)
	defer w.Close()
	return w.Wait(ctx, ids, true, each)
}
