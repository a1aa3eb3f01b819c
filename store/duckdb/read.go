package duckdb

import (
	"context"
	"database/sql/driver"
	"encoding/json"
	"fmt"
	"strings"

	"labmesh"
	"labmesh/store"
)

// columns are the columns of t for a SELECT. JSON is read as text: the driver
// would take it apart.
func columns(t *store.Table) string {
	var cols []string
	for _, c := range t.Columns {
		col := ident(c.Name)
		if c.Type == store.JSON {
			col += "::VARCHAR"
		}
		cols = append(cols, col)
	}
	return strings.Join(cols, ", ")
}

// each calls yield with the rows of t that fit where, which may end in an ORDER BY.
func each(ctx context.Context, q querier, t *store.Table, where string, args []any, yield func(store.Row) error) error {
	rows, err := q.QueryContext(ctx, "SELECT "+columns(t)+" FROM "+full(t)+" WHERE "+where, args...)
	if err != nil {
		return err
	}
	defer rows.Close()
	values := make([]any, len(t.Columns))
	pointers := make([]any, len(values))
	for i := range values {
		pointers[i] = &values[i]
	}
	for rows.Next() {
		if err := rows.Scan(pointers...); err != nil {
			return err
		}
		row := make(store.Row, len(values))
		for i, v := range values {
			row[i] = plain(t.Columns[i].Type, v)
		}
		if err := yield(row); err != nil {
			return err
		}
	}
	return rows.Err()
}

// plain is a value of DuckDB as store.Row holds it.
func plain(t store.Type, v any) driver.Value {
	switch v := v.(type) {
	case int32:
		return int64(v)
	case float32:
		return float64(v)
	case string:
		if t == store.JSON {
			return json.RawMessage(v)
		}
	}
	return v
}

// Task is the finished task with that id.
func (db *DB) Task(ctx context.Context, id labmesh.TaskID) (labmesh.Task, bool, error) {
	sdb, release, err := db.use()
	if err != nil {
		return labmesh.Task{}, false, err
	}
	defer release()
	var t labmesh.Task
	err = each(ctx, sdb, &store.TasksTable, "task_id = ? LIMIT 1", []any{string(id)}, func(row store.Row) (err error) {
		t, err = store.TaskOf(row)
		return err
	})
	if err != nil {
		return labmesh.Task{}, false, fmt.Errorf("read task %s: %w", id, err)
	}
	if t.ID == "" {
		return labmesh.Task{}, false, nil
	}
	if t.Attempt > 0 {
		t.History, err = attempts(ctx, sdb, id, "status <> ? AND log_index <= ?", store.Superseded, int64(t.Index))
	}
	return t, err == nil, err
}

// FindKey is the finished task that was submitted in project under key.
func (db *DB) FindKey(ctx context.Context, project, key string) (labmesh.TaskID, bool, error) {
	sdb, release, err := db.use()
	if err != nil || key == "" {
		if err == nil {
			release()
		}
		return "", false, err
	}
	defer release()
	rows, err := sdb.QueryContext(ctx, "SELECT task_id FROM ledger.main.distributed_tasks WHERE idempotency_key = ? AND coalesce(project, '') = ? ORDER BY seq DESC LIMIT 1", key, project)
	if err != nil {
		return "", false, fmt.Errorf("find the task of an idempotency key: %w", err)
	}
	defer rows.Close()
	var id labmesh.TaskID
	if rows.Next() {
		if err := rows.Scan(&id); err != nil {
			return "", false, fmt.Errorf("find the task of an idempotency key: %w", err)
		}
	}
	return id, id != "", rows.Err()
}

// Tasks lists finished tasks by Seq.
func (db *DB) Tasks(ctx context.Context, f store.Filter) ([]labmesh.Task, error) {
	sdb, release, err := db.use()
	if err != nil {
		return nil, err
	}
	defer release()
	where, args := "seq > ?", []any{int64(f.After)}
	if len(f.Phases) > 0 {
		where += " AND status IN (?" + strings.Repeat(", ?", len(f.Phases)-1) + ")"
		for _, p := range f.Phases {
			args = append(args, string(p))
		}
	}
	if f.Kind != "" {
		where, args = where+" AND type = ?", append(args, string(f.Kind))
	}
	if f.Project != "" {
		where, args = where+" AND project = ?", append(args, f.Project)
	}
	if f.Worker != "" {
		where, args = where+" AND worker_id = ?", append(args, string(f.Worker))
	}
	var found []labmesh.Task
	where += fmt.Sprintf(" ORDER BY seq LIMIT %d", store.Rows(f.Limit))
	err = each(ctx, sdb, &store.TasksTable, where, args, func(row store.Row) error {
		t, err := store.TaskOf(row)
		found = append(found, t)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("list tasks: %w", err)
	}
	return found, nil
}

// Attempts lists every ended attempt of a task.
func (db *DB) Attempts(ctx context.Context, id labmesh.TaskID) ([]labmesh.Attempt, error) {
	sdb, release, err := db.use()
	if err != nil {
		return nil, err
	}
	defer release()
	return attempts(ctx, sdb, id, "true")
}

func attempts(ctx context.Context, q querier, id labmesh.TaskID, where string, args ...any) ([]labmesh.Attempt, error) {
	var found []labmesh.Attempt
	args = append([]any{string(id)}, args...)
	where = "task_id = ? AND " + where + " ORDER BY log_index, id"
	err := each(ctx, q, &store.AttemptsTable, where, args, func(row store.Row) error {
		a, _, err := store.AttemptOf(row)
		found = append(found, a)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("read the attempts of %s: %w", id, err)
	}
	return found, nil
}

// Events lists events after a position.
func (db *DB) Events(ctx context.Context, after store.Position, limit int) ([]store.Event, error) {
	sdb, release, err := db.use()
	if err != nil {
		return nil, err
	}
	defer release()
	var found []store.Event
	where := fmt.Sprintf("log_index >= ? AND (log_index > ? OR n > ?) ORDER BY log_index, n LIMIT %d", store.Rows(limit))
	args := []any{int64(after.Index), int64(after.Index), after.N}
	err = each(ctx, sdb, &store.EventsTable, where, args, func(row store.Row) error {
		e, err := store.EventOf(row)
		found = append(found, e)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("list events: %w", err)
	}
	return found, nil
}

// Tests lists the test cases that the log entries in (after, upto] recorded.
func (db *DB) Tests(ctx context.Context, after, upto uint64) ([]store.RecordedTests, error) {
	sdb, release, err := db.use()
	if err != nil {
		return nil, err
	}
	defer release()
	var found []store.RecordedTests
	err = each(ctx, sdb, &store.TestsTable, "log_index > ? AND log_index <= ? ORDER BY id", []any{int64(after), int64(upto)}, func(row store.Row) error {
		t, err := store.TestOf(row)
		found = store.AddTest(found, t)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("list test cases: %w", err)
	}
	return found, nil
}

// Bench lists rows of benchmarks.
func (db *DB) Bench(ctx context.Context, f store.BenchFilter) ([]store.RecordedBench, error) {
	sdb, release, err := db.use()
	if err != nil {
		return nil, err
	}
	defer release()
	upto, limit := f.Bound()
	where, args := "log_index > ? AND log_index <= ? AND id > ?", []any{int64(f.After), int64(upto), f.AfterID}
	if f.Task != "" {
		where, args = where+" AND task_id = ?", append(args, string(f.Task))
	}
	var found []store.RecordedBench
	err = each(ctx, sdb, &store.BenchTable, fmt.Sprintf("%s ORDER BY id LIMIT %d", where, limit), args, func(row store.Row) error {
		b, err := store.BenchOf(row)
		found = store.AddBench(found, b)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("list rows of benchmarks: %w", err)
	}
	return found, nil
}
