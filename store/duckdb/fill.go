package duckdb

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io"

	"labmesh/store"
)

// Require makes what is missing up to a snapshot a gap.
func (db *DB) Require(ctx context.Context, upto uint64) error {
	err := db.writing(ctx, func(conn *sql.Conn) error {
		done, err := applied(ctx, conn)
		if err != nil || upto <= done {
			return err
		}
		if _, err := conn.ExecContext(ctx, "INSERT INTO ledger.main.ledger_gaps VALUES (?, ?)", int64(done), int64(upto)); err != nil {
			return err
		}
		_, err = conn.ExecContext(ctx, "UPDATE ledger.main.ledger_meta SET applied_index = ?", int64(upto))
		return err
	})
	if err != nil {
		return fmt.Errorf("note that the ledger lacks rows up to log index %d: %w", upto, err)
	}
	return nil
}

// Gap is the oldest gap.
func (db *DB) Gap(ctx context.Context) (store.Gap, bool, error) {
	sdb, release, err := db.use()
	if err != nil {
		return store.Gap{}, false, err
	}
	defer release()
	found, err := gaps(ctx, sdb)
	if err != nil || len(found) == 0 {
		return store.Gap{}, false, err
	}
	return found[0], true, nil
}

func gaps(ctx context.Context, q querier) ([]store.Gap, error) {
	rows, err := q.QueryContext(ctx, "SELECT after_index, upto_index FROM ledger.main.ledger_gaps ORDER BY upto_index")
	if err != nil {
		return nil, fmt.Errorf("read the ledger's gaps: %w", err)
	}
	defer rows.Close()
	var found []store.Gap
	for rows.Next() {
		var g store.Gap
		if err := rows.Scan(&g.After, &g.Upto); err != nil {
			return nil, fmt.Errorf("read the ledger's gaps: %w", err)
		}
		found = append(found, g)
	}
	return found, rows.Err()
}

// Export writes the rows of a range of log indexes to w, all as of one moment.
func (db *DB) Export(ctx context.Context, after, upto uint64, limitRows int, w io.Writer) (uint64, error) {
	sdb, release, err := db.use()
	if err != nil {
		return 0, err
	}
	defer release()
	tx, err := sdb.BeginTx(ctx, nil)
	if err != nil {
		return 0, fmt.Errorf("export rows: %w", err)
	}
	defer tx.Rollback()
	next, err := exportRange(ctx, tx, after, upto, limitRows)
	if err != nil {
		return 0, err
	}
	if err := export(ctx, tx, after, next, w); err != nil {
		return 0, fmt.Errorf("export rows after %d up to %d: %w", after, next, err)
	}
	return next, nil
}

// exportRange is the log index up to which rows are exported.
func exportRange(ctx context.Context, tx *sql.Tx, after, upto uint64, limit int) (uint64, error) {
	done, err := applied(ctx, tx)
	if err != nil {
		return 0, err
	}
	missing, err := gaps(ctx, tx)
	if err != nil {
		return 0, err
	}
	if upto, err = store.Exportable(after, upto, done, missing); err != nil || limit <= 0 {
		return upto, err
	}
	// A row of another table comes with an event of its own, so the events say
	// enough; but one event tells of many test cases or rows of a benchmark.
	const between = " WHERE log_index > $1 AND log_index <= $2"
	var cut sql.NullInt64
	err = tx.QueryRowContext(ctx, `SELECT log_index FROM (SELECT log_index FROM ledger.main.events`+between+`
		UNION ALL SELECT log_index FROM ledger.main.test_results`+between+`
		UNION ALL SELECT log_index FROM ledger.main.benchmark_results`+between+`)
		ORDER BY log_index LIMIT 1 OFFSET $3`, int64(after), int64(upto), max(limit/2-1, 0)).Scan(&cut)
	if errors.Is(err, sql.ErrNoRows) {
		return upto, nil
	}
	if err != nil {
		return 0, fmt.Errorf("export rows after %d: %w", after, err)
	}
	return uint64(cut.Int64), nil
}

func export(ctx context.Context, tx *sql.Tx, after, next uint64, w io.Writer) error {
	enc, err := store.NewEncoder(w, after, next)
	if err != nil {
		return err
	}
	for i, t := range store.Tables() {
		err := each(ctx, tx, t, "log_index > ? AND log_index <= ?", []any{int64(after), int64(next)}, func(row store.Row) error {
			return enc.Row(i, row)
		})
		if err != nil {
			return fmt.Errorf("%s: %w", t.Name, err)
		}
	}
	return enc.Close()
}

// Import appends what Export wrote and moves the start of the oldest gap, in
// one transaction: a stream that breaks off leaves nothing behind.
func (db *DB) Import(ctx context.Context, r io.Reader, next uint64) error {
	dec, err := store.NewDecoder(r)
	if err != nil {
		return fmt.Errorf("import rows: %w", err)
	}
	err = db.writing(ctx, func(conn *sql.Conn) error {
		missing, err := gaps(ctx, conn)
		if err != nil {
			return err
		}
		from, done, err := store.Importable(dec, next, missing)
		if err != nil || done {
			return err
		}
		w := newWriter(conn)
		if err := importRows(ctx, dec, w, from); err != nil {
			return errors.Join(err, w.discard())
		}
		if err := w.close(ctx); err != nil {
			return err
		}
		return moveGap(ctx, conn, missing[0], next)
	})
	if err != nil {
		return fmt.Errorf("import rows up to %d: %w", next, err)
	}
	return nil
}

func importRows(ctx context.Context, dec *store.Decoder, w *writer, from uint64) error {
	tables := store.Tables()
	for n := 0; ; n++ {
		i, row, err := dec.Row()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if n%1024 == 0 && ctx.Err() != nil {
			return ctx.Err()
		}
		if index, _ := row[tables[i].Index(store.LogIndex)].(int64); uint64(index) <= from {
			continue // imported before
		}
		if err := w.row(tables[i], row); err != nil {
			return err
		}
	}
}

func moveGap(ctx context.Context, conn *sql.Conn, g store.Gap, next uint64) error {
	if next == g.Upto {
		_, err := conn.ExecContext(ctx, "DELETE FROM ledger.main.ledger_gaps WHERE upto_index = ?", int64(g.Upto))
		return err
	}
	_, err := conn.ExecContext(ctx, "UPDATE ledger.main.ledger_gaps SET after_index = ? WHERE upto_index = ?", int64(next), int64(g.Upto))
	return err
}
