package duckdb

import (
	"context"
	"database/sql"
	"encoding/json"
	"fmt"
	"strings"
	"sync"

	duck "github.com/duckdb/duckdb-go/v2"

	"labmesh"
	"labmesh/store"
)

// The table functions that yield what is in the node's state.
const (
	liveTasksFunc   = "labmesh_live_tasks"
	liveWorkersFunc = "labmesh_live_workers"
)

// liveTable lends what is live to the table functions, by the number of the
// query that it was given with.
type liveTable struct {
	mu   sync.Mutex
	last int64
	rows map[int64]*liveRows
}

// liveRows is what is live for one query.
type liveRows struct {
	store.LiveRows
	applied uint64 // of the ledger, in the query's transaction
}

func newLiveTable() *liveTable { return &liveTable{rows: make(map[int64]*liveRows)} }

func (l *liveTable) add(rows *liveRows) int64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.last++
	l.rows[l.last] = rows
	return l.last
}

func (l *liveTable) remove(id int64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.rows, id)
}

func (l *liveTable) get(id any) (*liveRows, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	n, _ := id.(int64)
	if rows := l.rows[n]; rows != nil {
		return rows, nil
	}
	return nil, fmt.Errorf("no query %v", id)
}

// register adds the table functions to the instance that conn belongs to.
func (l *liveTable) register(conn *sql.Conn) error {
	number, err := duck.NewTypeInfo(duck.TYPE_BIGINT)
	if err != nil {
		return err
	}
	for name, source := range map[string]func(*liveRows) duck.RowTableSource{
		liveTasksFunc:   func(l *liveRows) duck.RowTableSource { return &liveTasks{live: l} },
		liveWorkersFunc: func(l *liveRows) duck.RowTableSource { return &liveWorkers{live: l} },
	} {
		err := duck.RegisterTableUDF(conn, name, duck.RowTableFunction{
			Config: duck.TableFunctionConfig{Arguments: []duck.TypeInfo{number}},
			BindArguments: func(_ map[string]any, args ...any) (duck.RowTableSource, error) {
				rows, err := l.get(args[0])
				if err != nil {
					return nil, err
				}
				return source(rows), nil
			},
		})
		if err != nil {
			return fmt.Errorf("register %s: %w", name, err)
		}
	}
	return nil
}

// views make the tables of a connection show the mesh as it was at index: rows
// of the file up to it, and what was live. A task was live at index if and only
// if its final row comes from a later entry, so that it is never shown twice
// and never missing.
func views(id int64, index uint64) []string {
	statements := make([]string, 0, len(store.Tables()))
	for _, t := range store.Tables() {
		view := "CREATE OR REPLACE TEMP VIEW " + t.Name + " AS SELECT * FROM " + full(t)
		switch t {
		case &store.WorkersTable: // what is live replaces the row of the file
			view += fmt.Sprintf(" WHERE worker_id NOT IN (SELECT worker_id FROM %s(%d)) UNION ALL %s",
				liveWorkersFunc, id, fromLive(t, liveWorkersFunc, id))
		case &store.TasksTable:
			view += fmt.Sprintf(" WHERE log_index <= %d UNION ALL %s", index, fromLive(t, liveTasksFunc, id))
		default:
			view += fmt.Sprintf(" WHERE log_index <= %d", index)
		}
		statements = append(statements, view)
	}
	return statements
}

func fromLive(t *store.Table, function string, id int64) string {
	var cols []string
	for _, c := range t.Columns {
		cols = append(cols, ident(c.Name)+"::"+c.Type.SQL()+" AS "+ident(c.Name))
	}
	return fmt.Sprintf("SELECT %s FROM %s(%d)", strings.Join(cols, ", "), function, id)
}

// columnInfos are the columns of t as a table function yields them. JSON is
// text on its way: the driver would encode it again.
func columnInfos(t *store.Table) []duck.ColumnInfo {
	types := map[store.Type]duck.Type{
		store.Text: duck.TYPE_VARCHAR, store.JSON: duck.TYPE_VARCHAR, store.Integer: duck.TYPE_INTEGER,
		store.BigInt: duck.TYPE_BIGINT, store.Float: duck.TYPE_FLOAT, store.Double: duck.TYPE_DOUBLE,
		store.Timestamp: duck.TYPE_TIMESTAMP, store.Boolean: duck.TYPE_BOOLEAN,
	}
	infos := make([]duck.ColumnInfo, len(t.Columns))
	for i, c := range t.Columns {
		info, err := duck.NewTypeInfo(types[c.Type])
		if err != nil {
			continue // DuckDB refuses a column without a type
		}
		infos[i] = duck.ColumnInfo{Name: c.Name, T: info}
	}
	return infos
}

func fill(to duck.Row, row store.Row) error {
	for i, v := range row {
		if !to.IsProjected(i) {
			continue
		}
		if raw, ok := v.(json.RawMessage); ok {
			v = string(raw)
		}
		if err := to.SetRowValue(i, v); err != nil {
			return err
		}
	}
	return nil
}

// liveTasks yields the tasks that have no row in the file yet.
type liveTasks struct {
	live  *liveRows
	tasks []*labmesh.Task
	at    int
}

func (s *liveTasks) ColumnInfos() []duck.ColumnInfo     { return columnInfos(&store.TasksTable) }
func (s *liveTasks) Cardinality() *duck.CardinalityInfo { return nil }

// Init takes the tasks when a query really reads them.
func (s *liveTasks) Init() {
	s.tasks, s.at = nil, 0
	for t := range s.live.Tasks() {
		if !t.Phase.Final() || t.Index > s.live.applied {
			s.tasks = append(s.tasks, t)
		}
	}
}

func (s *liveTasks) FillRow(to duck.Row) (bool, error) {
	if s.at >= len(s.tasks) {
		return false, nil
	}
	t := s.tasks[s.at]
	s.at++
	row, err := store.TaskRow(t, t.Index)
	if err != nil {
		return false, err
	}
	return true, fill(to, row)
}

// liveWorkers yields all workers of the state.
type liveWorkers struct {
	live    *liveRows
	workers []store.LiveWorker
	at      int
}

func (s *liveWorkers) ColumnInfos() []duck.ColumnInfo     { return columnInfos(&store.WorkersTable) }
func (s *liveWorkers) Cardinality() *duck.CardinalityInfo { return nil }

// Init takes the workers when a query really reads them.
func (s *liveWorkers) Init() {
	s.workers, s.at = nil, 0
	for w := range s.live.Workers() {
		s.workers = append(s.workers, w)
	}
}

func (s *liveWorkers) FillRow(to duck.Row) (bool, error) {
	if s.at >= len(s.workers) {
		return false, nil
	}
	w := s.workers[s.at]
	s.at++
	row, err := store.WorkerRow(w, w.Worker.Index)
	if err != nil {
		return false, err
	}
	return true, fill(to, row)
}

// viewNames are the views that showLive makes.
func viewNames() (names []string) {
	for _, t := range store.Tables() {
		names = append(names, t.Name)
	}
	for _, r := range reports() {
		names = append(names, r.name)
	}
	return names
}

// showLive makes conn show live rows with those of the file, or the file alone
// if q.Live is nil. done must be called when the query is over.
func (db *DB) showLive(ctx context.Context, conn *duck.Conn, q *store.Query) (rows *liveRows, done func(), err error) {
	live := q.Live
	if live == nil {
		for _, name := range viewNames() {
			if _, err := conn.ExecContext(ctx, "DROP VIEW IF EXISTS temp.main."+name, nil); err != nil {
				return nil, nil, err
			}
		}
		return nil, func() {}, nil
	}
	rows = &liveRows{LiveRows: live}
	id := db.live.add(rows)
	statements := views(id, live.Index())
	for _, r := range mentioned(q.SQL) { // those in the file would not see the views that were just made
		statements = append(statements, "CREATE OR REPLACE TEMP VIEW "+r.name+" AS "+r.sql)
	}
	for _, v := range statements {
		if _, err := conn.ExecContext(ctx, v, nil); err != nil {
			db.live.remove(id)
			return nil, nil, err
		}
	}
	return rows, func() { db.live.remove(id) }, nil
}
