package nodetest_test

import (
	"context"
	"fmt"
	"math"
	"testing"
	"testing/synctest"
	"time"

	"labmesh"
	"labmesh/exec"
	"labmesh/node/nodetest"
)

// recorder is a runner that records so many test cases, one every pause.
type recorder struct {
	cases int
	pause time.Duration
}

func (r recorder) Run(ctx context.Context, a exec.Attempt) labmesh.Outcome {
	for i := range r.cases {
		select {
		case <-time.After(r.pause):
		case <-ctx.Done():
			cause, message, _ := exec.Stopped(ctx)
			return labmesh.Outcome{Cause: cause, Error: message}
		}
		a.Record([]labmesh.TestCase{{Suite: "s", Framework: "go", File: "./x", Name: fmt.Sprint(i), Verdict: labmesh.TestPassed}})
	}
	return labmesh.Outcome{OK: true}
}

// TestTestCasesOutliveTheirLeader: recorded while the leader is cut off and
// another takes over, each case is in every ledger once, and in order.
func TestTestCasesOutliveTheirLeader(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const cases = 300
		m := nodetest.Start(t, 5, map[labmesh.Kind]exec.Runner{labmesh.Custom: recorder{cases, 100 * time.Millisecond}})
		old := m.Leader(t)
		var ids []labmesh.TaskID
		for i := range 5 {
			if i != old.Index { // what runs there is lost with it, and runs again
				ids = append(ids, m.Submit(t, i, labmesh.Spec{Requirements: labmesh.Requirements{WorkerID: labmesh.WorkerID(fmt.Sprint("w", i))}}))
			}
		}
		time.Sleep(10 * time.Second)
		m.Cut(old.Index)
		m.Leader(t, old.Index)
		time.Sleep(10 * time.Second)
		m.Heal(old.Index)
		m.Wait(t, 5*time.Minute, "all tasks to end everywhere", func() bool {
			for i := range 5 {
				for _, id := range ids {
					if m.Task(t, i, id).Phase != labmesh.Completed {
						return false
					}
				}
			}
			return true
		})
		time.Sleep(5 * time.Second) // the ledgers follow
		var first string
		for i, n := range m.Nodes {
			recorded, err := n.Ledger().Tests(t.Context(), 0, math.MaxInt64)
			if err != nil {
				t.Fatal(err)
			}
			next, seen := map[labmesh.TaskID]int{}, map[int64]bool{}
			for _, r := range recorded {
				for k, c := range r.Cases {
					if r.From+k != next[r.Task] || c.Name != fmt.Sprint(next[r.Task]) || seen[r.ID+int64(k)] || r.Attempt != 1 {
						t.Fatalf("node %d: %s attempt %d: case %s at place %d with id %d, want place %d", i, r.Task, r.Attempt, c.Name, r.From+k, r.ID+int64(k), next[r.Task])
					}
					seen[r.ID+int64(k)] = true
					next[r.Task]++
				}
			}
			for _, id := range ids {
				if next[id] != cases {
					t.Errorf("node %d has %d cases of %s, want %d", i, next[id], id, cases)
				}
			}
			if all := fmt.Sprint(recorded); i == 0 {
				first = all
			} else if all != first {
				t.Errorf("the ledgers of nodes 0 and %d differ", i)
			}
		}
	})
}
