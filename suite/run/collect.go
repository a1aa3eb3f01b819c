package run

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"labmesh"
	"labmesh/api"
	"labmesh/suite"
)

// Limits on collecting.
const (
	collectedPath     = ".labmesh/collected.jsonl"
	collectedBytesMax = 512 << 20
	collectedLineMax  = 4 << 20
	casesMax          = 1_000_000
	collectTries      = 3 // whatever held the list may be gone before it is read
	whyEvery          = 1500 * time.Millisecond
	collectPart       = 0.8 // of the time that a collection took, to start an interpreter for a chunk
	overheadLeast     = 0.1 // seconds
	overheadMost      = 5.0 // seconds
)

// collected is a line of what a worker collected.
type collected struct {
	ID     string `json:"id"`
	File   string `json:"file"`
	Name   string `json:"name"`
	Params string `json:"parameters"`
	Error  string `json:"error"`
}

// cases are the cases of the suite, with what is known of their times.
func (r *runner) cases(ctx context.Context) (cases []suite.Case, err error) {
	if r.Framework == Command {
		for _, f := range r.Files {
			cases = append(cases, suite.Case{ID: f, File: f, Whole: true})
		}
	} else if cases, err = r.collect(ctx); err != nil || ctx.Err() != nil {
		return nil, err
	}
	cases = r.Shards.Pick(cases)
	for i := range cases {
		cases[i].Quarantined = r.Quarantine.Holds(cases[i].ID, r.began)
	}
	r.recall(cases)
	return cases, nil
}

// collect has a worker collect the cases, and reads its list.
func (r *runner) collect(ctx context.Context) (cases []suite.Case, err error) {
	for try := 1; ; try++ {
		id := labmesh.TaskID(fmt.Sprintf("suite-%s-collect-%d", r.ID, try))
		if err = r.collectBy(ctx, id); err != nil || ctx.Err() != nil {
			return nil, err
		}
		cases, err = r.list(id)
		if err == nil || try == collectTries || r.work.Err() != nil {
			return cases, err
		}
	}
}

// collectBy runs the task that collects. While it waits it says why.
func (r *runner) collectBy(ctx context.Context, id labmesh.TaskID) error {
	conf := chunkConfig{Suite: r.ID, Framework: r.Framework, Collect: true, Paths: r.Paths, Args: append(append([]string(nil), r.Select...), r.Args...)}
	s := r.spec(conf, r.Name+", collection")
	s.TaskID = id
	err := r.again(func() error { _, err := r.Mesh.Submit(r.work, s); return err })
	if err != nil {
		return fmt.Errorf("submit %s: %w", id, err)
	}
	tick := time.NewTicker(showEvery)
	defer tick.Stop()
	asked := time.Now()
	done := ctx.Done()
	var leave <-chan time.Time
	look := func() (over bool, err error) {
		t, err := r.Mesh.Task(r.work, id)
		if err != nil {
			return false, nil // the mesh is out of reach for the moment
		}
		return t.Status.Final(), r.collectEnded(t)
	}
	for {
		select {
		case ev := <-r.events:
			if ev.Type != labmesh.TaskEnded || ev.Task == nil || ev.Task.ID != id {
				continue
			}
			if over, err := look(); over {
				return err
			}
		case <-r.gaps:
			asked = time.Time{}
		case err := <-r.failed:
			return err
		case <-tick.C:
			r.show(false)
			if time.Since(asked) < whyEvery {
				continue
			}
			asked = time.Now()
			if over, err := look(); over {
				return err
			}
			r.sayWhy(id)
		case <-done:
			done = nil
			r.cancel(&task{id: id}, "interrupted")
			leave = time.After(orderlyEnd)
		case <-leave:
			return nil
		}
	}
}

// sayWhy says why the collection waits, each reason once.
func (r *runner) sayWhy(id labmesh.TaskID) {
	w, err := r.Mesh.Why(r.work, id)
	switch {
	case err != nil:
	case w.Status != labmesh.Pending:
		r.waiting = ""
	case w.Summary != r.waiting:
		r.waiting = w.Summary
		r.Note("labmesh: the suite waits: %s", w.Summary)
		for _, worker := range w.Workers {
			if why := strings.Join(worker.Reasons, "; "); !worker.Fits && why != "" && !strings.Contains(w.Summary, why) {
				r.Note("labmesh:   %s: %s", worker.Worker, why)
			}
		}
	}
}

// collectEnded is why there is no list when the collection has ended.
func (r *runner) collectEnded(t api.TaskDetail) error {
	switch t.Status {
	case labmesh.Completed:
		if !t.Started.IsZero() && !t.Ended.IsZero() { // it started an interpreter and imported what chunks will import
			r.overhead = min(max(collectPart*t.Ended.Sub(t.Started.Time).Seconds(), overheadLeast), overheadMost)
		}
		return nil
	case labmesh.Cancelled:
		if t.Error == "interrupted" {
			return nil
		}
		return fmt.Errorf("somebody cancelled the collection (%s)", t.ID)
	}
	return fmt.Errorf("the tests could not be collected (%s on %s): %s", t.ID, t.Worker, t.Error)
}

// list reads what was collected.
func (r *runner) list(id labmesh.TaskID) (cases []suite.Case, err error) {
	var body io.ReadCloser
	err = r.again(func() (err error) {
		body, err = r.Mesh.Artifact(r.work, id, collectedPath)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("read the list of tests of %s: %w", id, err)
	}
	defer body.Close()
	cases, broken, err := readCollected(body)
	if err != nil {
		return nil, fmt.Errorf("read the list of tests of %s: %w", id, err)
	}
	r.errors = broken
	return cases, nil
}

func readCollected(body io.Reader) (cases []suite.Case, broken []suite.CollectError, err error) {
	limited := &io.LimitedReader{R: body, N: collectedBytesMax + 1}
	lines := bufio.NewScanner(limited)
	lines.Buffer(make([]byte, 64<<10), collectedLineMax)
	for lines.Scan() {
		line := bytes.TrimSpace(lines.Bytes())
		if len(line) == 0 {
			continue
		}
		var c collected
		if err := json.Unmarshal(line, &c); err != nil {
			return nil, nil, fmt.Errorf("line %d: %w", len(cases)+len(broken)+1, err)
		}
		switch {
		case c.Error != "":
			broken = append(broken, suite.CollectError{File: firstOf(c.File, c.ID), Message: c.Error})
		case c.ID == "":
			return nil, nil, fmt.Errorf("line %d: a test without an id", len(cases)+len(broken)+1)
		case len(cases) == casesMax:
			return nil, nil, fmt.Errorf("there are more than %d tests: give fewer paths", casesMax)
		default:
			cases = append(cases, suite.Case{ID: c.ID, File: c.File, Name: c.Name, Params: c.Params})
		}
	}
	switch {
	case lines.Err() != nil:
		return nil, nil, lines.Err()
	case limited.N <= 0:
		return nil, nil, errors.New("it is too long: give fewer paths")
	}
	return cases, broken, nil
}

func firstOf(a, b string) string {
	if a != "" {
		return a
	}
	return b
}
