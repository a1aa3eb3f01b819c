package duckdb

import (
	"bytes"
	"encoding/json"
	"fmt"
	"iter"
	"math"
	"os"
	"strings"
	"testing"
	"time"

	"labmesh"
	"labmesh/store"
	"labmesh/store/storetest"
)

// seeded is a ledger with tasks of three entries and a worker.
func seeded(t testing.TB) *DB {
	db := open(t, Config{})
	var m storetest.Mesh
	for _, events := range [][]labmesh.Event{
		m.FinishBatch(5), m.FinishBatch(5), m.FinishBatch(5), m.Worker("w1", labmesh.WorkerJoined, labmesh.WorkerActive),
	} {
		if err := db.Append(t.Context(), events[0].Index, events); err != nil {
			t.Fatal(err)
		}
	}
	return db
}

func TestSQLDoorRefuses(t *testing.T) {
	t.Parallel()
	db := seeded(t)
	outside := t.TempDir() + "/out"
	for _, sql := range []string{
		"", " ; ", "-- nothing", "/* nothing */", "SELEC 1", "SELECT", "SELECT nothing FROM nowhere", "SELECT 1; SELECT 2", "SELECT 1; DELETE FROM distributed_tasks",
		"INSERT INTO distributed_tasks(task_id) VALUES ('x')", "UPDATE distributed_tasks SET status = 'x'", "DELETE FROM distributed_tasks",
		"TRUNCATE distributed_tasks", "DROP TABLE distributed_tasks", "ALTER TABLE distributed_tasks ADD COLUMN x INTEGER",
		"CREATE TABLE x(i INTEGER)", "CREATE TEMP TABLE x(i INTEGER)", "CREATE TEMP VIEW x AS SELECT 1", "CREATE MACRO x() AS 1", "CREATE SECRET x (TYPE s3)", "CREATE SEQUENCE x",
		"WITH x AS (SELECT 1) DELETE FROM distributed_tasks", "WITH x AS (SELECT 1) INSERT INTO events(n) SELECT * FROM x", "MERGE INTO events USING (SELECT 1) ON true WHEN MATCHED THEN DELETE",
		"ATTACH ':memory:' AS x", "ATTACH '" + outside + "'", "DETACH ledger", "USE memory",
		"COPY distributed_tasks TO '" + outside + "'", "COPY distributed_tasks FROM '/etc/passwd'", "COPY (SELECT 1) TO '" + outside + "'", "EXPORT DATABASE '" + outside + "'", "IMPORT DATABASE '" + outside + "'",
		"INSTALL httpfs", "LOAD json", "PRAGMA version", "PRAGMA database_size", "CALL pragma_version()", "SET threads = 9", "RESET threads", "SET VARIABLE x = 1",
		"BEGIN", "COMMIT", "ROLLBACK", "COMMIT; DELETE FROM distributed_tasks", "CHECKPOINT", "FORCE CHECKPOINT", "VACUUM", "ANALYZE", "PREPARE x AS SELECT 1", "EXECUTE x", "DEALLOCATE x",
		"EXPLAIN ANALYZE DELETE FROM distributed_tasks", "EXPLAIN DELETE FROM distributed_tasks", "EXPLAIN ANALYZE SELECT 1", "EXPLAIN (ANALYZE) SELECT 1", "EXPLAIN (FORMAT json) DELETE FROM events",
		"SELECT * FROM read_csv('/etc/passwd')", "SELECT * FROM read_csv_auto('/etc/passwd')", "SELECT * FROM '/etc/passwd'", "SELECT * FROM 'x.parquet'", "FROM read_text('/etc/passwd')", "SELECT * FROM read_blob('" + db.cfg.Path + "')",
		"SELECT * FROM read_text ( '/etc/passwd')", "SELECT * FROM read_text/* */('/etc/passwd')", "SELECT * FROM \"READ_TEXT\"('/etc/passwd')", "SELECT * FROM read_text\u00a0('/etc/passwd')", "SELECT * FROM '" + db.cfg.Path + "'",
		"SELECT * FROM read_json('/etc/passwd')", "SELECT * FROM read_parquet('x')", "SELECT * FROM parquet_metadata('x')", "SELECT * FROM glob('/etc/*')", "SELECT * FROM sniff_csv('/etc/passwd')", "DESCRIBE SELECT * FROM read_csv('/etc/passwd')", "SUMMARIZE '/etc/passwd'",
		"SELECT getenv('HOME')", "SELECT * FROM duckdb_secrets()", "SELECT nextval('x')", "SELECT * FROM force_checkpoint()", "SELECT write_log('x')", "SELECT * FROM query('SELECT 1')", "SELECT * FROM query_table('events')", "SELECT * FROM json_execute_serialized_sql('x')",
		"SELECT repeat('x', 1000000000)", "SELECT repeat(repeat('x', 100000), 100000)", "SELECT 'x'.repeat(1000000000)", "SELECT repeat('x', 1000*1000*1000)", "SELECT repeat('x', 1e+9)", "SELECT repeat('x', 1_000_000_000)", "SELECT repeat('x', (SELECT 1000000000))", "SELECT repeat('x', '1000000000')",
		"SELECT lpad('x', 1000000000, 'y')", "SELECT range(1000000000)", "SELECT 1, range(0, 1000000000)", "SELECT unnest(generate_series(1, 1000000000))", "SELECT list_resize([1], 1000000000)", "SELECT printf('%1000000000d', 1)", "SELECT printf('%*d', 1000000000, 1)", "SELECT format('{:1000000000}', 1)",
		"SELECT ?", "SELECT $1", "SELECT 1 /*", "SELECT ')' ) TO 'x' --", "SELECT 1) TO 'x' (FORMAT csv) --", "SELECT 1\x00", "SELECT '" + strings.Repeat("x", store.SQLBytesMax) + "'",
	} {
		result, err := db.Query(t.Context(), store.Query{SQL: sql, Timeout: 10 * time.Second})
		if reason := labmesh.ReasonOf(err); reason != labmesh.Invalid && reason != labmesh.TooLarge {
			t.Errorf("%.80q: %v %v, want a refusal", sql, result.Rows, err)
		}
		var file bytes.Buffer
		err = db.WriteParquet(t.Context(), store.Query{SQL: sql, Timeout: 10 * time.Second}, &file)
		if reason := labmesh.ReasonOf(err); reason != labmesh.Invalid && reason != labmesh.TooLarge || file.Len() > 0 {
			t.Errorf("as Parquet: %.80q: %v, want a refusal", sql, err)
		}
	}
	if _, err := os.Stat(outside); err == nil {
		t.Error("a file was written")
	}
	if tasks, err := db.Tasks(t.Context(), store.Filter{}); err != nil || len(tasks) != 15 {
		t.Errorf("%d tasks are left, %v", len(tasks), err)
	}
}

func TestSQLDoorReads(t *testing.T) {
	t.Parallel()
	db := seeded(t)
	for sql, want := range map[string]string{
		"SELECT count(*) FROM distributed_tasks;":                                             `[[15]]`,
		"select status, count(*) n from distributed_tasks group by all order by n desc -- so": `[["completed",11],["failed",4]]`,
		"WITH x AS (SELECT 1 AS a, 2 AS a) SELECT * FROM x":                                   `[[1,2]]`,
		"FROM distributed_tasks SELECT seq ORDER BY seq DESC LIMIT 2":                         `[[15],[14]]`,
		"(SELECT 1)":                 `[[1]]`,
		"VALUES (1, 'a'), (2, NULL)": `[[1,"a"],[2,null]]`,
		"SELECT 9007199254740993, 1.10, sum(seq) FROM distributed_tasks":                              `[[9007199254740993,1.10,120]]`,
		"SELECT config FROM distributed_tasks WHERE seq = 2":                                          `[[{"args":["-n","2"],"program":"/bin/echo"}]]`,
		"SELECT config->>'$.program' FROM distributed_tasks WHERE seq = 2":                            `[["/bin/echo"]]`,
		"SELECT end_time, end_time::DATE, end_time - start_time FROM distributed_tasks WHERE seq = 1": `[["2026-03-04T05:06:08.891234Z","2026-03-04","00:00:01"]]`,
		"SELECT execution_time_seconds, seconds FROM task_execution_history LIMIT 1":                  `[[0.33333334,0.3333333333333333]]`,
		"SELECT [1,2], {'a': 'b'}, 'nan'::DOUBLE, true, 'x'::BLOB":                                    `[[[1,2],{"a":"b"},"NaN",true,"x"]]`,
		"SELECT i FROM range(3) t(i)":                                                                 `[[0],[1],[2]]`,
		"SELECT range(3), repeat('ab', 3), 'read_csv(', $$glob('x')$$":                                `[[[0,1,2],"ababab","read_csv(","glob('x')"]]`,
		"SELECT column_name FROM (DESCRIBE worker_nodes) LIMIT 1":                                     `[["worker_id"]]`,
		"SELECT result->>'output' FROM ledger.distributed_tasks WHERE seq = 1":                        `[["größe \"x\""]]`,
		"SELECT applied_index FROM ledger_meta":                                                       `[[4]]`,
		"TABLE ledger_gaps":                                                                           `[]`,
		"SELECT worker_id, hostname, tags->>'rack' FROM worker_nodes":                                 `[["w1","host-w1","7"]]`,
		"SELECT hardware_metrics IS NULL FROM worker_nodes":                                           `[[true]]`,
	} {
		result, err := db.Query(t.Context(), store.Query{SQL: sql})
		if err != nil {
			t.Errorf("%s: %v", sql, err)
			continue
		}
		got, err := json.Marshal(result.Rows)
		if err != nil || string(got) != want || result.Index != 4 || result.Truncated {
			t.Errorf("%s:\n got %s (index %d, truncated %v), %v\nwant %s", sql, got, result.Index, result.Truncated, err, want)
		}
		if len(result.Columns) != len(result.Types) {
			t.Errorf("%s: columns %v, types %v", sql, result.Columns, result.Types)
		}
	}
	for _, sql := range []string{"SHOW TABLES", "SHOW ALL TABLES", "DESCRIBE events", "SUMMARIZE distributed_tasks", "EXPLAIN SELECT * FROM events", "SELECT * FROM duckdb_tables()", "SELECT * FROM information_schema.columns",
		"PIVOT distributed_tasks ON status IN ('completed', 'failed') USING count(*) GROUP BY type"} {
		if result, err := db.Query(t.Context(), store.Query{SQL: sql}); err != nil || len(result.Rows) == 0 {
			t.Errorf("%s: %d rows, %v", sql, len(result.Rows), err)
		} else if _, err := json.Marshal(result); err != nil {
			t.Errorf("%s: %v", sql, err)
		}
	}
}

func TestQueryIsBounded(t *testing.T) {
	t.Parallel()
	db := seeded(t)
	result, err := db.Query(t.Context(), store.Query{SQL: "SELECT i FROM range(1000000) t(i) ORDER BY i DESC", MaxRows: 7})
	if err != nil || len(result.Rows) != 7 || !result.Truncated || result.Rows[0][0] != int64(999_999) {
		t.Errorf("7 rows of a million: %d, truncated %v, %v, %v", len(result.Rows), result.Truncated, result.Rows[0], err)
	}
	result, err = db.Query(t.Context(), store.Query{SQL: "SELECT seq FROM distributed_tasks", MaxRows: 15})
	if err != nil || len(result.Rows) != 15 || result.Truncated {
		t.Errorf("15 rows of 15: %d, truncated %v, %v", len(result.Rows), result.Truncated, err)
	}
	result, err = db.Query(t.Context(), store.Query{SQL: "SELECT repeat('x', 1000000) FROM range(100)"})
	if err != nil || !result.Truncated || len(result.Rows) < 60 || len(result.Rows) > 67 {
		t.Errorf("100 MB of values: %d rows, truncated %v, %v", len(result.Rows), result.Truncated, err)
	}
	begun := time.Now()
	_, err = db.Query(t.Context(), store.Query{SQL: "SELECT count(*) FROM range(1000000) a, range(1000000) b WHERE a.range * b.range = 7", Timeout: 100 * time.Millisecond})
	if labmesh.ReasonOf(err) != labmesh.Exhausted || !strings.Contains(err.Error(), "100ms") || time.Since(begun) > 10*time.Second {
		t.Errorf("a join that never ends: %v after %s", err, time.Since(begun))
	}
	_, err = db.Query(t.Context(), store.Query{SQL: "SELECT length(string_agg(i::VARCHAR || repeat('x', 1000))) FROM range(10000000) t(i)"})
	if labmesh.ReasonOf(err) != labmesh.TooLarge {
		t.Errorf("a text of 10 GB: %v", err)
	}
	if _, err := db.Query(t.Context(), store.Query{SQL: "SELECT 1"}); err != nil {
		t.Errorf("the statement after: %v", err)
	}
}

func TestParquetHoldsWhatTheQueryFound(t *testing.T) {
	t.Parallel()
	db := seeded(t)
	var file bytes.Buffer
	if err := db.WriteParquet(t.Context(), store.Query{SQL: "SELECT * FROM distributed_tasks;", Live: live{index: 2}}, &file); err != nil {
		t.Fatal(err)
	}
	if b := file.Bytes(); len(b) < 8 || string(b[:4]) != "PAR1" || string(b[len(b)-4:]) != "PAR1" {
		t.Errorf("%d bytes that are no Parquet", file.Len())
	}
	entries, err := os.ReadDir(db.exports())
	if err != nil || len(entries) != 0 {
		t.Errorf("left in the exports directory: %v, %v", entries, err)
	}
}

// live is a node's state for a query.
type live struct {
	index   uint64
	tasks   []*labmesh.Task
	workers []store.LiveWorker
	read    *int // counts how often the tasks are read
}

func (l live) Index() uint64 { return l.index }

func (l live) Tasks() iter.Seq[*labmesh.Task] {
	return func(yield func(*labmesh.Task) bool) {
		if l.read != nil {
			*l.read++
		}
		for _, t := range l.tasks {
			if !yield(t) {
				return
			}
		}
	}
}

func (l live) Workers() iter.Seq[store.LiveWorker] {
	return func(yield func(store.LiveWorker) bool) {
		for _, w := range l.workers {
			if !yield(w) {
				return
			}
		}
	}
}

func TestQuerySeesLiveAndFinishedTasksOnce(t *testing.T) {
	t.Parallel()
	db := seeded(t) // five tasks end at each of the indexes 1, 2 and 3
	for index := uint64(0); index <= 3; index++ {
		// The state at index: what ended later is running, the rest finished but still held.
		l := live{index: index}
		for seq := uint64(1); seq <= 16; seq++ {
			task := &labmesh.Task{ID: labmesh.TaskID(fmt.Sprintf("01J%020d", seq)), Seq: seq, Phase: labmesh.Running, Created: storetest.Epoch, Index: index}
			if ended := (seq + 4) / 5; ended <= index {
				task.Phase, task.Index = labmesh.Completed, ended
			}
			l.tasks = append(l.tasks, task)
		}
		result, err := db.Query(t.Context(), store.Query{Live: l, SQL: "SELECT count(*), count(DISTINCT task_id), count(*) FILTER (status = 'running'), sum(seq) FROM distributed_tasks"})
		if err != nil {
			t.Fatal(err)
		}
		got, _ := json.Marshal(result.Rows)
		if want := fmt.Sprintf("[[16,16,%d,136]]", 16-5*index); string(got) != want || result.Index != index {
			t.Errorf("at %d: %s (index %d), want %s", index, got, result.Index, want)
		}
	}
	// A state ahead of the ledger: what it holds finished stands in for rows to come.
	ahead := live{index: 9, tasks: []*labmesh.Task{{ID: "x", Seq: 16, Phase: labmesh.Failed, Index: 8, Created: storetest.Epoch}}}
	result, err := db.Query(t.Context(), store.Query{Live: ahead, SQL: "SELECT count(*) FROM distributed_tasks"})
	if err != nil || result.Rows[0][0] != int64(16) || result.Index != 4 {
		t.Errorf("ahead of the ledger: %v (index %d), %v", result.Rows, result.Index, err)
	}
	// Without a state the same connections see the ledger alone.
	result, err = db.Query(t.Context(), store.Query{SQL: "SELECT count(*) FROM distributed_tasks"})
	if err != nil || result.Rows[0][0] != int64(15) {
		t.Errorf("the ledger alone: %v, %v", result.Rows, err)
	}
}

func TestQuerySeesWorkersAsTheyAre(t *testing.T) {
	t.Parallel()
	db := seeded(t)
	l := live{index: 4, workers: []store.LiveWorker{
		{Worker: &labmesh.Worker{ID: "w1", Status: labmesh.WorkerActive, Registered: storetest.Epoch, Index: 4}, Status: "busy",
			Heartbeat: storetest.Epoch.Add(time.Hour), Metrics: &labmesh.Metrics{CPUPercent: 12.5}},
		{Worker: &labmesh.Worker{ID: "w2", Status: labmesh.WorkerDraining, Index: 4}},
	}}
	result, err := db.Query(t.Context(), store.Query{Live: l, SQL: `SELECT worker_id, status, last_heartbeat, hardware_metrics->>'cpu_percent' FROM worker_nodes ORDER BY ALL`})
	if err != nil {
		t.Fatal(err)
	}
	got, _ := json.Marshal(result.Rows)
	if want := `[["w1","busy","2026-03-04T06:06:07.891234Z","12.5"],["w2","draining",null,null]]`; string(got) != want {
		t.Errorf("workers %s, want %s", got, want)
	}
}

func TestTablesAreShownOnce(t *testing.T) {
	t.Parallel()
	db := seeded(t)
	for _, l := range []store.LiveRows{nil, live{index: 4}, nil} {
		result, err := db.Query(t.Context(), store.Query{Live: l, SQL: "SHOW TABLES"})
		if err != nil {
			t.Fatal(err)
		}
		got, _ := json.Marshal(result.Rows)
		if want := `[["audit_log"],["benchmark_latest"],["benchmark_results"],["benchmark_runs"],["benchmark_summary"],["distributed_tasks"],["events"],["failing_tests"],["flaky_tests"],["ledger_gaps"],["ledger_meta"],["slowest_tests"],["task_execution_history"],["test_results"],["tests_by_platform"],["worker_nodes"]]`; string(got) != want {
			t.Errorf("tables %s, want %s", got, want)
		}
	}
}

func TestLiveTasksAreLeftAloneUnlessAskedFor(t *testing.T) {
	t.Parallel()
	db := seeded(t)
	read := 0
	l := live{index: 4, read: &read}
	for _, sql := range []string{"SELECT count(*) FROM events", "SELECT count(*) FROM ledger.distributed_tasks", "SELECT * FROM worker_nodes", "EXPLAIN SELECT * FROM distributed_tasks"} {
		if _, err := db.Query(t.Context(), store.Query{Live: l, SQL: sql}); err != nil {
			t.Errorf("%s: %v", sql, err)
		}
	}
	if read != 0 {
		t.Errorf("live tasks were read %d times", read)
	}
}

func TestQueriesAndWritesAtOnce(t *testing.T) {
	t.Parallel()
	db := open(t, Config{})
	done := make(chan error, 3)
	for range cap(done) {
		go func() {
			for last := 0; last < 200; {
				result, err := db.Query(t.Context(), store.Query{SQL: "SELECT (SELECT count(*) FROM distributed_tasks), (SELECT applied_index FROM ledger_meta)"})
				if err != nil {
					done <- err
					return
				}
				tasks, index := result.Rows[0][0].(int64), result.Rows[0][1].(int64)
				if tasks != 3*index || uint64(index) != result.Index {
					done <- fmt.Errorf("%d tasks at index %d, result %d", tasks, index, result.Index)
					return
				}
				last = int(index)
			}
			done <- nil
		}()
	}
	var m storetest.Mesh
	for range 200 {
		events := m.FinishBatch(3)
		if err := db.Append(t.Context(), m.Index, events); err != nil {
			t.Fatal(err)
		}
	}
	for range cap(done) {
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
}

func TestFormatsAreMeasured(t *testing.T) {
	t.Parallel()
	for format, want := range map[string]float64{"'%5d'": 5, "'{:30} %7s'": 30, "'no'": 0, "x": math.NaN(), "'%*d'": math.NaN(), "'a' || 'b'": math.NaN()} {
		got, ok := formatSize(scan(format))
		if ok == math.IsNaN(want) || ok && got != want {
			t.Errorf("%s: %v, %v", format, got, ok)
		}
	}
}
