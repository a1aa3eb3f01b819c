package duckdb

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"strings"
	"time"

	duck "github.com/duckdb/duckdb-go/v2"

	"labmesh"
	"labmesh/store"
)

// Query runs one statement that reads, on a connection that can do nothing
// else: one statement, of a type that reads, in a read-only transaction, on an
// instance that can open no file and change no setting, interrupted at its
// timeout or when the process grows too large. What remains: a single call of a
// function is not interrupted. Those known to make giants of small arguments
// are bounded by checkSQL; others may hold a core and memory until they return.
func (db *DB) Query(ctx context.Context, q store.Query) (store.Result, error) {
	var result store.Result
	err := db.console(ctx, &q, func(ctx context.Context, s *session) (err error) {
		result, err = s.rows(ctx)
		return err
	})
	return result, err
}

// session is one statement of a person on its way.
type session struct {
	conn  *duck.Conn
	query store.Query
	index uint64 // that the rows stand for
}

// console checks q and lends it a connection that is inside its transaction.
func (db *DB) console(ctx context.Context, q *store.Query, work func(context.Context, *session) error) error {
	if err := checkSQL(q.SQL); err != nil {
		return err
	}
	bound(q)
	if scan(q.SQL)[0].text == "show" {
		q.Live = nil // the views that show live rows would be listed beside the tables
	}
	ctx, cancel := context.WithTimeout(ctx, q.Timeout)
	defer cancel()
	select {
	case db.queries <- struct{}{}:
		defer func() { <-db.queries }()
	case <-ctx.Done():
		return labmesh.Refuse(labmesh.Exhausted, "query: %d other statements are running; try again later", queriesMax)
	}
	sdb, release, err := db.use()
	if err != nil {
		return err
	}
	defer release()
	ctx, stop := watch(ctx, db.exports())
	defer stop()
	return explain(ctx, q, inSession(ctx, db, sdb, *q, work))
}

// bound puts q's limits in their bounds.
func bound(q *store.Query) {
	if q.Timeout <= 0 {
		q.Timeout = store.QueryTimeout
	}
	q.Timeout = min(q.Timeout, store.QueryTimeoutMax)
	if q.MaxRows <= 0 {
		q.MaxRows = store.QueryRows
	}
	q.MaxRows = min(q.MaxRows, store.QueryRowsMax)
}

func inSession(ctx context.Context, db *DB, sdb *sql.DB, q store.Query, work func(context.Context, *session) error) error {
	conn, err := sdb.Conn(ctx)
	if err != nil {
		return err
	}
	defer conn.Close()
	return conn.Raw(func(raw any) error {
		c := raw.(*duck.Conn)
		live, done, err := db.showLive(ctx, c, &q)
		if err != nil {
			return err
		}
		defer done()
		if _, err := c.ExecContext(ctx, "BEGIN TRANSACTION READ ONLY", nil); err != nil {
			return err
		}
		defer c.ExecContext(context.WithoutCancel(ctx), "ROLLBACK", nil) //nolint:errcheck // it may be over already
		s := &session{conn: c, query: q}
		if s.index, err = appliedRaw(ctx, c); err != nil {
			return err
		}
		if live != nil {
			live.applied = s.index
			s.index = min(s.index, live.Index())
		}
		return work(ctx, s)
	})
}

// appliedRaw is the applied index in the transaction of conn.
func appliedRaw(ctx context.Context, conn *duck.Conn) (uint64, error) {
	rows, err := conn.QueryContext(ctx, "SELECT applied_index FROM ledger.main.ledger_meta", nil)
	if err != nil {
		return 0, err
	}
	defer rows.Close()
	dst := make([]driver.Value, 1)
	if err := rows.Next(dst); err != nil {
		return 0, err
	}
	n, _ := dst[0].(int64)
	return uint64(n), nil
}

// column is a column of a result: how it is called and how it is read.
type column struct {
	name string
	sql  string // its type
	kind duck.Type
	json bool
}

// columns has DuckDB look at the statement, and refuses it unless it reads.
func (s *session) columns() (cols []column, plan bool, err error) {
	prepared, err := s.conn.Prepare(s.query.SQL)
	if err != nil {
		if strings.Contains(err.Error(), "multi-statement") {
			return nil, false, labmesh.Refuse(labmesh.Invalid, "query: one statement at a time (PIVOT without its values written out counts as several)")
		}
		return nil, false, err
	}
	stmt := prepared.(*duck.Stmt)
	defer stmt.Close()
	kind, err := stmt.StatementType()
	if err != nil {
		return nil, false, err
	}
	if kind != duck.STATEMENT_TYPE_SELECT && kind != duck.STATEMENT_TYPE_EXPLAIN {
		return nil, false, labmesh.Refuse(labmesh.Invalid, "query: this statement does not only read")
	}
	if stmt.NumInput() > 0 {
		return nil, false, labmesh.Refuse(labmesh.Invalid, "query: parameters ($1, ?) cannot be given here; write the values")
	}
	if kind == duck.STATEMENT_TYPE_EXPLAIN {
		return nil, true, nil
	}
	n, err := stmt.ColumnCount()
	if err != nil {
		return nil, false, err
	}
	for i := range n {
		c, err := columnOf(stmt, i)
		if err != nil {
			return nil, false, err
		}
		cols = append(cols, c)
	}
	return cols, false, nil
}

func columnOf(stmt *duck.Stmt, i int) (column, error) {
	name, err := stmt.ColumnName(i)
	if err != nil {
		return column{}, err
	}
	info, err := stmt.ColumnTypeInfo(i)
	if err != nil {
		return column{}, err
	}
	c := column{name: name, kind: info.InternalType(), sql: typeName(info), json: info.Alias() == "JSON"}
	switch c.kind {
	case duck.TYPE_LIST, duck.TYPE_ARRAY, duck.TYPE_STRUCT, duck.TYPE_MAP, duck.TYPE_UNION:
		c.json = true
	}
	return c, nil
}

// read is how the column called name is selected, so that encoding/json can
// write what arrives and nothing is lost on the way.
func (c column) read(name string) string {
	switch {
	case c.json && c.sql == "JSON":
		return name + "::VARCHAR"
	case c.json:
		return "to_json(" + name + ")::VARCHAR"
	}
	switch c.kind {
	case duck.TYPE_BOOLEAN, duck.TYPE_TINYINT, duck.TYPE_SMALLINT, duck.TYPE_INTEGER, duck.TYPE_BIGINT,
		duck.TYPE_UTINYINT, duck.TYPE_USMALLINT, duck.TYPE_UINTEGER, duck.TYPE_UBIGINT, duck.TYPE_FLOAT,
		duck.TYPE_DOUBLE, duck.TYPE_VARCHAR, duck.TYPE_TIMESTAMP, duck.TYPE_TIMESTAMP_S,
		duck.TYPE_TIMESTAMP_MS, duck.TYPE_TIMESTAMP_NS, duck.TYPE_TIMESTAMP_TZ:
		return name
	}
	return name + "::VARCHAR"
}

// value is what arrived for the column as encoding/json writes it.
func (c column) value(v driver.Value) any {
	switch v := v.(type) {
	case string:
		switch {
		case c.json:
			return json.RawMessage(v)
		case c.kind == duck.TYPE_HUGEINT, c.kind == duck.TYPE_UHUGEINT, c.kind == duck.TYPE_DECIMAL:
			return json.Number(v)
		}
	case float64:
		if math.IsNaN(v) || math.IsInf(v, 0) {
			return fmt.Sprint(v)
		}
	case float32:
		if f := float64(v); math.IsNaN(f) || math.IsInf(f, 0) {
			return fmt.Sprint(v)
		}
	case time.Time:
		return v.UTC()
	}
	return v
}

// bounded is the statement as it is run: with the columns as they can be read,
// and no more rows than asked for and one.
func (s *session) bounded(cols []column) string {
	var reads, names []string
	for i, c := range cols {
		name := fmt.Sprintf("c%d", i)
		names = append(names, name)
		reads = append(reads, c.read("q."+name))
	}
	return "SELECT " + strings.Join(reads, ", ") + " FROM (\n" + bare(s.query.SQL) +
		"\n) AS q(" + strings.Join(names, ", ") + ") LIMIT " + fmt.Sprint(s.query.MaxRows+1)
}

// bare is sql without what ends a statement, so that it can stand in parentheses.
func bare(sql string) string { return strings.TrimRight(sql, "; \t\r\n\f\v") }

// rows runs the statement.
func (s *session) rows(ctx context.Context) (store.Result, error) {
	result := store.Result{Rows: [][]any{}, Index: s.index}
	cols, plan, err := s.columns()
	if err != nil {
		return result, err
	}
	statement := s.query.SQL
	if plan {
		cols = []column{{name: "explain_key", sql: "VARCHAR"}, {name: "explain_value", sql: "VARCHAR"}}
	} else {
		statement = s.bounded(cols)
	}
	for _, c := range cols {
		result.Columns, result.Types = append(result.Columns, c.name), append(result.Types, c.sql)
	}
	rows, err := s.conn.QueryContext(ctx, statement, nil)
	if err != nil {
		return result, err
	}
	defer rows.Close()
	err = s.collect(ctx, rows, cols, &result)
	return result, err
}

// collect reads rows until a bound of the result is reached.
func (s *session) collect(ctx context.Context, rows driver.Rows, cols []column, result *store.Result) error {
	size := 0
	values := make([]driver.Value, len(cols))
	for {
		if err := rows.Next(values); errors.Is(err, io.EOF) {
			return ctx.Err()
		} else if err != nil {
			return err
		}
		row := make([]any, len(cols))
		for i, v := range values {
			row[i] = cols[i].value(v)
			size += 16
			if text, ok := v.(string); ok {
				size += len(text)
			}
		}
		if len(result.Rows) >= s.query.MaxRows || size > store.ResultBytesMax {
			result.Truncated = true
			return nil
		}
		result.Rows = append(result.Rows, row)
		if len(result.Rows)%1024 == 0 && ctx.Err() != nil {
			return ctx.Err()
		}
	}
}

// typeName is the SQL name of a type.
func typeName(info duck.TypeInfo) string {
	if alias := info.Alias(); alias != "" {
		return alias
	}
	return strings.TrimPrefix(typeNames[info.InternalType()], "TYPE_")
}

// typeNames are the types that a result may have.
var typeNames = map[duck.Type]string{
	duck.TYPE_BOOLEAN: "BOOLEAN", duck.TYPE_TINYINT: "TINYINT", duck.TYPE_SMALLINT: "SMALLINT",
	duck.TYPE_INTEGER: "INTEGER", duck.TYPE_BIGINT: "BIGINT", duck.TYPE_UTINYINT: "UTINYINT",
	duck.TYPE_USMALLINT: "USMALLINT", duck.TYPE_UINTEGER: "UINTEGER", duck.TYPE_UBIGINT: "UBIGINT",
	duck.TYPE_FLOAT: "FLOAT", duck.TYPE_DOUBLE: "DOUBLE", duck.TYPE_VARCHAR: "VARCHAR",
	duck.TYPE_TIMESTAMP: "TIMESTAMP", duck.TYPE_TIMESTAMP_S: "TIMESTAMP_S", duck.TYPE_TIMESTAMP_MS: "TIMESTAMP_MS",
	duck.TYPE_TIMESTAMP_NS: "TIMESTAMP_NS", duck.TYPE_TIMESTAMP_TZ: "TIMESTAMP WITH TIME ZONE",
	duck.TYPE_DATE: "DATE", duck.TYPE_TIME: "TIME", duck.TYPE_TIME_TZ: "TIME WITH TIME ZONE",
	duck.TYPE_INTERVAL: "INTERVAL", duck.TYPE_HUGEINT: "HUGEINT", duck.TYPE_UHUGEINT: "UHUGEINT",
	duck.TYPE_DECIMAL: "DECIMAL", duck.TYPE_BLOB: "BLOB", duck.TYPE_BIT: "BIT", duck.TYPE_ENUM: "ENUM",
	duck.TYPE_UUID: "UUID", duck.TYPE_LIST: "LIST", duck.TYPE_ARRAY: "ARRAY", duck.TYPE_STRUCT: "STRUCT",
	duck.TYPE_MAP: "MAP", duck.TYPE_UNION: "UNION", duck.TYPE_SQLNULL: "NULL", duck.TYPE_BIGNUM: "BIGNUM",
}
