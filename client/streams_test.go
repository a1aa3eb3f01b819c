package client_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"labmesh"
	"labmesh/api"
	"labmesh/client"
)

// logNode serves one task whose output connections break off.
type logNode struct {
	status   labmesh.Phase
	attempts int
	logs     func(w http.ResponseWriter, r *http.Request, n int) // n counts the requests, from 1
	n        int
}

func (s *logNode) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if !strings.HasSuffix(r.URL.Path, "/logs") {
		reply(w, 200, api.TaskDetail{Task: api.Task{ID: "t1", Status: s.status, Attempts: s.attempts}})
		return
	}
	s.n++
	s.logs(w, r, s.n)
}

// logFrames answers with frames; those of other kinds than data have none.
func logFrames(w http.ResponseWriter, frames ...api.LogFrame) {
	w.Header().Set("Content-Type", api.LogFramesType)
	for _, f := range frames {
		_, _ = w.Write(f.AppendTo(nil))
	}
}

func logText(attempt int, offset int64, text string) api.LogFrame {
	return api.LogFrame{Kind: api.LogData, At: api.LogPosition{Attempt: attempt, Offset: offset}, Data: []byte(text)}
}

var logEnd = api.LogFrame{Kind: api.LogEnd}

func TestLogsGoOnAtTheByteWhereTheyWere(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		node := &logNode{status: labmesh.Running, attempts: 1}
		var asked []string
		node.logs = func(w http.ResponseWriter, r *http.Request, n int) {
			if q := r.URL.Query(); q.Get("follow") != "1" || q.Get("stream") != "stderr" || q.Get("frames") != "1" {
				t.Errorf("query %s", r.URL.RawQuery)
			}
			asked = append(asked, r.URL.Query().Get("after"))
			switch n {
			case 1:
				logFrames(w, api.LogFrame{Kind: api.LogStill}, logText(1, 0, "one\ntwo\n"))
				panic(http.ErrAbortHandler)
			case 2:
				refuse(w, 503, "restarting")
			case 3: // it ends, and does not say so
				logFrames(w, api.LogFrame{Kind: api.LogGap, At: api.LogPosition{Attempt: 1, Offset: 8}, Missing: 92}, logText(1, 100, "three\n"), api.LogFrame{Kind: api.LogStill})
			case 4:
				logFrames(w, api.LogFrame{Kind: api.LogBegin, At: api.LogPosition{Attempt: 2}})
				panic(http.ErrAbortHandler)
			case 5:
				logFrames(w, logText(2, 0, "four\n"), api.LogFrame{Kind: api.LogNote, At: api.LogPosition{Attempt: 2, Offset: 5}, Data: []byte("that is it")}, logEnd)
			}
		}
		r, err := newClient(t, node).Logs(t.Context(), "t1", client.LogQuery{Stream: client.Stderr, Follow: true})
		if err != nil {
			t.Fatal(err)
		}
		defer r.Close()
		got, err := io.ReadAll(r)
		want := "one\ntwo\n" + labmesh.LeftOut(92) + "three\n\n[labmesh: attempt 2 begins here]\nfour\n\n[labmesh: that is it]\n"
		if err != nil || string(got) != want || fmt.Sprint(asked) != "[ 1-8 1-8 1-106 2-0]" {
			t.Errorf("read %q, asked after %v, error %v", got, asked, err)
		}
		if r.Position() != (api.LogPosition{Attempt: 2, Offset: 5}) {
			t.Errorf("it is at %v", r.Position())
		}
	})
}

func TestASilentLogCountsAsLost(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		node := &logNode{status: labmesh.Running, attempts: 1}
		began := time.Now()
		node.logs = func(w http.ResponseWriter, r *http.Request, n int) {
			if n == 1 {
				logFrames(w, logText(1, 0, "one"))
				_ = http.NewResponseController(w).Flush()
				for range 20 { // quiet, and alive
					time.Sleep(15 * time.Second)
					logFrames(w, api.LogFrame{Kind: api.LogStill})
					_ = http.NewResponseController(w).Flush()
				}
				<-r.Context().Done()
				return
			}
			logFrames(w, logText(1, 3, "two"), logEnd)
		}
		r, err := newClient(t, node).Logs(t.Context(), "t1", client.LogQuery{Stream: client.Stdout, Follow: true})
		if err != nil {
			t.Fatal(err)
		}
		defer r.Close()
		got, err := io.ReadAll(r)
		if took := time.Since(began); err != nil || string(got) != "onetwo" || took < 6*time.Minute || took > 7*time.Minute {
			t.Errorf("read %q, error %v, after %s", got, err, took)
		}
	})
}

func TestLogsOfANodeThatStaysAwayEnd(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		node := &logNode{status: labmesh.Running, attempts: 1}
		node.logs = func(w http.ResponseWriter, _ *http.Request, n int) {
			if n == 1 {
				logFrames(w, logText(1, 0, "one"))
				panic(http.ErrAbortHandler)
			}
			refuse(w, 503, "no")
		}
		r, err := newClient(t, node).Logs(t.Context(), "t1", client.LogQuery{Stream: client.Stdout, Follow: true})
		if err != nil {
			t.Fatal(err)
		}
		defer r.Close()
		if got, err := io.ReadAll(r); string(got) != "one" || labmesh.ReasonOf(err) != labmesh.Unavailable {
			t.Errorf("read %q, error %v", got, err)
		}
		node.logs = func(w http.ResponseWriter, _ *http.Request, _ int) { refuse(w, 404, "no such task") }
		if _, err := newClient(t, node).Logs(t.Context(), "t1", client.LogQuery{Stream: client.Stdout, Follow: true}); labmesh.ReasonOf(err) != labmesh.NotFound {
			t.Errorf("output of a task that is not there: %v", err)
		}
	})
}

// eventNode serves events and tasks, and counts what it is asked.
type eventNode struct {
	mu     sync.Mutex
	events chan string // blocks to send; "" breaks the connection off
	after  []string    // the Last-Event-IDs it saw
	status map[labmesh.TaskID]labmesh.Phase
	asked  atomic.Int64 // for tasks
	refuse int          // status of /api/events, if it is refused
}

func (s *eventNode) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.URL.Path != "/api/events" {
		s.asked.Add(1)
		id := labmesh.TaskID(strings.TrimPrefix(r.URL.Path, "/api/tasks/"))
		s.mu.Lock()
		status := s.status[id]
		s.mu.Unlock()
		reply(w, 200, api.TaskDetail{Task: api.Task{ID: id, Status: status}})
		return
	}
	if s.refuse != 0 {
		refuse(w, s.refuse, "no events here")
		return
	}
	s.mu.Lock()
	s.after = append(s.after, r.Header.Get("Last-Event-ID"))
	s.mu.Unlock()
	w.Header().Set("Content-Type", "text/event-stream")
	w.WriteHeader(200)
	w.(http.Flusher).Flush()
	for {
		select {
		case e := <-s.events:
			if e == "" {
				panic(http.ErrAbortHandler)
			}
			_, _ = io.WriteString(w, e)
		case <-r.Context().Done():
			return
		}
	}
}

func (s *eventNode) end(id labmesh.TaskID, status labmesh.Phase) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.status[id] = status
}

func event(id string, ev api.Event) string {
	ev.ID = id
	data, err := json.Marshal(ev)
	if err != nil {
		panic(err)
	}
	return fmt.Sprintf("id: %s\nevent: %s\ndata: %s\n\n", id, ev.Type, data)
}

func ended(n int, id labmesh.TaskID, status labmesh.Phase) string {
	return event(fmt.Sprintf("%d-0", n), api.Event{Type: labmesh.TaskEnded, Task: &api.EventTask{Task: api.Task{ID: id, Status: status}, Error: "why"}})
}

func newEventNode() *eventNode {
	return &eventNode{events: make(chan string), status: map[labmesh.TaskID]labmesh.Phase{}}
}

var errEnough = errors.New("enough")

func TestEventsResumeAfterTheLastOne(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		node := newEventNode()
		go func() {
			node.events <- ": a comment\n\n" + event("3-0", api.Event{Type: labmesh.TaskStarted})
			node.events <- "" // lost
			node.events <- event("3-1", api.Event{Type: labmesh.TaskStarted})
		}()
		var got []string
		err := newClient(t, node).Events(t.Context(), "2-7", func(ev api.Event) error {
			if got = append(got, ev.ID); len(got) == 2 {
				return errEnough
			}
			return nil
		})
		if !errors.Is(err, errEnough) || fmt.Sprint(got) != "[3-0 3-1]" || fmt.Sprint(node.after) != "[2-7 3-0]" {
			t.Errorf("events %v asked for after %v, error %v", got, node.after, err)
		}
	})
}

func TestASilentEventStreamCountsAsLost(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		node := newEventNode()
		go func() {
			node.events <- event("1-0", api.Event{})
			time.Sleep(5 * time.Minute) // of silence
			node.events <- event("2-0", api.Event{})
		}()
		n := 0
		err := newClient(t, node).Events(t.Context(), "", func(api.Event) error {
			if n++; n == 2 {
				return errEnough
			}
			return nil
		})
		if !errors.Is(err, errEnough) || len(node.after) < 4 || node.after[len(node.after)-1] != "1-0" {
			t.Errorf("connections %v, error %v", node.after, err)
		}
	})
}

func TestWaitingForManyTasksCostsOneConnection(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		const many = 3_000
		node := newEventNode()
		c := newClient(t, node)
		w := c.Watch(t.Context())
		defer w.Close()
		var ids []labmesh.TaskID
		for i := range many {
			ids = append(ids, labmesh.TaskID(fmt.Sprint("t", i)))
		}
		go func() {
			for i, id := range ids {
				status := labmesh.Completed
				if i == 7 {
					status = labmesh.Failed
				}
				node.events <- ended(i, id, status)
			}
		}()
		got, failed := 0, 0
		err := w.Wait(t.Context(), ids, false, func(v client.Verdict) {
			if got++; !v.OK() {
				failed++
			}
		})
		if err != nil || got != many || failed != 1 {
			t.Errorf("%d verdicts, %d failed, error %v", got, failed, err)
		}
		if n := node.asked.Load(); n != 0 || len(node.after) != 1 {
			t.Errorf("asked for %d tasks over %d event streams, want 0 over 1", n, len(node.after))
		}
	})
}

func TestAVerdictInAGapIsNotMissed(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		node := newEventNode()
		w := newClient(t, node).Watch(t.Context())
		defer w.Close()
		node.events <- "" // lost before any event: there is nothing to resume after
		node.end("t1", labmesh.TimedOut)
		var got []client.Verdict
		if err := w.Wait(t.Context(), []labmesh.TaskID{"t1"}, false, func(v client.Verdict) { got = append(got, v) }); err != nil {
			t.Fatal(err)
		}
		if len(got) != 1 || got[0].Status != labmesh.TimedOut {
			t.Errorf("verdicts %+v", got)
		}
	})
}

func TestAVerdictBeforeTheEventsCouldBeHadIsNotMissed(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		node := newEventNode()
		var tries atomic.Int64
		c := newClient(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path == "/api/events" && tries.Add(1) == 1 {
				refuse(w, 503, "restarting")
				return
			}
			if node.ServeHTTP(w, r); r.URL.Path != "/api/events" && tries.Load() == 1 {
				node.end("t1", labmesh.Completed) // just after it was looked at
			}
		}))
		node.end("t1", labmesh.Running)
		w := c.Watch(t.Context())
		defer w.Close()
		got := 0
		if err := w.Wait(t.Context(), []labmesh.TaskID{"t1"}, false, func(client.Verdict) { got++ }); err != nil || got != 1 {
			t.Errorf("%d verdicts, error %v", got, err)
		}
	})
}

func TestANodeThatRestartsMayForgetForAWhile(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		node := newEventNode()
		var forgetful atomic.Int32
		c := newClient(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if status := forgetful.Load(); status != 0 {
				refuse(w, int(status), "this mesh knows no such thing")
				return
			}
			node.ServeHTTP(w, r)
		}))
		w := c.Watch(t.Context())
		defer w.Close()
		go func() {
			forgetful.Store(401)
			node.events <- "" // lost
			time.Sleep(2 * time.Second)
			forgetful.Store(404)
			time.Sleep(2 * time.Second)
			node.end("t1", labmesh.Completed)
			forgetful.Store(0)
		}()
		got := 0
		if err := w.Wait(t.Context(), []labmesh.TaskID{"t1"}, false, func(client.Verdict) { got++ }); err != nil || got != 1 {
			t.Errorf("%d verdicts, error %v", got, err)
		}
		time.Sleep(10 * time.Second) // until the events are back
		forgetful.Store(401)
		node.events <- ""
		start := time.Now()
		if err := w.Wait(t.Context(), []labmesh.TaskID{"t2"}, false, func(client.Verdict) {}); labmesh.ReasonOf(err) != labmesh.Denied || time.Since(start) > time.Minute {
			t.Errorf("a key that was revoked: error %v after %s", err, time.Since(start))
		}
	})
}

func TestWaitPollsWhereThereAreNoEvents(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		node := newEventNode()
		node.refuse = 404
		node.end("t1", labmesh.Completed)
		go func() {
			time.Sleep(time.Minute)
			node.end("t2", labmesh.Cancelled)
		}()
		var got []labmesh.TaskID
		err := newClient(t, node).Wait(t.Context(), []labmesh.TaskID{"t1", "t2"}, func(v client.Verdict) { got = append(got, v.ID) })
		if err != nil || fmt.Sprint(got) != "[t1 t2]" {
			t.Errorf("verdicts of %v, error %v", got, err)
		}
		if n := node.asked.Load(); n > 50 {
			t.Errorf("asked %d times in a minute", n)
		}
	})
}

func TestWaitForATaskThatIsNotThere(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		c := newClient(t, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { refuse(w, 404, "Task not found") }))
		if err := c.Wait(t.Context(), []labmesh.TaskID{"t1"}, func(client.Verdict) {}); labmesh.ReasonOf(err) != labmesh.NotFound {
			t.Errorf("error %v", err)
		}
	})
}
