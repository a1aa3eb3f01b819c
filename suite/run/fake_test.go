package run_test

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"sync"
	"time"

	"labmesh"
	"labmesh/api"
)

// fakeMesh runs the tasks of suites: a case takes its time and has its verdict.
type fakeMesh struct {
	collected string // what a worker collects
	verdict   func(id string, try int) (labmesh.TestVerdict, time.Duration)
	pending   time.Duration // how long the collection waits for a worker
	kill      map[labmesh.WorkerID]time.Duration

	mu      sync.Mutex
	wg      sync.WaitGroup
	workers []labmesh.WorkerID
	dead    map[labmesh.WorkerID]bool
	busy    map[labmesh.WorkerID]chan struct{}
	tasks   map[labmesh.TaskID]*fakeTask
	records map[labmesh.TaskID][]labmesh.TestCase
	index   uint64
	feeds   map[chan api.Event]func()
	deaf    bool // events are lost
	runs    map[string]int
	specs   []labmesh.Spec
}

type fakeTask struct {
	api.TaskDetail
	cancel chan struct{}
	gone   sync.Once
}

func newFake(workers ...labmesh.WorkerID) *fakeMesh {
	m := &fakeMesh{
		workers: workers, dead: map[labmesh.WorkerID]bool{}, busy: map[labmesh.WorkerID]chan struct{}{}, tasks: map[labmesh.TaskID]*fakeTask{},
		records: map[labmesh.TaskID][]labmesh.TestCase{}, feeds: map[chan api.Event]func(){}, runs: map[string]int{},
		verdict: func(string, int) (labmesh.TestVerdict, time.Duration) {
			return labmesh.TestPassed, 100 * time.Millisecond
		},
	}
	for _, w := range workers {
		m.busy[w] = make(chan struct{}, 1)
	}
	return m
}

func (m *fakeMesh) tell(ev api.Event) {
	m.index++
	if m.deaf {
		return
	}
	for ch := range m.feeds {
		ch <- ev
	}
}

func (m *fakeMesh) Feed(ctx context.Context, opened func(bool), each func(api.Event) error) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	ch := make(chan api.Event, 100_000)
	m.mu.Lock()
	m.feeds[ch] = cancel
	m.mu.Unlock()
	defer func() { m.mu.Lock(); delete(m.feeds, ch); m.mu.Unlock() }()
	opened(false)
	for {
		select {
		case ev := <-ch:
			if err := each(ev); err != nil {
				return err
			}
		case <-ctx.Done():
			return labmesh.Refuse(labmesh.Unavailable, "the stream broke off")
		}
	}
}

func (m *fakeMesh) Submit(_ context.Context, s labmesh.Spec) (api.SubmitReply, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.tasks[s.TaskID] != nil {
		return api.SubmitReply{ID: s.TaskID}, nil
	}
	if err := api.ValidateSpec(&s); err != nil {
		return api.SubmitReply{}, err
	}
	m.specs = append(m.specs, s)
	t := &fakeTask{cancel: make(chan struct{})}
	t.ID, t.Status, t.Labels = s.TaskID, labmesh.Pending, s.Labels
	m.tasks[s.TaskID] = t
	m.wg.Go(func() { m.run(t, s) })
	return api.SubmitReply{ID: s.TaskID, Created: true}, nil
}

type fakeConfig struct {
	Collect bool
	Cases   []string
	Try     int
}

func (m *fakeMesh) run(t *fakeTask, s labmesh.Spec) {
	var c fakeConfig
	if err := json.Unmarshal(s.Config, &c); err != nil {
		panic(err)
	}
	if c.Collect {
		select {
		case <-time.After(m.pending):
			m.end(t, labmesh.Completed, "", "")
		case <-t.cancel:
			m.end(t, labmesh.Cancelled, labmesh.CauseCancelled, "interrupted")
		}
		return
	}
	w := s.Requirements.WorkerID
	select {
	case m.busy[w] <- struct{}{}:
		defer func() { <-m.busy[w] }()
	case <-t.cancel:
		m.end(t, labmesh.Cancelled, labmesh.CauseCancelled, "")
		return
	}
	time.Sleep(20 * time.Millisecond)
	m.mu.Lock()
	t.Status, t.Worker, t.Attempts, t.Started = labmesh.Running, api.Text(w), 1, api.Time{Time: time.Now()}
	m.tell(api.Event{Type: labmesh.TaskStarted, Task: &api.EventTask{Task: t.Task}})
	m.mu.Unlock()
	time.Sleep(300 * time.Millisecond)
	bad := false
	for i, id := range c.Cases {
		v, took := m.verdict(id, c.Try)
		select {
		case <-time.After(took):
		case <-t.cancel:
			m.end(t, labmesh.Cancelled, labmesh.CauseCancelled, "")
			return
		}
		m.mu.Lock()
		if m.dead[w] {
			m.mu.Unlock()
			time.Sleep(800 * time.Millisecond)
			m.end(t, labmesh.Failed, labmesh.CauseWorkerLost, "the worker was lost")
			return
		}
		m.runs[id]++
		file, name, _ := strings.Cut(id, "::")
		tc := labmesh.TestCase{File: file, Name: name, Verdict: v, Seconds: took.Seconds(), Try: c.Try, Message: "said " + string(v)}
		bad = bad || v.Bad()
		m.records[t.ID] = append(m.records[t.ID], tc)
		m.tell(api.Event{Type: labmesh.TestsRecorded, Tests: &api.EventTests{Task: t.ID, Attempt: 1, Worker: w, From: i, Cases: []labmesh.TestCase{tc}}})
		m.mu.Unlock()
	}
	if bad {
		m.end(t, labmesh.Failed, labmesh.CauseExit, "tests failed")
	} else {
		m.end(t, labmesh.Completed, "", "")
	}
}

func (m *fakeMesh) end(t *fakeTask, p labmesh.Phase, cause labmesh.Cause, message string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	t.Status, t.Cause, t.Error, t.Ended = p, api.Text(cause), api.Text(message), api.Time{Time: time.Now()}
	m.tell(api.Event{Type: labmesh.TaskEnded, Task: &api.EventTask{Task: t.Task, Error: t.Error, Cause: t.Cause}})
	t.Index = m.index
}

func (m *fakeMesh) Cancel(_ context.Context, id labmesh.TaskID, _ string) (api.CancelReply, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if t := m.tasks[id]; t != nil {
		t.gone.Do(func() { close(t.cancel) })
	}
	return api.CancelReply{ID: id}, nil
}

func (m *fakeMesh) Task(_ context.Context, id labmesh.TaskID) (api.TaskDetail, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	t := m.tasks[id]
	if t == nil {
		return api.TaskDetail{}, labmesh.Refuse(labmesh.NotFound, "there is no task %s", id)
	}
	return t.TaskDetail, nil
}

func (m *fakeMesh) Why(_ context.Context, id labmesh.TaskID) (api.Why, error) {
	return api.Why{Task: id, Status: labmesh.Pending, Summary: "no worker fits it", Workers: []api.WhyWorker{{Worker: "w1", Reasons: []string{"these tools are not on it: pytest"}}}}, nil
}

func (m *fakeMesh) Workers(context.Context) (list []api.WorkerSummary, err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, id := range m.workers {
		status := "active"
		if m.dead[id] {
			status = "offline"
		}
		list = append(list, api.WorkerSummary{ID: id, Hostname: "host-" + string(id), Status: status, Slots: 1})
	}
	return list, nil
}

func (m *fakeMesh) Worker(_ context.Context, id labmesh.WorkerID) (api.Worker, error) {
	return api.Worker{
		WorkerSummary: api.WorkerSummary{ID: id, Hostname: "host-" + string(id), Slots: 1, Status: "active"}, Kinds: labmesh.Kinds(),
		Full: labmesh.Capabilities{Tools: map[string]string{"pytest": "7", "python3": "3", "gdb": "14"}, Sandboxes: []labmesh.Sandbox{labmesh.SandboxNoNetwork}},
	}, nil
}

// Query knows one query: that for what a task recorded.
func (m *fakeMesh) Query(_ context.Context, q api.QueryRequest) (api.QueryReply, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	reply := api.QueryReply{Index: m.index, Columns: []string{"place", "attempt", "worker_id", "framework", "file", "name", "parameters", "verdict", "seconds", "try", "message", "log_ref", "quarantined"}}
	_, rest, ok := strings.Cut(q.SQL, "task_id = '")
	if !ok {
		return reply, nil
	}
	id, _, _ := strings.Cut(rest, "'")
	for i, c := range m.records[labmesh.TaskID(id)] {
		reply.Rows = append(reply.Rows, []any{json.Number(fmt.Sprint(i)), json.Number("1"), string(m.tasks[labmesh.TaskID(id)].Worker), "pytest", c.File, c.Name, nil,
			string(c.Verdict), json.Number(fmt.Sprint(c.Seconds)), json.Number(fmt.Sprint(c.Try)), c.Message, nil, false})
	}
	return reply, nil
}

func (m *fakeMesh) Artifact(_ context.Context, _ labmesh.TaskID, path string) (io.ReadCloser, error) {
	if path != ".labmesh/collected.jsonl" {
		return nil, labmesh.Refuse(labmesh.NotFound, "there is no %s", path)
	}
	return io.NopCloser(strings.NewReader(m.collected)), nil
}
