package duckdb

import (
	"database/sql"
	"fmt"
	"path/filepath"
	"strings"
	"testing"

	"labmesh"
	"labmesh/store"
	"labmesh/store/storetest"
)

// measured is a run of a benchmark at one batch size.
type measured struct {
	worker labmesh.WorkerID
	batch  int
	ms     float64 // 0: it ran out of memory
	doubt  labmesh.BenchFlag
}

// benchmarked appends, for each task, what its runs measured, in the log entries
// after those of db.
func benchmarked(t testing.TB, db *DB, tasks ...[]measured) {
	t.Helper()
	index, err := db.Applied()
	if err != nil {
		t.Fatal(err)
	}
	for _, runs := range tasks {
		index++
		at := storetest.Epoch.AddDate(0, 0, int(index))
		id := labmesh.TaskID(fmt.Sprint("bench-", index))
		b := labmesh.Bench{Task: id, Attempt: 1, Worker: runs[0].worker, ID: int64(index) << 20}
		for i, m := range runs {
			r := labmesh.BenchRow{
				Run: fmt.Sprint(id, "-", i), Repeat: i + 1, Started: at, Finished: at, Status: labmesh.BenchOOM, Reason: "out of memory",
				Series: fmt.Sprintf("bert-%s-%d", m.worker, m.batch), Compare: fmt.Sprint("bert-", m.batch),
				Work: labmesh.BenchWork{Model: "bert-base-uncased", Batch: m.batch, Requested: "fp32", Effective: "fp32", Engine: "labmesh-go", DeviceClass: "cpu", DeviceName: "cpu of " + string(m.worker), Protocol: 1},
			}
			if m.ms > 0 {
				r.Status, r.Reason, r.N, r.Comparable = labmesh.BenchOK, "", 100, m.doubt == ""
				r.Wall = &labmesh.BenchTiming{P50: m.ms, P90: new(m.ms * 1.5), Min: m.ms, Max: m.ms * 2, Mean: m.ms}
				r.Throughput, r.Resources.HostPeak = new(float64(m.batch)*1000/m.ms), new(int64(1<<30))
			}
			if m.doubt != "" {
				r.Flags, r.Doubts = []labmesh.BenchFlag{m.doubt}, []string{"load was 2.1 on 2 processors"}
			}
			b.Rows = append(b.Rows, r)
		}
		task := &labmesh.Task{ID: id, Spec: labmesh.Spec{Kind: labmesh.Benchmark, Labels: map[string]string{"git_sha": fmt.Sprintf("c%d", index), "branch": "main"}}}
		events := []labmesh.Event{{Index: index, At: at, Type: labmesh.BenchRecorded, Task: task, Bench: &b}}
		if err := db.Append(t.Context(), index, events); err != nil {
			t.Fatal(err)
		}
	}
}

func TestBenchmarkReports(t *testing.T) {
	t.Parallel()
	db := recorded(t, nil) // three workers
	benchmarked(t, db,
		[]measured{{"w1", 1, 10, ""}, {"w1", 1, 12, ""}, {"w1", 1, 90, labmesh.FlagContended}, {"w1", 8, 0, ""}},
		[]measured{{"arm1", 1, 40, labmesh.FlagNoisy}, {"arm1", 1, 44, labmesh.FlagContended}},
		[]measured{{"w1", 1, 22, ""}, {"w1", 1, 20, ""}, {"w1", 1, 24, ""}},
	)
	for name, c := range map[string]struct{ sql, want string }{
		"a row for each task and batch, doubtful runs only where there are no others": {
			"SELECT task_id, batch, runs, comparable_runs, status, reason, p50_ms, p50_least_ms, p50_most_ms, throughput, flags FROM benchmark_summary",
			lines(`["bench-4",1,3,2,"ok",null,11,10,12,91.66666666666666,["contended"]]`,
				`["bench-4",8,1,0,"oom","out of memory",null,null,null,null,[]]`,
				`["bench-5",1,2,0,"ok",null,42,40,44,23.863636363636363,["contended","noisy"]]`,
				`["bench-6",1,3,3,"ok",null,22,20,24,45.45454545454545,[]]`)},
		"the newest of each series": {
			"SELECT task_id, batch, p50_ms, labels->>'$.git_sha' FROM benchmark_latest", lines(`["bench-6",1,22,"c6"]`)},
		"runs against the median of their series": {
			"SELECT run_id, git_sha, branch, series_runs, round(vs_series, 2), comparable FROM benchmark_runs WHERE repeat < 3",
			lines(`["bench-4-0","c4","main",5,0.5,true]`, `["bench-4-1","c4","main",5,0.6,true]`, `["bench-5-0","c5","main",null,null,false]`,
				`["bench-5-1","c5","main",null,null,false]`, `["bench-6-0","c6","main",5,1.1,true]`, `["bench-6-1","c6","main",5,1,true]`)},
	} {
		for kind, rows := range map[string]store.LiveRows{"the ledger alone": nil, "with what is live": live{index: 99}} {
			if got := rowsOf(t, db, store.Query{SQL: c.sql, Live: rows}); got != c.want {
				t.Errorf("%s, %s:\n%swant\n%s", name, kind, got, c.want)
			}
		}
	}
	early := store.Query{SQL: "SELECT task_id FROM benchmark_latest", Live: live{index: 5}}
	if got := rowsOf(t, db, early); got != lines(`["bench-4"]`) {
		t.Errorf("latest at index 5: %s", got)
	}
}

// format2 is what a ledger of format 2 had beside one of format 1.
const format2 = `
UPDATE ledger_meta SET format = 2;
ALTER TABLE distributed_tasks ADD COLUMN artifacts JSON;
ALTER TABLE task_execution_history ADD COLUMN artifacts JSON;
CREATE TABLE test_results(log_index BIGINT, id BIGINT, suite VARCHAR, task_id VARCHAR, attempt INTEGER, try INTEGER, worker_id VARCHAR, framework VARCHAR, file VARCHAR, "name" VARCHAR, parameters VARCHAR, verdict VARCHAR, seconds DOUBLE, message VARCHAR, log_ref VARCHAR, quarantined BOOLEAN, "time" TIMESTAMP, place INTEGER, n INTEGER);
INSERT INTO test_results(log_index, id, framework, file, "name", verdict, "time", place, n) VALUES (6, 1, 'go', './x', 'TestOld', 'passed', '2026-01-01', 0, 0);`

// TestALedgerOfEachFormatHoldsBenchmarks: one that an older labmesh wrote gets
// the table, keeps its rows, and is as good as a new one.
func TestALedgerOfEachFormatHoldsBenchmarks(t *testing.T) {
	t.Parallel()
	for name, statements := range map[string]string{"format 1": format1, "format 2": format1 + format2} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			path := filepath.Join(t.TempDir(), "ledger.duckdb")
			stock, err := sql.Open("duckdb", path)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := stock.Exec(statements); err != nil {
				t.Fatal(err)
			}
			if err := stock.Close(); err != nil {
				t.Fatal(err)
			}
			for i := range 2 { // opened a second time it is as any other
				db := open(t, Config{Path: path, Check: checkInChild})
				if _, ok, err := db.Task(t.Context(), "old"); err != nil || !ok {
					t.Fatalf("the old task: %v, %v", ok, err)
				}
				if strings.Contains(statements, "TestOld") {
					if got := rowsOf(t, db, store.Query{SQL: "SELECT name, verdict FROM test_results"}); got != lines(`["TestOld","passed"]`) {
						t.Errorf("the old test: %s", got)
					}
				}
				benchmarked(t, db, []measured{{"w1", 1, 10, ""}})
				want := lines(fmt.Sprintf(`[%d,%d]`, i+1, store.Format))
				if got := rowsOf(t, db, store.Query{SQL: "SELECT count(*), (SELECT format FROM ledger_meta) FROM benchmark_runs"}); got != want {
					t.Errorf("after the upgrade: %s, want %s", got, want)
				}
				if err := db.Close(); err != nil {
					t.Fatal(err)
				}
			}
		})
	}
}

// TestAReopenedLedgerHasRoomForEveryTable: DuckDB takes half a MiB of its memory limit for
// each column that is appended to after the file was opened, whatever is in it. With all
// tables in use there must be room left for the widest of queries.
func TestAReopenedLedgerHasRoomForEveryTable(t *testing.T) {
	t.Parallel()
	db := open(t, Config{})
	m := storetest.NewMesh(0, 0)
	fill := func() {
		t.Helper()
		_, task := m.Finish()
		for _, events := range [][]labmesh.Event{task, m.Worker("w1", labmesh.WorkerUpdated, labmesh.WorkerActive), m.Tests(storetest.Cases(9)...), m.Bench(storetest.BenchRows(60)...)} {
			if err := db.Append(t.Context(), events[0].Index, events); err != nil {
				t.Fatal(err)
			}
		}
	}
	fill()
	for range 2 {
		if err := db.Close(); err != nil {
			t.Fatal(err)
		}
		db = open(t, Config{Path: db.cfg.Path})
		fill()
		if rows, err := db.Bench(t.Context(), store.BenchFilter{Task: "none", Limit: 101}); err != nil || len(rows) > 0 {
			t.Errorf("rows of a task: %d, %v", len(rows), err)
		}
		for _, from := range []string{"benchmark_results ORDER BY id DESC LIMIT 20", "benchmark_summary", "benchmark_latest", "benchmark_runs ORDER BY p50_ms"} {
			for _, l := range []store.LiveRows{nil, live{index: 99}} {
				if _, err := db.Query(t.Context(), store.Query{SQL: "SELECT * FROM " + from, Live: l}); err != nil {
					t.Errorf("%s: %v", from, err)
				}
			}
		}
	}
}
