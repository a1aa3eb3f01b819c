package duckdb

import (
	"database/sql"
	"encoding/json"
	"fmt"
	"math"
	"path/filepath"
	"strings"
	"testing"

	"labmesh"
	"labmesh/store"
	"labmesh/store/storetest"
)

// suite is one run of a suite: what became of each case, a letter a try: p
// passed, f failed, c crashed, s skipped; on which worker.
type suite struct {
	worker labmesh.WorkerID
	cases  map[string]string
}

// recorded is a ledger with runs of suites on three workers: w1 and w2 are of
// one platform, arm1 of another.
func recorded(t testing.TB, suites []suite) *DB {
	t.Helper()
	db := open(t, Config{})
	index := uint64(0)
	put := func(events ...labmesh.Event) {
		index++
		for n := range events {
			events[n].Index, events[n].N, events[n].At = index, n, storetest.Epoch.AddDate(0, 0, int(index))
		}
		if err := db.Append(t.Context(), index, events); err != nil {
			t.Fatal(err)
		}
	}
	for id, platform := range map[labmesh.WorkerID]string{"w1": "linux/amd64", "w2": "linux/amd64", "arm1": "linux/arm64"} {
		put(labmesh.Event{Type: labmesh.WorkerJoined, Worker: &labmesh.Worker{ID: id, Status: labmesh.WorkerActive, Capabilities: labmesh.Capabilities{Platform: platform}}})
	}
	words := map[rune]labmesh.TestVerdict{'p': labmesh.TestPassed, 'f': labmesh.TestFailed, 'c': labmesh.TestCrashed, 's': labmesh.TestSkipped}
	for i, s := range suites {
		var cases []labmesh.TestCase
		for name, tries := range s.cases {
			for try, letter := range tries {
				c := labmesh.TestCase{Suite: fmt.Sprint("run-", i), Framework: "pytest", File: "tests/test_a.py", Name: name, Verdict: words[letter], Try: try + 1, Seconds: float64(len(name)) / 10}
				if c.Verdict.Bad() {
					c.Message = fmt.Sprint("in run ", i)
				}
				cases = append(cases, c)
			}
		}
		id := labmesh.TaskID(fmt.Sprint("task-", i))
		put(labmesh.Event{Type: labmesh.TestsRecorded, Tests: &labmesh.Tests{Task: id, Attempt: 1, Worker: s.worker, ID: int64(index+1) << 20, Cases: cases}})
	}
	return db
}

// rowsOf is the rows of a statement as JSON, a line each.
func rowsOf(t *testing.T, db *DB, q store.Query) string {
	t.Helper()
	result, err := db.Query(t.Context(), q)
	if err != nil {
		t.Fatalf("%s: %v", q.SQL, err)
	}
	var b strings.Builder
	for _, row := range result.Rows {
		line, err := json.Marshal(row)
		if err != nil {
			t.Fatal(err)
		}
		b.Write(append(line, '\n'))
	}
	return b.String()
}

func lines(s ...string) string { return strings.Join(s, "\n") + "\n" }

func TestReports(t *testing.T) {
	t.Parallel()
	db := recorded(t, []suite{
		{"w1", map[string]string{"steady": "p", "retried": "fp", "broken": "p", "blinks": "p", "arm": "p", "never": "s"}},
		{"w2", map[string]string{"steady": "p", "retried": "p", "broken": "ff", "blinks": "f", "arm": "p", "never": "s"}},
		{"arm1", map[string]string{"steady": "p", "retried": "p", "arm": "f", "blinks": "p"}},
		{"w1", map[string]string{"steady": "p", "retried": "ffp", "broken": "c", "blinks": "p", "arm": "p"}},
	})
	for name, c := range map[string]struct{ sql, want string }{
		"flaky is what passed on a retry, or failed once between two passes": {
			"SELECT name, runs, flaky_runs, failed_runs, round(rate, 2), round(rate_at_least, 3), message FROM flaky_tests",
			// arm failed once, too, between two passes: on a platform of its own
			lines(`["retried",4,2,0,0.5,0.15,"in run 3"]`, `["arm",4,1,1,0.25,0.046,"in run 2"]`, `["blinks",4,1,1,0.25,0.046,"in run 1"]`)},
		"failing is what ended badly last": {
			"SELECT name, verdict, runs, since, message, worker_id, task_id FROM failing_tests",
			lines(`["broken","crashed",2,"2026-03-09T05:06:07.891234Z","in run 3","w1","task-3"]`)},
		"slowest first": {
			"SELECT name, runs, median_seconds, round(total_seconds, 6) FROM slowest_tests LIMIT 2",
			lines(`["retried",7,0.7,4.9]`, `["blinks",4,0.6,2.4]`)},
		"what fails on one platform only": {
			"SELECT name, platform, runs, failed FROM tests_by_platform WHERE fails_only_here ORDER BY name",
			lines(`["arm","linux/arm64",1,1]`, `["blinks","linux/amd64",3,1]`, `["retried","linux/amd64",6,3]`)},
		"a table of both": {
			"SELECT name, failed_rate FROM tests_by_platform WHERE platform = 'linux/arm64' AND failed > 0", lines(`["arm",1]`)},
	} {
		for kind, rows := range map[string]store.LiveRows{"the ledger alone": nil, "with what is live": live{index: 99}} {
			if got := rowsOf(t, db, store.Query{SQL: c.sql, Live: rows}); got != c.want && rows == nil {
				t.Errorf("%s, %s:\n%swant\n%s", name, kind, got, c.want)
			} else if got != c.want && !strings.Contains(c.sql, "platform") { // live has no workers
				t.Errorf("%s, %s:\n%swant\n%s", name, kind, got, c.want)
			}
		}
	}
	// A query that stands for an index sees no later run, and the platforms of live workers.
	early := live{index: 4, workers: []store.LiveWorker{{Worker: &labmesh.Worker{ID: "w1", Capabilities: labmesh.Capabilities{Platform: "plan9/amd64"}}}}}
	if got := rowsOf(t, db, store.Query{SQL: "SELECT DISTINCT platform FROM tests_by_platform", Live: early}); got != lines(`["plan9/amd64"]`) {
		t.Errorf("platforms at index 4: %s", got)
	}
	if got := rowsOf(t, db, store.Query{SQL: "SELECT name, runs FROM Flaky_Tests", Live: early}); got != lines(`["retried",1]`) {
		t.Errorf("flaky at index 4: %s", got)
	}
}

func TestReportsLookAtTheNewestRuns(t *testing.T) {
	t.Parallel()
	var suites []suite
	for i := range 60 { // flaky in the first ten, and not in the fifty since
		tries := "p"
		if i < 10 {
			tries = "fp"
		}
		suites = append(suites, suite{"w1", map[string]string{"mended": tries, "half": []string{"p", "fp"}[i%2]}})
	}
	db := recorded(t, suites)
	if got := rowsOf(t, db, store.Query{SQL: "SELECT name, runs, flaky_runs, round(rate_at_least, 4) FROM flaky_tests"}); got != lines(`["half",50,25,0.3664]`) {
		t.Errorf("flaky: %s", got)
	}
}

func TestWilsonIsTheLowerBound(t *testing.T) {
	t.Parallel()
	db := open(t, Config{})
	for _, c := range []struct{ k, n, want float64 }{{0, 1, 0}, {1, 1, 0.2065}, {1, 50, 0.0035}, {5, 50, 0.0435}, {25, 50, 0.3664}, {50, 50, 0.9287}} {
		result, err := db.Query(t.Context(), store.Query{SQL: fmt.Sprintf("SELECT %s FROM (SELECT %g AS k, %g AS n)", wilson("k", "n"), c.k, c.n)})
		if err != nil {
			t.Fatal(err)
		}
		if got, _ := result.Rows[0][0].(float64); math.Abs(got-c.want) > 0.0001 {
			t.Errorf("%g in %g: %v, want %g", c.k, c.n, result.Rows[0][0], c.want)
		}
	}
}

// TestReportsAreInTheFile: the stock client, which calls the file as it likes, finds them.
func TestReportsAreInTheFile(t *testing.T) {
	t.Parallel()
	db := recorded(t, []suite{{"w1", map[string]string{"retried": "fp"}}})
	benchmarked(t, db, []measured{{"w1", 1, 10, ""}})
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	stock, err := sql.Open("duckdb", db.cfg.Path)
	if err != nil {
		t.Fatal(err)
	}
	defer stock.Close()
	for _, r := range reports() {
		var n int
		if err := stock.QueryRow("SELECT count(*) FROM " + r.name).Scan(&n); err != nil || n == 0 && r.name != "failing_tests" {
			t.Errorf("%s: %d rows, %v", r.name, n, err)
		}
	}
}

// format1 is what a ledger of format 1 was made with.
const format1 = `
CREATE TABLE ledger_meta(format INTEGER, applied_index BIGINT);
INSERT INTO ledger_meta VALUES (1, 7);
CREATE TABLE ledger_gaps(after_index BIGINT, upto_index BIGINT);
CREATE TABLE distributed_tasks(task_id VARCHAR, type VARCHAR, priority INTEGER, status VARCHAR, create_time TIMESTAMP, start_time TIMESTAMP, end_time TIMESTAMP, worker_id VARCHAR, attempts INTEGER, config JSON, requirements JSON, log_index BIGINT, seq BIGINT, "name" VARCHAR, labels JSON, "result" JSON, error VARCHAR, cause VARCHAR, submitted_by VARCHAR, idempotency_key VARCHAR, max_attempts INTEGER, assign_time TIMESTAMP, not_before TIMESTAMP, failed_attempts INTEGER, lost_attempts INTEGER, spec JSON);
CREATE TABLE task_execution_history(id BIGINT, task_id VARCHAR, worker_id VARCHAR, attempt INTEGER, status VARCHAR, start_time TIMESTAMP, end_time TIMESTAMP, execution_time_seconds FLOAT, error_message VARCHAR, hardware_metrics JSON, log_index BIGINT, cause VARCHAR, seconds DOUBLE);
CREATE TABLE worker_nodes(worker_id VARCHAR PRIMARY KEY, hostname VARCHAR, registration_time TIMESTAMP, last_heartbeat TIMESTAMP, status VARCHAR, capabilities JSON, hardware_metrics JSON, tags JSON, log_index BIGINT, node_id VARCHAR, slots INTEGER, kinds JSON, reason VARCHAR, changed_time TIMESTAMP);
CREATE TABLE events(log_index BIGINT, n INTEGER, "time" TIMESTAMP, "type" VARCHAR, task_id VARCHAR, attempt INTEGER, worker_id VARCHAR, node_id VARCHAR, actor VARCHAR, detail VARCHAR);
INSERT INTO distributed_tasks(task_id, type, priority, status, create_time, attempts, log_index, seq) VALUES ('old', 'custom', 5, 'completed', '2026-01-01', 1, 6, 1);
INSERT INTO task_execution_history(id, task_id, worker_id, attempt, status, end_time, log_index) VALUES (1, 'old', 'w1', 1, 'completed', '2026-01-01', 6);
INSERT INTO worker_nodes(worker_id, log_index) VALUES ('w1', 5);`

func TestAnOlderLedgerIsBroughtUpToDate(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "ledger.duckdb")
	stock, err := sql.Open("duckdb", path)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := stock.Exec(format1); err != nil {
		t.Fatal(err)
	}
	if err := stock.Close(); err != nil {
		t.Fatal(err)
	}
	m := storetest.NewMesh(7, 1)
	for range 2 { // opened a second time it is as any other
		db := open(t, Config{Path: path, Check: checkInChild})
		old, ok, err := db.Task(t.Context(), "old")
		if err != nil || !ok || old.Outputs != nil || len(old.History) != 1 {
			t.Fatalf("the old task: %+v, %v, %v", old, ok, err)
		}
		for _, events := range [][]labmesh.Event{m.FinishBatch(4), m.Tests(storetest.Cases(8)...), m.Worker("w1", labmesh.WorkerUpdated, labmesh.WorkerActive)} {
			if err := db.Append(t.Context(), events[0].Index, events); err != nil {
				t.Fatal(err)
			}
		}
		if got := rowsOf(t, db, store.Query{SQL: "SELECT count(*) > 0, (SELECT format FROM ledger_meta) FROM flaky_tests"}); got != lines(fmt.Sprintf(`[true,%d]`, store.Format)) {
			t.Errorf("after the upgrade: %s", got)
		}
		if err := db.Close(); err != nil {
			t.Fatal(err)
		}
	}
}
