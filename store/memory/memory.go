// Package memory keeps a ledger in memory, for tests in virtual time and for
// nodes that need none on disk. It holds the same rows as store/duckdb and
// speaks no SQL.
package memory

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"sort"
	"sync"

	"labmesh"
	"labmesh/store"
)

// DB is a ledger in memory.
type DB struct {
	mu      sync.Mutex
	applied uint64
	gaps    []store.Gap    // oldest first
	tables  [][]store.Row  // in the order of log indexes, but for workers
	workers map[string]int // place of a worker's row
	closed  bool
}

var _ store.Backend = (*DB)(nil)

var errClosed = errors.New("the ledger is closed")

// The places of the tables in store.Tables.
const (
	tasks = iota
	attempts
	workers
	events
	tests
	benches
)

// New is an empty ledger.
func New() *DB {
	return &DB{tables: make([][]store.Row, len(store.Tables())), workers: make(map[string]int)}
}

// Close forgets nothing; it only ends the use of the ledger.
func (db *DB) Close() error {
	db.mu.Lock()
	defer db.mu.Unlock()
	db.closed = true
	return nil
}

// lock is held by every method but Close while it looks at the rows.
func (db *DB) lock(ctx context.Context) (unlock func(), err error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	db.mu.Lock()
	if db.closed {
		db.mu.Unlock()
		return nil, errClosed
	}
	return db.mu.Unlock, nil
}

// Applied is the log index up to which the ledger is written.
func (db *DB) Applied() (uint64, error) {
	unlock, err := db.lock(context.Background())
	if err != nil {
		return 0, err
	}
	defer unlock()
	return db.applied, nil
}

// Append writes the rows of events that are new.
func (db *DB) Append(ctx context.Context, applied uint64, evs []labmesh.Event) error {
	unlock, err := db.lock(ctx)
	if err != nil {
		return err
	}
	defer unlock()
	var fresh []placed
	for i := range evs {
		if evs[i].Index <= db.applied {
			continue
		}
		err := store.RowsOf(&evs[i], func(t *store.Table, row store.Row) error {
			fresh = append(fresh, placed{slices.Index(store.Tables(), t), row})
			return nil
		})
		if err != nil {
			return fmt.Errorf("append the events of log index %d: %w", evs[i].Index, err)
		}
	}
	db.write(fresh)
	db.applied = max(db.applied, applied)
	return nil
}

// placed is a row and the place of its table.
type placed struct {
	table int
	row   store.Row
}

func (db *DB) write(rows []placed) {
	for _, p := range rows {
		if p.table == workers {
			db.replace(p.row)
			continue
		}
		db.tables[p.table] = append(db.tables[p.table], p.row)
	}
}

func (db *DB) replace(row store.Row) {
	id, _ := row[0].(string)
	at, known := db.workers[id]
	switch {
	case !known:
		db.workers[id] = len(db.tables[workers])
		db.tables[workers] = append(db.tables[workers], row)
	case indexOf(workers, db.tables[workers][at]) <= indexOf(workers, row):
		db.tables[workers][at] = row
	}
}

// indexOf is the log index of a row.
func indexOf(table int, row store.Row) uint64 {
	n, _ := row[store.Tables()[table].Index(store.LogIndex)].(int64)
	return uint64(n)
}

// between are the rows of a table, which is not workers, with log indexes in (after, upto].
func (db *DB) between(table int, after, upto uint64) []store.Row {
	rows := db.tables[table]
	beyond := func(index uint64) int {
		return sort.Search(len(rows), func(i int) bool { return indexOf(table, rows[i]) > index })
	}
	return rows[beyond(after):max(beyond(after), beyond(upto))]
}

// value is a text in a row, "" for NULL.
func value(table int, row store.Row, column string) string {
	s, _ := row[store.Tables()[table].Index(column)].(string)
	return s
}

// Task is the finished task with that id.
func (db *DB) Task(ctx context.Context, id labmesh.TaskID) (labmesh.Task, bool, error) {
	row, ok, err := db.find(ctx, func(row store.Row) bool { return value(tasks, row, "task_id") == string(id) })
	if err != nil || !ok {
		return labmesh.Task{}, false, err
	}
	t, err := store.TaskOf(row)
	if err != nil {
		return labmesh.Task{}, false, fmt.Errorf("read task %s: %w", id, err)
	}
	t.History, err = db.history(ctx, id, func(a labmesh.Attempt, index uint64) bool {
		return a.Status != store.Superseded && index <= t.Index
	})
	return t, err == nil, err
}

func (db *DB) find(ctx context.Context, is func(store.Row) bool) (store.Row, bool, error) {
	unlock, err := db.lock(ctx)
	if err != nil {
		return nil, false, err
	}
	defer unlock()
	for _, row := range slices.Backward(db.tables[tasks]) {
		if is(row) {
			return row, true, nil
		}
	}
	return nil, false, nil
}

// FindKey is the finished task that was submitted in project under key.
func (db *DB) FindKey(ctx context.Context, project, key string) (labmesh.TaskID, bool, error) {
	if key == "" {
		return "", false, nil
	}
	row, ok, err := db.find(ctx, func(row store.Row) bool {
		return value(tasks, row, "idempotency_key") == key && value(tasks, row, "project") == project
	})
	if err != nil || !ok {
		return "", false, err
	}
	return labmesh.TaskID(value(tasks, row, "task_id")), true, nil
}

// Tasks lists finished tasks by Seq.
func (db *DB) Tasks(ctx context.Context, f store.Filter) ([]labmesh.Task, error) {
	unlock, err := db.lock(ctx)
	if err != nil {
		return nil, err
	}
	defer unlock()
	var found []labmesh.Task
	for _, row := range db.tables[tasks] {
		t, err := store.TaskOf(row)
		if err != nil {
			return nil, fmt.Errorf("list tasks: %w", err)
		}
		if fits(&t, f) {
			found = append(found, t)
		}
	}
	slices.SortFunc(found, func(a, b labmesh.Task) int { return cmp.Compare(a.Seq, b.Seq) })
	return found[:min(len(found), store.Rows(f.Limit))], nil
}

func fits(t *labmesh.Task, f store.Filter) bool {
	return t.Seq > f.After &&
		(len(f.Phases) == 0 || slices.Contains(f.Phases, t.Phase)) &&
		(f.Kind == "" || f.Kind == t.Spec.Kind) &&
		(f.Project == "" || f.Project == t.Project) &&
		(f.Worker == "" || f.Worker == t.Worker)
}

// Attempts lists every ended attempt of a task.
func (db *DB) Attempts(ctx context.Context, id labmesh.TaskID) ([]labmesh.Attempt, error) {
	return db.history(ctx, id, func(labmesh.Attempt, uint64) bool { return true })
}

func (db *DB) history(ctx context.Context, id labmesh.TaskID, want func(labmesh.Attempt, uint64) bool) ([]labmesh.Attempt, error) {
	unlock, err := db.lock(ctx)
	if err != nil {
		return nil, err
	}
	defer unlock()
	var rows []store.Row
	for _, row := range db.tables[attempts] {
		if value(attempts, row, "task_id") == string(id) {
			rows = append(rows, row)
		}
	}
	slices.SortStableFunc(rows, func(a, b store.Row) int { return cmp.Compare(indexOf(attempts, a), indexOf(attempts, b)) })
	var found []labmesh.Attempt
	for _, row := range rows {
		a, index, err := store.AttemptOf(row)
		if err != nil {
			return nil, fmt.Errorf("attempts of %s: %w", id, err)
		}
		if want(a, index) {
			found = append(found, a)
		}
	}
	return found, nil
}

// Events lists events after a position.
func (db *DB) Events(ctx context.Context, after store.Position, limit int) ([]store.Event, error) {
	unlock, err := db.lock(ctx)
	if err != nil {
		return nil, err
	}
	defer unlock()
	var found []store.Event
	for _, row := range db.tables[events] {
		e, err := store.EventOf(row)
		if err != nil {
			return nil, fmt.Errorf("list events: %w", err)
		}
		if e.Index > after.Index || e.Index == after.Index && e.N > after.N {
			found = append(found, e)
		}
	}
	slices.SortFunc(found, func(a, b store.Event) int {
		return cmp.Or(cmp.Compare(a.Index, b.Index), cmp.Compare(a.N, b.N))
	})
	return found[:min(len(found), store.Rows(limit))], nil
}

// Tests lists the test cases that the log entries in (after, upto] recorded.
func (db *DB) Tests(ctx context.Context, after, upto uint64) ([]store.RecordedTests, error) {
	unlock, err := db.lock(ctx)
	if err != nil {
		return nil, err
	}
	defer unlock()
	var rows []store.RecordedTests
	for _, row := range db.between(tests, after, upto) {
		t, err := store.TestOf(row)
		if err != nil {
			return nil, fmt.Errorf("list test cases: %w", err)
		}
		rows = append(rows, t)
	}
	slices.SortFunc(rows, func(a, b store.RecordedTests) int { return cmp.Compare(a.ID, b.ID) })
	var found []store.RecordedTests
	for _, t := range rows {
		found = store.AddTest(found, t)
	}
	return found, nil
}

// Bench lists rows of benchmarks.
func (db *DB) Bench(ctx context.Context, f store.BenchFilter) ([]store.RecordedBench, error) {
	unlock, err := db.lock(ctx)
	if err != nil {
		return nil, err
	}
	defer unlock()
	upto, limit := f.Bound()
	var rows []store.RecordedBench
	for _, row := range db.between(benches, f.After, upto) {
		b, err := store.BenchOf(row)
		if err != nil {
			return nil, fmt.Errorf("list rows of benchmarks: %w", err)
		}
		if b.ID > f.AfterID && (f.Task == "" || f.Task == b.Task) {
			rows = append(rows, b)
		}
	}
	slices.SortFunc(rows, func(a, b store.RecordedBench) int { return cmp.Compare(a.ID, b.ID) })
	var found []store.RecordedBench
	for _, b := range rows[:min(len(rows), limit)] {
		found = store.AddBench(found, b)
	}
	return found, nil
}

// Query refuses: this ledger speaks no SQL.
func (db *DB) Query(context.Context, store.Query) (store.Result, error) {
	return store.Result{}, labmesh.Refuse(labmesh.Unavailable, "query: this node keeps its ledger in memory, which speaks no SQL; ask another node")
}

// WriteParquet refuses as Query does.
func (db *DB) WriteParquet(ctx context.Context, q store.Query, _ io.Writer) error {
	_, err := db.Query(ctx, q)
	return err
}
