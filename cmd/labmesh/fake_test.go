package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"labmesh"
	"labmesh/api"
)

// fakeNode answers as a node does. What becomes of a task is up to fate.
type fakeNode struct {
	*httptest.Server
	// fate sets how a submitted task ends; a task it leaves pending goes on
	// until it is cancelled.
	fate func(labmesh.Spec, *api.TaskDetail)
	// override answers a request in place of the node, and reports whether it did.
	override func(http.ResponseWriter, *http.Request) bool
	logs     map[string]string // by stream
	// measured is what a benchmark that was submitted leaves.
	measured func(labmesh.Spec) []labmesh.BenchRow
	workers  []api.Worker

	mu        sync.Mutex
	tasks     map[labmesh.TaskID]*api.TaskDetail
	specs     []labmesh.Spec
	rows      map[labmesh.TaskID][]labmesh.BenchRow
	batches   int
	events    []api.Event
	changed   chan struct{}
	submitted chan struct{} // closed by the first submit
}

const fakeKey = "lm_key"

func newFakeNode(t *testing.T) *fakeNode {
	t.Helper()
	n := &fakeNode{
		tasks: map[labmesh.TaskID]*api.TaskDetail{}, changed: make(chan struct{}), submitted: make(chan struct{}),
		fate: func(_ labmesh.Spec, t *api.TaskDetail) {
			t.Status = labmesh.Completed
			t.Result = json.RawMessage(`{"exit_code":0}`)
		},
	}
	mux := http.NewServeMux()
	mux.HandleFunc("POST /api/tasks", n.submit)
	mux.HandleFunc("POST /api/tasks/batch", n.batch)
	mux.HandleFunc("GET /api/tasks", n.list)
	mux.HandleFunc("GET /api/tasks/{id}", n.task)
	mux.HandleFunc("POST /api/tasks/{id}/cancel", n.cancel)
	mux.HandleFunc("GET /api/tasks/{id}/logs", n.log)
	mux.HandleFunc("GET /api/events", n.stream)
	mux.HandleFunc("GET /api/tasks/{id}/benchmarks", n.benchmarks)
	mux.HandleFunc("GET /api/workers", n.listWorkers)
	mux.HandleFunc("GET /api/workers/{id}", n.worker)
	n.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case r.Header.Get("X-API-Key") != fakeKey:
			answer(w, 401, api.Error{Message: "Authentication required"})
		case n.override == nil || !n.override(w, r):
			mux.ServeHTTP(w, r)
		}
	}))
	t.Cleanup(n.Close)
	return n
}

func answer(w http.ResponseWriter, status int, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(v)
}

func (n *fakeNode) add(s labmesh.Spec) labmesh.TaskID {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.specs = append(n.specs, s)
	started := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	t := &api.TaskDetail{Config: s.Config, Task: api.Task{
		ID: labmesh.TaskID(fmt.Sprint("t", len(n.specs))), Kind: s.Kind, Name: api.Text(s.Name), Status: labmesh.Pending, Priority: s.Priority,
		Worker: "w1", Attempts: 1, Created: api.Time{Time: started}, Started: api.Time{Time: started}, Ended: api.Time{Time: started.Add(1500 * time.Millisecond)},
	}}
	n.fate(s, t)
	n.tasks[t.ID] = t
	if n.measured != nil {
		if n.rows == nil {
			n.rows = map[labmesh.TaskID][]labmesh.BenchRow{}
		}
		n.rows[t.ID] = n.measured(s)
	}
	if t.Status.Final() {
		n.ended(t)
	}
	if len(n.specs) == 1 {
		close(n.submitted)
	}
	return t.ID
}

// ended tells those who follow the events. The caller holds mu.
func (n *fakeNode) ended(t *api.TaskDetail) {
	n.events = append(n.events, api.Event{Type: labmesh.TaskEnded, Task: &api.EventTask{Task: t.Task, Error: t.Error}})
	close(n.changed)
	n.changed = make(chan struct{})
}

func (n *fakeNode) submit(w http.ResponseWriter, r *http.Request) {
	var s labmesh.Spec
	if err := json.NewDecoder(r.Body).Decode(&s); err != nil {
		answer(w, 400, api.Error{Message: err.Error()})
		return
	}
	answer(w, 200, api.SubmitReply{ID: n.add(s), Created: true})
}

func (n *fakeNode) batch(w http.ResponseWriter, r *http.Request) {
	var b api.BatchRequest
	if err := json.NewDecoder(r.Body).Decode(&b); err != nil {
		answer(w, 400, api.Error{Message: err.Error()})
		return
	}
	n.batches++
	reply := api.BatchReply{Created: len(b.Tasks)}
	for _, s := range b.Tasks {
		reply.IDs = append(reply.IDs, n.add(s))
	}
	answer(w, 200, reply)
}

func (n *fakeNode) list(w http.ResponseWriter, _ *http.Request) {
	n.mu.Lock()
	defer n.mu.Unlock()
	list := api.TaskList{Tasks: []api.Task{}}
	for i := range n.specs {
		list.Tasks = append(list.Tasks, n.tasks[labmesh.TaskID(fmt.Sprint("t", i+1))].Task)
	}
	answer(w, 200, list)
}

func (n *fakeNode) find(w http.ResponseWriter, r *http.Request) *api.TaskDetail {
	t := n.tasks[labmesh.TaskID(r.PathValue("id"))]
	if t == nil {
		answer(w, 404, api.Error{Message: "Task not found"})
	}
	return t
}

func (n *fakeNode) task(w http.ResponseWriter, r *http.Request) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if t := n.find(w, r); t != nil {
		answer(w, 200, t)
	}
}

func (n *fakeNode) cancel(w http.ResponseWriter, r *http.Request) {
	n.mu.Lock()
	defer n.mu.Unlock()
	t := n.find(w, r)
	switch {
	case t == nil:
	case t.Status.Final():
		answer(w, 400, api.Error{Message: "Cannot cancel task in " + string(t.Status) + " state"})
	default:
		t.Status = labmesh.Cancelled
		n.ended(t)
		answer(w, 200, api.CancelReply{ID: t.ID, Cancelled: true, Message: "Task cancelled"})
	}
}

// benchmarks answers in pages of seven.
func (n *fakeNode) benchmarks(w http.ResponseWriter, r *http.Request) {
	n.mu.Lock()
	defer n.mu.Unlock()
	t := n.find(w, r)
	if t == nil {
		return
	}
	rows := n.rows[t.ID]
	from, _ := strconv.Atoi(r.URL.Query().Get("cursor"))
	upto := min(from+7, len(rows))
	list := api.BenchList{Rows: []api.BenchTaskRow{}}
	for i := from; i < upto; i++ {
		list.Rows = append(list.Rows, api.BenchTaskRow{ID: int64(i), Task: t.ID, Attempt: 1, Worker: labmesh.WorkerID(t.Worker), Place: i, BenchRow: rows[i]})
	}
	if upto < len(rows) {
		list.NextCursor = strconv.Itoa(upto)
	}
	answer(w, 200, list)
}

func (n *fakeNode) listWorkers(w http.ResponseWriter, _ *http.Request) {
	list := api.WorkerList{Workers: []api.WorkerSummary{}}
	for _, x := range n.workers {
		list.Workers = append(list.Workers, x.WorkerSummary)
	}
	answer(w, 200, list)
}

func (n *fakeNode) worker(w http.ResponseWriter, r *http.Request) {
	for _, x := range n.workers {
		if string(x.ID) == r.PathValue("id") {
			answer(w, 200, x)
			return
		}
	}
	answer(w, 404, api.Error{Message: "Worker not found"})
}

func (n *fakeNode) log(w http.ResponseWriter, r *http.Request) {
	text, ok := n.logs[r.URL.Query().Get("stream")]
	if !ok {
		answer(w, 404, api.Error{Message: "no output"})
		return
	}
	w.Header().Set("Content-Type", api.LogFramesType)
	wire := api.LogFrame{Kind: api.LogData, At: api.LogPosition{Attempt: 1}, Data: []byte(text)}.AppendTo(nil)
	_, _ = w.Write(api.LogFrame{Kind: api.LogEnd}.AppendTo(wire))
}

func (n *fakeNode) stream(w http.ResponseWriter, r *http.Request) {
	n.mu.Lock()
	sent := len(n.events)
	n.mu.Unlock()
	w.Header().Set("Content-Type", "text/event-stream")
	w.WriteHeader(200)
	w.(http.Flusher).Flush()
	for {
		n.mu.Lock()
		news, changed := n.events[sent:], n.changed
		n.mu.Unlock()
		for _, ev := range news {
			sent++
			ev.ID = fmt.Sprintf("%d-0", sent)
			data, _ := json.Marshal(ev)
			fmt.Fprintf(w, "id: %s\ndata: %s\n\n", ev.ID, data)
		}
		w.(http.Flusher).Flush()
		select {
		case <-changed:
		case <-r.Context().Done():
			return
		}
	}
}

// ran is what came of a command line.
type ran struct {
	code        int
	stdout, err string
}

// labmeshWith runs a command line against the node, in this process.
func (n *fakeNode) labmesh(t *testing.T, args ...string) ran {
	t.Helper()
	return n.with(t, t.Context(), "", nil, args...)
}

func (n *fakeNode) with(t *testing.T, ctx context.Context, stdin string, env map[string]string, args ...string) ran {
	t.Helper()
	all := map[string]string{"LABMESH_ADDR": n.URL, "LABMESH_API_KEY": fakeKey, "HOME": "/nowhere"}
	for k, v := range env {
		all[k] = v
	}
	return labmeshWith(ctx, stdin, all, args...)
}

func labmeshWith(ctx context.Context, stdin string, env map[string]string, args ...string) ran {
	var out, errw bytes.Buffer
	a := newApp(strings.NewReader(stdin), &out, &errw, func(name string) (string, bool) { v, ok := env[name]; return v, ok })
	a.now = func() time.Time { return time.Date(2026, 1, 2, 3, 5, 0, 0, time.UTC) }
	code := run(ctx, a, args)
	return ran{code, out.String(), errw.String()}
}

// want checks the exit code, all of stdout, and what stderr holds.
func (r ran) want(t *testing.T, code int, stdout, inErr string) {
	t.Helper()
	if r.code != code || r.stdout != stdout || !strings.Contains(r.err, inErr) || (inErr == "" && r.err != "") {
		t.Errorf("exit code %d, want %d\nstdout %q\n  want %q\nstderr %q\n  want %q in it", r.code, code, r.stdout, stdout, r.err, inErr)
	}
}
