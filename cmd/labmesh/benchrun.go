package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"labmesh"
	"labmesh/api"
	"labmesh/bench"
	"labmesh/bench/plot"
	"labmesh/bench/report"
	"labmesh/client"
	"labmesh/each"
)

// Limits on following benchmarks.
const (
	benchFollowed = 32 // tasks whose progress is followed at the same time
	benchHinted   = 4  // of which it is said why they wait
	benchLineMax  = 64 << 10
)

// benchJob is one task of `labmesh bench`.
type benchJob struct {
	spec labmesh.Spec
	name string // for people
	id   labmesh.TaskID
}

// bench submits the benchmarks, follows them to their end and prints what they
// measured. When ctx ends, by Ctrl-C, it cancels them and prints what there is.
func (a *app) bench(ctx context.Context, c *client.Client, f *benchFlags, specs []labmesh.Spec) error {
	jobs, left, err := a.benchJobs(ctx, c, f, specs)
	if err != nil {
		return err
	}
	a.noteLeft(left)
	all := make([]labmesh.Spec, len(jobs))
	for i := range jobs {
		all[i] = jobs[i].spec
	}
	if f.detach {
		return a.submitAll(ctx, c, all, false, 0)
	}
	work, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	watch := c.Watch(work)
	defer watch.Close()
	var reply api.BatchReply
	err = unhurried(ctx, func(ctx context.Context) (err error) {
		reply, err = a.submitSpecs(ctx, c, all)
		return err
	})
	if err != nil {
		cancelAll(ctx, c, reply.IDs)
		return err
	}
	for i, id := range reply.IDs {
		jobs[i].id = id
	}
	err = a.followBench(ctx, work, stop, c, watch, jobs, reply)
	interrupted := ctx.Err() != nil
	if err != nil && !interrupted {
		return err
	}
	report, err := a.collectBench(context.WithoutCancel(ctx), c, jobs)
	if err != nil {
		return err
	}
	report.Left = append(report.Left, left...)
	return a.concludeBench(report, f, interrupted)
}

// benchJobs are the tasks that specs stand for, with their bundles in the mesh,
// and what was left out.
func (a *app) benchJobs(ctx context.Context, c *client.Client, f *benchFlags, specs []labmesh.Spec) (jobs []benchJob, left []each.Left, err error) {
	if err := a.uploadAll(ctx, c, specs); err != nil {
		return nil, nil, err
	}
	if f.each == "" {
		for _, s := range specs {
			jobs = append(jobs, benchJob{spec: s, name: benchName(&s)})
		}
		return jobs, nil, nil
	}
	workers, err := workersOf(ctx, c)
	if err != nil {
		return nil, nil, err
	}
	seen := map[each.Left]bool{}
	for _, s := range specs {
		made, without, err := a.expand(s, f.each, workers)
		if err != nil {
			return nil, nil, err
		}
		for _, m := range made {
			jobs = append(jobs, benchJob{spec: m.Spec, name: benchName(&s) + " on " + m.For})
		}
		for _, l := range without {
			if !seen[l] {
				seen[l] = true
				left = append(left, l)
			}
		}
	}
	return jobs, left, nil
}

// followBench shows how far the jobs are until all have ended.
func (a *app) followBench(ctx, work context.Context, stop func(), c *client.Client, watch *client.Watch, jobs []benchJob, reply api.BatchReply) error {
	screen := a.newBenchScreen(len(jobs))
	logs, noLogs := context.WithCancel(work)
	var g sync.WaitGroup
	cancelled := a.cancelJobs(ctx, work, stop, c, screen, reply.IDs)
	for i := range jobs {
		if i < benchHinted {
			g.Go(func() { a.hintVia(logs, c, jobs[i].id, screen.note) })
		}
		if i < benchFollowed {
			g.Go(func() { followProgress(logs, c, &jobs[i], screen) })
		}
	}
	err := watch.Wait(work, reply.IDs, reply.Created < len(jobs), func(v client.Verdict) { screen.ended(v) })
	noLogs()
	g.Wait()
	cancelled()
	screen.end()
	if err != nil && ctx.Err() == nil {
		return fmt.Errorf("follow the benchmarks: %w; they go on: see `labmesh tasks`", err)
	}
	return err
}

// cancelJobs cancels the tasks when ctx ends, and stops all work when they have
// not ended some time after that. What it returns undoes and joins it.
func (a *app) cancelJobs(ctx, work context.Context, stop func(), c *client.Client, s *benchScreen, ids []labmesh.TaskID) (join func()) {
	over, leave := context.WithCancel(work)
	var g sync.WaitGroup
	g.Go(func() {
		select {
		case <-ctx.Done():
		case <-over.Done():
			return
		}
		s.note("cancelling %s (Ctrl-C again leaves at once)", plural(len(ids), "task", "tasks"))
		cancelAll(over, c, ids)
		select {
		case <-time.After(orderlyEnd):
			s.note("not all have ended within %s; see `labmesh tasks`", orderlyEnd)
			stop()
		case <-over.Done():
		}
	})
	return func() { leave(); g.Wait() }
}

// followProgress shows what the log of a task says of its progress.
func followProgress(ctx context.Context, c *client.Client, j *benchJob, s *benchScreen) {
	q := client.LogQuery{Stream: client.Stdout, Follow: true, After: api.LogPosition{Attempt: 1}}
	lines := &lineWriter{each: func(line string) {
		if p, ok := bench.ParseProgress(line); ok {
			s.progress(j, p)
		}
	}}
	_, _ = copyFrames(ctx, c, j.id, q, lines, &notes{to: lines}) // without it the table is as good
}

// lineWriter calls each with every line that is written to it, without its end.
type lineWriter struct {
	each func(string)
	rest []byte
}

func (w *lineWriter) Write(p []byte) (int, error) {
	n := len(p)
	for {
		line, rest, ok := bytes.Cut(p, []byte("\n"))
		if len(w.rest)+len(line) > benchLineMax {
			w.rest = w.rest[:0] // it is nothing of ours
		} else {
			w.rest = append(w.rest, line...)
		}
		if !ok {
			return n, nil
		}
		w.each(strings.TrimSuffix(string(w.rest), "\r"))
		w.rest, p = w.rest[:0], rest
	}
}

// benchScreen shows how far benchmarks are: one line on a terminal that is drawn
// anew, elsewhere a line now and then.
type benchScreen struct {
	a     *app
	live  bool
	total int

	mu    sync.Mutex
	done  int
	bad   int
	drawn bool
	last  time.Time // of a plain line
	said  string
}

func (a *app) newBenchScreen(total int) *benchScreen {
	return &benchScreen{a: a, live: isTerminal(a.err), total: total, last: a.now()}
}

// progress shows how far one job is.
func (s *benchScreen) progress(j *benchJob, p bench.Progress) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.said = printable(j.name + ": " + p.String())
	s.show()
}

func (s *benchScreen) ended(v client.Verdict) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.done++
	if !v.OK() {
		s.bad++
	}
	s.show()
}

// show draws the line. The caller holds mu.
func (s *benchScreen) show() {
	line := s.said
	if s.total > 1 {
		of := fmt.Sprintf("%d/%d", s.done, s.total)
		if s.bad > 0 {
			of += ", " + s.a.paint(s.a.err, red, fmt.Sprintf("%d failed", s.bad))
		}
		line = of + "  " + line
	}
	switch {
	case s.live:
		fmt.Fprint(s.a.err, "\r\x1b[K", shorten(line, screenLineChars))
		s.drawn = true
	case s.a.now().Sub(s.last) >= screenLineEvery && line != "":
		s.last = s.a.now()
		s.a.note("labmesh: %s", line)
	}
}

// screenLineChars is how long a line is that is drawn anew: one that wraps could
// not be wiped.
const screenLineChars = 110

// note says something between two drawings.
func (s *benchScreen) note(format string, args ...any) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.wipe()
	s.a.note("labmesh: %s", printable(fmt.Sprintf(format, args...)))
}

func (s *benchScreen) end() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.wipe()
}

func (s *benchScreen) wipe() {
	if s.drawn {
		fmt.Fprint(s.a.err, "\r\x1b[K")
		s.drawn = false
	}
}

// collectBench asks for how the jobs ended and what they measured.
func (a *app) collectBench(ctx context.Context, c *client.Client, jobs []benchJob) (*benchReport, error) {
	tasks := make([]benchTask, len(jobs))
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(fetchersMax)
	for i := range jobs {
		g.Go(func() error {
			t, err := c.Task(gctx, jobs[i].id)
			if err != nil {
				return fmt.Errorf("how %s ended: %w", jobs[i].id, err)
			}
			tasks[i] = benchTask{job: &jobs[i], detail: t}
			for r, err := range c.Benchmarks(gctx, jobs[i].id) {
				if err != nil { // the other tasks are shown all the same
					tasks[i].lacks = fmt.Errorf("what %s measured could not be read: %w; try `labmesh sql` later", jobs[i].id, err)
					break
				}
				tasks[i].rows = append(tasks[i].rows, r)
			}
			return nil
		})
	}
	if err := g.Wait(); err != nil {
		return nil, err
	}
	hosts := map[labmesh.WorkerID]string{}
	if workers, err := c.Workers(ctx); err == nil { // without it their ids do
		for _, w := range workers {
			hosts[w.ID] = w.Hostname
		}
	}
	return newBenchReport(tasks, hosts), nil
}

// concludeBench prints the report, and is an error when the work failed.
func (a *app) concludeBench(r *benchReport, f *benchFlags, interrupted bool) error {
	if f.ab {
		if err := r.compare(f.files[0], f.files[1]); err != nil {
			return err
		}
	}
	if a.json {
		if err := a.printJSON(r); err != nil {
			return err
		}
	} else if err := a.printBench(r); err != nil {
		return err
	}
	if f.plot != "" && r.measured() {
		if err := r.draw(f.plot); err != nil {
			return err
		}
	}
	switch {
	case interrupted:
		return exitError{exitInterrupted, ""}
	case r.failed() > 0:
		return exitError{exitFailed, ""}
	case !r.measured():
		return exitError{exitFailed, "nothing could be measured"}
	case r.Comparison != nil:
		return compareFlags{gate: f.gate}.verdict(r.Comparison)
	case f.gate:
		return exitError{exitFailed, "gate: there is nothing to compare"}
	}
	return nil
}

// draw draws latency and throughput over the batch size.
func (r *benchReport) draw(file string) error {
	set, title := report.Curves(r.rows), "benchmark"
	if r.Comparison != nil {
		set = r.Comparison.Curves()
	}
	if len(set.Curves) > 0 {
		title = set.Curves[0].Model
	}
	return drawTo(file, func(w io.Writer, form plot.Format) error { return plot.Curves(w, title, set, form) })
}
