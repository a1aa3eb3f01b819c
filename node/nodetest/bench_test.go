package nodetest_test

import (
	"context"
	"encoding/json"
	"fmt"
	"reflect"
	"testing"
	"testing/synctest"
	"time"

	"labmesh"
	"labmesh/exec"
	"labmesh/node/httpapi"
	"labmesh/node/nodetest"
	"labmesh/store"
)

// measurer is a runner that records so many rows, one every second.
type measurer struct{ rows int }

func (r measurer) Run(ctx context.Context, a exec.Attempt) labmesh.Outcome {
	for i := range r.rows {
		select {
		case <-time.After(time.Second):
		case <-ctx.Done():
			cause, message, _ := exec.Stopped(ctx)
			return labmesh.Outcome{Cause: cause, Error: message}
		}
		ms := float64(i+1) / 3
		a.RecordRows([]labmesh.BenchRow{{
			Run: fmt.Sprint("run-", i), Repeat: i + 1, Started: time.Now(), Finished: time.Now(), Series: "s", Compare: "c", Status: labmesh.BenchOK,
			Work: labmesh.BenchWork{Model: "mlp", Batch: 1, Requested: "fp32", Shape: map[string]int{"features": 1024}, Engine: "labmesh-go", DeviceClass: "cpu"},
			N:    10, Wall: &labmesh.BenchTiming{P50: ms, P90: &ms, Min: ms, Max: ms, Mean: ms}, Throughput: &ms, Env: json.RawMessage(`{"os":"linux"}`),
			Flags: []labmesh.BenchFlag{labmesh.FlagNoisy}, Doubts: []string{"load was 2.1"},
		}})
	}
	return labmesh.Outcome{OK: true}
}

// TestRowsOfBenchmarksAreTheSameEverywhere: every replica's ledger has the same
// rows, the API shows them on each, and a ledger that lost its rows gets the same
// ones back from its peers.
func TestRowsOfBenchmarksAreTheSameEverywhere(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const rows = 20
		m := nodetest.Start(t, 3, map[labmesh.Kind]exec.Runner{labmesh.Benchmark: measurer{rows}})
		var ids []labmesh.TaskID
		for i := range 3 {
			ids = append(ids, m.Submit(t, i, labmesh.Spec{Kind: labmesh.Benchmark, Config: json.RawMessage(`{"model":"mlp"}`), Labels: map[string]string{"git_sha": "abc"}}))
		}
		m.Wait(t, 5*time.Minute, "all tasks to end everywhere", func() bool {
			for i := range m.Nodes {
				for _, id := range ids {
					if m.Task(t, i, id).Phase != labmesh.Completed {
						return false
					}
				}
			}
			return true
		})
		recorded := func(i int) []store.RecordedBench {
			t.Helper()
			list, err := m.Nodes[i].Ledger().Bench(t.Context(), store.BenchFilter{})
			if err != nil {
				t.Fatal(err)
			}
			return list
		}
		for i := range m.Nodes {
			for _, id := range ids { // which waits for the ledger
				list, err := m.Nodes[i].Service().Benchmarks(t.Context(), httpapi.BenchFilter{Task: id})
				if err != nil {
					t.Fatal(err)
				}
				next := 0
				for _, b := range list {
					for k, r := range b.Rows {
						if b.From+k != next || r.Repeat != next+1 || r.Wall == nil || r.Wall.P50 != float64(next+1)/3 || b.Attempt != 1 {
							t.Fatalf("node %d: %s: row %d is %+v", i, id, next, r)
						}
						next++
					}
				}
				if next != rows {
					t.Errorf("node %d has %d rows of %s", i, next, id)
				}
			}
		}
		want := recorded(0)
		for i := range m.Nodes {
			if got := recorded(i); !reflect.DeepEqual(got, want) {
				t.Errorf("the ledgers of nodes 0 and %d differ:\n%+v\n%+v", i, want, got)
			}
		}

		wiped := (m.Leader(t).Index + 1) % 3
		upto := m.Nodes[wiped].Service().Status(t.Context()).Applied
		m.Halt(t, wiped) // its ledger is empty now
		if err := m.Nodes[wiped].Ledger().Require(t.Context(), upto); err != nil {
			t.Fatal(err)
		}
		m.Run(t, wiped)
		m.Wait(t, 5*time.Minute, "the ledger to be filled", func() bool {
			_, lacks, err := m.Nodes[wiped].Ledger().Gap(t.Context())
			return err == nil && !lacks
		})
		if got := recorded(wiped); !reflect.DeepEqual(got, want) {
			t.Errorf("after it was filled again node %d has %d events of rows, want %d", wiped, len(got), len(want))
		}
	})
}
