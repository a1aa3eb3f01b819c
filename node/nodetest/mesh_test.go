package nodetest_test

import (
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"labmesh"
	"labmesh/exec"
	"labmesh/node/httpapi"
	"labmesh/node/nodetest"
)

// start runs a mesh of n nodes whose tasks take some time.
func start(t *testing.T, n int, takes time.Duration) (*nodetest.Mesh, *nodetest.Runner) {
	t.Helper()
	r := &nodetest.Runner{Takes: takes}
	return nodetest.Start(t, n, map[labmesh.Kind]exec.Runner{labmesh.Custom: r}), r
}

// ended checks that a task has its one verdict, the same on every node given.
func ended(t *testing.T, m *nodetest.Mesh, id labmesh.TaskID, want labmesh.Phase, nodes ...int) labmesh.Task {
	t.Helper()
	var first labmesh.Task
	for k, i := range nodes {
		task := m.Task(t, i, id)
		if task.Phase != want {
			t.Errorf("%s is %s on node %d, want %s (%s)", id, task.Phase, i, want, task.Error)
		}
		accepted := 0
		for _, a := range task.History {
			if a.Status == string(labmesh.Completed) {
				accepted++
			}
		}
		if want == labmesh.Completed && accepted != 1 {
			t.Errorf("%s has %d accepted attempts on node %d", id, accepted, i)
		}
		if k == 0 {
			first = task
		} else if task.Attempt != first.Attempt || task.Worker != first.Worker || task.Index != first.Index {
			t.Errorf("%s differs between nodes %d and %d: %+v, %+v", id, nodes[0], i, first, task)
		}
	}
	return first
}

func TestTasksOutliveTheirLeader(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m, r := start(t, 5, time.Minute)
		old := m.Leader(t)
		var ids []labmesh.TaskID
		for i := range 15 {
			ids = append(ids, m.Submit(t, i%5, labmesh.Spec{}))
		}
		m.Wait(t, time.Minute, "tasks to run", func() bool { return r.Running() == 15 })
		held := map[labmesh.TaskID]labmesh.WorkerID{}
		for _, id := range ids {
			held[id] = m.Task(t, 0, id).Worker
		}
		m.Cut(old.Index)
		cut := time.Now()
		next := m.Leader(t, old.Index)
		t.Logf("node %d leads %s after the cut", next.Index, time.Since(cut))
		time.Sleep(5 * time.Minute) // of mesh time: some seconds of ours
		m.Heal(old.Index)
		time.Sleep(time.Minute)
		oldWorker := labmesh.WorkerID(fmt.Sprint("w", old.Index))
		for _, id := range ids {
			task := ended(t, m, id, labmesh.Completed, 0, 1, 2, 3, 4)
			want := 1
			if held[id] == oldWorker {
				want = 2 // its worker was cut off, and the mesh could not know that it still ran
			}
			if task.Attempt != want {
				t.Errorf("%s, which ran on %s, took %d attempts, want %d", id, held[id], task.Attempt, want)
			}
		}
	})
}

func TestALeaderCutOffUnderLoadLosesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m, _ := start(t, 5, 300*time.Millisecond)
		var ids []labmesh.TaskID
		for round := range 4 {
			leader := m.Leader(t)
			for i := range 10 {
				ids = append(ids, m.Submit(t, (leader.Index+1+i%4)%5, labmesh.Spec{IdempotencyKey: fmt.Sprint(round, "-", i)}))
				if i == 5 {
					m.Cut(leader.Index)
				}
			}
			m.Leader(t, leader.Index)
			time.Sleep(10 * time.Second)
			m.Heal(leader.Index)
			time.Sleep(5 * time.Second)
		}
		m.Wait(t, 5*time.Minute, "all tasks to end", func() bool {
			for _, id := range ids {
				if !m.Task(t, 1, id).Phase.Final() {
					return false
				}
			}
			return true
		})
		time.Sleep(time.Second)
		seen := map[labmesh.TaskID]bool{}
		for _, id := range ids {
			if seen[id] {
				t.Errorf("%s was answered to two submits", id)
			}
			seen[id] = true
			ended(t, m, id, labmesh.Completed, 0, 1, 2, 3, 4)
		}
	})
}

func TestARestartWithinTheLeaseIsNoticedAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m, r := start(t, 3, 20*time.Second)
		leader := m.Leader(t)
		victim := (leader.Index + 1) % 3
		worker := labmesh.WorkerID(fmt.Sprint("w", victim))
		id := m.Submit(t, 0, labmesh.Spec{Requirements: labmesh.Requirements{WorkerID: worker}})
		m.Wait(t, time.Minute, "it to run", func() bool { return r.Running() == 1 })
		// Cut off it can hand nothing back; then it is gone, and back before its lease is over.
		m.Cut(victim)
		m.Halt(t, victim)
		m.Heal(victim)
		m.Run(t, victim)
		began := time.Now()
		m.Wait(t, 10*time.Second, "a second start", func() bool { return r.Starts(id) == 2 })
		t.Logf("started again %s after the restart", time.Since(began))
		m.Wait(t, time.Minute, "it to end", func() bool { return m.Task(t, 0, id).Phase.Final() })
		time.Sleep(time.Second)
		if task := ended(t, m, id, labmesh.Completed, 0, 1, 2); task.Attempt != 2 || task.Failed != 0 || task.Lost != 1 {
			t.Errorf("it took %d attempts, %d counted as its own failure", task.Attempt, task.Failed)
		}
	})
}

func TestCancelRacesWithEverything(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m, r := start(t, 3, 50*time.Millisecond)
		var ids []labmesh.TaskID
		for i := range 60 {
			id := m.Submit(t, i%3, labmesh.Spec{})
			ids = append(ids, id)
			time.Sleep(time.Duration(i*2) * time.Millisecond) // placed, started, ended, or none of it yet
			if err := m.Nodes[(i+1)%3].Service().Cancel(t.Context(), id, "test", ""); err != nil && labmesh.ReasonOf(err) != labmesh.Conflict && labmesh.ReasonOf(err) != labmesh.NotFound {
				t.Errorf("cancel: %v", err)
			}
		}
		time.Sleep(10 * time.Second)
		phases := map[labmesh.Phase]int{}
		for _, id := range ids {
			task := m.Task(t, 0, id)
			phases[task.Phase]++
			if task.Phase != labmesh.Cancelled && task.Phase != labmesh.Completed {
				t.Errorf("%s is %s: %s", id, task.Phase, task.Error)
			}
			ended(t, m, id, task.Phase, 0, 1, 2)
			if task.Attempt > 1 {
				t.Errorf("%s was started %d times", id, task.Attempt)
			}
		}
		if phases[labmesh.Cancelled] == 0 || phases[labmesh.Completed] == 0 {
			t.Errorf("no race: %v", phases)
		}
		if r.Running() > 0 {
			t.Errorf("%d attempts still run", r.Running())
		}
	})
}

func TestTwoNodesAreOneVoterAndALearnerAndSaySo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m, _ := start(t, 2, time.Second)
		time.Sleep(20 * time.Second)
		s := m.Nodes[1].Service().Status(t.Context())
		if len(s.Voters) != 1 || len(s.Replicas) != 2 || s.Role != "learner" || len(s.Warnings) == 0 {
			t.Errorf("status of the second node: %+v", s)
		}
		id := m.Submit(t, 1, labmesh.Spec{})
		m.Wait(t, time.Minute, "it to end", func() bool { return m.Task(t, 1, id).Phase == labmesh.Completed })
		m.Cut(0)
		time.Sleep(10 * time.Second)
		if s := m.Nodes[1].Service().Status(t.Context()); s.Leader != "" || s.StaleSeconds < 5 {
			t.Errorf("without its leader the second node says %+v", s)
		}
		if _, err := m.Nodes[1].Service().Submit(t.Context(), httpapi.Caller{Name: "test"}, []labmesh.Spec{{Kind: labmesh.Custom}}); labmesh.ReasonOf(err) != labmesh.Unavailable {
			t.Errorf("a submit without a leader: %v", err)
		}
		if task := m.Task(t, 1, id); task.Phase != labmesh.Completed {
			t.Errorf("a read without a leader: %+v", task)
		}
	})
}

func TestWhatOneNodeTookEveryNodeFinds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m, _ := start(t, 3, time.Second)
		for i := range 30 {
			id := m.Submit(t, i%3, labmesh.Spec{})
			if task := m.Task(t, (i+1)%3, id); task.ID != id { // no sleep in between
				t.Errorf("got %+v", task)
			}
		}
		if _, err := m.Nodes[1].Service().Task(t.Context(), "nobody"); labmesh.ReasonOf(err) != labmesh.NotFound {
			t.Errorf("a task that nobody submitted: %v", err)
		}
	})
}

func TestTasksFollowThoseTheyDependOn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m, _ := start(t, 3, time.Second)
		first := m.Submit(t, 0, labmesh.Spec{})
		second := m.Submit(t, 1, labmesh.Spec{DependsOn: []labmesh.TaskID{first}}) // submitted elsewhere, at once
		third := m.Submit(t, 2, labmesh.Spec{DependsOn: []labmesh.TaskID{first, second}})
		vain := m.Submit(t, 0, labmesh.Spec{DependsOn: []labmesh.TaskID{third}})
		if err := m.Nodes[1].Service().Cancel(t.Context(), third, "test", ""); err != nil {
			t.Fatal(err)
		}
		m.Wait(t, time.Minute, "every node to see the second end", func() bool {
			return m.Task(t, 0, second).Phase.Final() && m.Task(t, 1, second).Phase.Final() && m.Task(t, 2, second).Phase.Final()
		})
		a, b := ended(t, m, first, labmesh.Completed, 0, 1, 2), ended(t, m, second, labmesh.Completed, 0, 1, 2)
		if b.Started.Before(a.Ended) {
			t.Errorf("the second started at %v, before the first had ended at %v", b.Started, a.Ended)
		}
		if task := ended(t, m, vain, labmesh.Cancelled, 0, 1, 2); task.Cause != labmesh.CauseDependency || task.Attempt != 0 {
			t.Errorf("it depends on a task that was cancelled: %+v", task)
		}
		_, err := m.Nodes[2].Service().Submit(t.Context(), httpapi.Caller{Name: "test"}, []labmesh.Spec{{Kind: labmesh.Custom, DependsOn: []labmesh.TaskID{"nobody"}}})
		if labmesh.ReasonOf(err) != labmesh.Invalid {
			t.Errorf("a task that depends on nobody: %v", err)
		}
	})
}
