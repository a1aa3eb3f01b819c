package run

import (
	"context"
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"time"

	"labmesh"
	"labmesh/api"
	"labmesh/suite"
)

// feed passes the events of the mesh on to the loop, for as long as there is
// patience with it.
func (r *runner) feed(ready chan struct{}) {
	var first sync.Once
	since, had := time.Now(), false
	for r.work.Err() == nil {
		err := r.Mesh.Feed(r.work, func(gap bool) {
			gap = gap || had
			had = true
			first.Do(func() { close(ready) })
			if gap {
				select {
				case r.gaps <- struct{}{}:
				default: // one is due already
				}
			}
		}, func(ev api.Event) error {
			since = time.Now()
			switch ev.Type {
			case labmesh.TaskStarted, labmesh.TaskEnded, labmesh.TestsRecorded, labmesh.WorkerJoined, labmesh.WorkerUpdated, labmesh.WorkerGone:
			default:
				return nil
			}
			select {
			case r.events <- ev:
			case <-r.work.Done():
			}
			return nil
		})
		reason := labmesh.ReasonOf(err)
		lasting := !had && reason != labmesh.Unavailable && reason != labmesh.Exhausted
		if r.work.Err() == nil && (lasting || time.Since(since) > r.Patience) {
			r.fail(fmt.Errorf("follow the events of the mesh: %w", err))
			return
		}
		sleep(r.work, time.Second)
	}
}

// hear takes an event.
func (r *runner) hear(ev api.Event) {
	switch ev.Type {
	case labmesh.WorkerJoined, labmesh.WorkerUpdated, labmesh.WorkerGone:
		r.fleet.forget(ev)
	case labmesh.TestsRecorded:
		if ev.Tests == nil {
			return
		}
		if t := r.chunks[ev.Tests.Task]; t != nil {
			r.recorded(t, ev.Tests)
		}
	case labmesh.TaskStarted:
		if t := r.known(ev); t != nil {
			r.started(t, ev.Task.Task)
		}
	case labmesh.TaskEnded:
		if t := r.known(ev); t != nil {
			if t.behind {
				r.check(t)
				return
			}
			r.ended(t, ev.Task.Task, string(ev.Task.Error), labmesh.Cause(ev.Task.Cause))
		}
	}
}

func (r *runner) known(ev api.Event) *task {
	if ev.Task == nil {
		return nil
	}
	t := r.chunks[ev.Task.ID]
	if t != nil {
		t.heard = time.Now()
	}
	return t
}

func (r *runner) started(t *task, info api.Task) {
	t.attempt = max(t.attempt, info.Attempts)
	r.queue.Started(t.chunk.ID, time.Now())
}

func (r *runner) recorded(t *task, tests *api.EventTests) {
	t.heard = time.Now()
	src := suite.Source{Task: t.id, Attempt: tests.Attempt, Worker: tests.Worker}
	if !r.queue.Recorded(t.chunk.ID, src, tests.From, tests.Cases, time.Now()) || tests.Omitted > 0 {
		t.behind = true // the ledger has them all
	}
}

func (r *runner) ended(t *task, info api.Task, message string, cause labmesh.Cause) {
	end := suite.End{OK: info.Status == labmesh.Completed, Started: !info.Started.IsZero(), Cause: cause, Error: message}
	if cause == labmesh.CauseCancelled && !t.recalled {
		r.queue.Stop("somebody cancelled " + string(t.id))
	}
	src := suite.Source{Task: t.id, Attempt: info.Attempts, Worker: labmesh.WorkerID(info.Worker)}
	r.queue.Ended(t.chunk.ID, src, end, time.Now())
	delete(r.chunks, t.id)
	if end.Started {
		s := r.shares[src.Worker]
		s.Chunks++
		r.shares[src.Worker] = s
	}
}

// catchUp asks after the chunks that are out: after all, or after those of which
// there was no word for a while.
func (r *runner) catchUp(quiet bool) {
	for _, id := range r.queue.Out() {
		t := r.byID[id]
		if t == nil || quiet && time.Since(t.heard) < checkEvery {
			continue
		}
		r.check(t)
	}
}

// check asks how a chunk stands, and reads its records from the ledger where
// events of them may have been missed.
func (r *runner) check(t *task) {
	t.heard = time.Now()
	detail, err := r.Mesh.Task(r.work, t.id)
	if err != nil {
		return // not there yet, or nobody answers: the next time, or the submit, will tell
	}
	if !detail.Started.IsZero() {
		r.started(t, detail.Task)
	}
	if detail.Attempts > 0 && (detail.Status.Final() || t.behind) {
		tests, err := r.ledger(t, detail)
		if err != nil {
			r.Note("labmesh: read what %s recorded: %v", t.id, err)
			return
		}
		t.behind = false
		for _, part := range tests {
			r.recorded(t, &part)
		}
	}
	if detail.Status.Final() {
		r.ended(t, detail.Task, string(detail.Error), labmesh.Cause(detail.Cause))
	}
}

// ledger reads all that a chunk recorded, once the ledger has it.
func (r *runner) ledger(t *task, detail api.TaskDetail) (tests []api.EventTests, err error) {
	ctx, cancel := context.WithTimeout(r.work, ledgerWait)
	defer cancel()
	q := api.QueryRequest{MaxRows: api.QueryRowsMax, SQL: fmt.Sprintf(`SELECT place, attempt, worker_id, framework, file, name, parameters, verdict, seconds, try, message, log_ref, quarantined
FROM test_results WHERE task_id = %s ORDER BY attempt, place`, quote(string(t.id)))}
	for {
		reply, err := r.Mesh.Query(ctx, q)
		if err != nil {
			return nil, err
		}
		if reply.Index >= detail.Index {
			return decodeTests(t.id, reply), nil
		}
		if !sleep(ctx, tickEvery) {
			return nil, fmt.Errorf("the ledger is behind the log for more than %s", ledgerWait)
		}
	}
}

func decodeTests(id labmesh.TaskID, reply api.QueryReply) (tests []api.EventTests) {
	at := map[string]int{}
	for i, c := range reply.Columns {
		at[c] = i
	}
	for _, row := range reply.Rows {
		text := func(column string) string {
			if i, ok := at[column]; ok && i < len(row) {
				if s, ok := row[i].(string); ok {
					return s
				}
			}
			return ""
		}
		number := func(column string) float64 {
			if i, ok := at[column]; ok && i < len(row) {
				return asNumber(row[i])
			}
			return 0
		}
		quarantined := false
		if i, ok := at["quarantined"]; ok {
			quarantined, _ = row[i].(bool)
		}
		tests = append(tests, api.EventTests{
			Task: id, Attempt: int(number("attempt")), Worker: labmesh.WorkerID(text("worker_id")), From: int(number("place")),
			Cases: []labmesh.TestCase{{
				Framework: text("framework"), File: text("file"), Name: text("name"), Params: text("parameters"),
				Verdict: labmesh.TestVerdict(text("verdict")), Seconds: number("seconds"), Try: int(number("try")),
				Message: text("message"), Log: text("log_ref"), Quarantined: quarantined,
			}},
		})
	}
	return tests
}

func asNumber(v any) float64 {
	switch v := v.(type) {
	case json.Number:
		f, _ := v.Float64() // what is no number counts as 0
		return f
	case float64:
		return v
	case string:
		f, _ := strconv.ParseFloat(v, 64) // as above
		return f
	}
	return 0
}

// quote is s as a string of SQL.
func quote(s string) string { return "'" + strings.ReplaceAll(s, "'", "''") + "'" }

func encode(v any) json.RawMessage {
	data, err := json.Marshal(v)
	if err != nil {
		return nil // it is made of strings and numbers: it cannot be
	}
	return data
}
