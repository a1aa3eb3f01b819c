package nodetest_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"labmesh"
	"labmesh/api"
	"labmesh/exec"
	"labmesh/node/nodetest"
	"labmesh/scheduler"
)

// call sends a request to the door of a node, with the key of the person at its machine.
func call(t *testing.T, m *nodetest.Mesh, i int, method, path string, body, reply any) int {
	t.Helper()
	var access struct {
		Key string `json:"api_key"`
	}
	data, err := os.ReadFile(filepath.Join(m.Dir(i), "api.json"))
	if err == nil {
		err = json.Unmarshal(data, &access)
	}
	if err != nil {
		t.Fatal(err)
	}
	if data = nil; body != nil {
		if data, err = json.Marshal(body); err != nil {
			t.Fatal(err)
		}
	}
	r := httptest.NewRequestWithContext(t.Context(), method, "http://localhost"+path, bytes.NewReader(data))
	r.Header.Set("X-API-Key", access.Key)
	w := httptest.NewRecorder()
	m.Nodes[i].Handler().ServeHTTP(w, r)
	if reply != nil && w.Code < 300 {
		if err := json.Unmarshal(w.Body.Bytes(), reply); err != nil {
			t.Fatalf("%s %s: %v in %s", method, path, err, w.Body)
		}
	}
	return w.Code
}

// submitTo submits through the door of a node a task for a worker, or any worker for "".
func submitTo(t *testing.T, m *nodetest.Mesh, i int, worker string) labmesh.TaskID {
	t.Helper()
	task := map[string]any{"type": "custom", "config": map[string]any{"name": "x"}}
	if worker != "" {
		task["requirements"] = map[string]any{"worker_id": worker}
	}
	for range 100 {
		var reply struct {
			ID labmesh.TaskID `json:"task_id"`
		}
		switch code := call(t, m, i, http.MethodPost, "/api/tasks", task, &reply); code {
		case http.StatusOK, http.StatusCreated:
			return reply.ID
		case http.StatusServiceUnavailable:
		default:
			t.Fatalf("submit through node %d: status %d, %+v", i, code, reply)
		}
		time.Sleep(100 * time.Millisecond)
	}
	t.Fatalf("submit through node %d: unavailable for 10 seconds", i)
	return ""
}

// via is the index of the replica that a leaf asks.
func via(t *testing.T, m *nodetest.Mesh, leaf *nodetest.Node) int {
	t.Helper()
	at := -1
	m.Wait(t, time.Minute, "the leaf to ask a replica", func() bool {
		at = slices.IndexFunc(m.Nodes, func(n *nodetest.Node) bool { return n.ID() == leaf.Status(t.Context()).Via })
		return at >= 0
	})
	return at
}

func TestALeafWorksAndAnswersWithoutTheLog(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m, r := start(t, 3, 5*time.Second)
		leaf := m.JoinLeaf(t)
		time.Sleep(20 * time.Second) // in which a node that wants the log would have it
		s := m.Nodes[0].Status(t.Context())
		if len(s.Replicas) != 3 || !slices.Equal(s.Leaves, []labmesh.NodeID{leaf.ID()}) {
			t.Errorf("replicas %v, leaves %v, want the fourth node to be a leaf", s.Replicas, s.Leaves)
		}
		id := submitTo(t, m, leaf.Index, "w3")
		m.Wait(t, time.Minute, "it to end", func() bool { return m.Task(t, 0, id).Phase.Final() })
		if task := ended(t, m, id, labmesh.Completed, 0); task.Worker != "w3" || task.Attempt != 1 || r.Starts(id) != 1 {
			t.Errorf("it ran on %s in %d attempts, started %d times", task.Worker, task.Attempt, r.Starts(id))
		}
		var seen struct {
			Status string `json:"status"`
		}
		if code := call(t, m, leaf.Index, http.MethodGet, "/api/tasks/"+string(id), nil, &seen); code != http.StatusOK || seen.Status != "completed" {
			t.Errorf("the leaf says %d, %q of it", code, seen.Status)
		}
		var status api.Status
		call(t, m, leaf.Index, http.MethodGet, "/status", nil, &status)
		if status.Role != "leaf" || status.Node != leaf.ID() || !slices.Contains(s.Replicas, status.Via) || status.Workers.Total != 4 {
			t.Errorf("status of the leaf: %+v", status)
		}
		for _, path := range []string{"/healthz", "/readyz", "/metrics"} {
			if code := call(t, m, leaf.Index, http.MethodGet, path, nil, nil); code != http.StatusOK {
				t.Errorf("%s of the leaf: status %d", path, code)
			}
		}

		// A cancel reaches it.
		id = submitTo(t, m, leaf.Index, "w3")
		m.Wait(t, time.Minute, "it to run", func() bool { return r.Running() == 1 })
		if code := call(t, m, leaf.Index, http.MethodPost, "/api/tasks/"+string(id)+"/cancel", nil, nil); code != http.StatusOK {
			t.Errorf("cancel through the leaf: status %d", code)
		}
		m.Wait(t, 2*time.Second, "it to be stopped", func() bool { return m.Task(t, 0, id).Phase == labmesh.Cancelled })
	})
}

func TestANodeBeyondMaxReplicasIsALeaf(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m, _ := start(t, 3, time.Second)
		m.MaxReplicas = 3
		for i := range m.Nodes {
			m.Halt(t, i)
			m.Run(t, i)
		}
		n := m.Join(t, nodetest.Plain())
		if !n.Node.Leaf() {
			t.Fatal("the fourth node of a mesh of three replicas is no leaf")
		}
		m.Halt(t, n.Index)
		m.Run(t, n.Index)
		if !n.Node.Leaf() {
			t.Error("it is none after a restart")
		}
	})
}

func TestALeafOutlivesItsReplicaAndTheLeader(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m, r := start(t, 3, 30*time.Second)
		leaf := m.JoinLeaf(t)
		var ids []labmesh.TaskID
		for range nodetest.Slots {
			ids = append(ids, submitTo(t, m, leaf.Index, "w3"))
		}
		m.Wait(t, time.Minute, "all to run", func() bool { return r.Running() == len(ids) })

		first := via(t, m, leaf)
		m.Cut(first) // it does not end: it falls silent
		began := time.Now()
		m.Wait(t, time.Minute, "the leaf to move on", func() bool { return via(t, m, leaf) != first })
		t.Logf("the leaf asks another replica %s after its own fell silent", time.Since(began))
		m.Heal(first)
		time.Sleep(5 * time.Second)
		leader := m.Leader(t)
		m.Halt(t, leader.Index)
		next := m.Leader(t, leader.Index)
		m.Wait(t, time.Minute, "all to end", func() bool { return r.Running() == 0 })
		time.Sleep(5 * time.Second)
		for _, id := range ids {
			if task := ended(t, m, id, labmesh.Completed, next.Index); task.Attempt != 1 || r.Starts(id) != 1 {
				t.Errorf("%s took %d attempts and was started %d times", id, task.Attempt, r.Starts(id))
			}
		}
		id := submitTo(t, m, leaf.Index, "w3")
		m.Wait(t, time.Minute, "one more to end", func() bool { return m.Task(t, next.Index, id).Phase == labmesh.Completed })
	})
}

func TestALeafThatComesBackGoesOn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m, r := start(t, 3, 20*time.Second)
		leaf := m.JoinLeaf(t)
		id := submitTo(t, m, leaf.Index, "w3")
		m.Wait(t, time.Minute, "it to run", func() bool { return r.Running() == 1 })
		m.Halt(t, leaf.Index) // in order: what runs is handed back
		time.Sleep(3 * time.Second)
		m.Run(t, leaf.Index)
		m.Wait(t, 2*time.Minute, "it to end", func() bool { return m.Task(t, 0, id).Phase.Final() })
		if task := ended(t, m, id, labmesh.Completed, 0); task.Worker != "w3" || task.Failed != 0 {
			t.Errorf("it ran on %s, and %d attempts are counted as its own failure", task.Worker, task.Failed)
		}
	})
}

func TestALeafWithoutAnyReplicaKeepsItsWorkAndTellsOfItLater(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m, r := start(t, 3, 3*time.Second)
		leaf := m.JoinLeaf(t)
		id := submitTo(t, m, leaf.Index, "w3")
		m.Wait(t, time.Minute, "it to run", func() bool { return r.Running() == 1 })
		m.Cut(leaf.Index)
		time.Sleep(4500 * time.Millisecond) // it has ended meanwhile; its lease goes on
		if code := call(t, m, leaf.Index, http.MethodGet, "/readyz", nil, nil); code != http.StatusServiceUnavailable {
			t.Errorf("/readyz of a leaf without a replica: %d", code)
		}
		m.Heal(leaf.Index)
		m.Wait(t, time.Minute, "it to end", func() bool { return m.Task(t, 0, id).Phase.Final() })
		if task := ended(t, m, id, labmesh.Completed, 0); task.Attempt != 1 || r.Starts(id) != 1 {
			t.Errorf("it took %d attempts and was started %d times", task.Attempt, r.Starts(id))
		}
	})
}

// TestALeafThatIsCutOffStopsBeforeOthersBegin: a leaf has no log of its own to see who leads, and keeps its lease all the same.
func TestALeafThatIsCutOffStopsBeforeOthersBegin(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m, r := startWatched(t, 3, time.Minute)
		leaf := m.JoinLeaf(t)
		only := labmesh.Requirements{WorkerID: workerOf(leaf.Index)}
		keep := m.Submit(t, 0, labmesh.Spec{OnDisconnect: "keep", Requirements: only})
		stop := m.Submit(t, 0, labmesh.Spec{Requirements: only})
		m.Wait(t, time.Minute, "both to run", func() bool { return len(r.of(keep)) == 1 && len(r.of(stop)) == 1 })

		next := m.Leader(t)
		m.Halt(t, next.Index) // the leaf hears who leads now, and renews with that one
		seen := m.Leader(t, next.Index).Index
		time.Sleep(2 * scheduler.Lease)
		if len(r.of(stop)) != 1 || !r.of(stop)[0].end.IsZero() {
			t.Fatalf("the leader went, and what the leaf ran is stopped: %+v", r.of(stop))
		}
		m.Run(t, next.Index)

		cut := time.Now()
		m.Cut(leaf.Index)
		m.Wait(t, time.Minute, "it to be stopped", func() bool { return !r.of(stop)[0].end.IsZero() })
		if took := r.of(stop)[0].end.Sub(cut); took > scheduler.Lease+time.Second {
			t.Errorf("the leaf stopped what it ran %s after it was cut off; its lease is %s", took, scheduler.Lease)
		}
		time.Sleep(2 * scheduler.Lease)
		if task := m.Task(t, seen, keep); task.Phase != labmesh.Running || task.Unknown.IsZero() {
			t.Errorf("the task that is kept is %s, unknown since %v", task.Phase, task.Unknown)
		}
		if task := m.Task(t, seen, stop); task.Phase != labmesh.Pending {
			t.Errorf("the task that is not is %s", task.Phase)
		}
		m.Heal(leaf.Index)
		m.Wait(t, 5*time.Minute, "both to end", func() bool {
			return m.Task(t, seen, keep).Phase.Final() && m.Task(t, seen, stop).Phase.Final()
		})
		time.Sleep(time.Second)
		for id, runs := range map[labmesh.TaskID]int{keep: 1, stop: 2} {
			if task := ended(t, m, id, labmesh.Completed, seen); len(r.of(id)) != runs {
				t.Errorf("on_disconnect %q ran %d times, want %d", task.Spec.OnDisconnect, len(r.of(id)), runs)
			}
			for _, o := range r.overlaps(id) {
				t.Error(o)
			}
		}
	})
}

func TestALeafHasSecretsOfWhatItRunsAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		given := make(chan map[string]string, 1)
		m := nodetest.Start(t, 3, map[labmesh.Kind]exec.Runner{labmesh.Custom: secretive(given)})
		leaf := m.JoinLeaf(t)
		for name, value := range map[string]string{"TOKEN": "sesame", "OTHER": "none of its business"} {
			secret := labmesh.Secret{Name: name, Value: value, By: "test"}
			if err := m.Nodes[0].Service().PutSecret(t.Context(), secret); err != nil {
				t.Fatal(err)
			}
		}
		worker := labmesh.WorkerID(fmt.Sprint("w", leaf.Index))
		id := m.Submit(t, 0, labmesh.Spec{Secrets: []string{"TOKEN"}, Requirements: labmesh.Requirements{WorkerID: worker}})
		m.Wait(t, time.Minute, "it to end", func() bool { return m.Task(t, 0, id).Phase.Final() })
		ended(t, m, id, labmesh.Completed, 0)
		if got := <-given; len(got) != 1 || got["TOKEN"] != "sesame" {
			t.Errorf("the attempt was given %v", got)
		}
	})
}

// secretive is a runner that tells which secrets its attempts have.
type secretive chan map[string]string

func (s secretive) Run(_ context.Context, a exec.Attempt) labmesh.Outcome {
	s <- a.Secrets
	return labmesh.Outcome{OK: true}
}

func TestManyLeaves(t *testing.T) {
	if testing.Short() {
		t.Skip("it takes a while")
	}
	synctest.Test(t, func(t *testing.T) {
		m, r := start(t, 3, time.Second)
		const leaves = 20
		for range leaves {
			m.JoinLeaf(t)
		}
		perReplica := map[labmesh.NodeID]int{}
		var ids []labmesh.TaskID
		for _, n := range m.Nodes[3:] {
			perReplica[n.Status(t.Context()).Via]++
			ids = append(ids, submitTo(t, m, n.Index, fmt.Sprint("w", n.Index)))
		}
		t.Logf("leaves by replica: %v", perReplica)
		m.Wait(t, time.Minute, "all to end", func() bool {
			return !slices.ContainsFunc(ids, func(id labmesh.TaskID) bool { return !m.Task(t, 0, id).Phase.Final() })
		})
		for _, id := range ids {
			if ended(t, m, id, labmesh.Completed, 0); r.Starts(id) != 1 {
				t.Errorf("%s was started %d times", id, r.Starts(id))
			}
		}
	})
}
