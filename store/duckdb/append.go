package duckdb

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	duck "github.com/duckdb/duckdb-go/v2"

	"labmesh"
	"labmesh/store"
)

// Applied is the log index up to which the ledger is written.
func (db *DB) Applied() (uint64, error) {
	sdb, release, err := db.use()
	if err != nil {
		return 0, err
	}
	defer release()
	return applied(context.Background(), sdb)
}

// querier is what reads: a database, a connection or a transaction.
type querier interface {
	QueryContext(ctx context.Context, query string, args ...any) (*sql.Rows, error)
	QueryRowContext(ctx context.Context, query string, args ...any) *sql.Row
}

func applied(ctx context.Context, q querier) (uint64, error) {
	var index uint64
	err := q.QueryRowContext(ctx, "SELECT applied_index FROM ledger.main.ledger_meta").Scan(&index)
	if err != nil {
		return 0, fmt.Errorf("read the ledger's applied index: %w", err)
	}
	return index, nil
}

// Append writes the rows of events that are new, and the applied index, in one
// transaction.
func (db *DB) Append(ctx context.Context, index uint64, events []labmesh.Event) error {
	err := db.writing(ctx, func(conn *sql.Conn) error {
		done, err := applied(ctx, conn)
		if err != nil || index <= done {
			return err
		}
		w := newWriter(conn)
		for i := range events {
			if events[i].Index <= done {
				continue
			}
			if err := store.RowsOf(&events[i], w.row); err != nil {
				return errors.Join(err, w.discard())
			}
		}
		if err := w.close(ctx); err != nil {
			return err
		}
		_, err = conn.ExecContext(ctx, "UPDATE ledger.main.ledger_meta SET applied_index = ?", int64(index))
		return err
	})
	if err != nil {
		return fmt.Errorf("append to the ledger up to log index %d: %w", index, err)
	}
	return nil
}

// writing runs work in a transaction, one at a time. An instance that a failed
// write has made useless, as a full disk does, is opened anew for the next try.
func (db *DB) writing(ctx context.Context, work func(*sql.Conn) error) error {
	db.write.Lock()
	defer db.write.Unlock()
	sdb, release, err := db.use()
	if err != nil {
		return err
	}
	err = transact(ctx, sdb, work)
	release()
	if err != nil && broken(err) {
		return errors.Join(err, db.reopen(ctx))
	}
	return err
}

func transact(ctx context.Context, sdb *sql.DB, work func(*sql.Conn) error) error {
	conn, err := sdb.Conn(ctx)
	if err != nil {
		return err
	}
	defer conn.Close()
	if _, err := conn.ExecContext(ctx, "BEGIN TRANSACTION"); err != nil {
		return err
	}
	if err = work(conn); err == nil {
		// Not to be interrupted: half a commit is the worst of both.
		_, err = conn.ExecContext(context.WithoutCancel(ctx), "COMMIT")
	}
	if err != nil {
		conn.ExecContext(context.WithoutCancel(ctx), "ROLLBACK") //nolint:errcheck // it may be over already
	}
	return err
}

// broken reports whether DuckDB says that it will do nothing more with the file.
func broken(err error) bool {
	s := err.Error()
	return strings.Contains(s, "has been invalidated") || strings.Contains(s, "FATAL") ||
		strings.Contains(s, "database is closed") // by reopen, which then found the disk still full
}

// reopen replaces an instance that is of no use any more. What was committed is
// in the file and its write-ahead log.
func (db *DB) reopen(ctx context.Context) error {
	db.state.Lock()
	defer db.state.Unlock()
	if db.closed {
		return errClosed
	}
	if err := db.db.Close(); err != nil {
		return fmt.Errorf("close the ledger to open it anew: %w", err)
	}
	sdb, err := db.attach(context.WithoutCancel(ctx))
	if err != nil {
		return fmt.Errorf("open the ledger anew: %w", err)
	}
	db.db = sdb
	return nil
}

// writer appends rows to the tables of a transaction.
type writer struct {
	conn      *sql.Conn
	appenders map[*store.Table]*duck.Appender
	replaced  map[*store.Table]map[string]store.Row // newest row of each name
}

func newWriter(conn *sql.Conn) *writer {
	return &writer{
		conn:      conn,
		appenders: make(map[*store.Table]*duck.Appender),
		replaced:  make(map[*store.Table]map[string]store.Row),
	}
}

func (w *writer) row(t *store.Table, row store.Row) error {
	if t.Replaced {
		rows := w.replaced[t]
		if rows == nil {
			rows = make(map[string]store.Row)
			w.replaced[t] = rows
		}
		name, _ := row[0].(string)
		rows[name] = row // events come in the order of the log
		return nil
	}
	a, err := w.appender(t)
	if err != nil {
		return err
	}
	if err := a.AppendRow(row...); err != nil {
		return fmt.Errorf("a row of %s: %w", t.Name, err)
	}
	return nil
}

func (w *writer) appender(t *store.Table) (*duck.Appender, error) {
	if a := w.appenders[t]; a != nil {
		return a, nil
	}
	var a *duck.Appender
	err := w.conn.Raw(func(raw any) (err error) {
		a, err = duck.NewAppender(raw.(*duck.Conn), catalog, "main", t.Name)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("append to %s: %w", t.Name, err)
	}
	w.appenders[t] = a
	return a, nil
}

// close writes what is still in hand.
func (w *writer) close(ctx context.Context) error {
	var errs []error
	for t, a := range w.appenders {
		if err := a.Close(); err != nil {
			errs = append(errs, fmt.Errorf("append to %s: %w", t.Name, err))
		}
	}
	if err := errors.Join(errs...); err != nil {
		return err
	}
	for t, rows := range w.replaced {
		for some := range slices.Chunk(slices.Collect(maps.Values(rows)), replaceMax) {
			if err := replace(ctx, w.conn, t, some); err != nil {
				return fmt.Errorf("write %d rows of %s: %w", len(some), t.Name, err)
			}
		}
	}
	return nil
}

// discard lets go of the appenders; what they wrote goes with the transaction.
func (w *writer) discard() error {
	var errs []error
	for _, a := range w.appenders {
		errs = append(errs, a.Clear(), a.Close())
	}
	return errors.Join(errs...)
}

// replaceMax bounds the rows that one statement replaces. DuckDB holds buffers for each statement until the
// transaction ends: with one for each row, some hundred rows took all of its memory.
const replaceMax = 256

// replace writes rows in place of those with the same names, but for those that are newer.
func replace(ctx context.Context, conn *sql.Conn, t *store.Table, rows []store.Row) error {
	var sets []string
	for _, c := range t.Columns[1:] {
		sets = append(sets, ident(c.Name)+" = excluded."+ident(c.Name))
	}
	marks := "(" + strings.TrimSuffix(strings.Repeat("?, ", len(t.Columns)), ", ") + ")"
	args := make([]any, 0, len(rows)*len(t.Columns))
	for _, row := range rows {
		for i, c := range t.Columns {
			arg := row[i]
			if raw, ok := row[i].(interface{ MarshalJSON() ([]byte, error) }); ok && c.Type == store.JSON {
				data, err := raw.MarshalJSON()
				if err != nil {
					return err
				}
				arg = string(data)
			}
			args = append(args, arg)
		}
	}
	_, err := conn.ExecContext(ctx, "INSERT INTO "+full(t)+" VALUES "+strings.TrimSuffix(strings.Repeat(marks+", ", len(rows)), ", ")+
		" ON CONFLICT ("+ident(t.Columns[0].Name)+") DO UPDATE SET "+strings.Join(sets, ", ")+
		" WHERE excluded.log_index >= "+t.Name+".log_index", args...)
	return err
}
