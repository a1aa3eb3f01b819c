package memory

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"

	"labmesh/store"
)

// Require makes what is missing up to a snapshot a gap.
func (db *DB) Require(ctx context.Context, upto uint64) error {
	unlock, err := db.lock(ctx)
	if err != nil {
		return err
	}
	defer unlock()
	if upto > db.applied {
		db.gaps = append(db.gaps, store.Gap{After: db.applied, Upto: upto})
		db.applied = upto
	}
	return nil
}

// Gap is the oldest gap.
func (db *DB) Gap(ctx context.Context) (store.Gap, bool, error) {
	unlock, err := db.lock(ctx)
	if err != nil {
		return store.Gap{}, false, err
	}
	defer unlock()
	if len(db.gaps) == 0 {
		return store.Gap{}, false, nil
	}
	return db.gaps[0], true, nil
}

// Export writes the rows of a range of log indexes to w.
func (db *DB) Export(ctx context.Context, after, upto uint64, limitRows int, w io.Writer) (uint64, error) {
	unlock, err := db.lock(ctx)
	if err != nil {
		return 0, err
	}
	defer unlock()
	upto, err = store.Exportable(after, upto, db.applied, db.gaps)
	if err != nil {
		return 0, err
	}
	next := db.cut(after, upto, limitRows)
	enc, err := store.NewEncoder(w, after, next)
	if err != nil {
		return 0, fmt.Errorf("export rows: %w", err)
	}
	for i, rows := range db.tables {
		for _, row := range rows {
			if index := indexOf(i, row); index <= after || index > next {
				continue
			}
			if err := enc.Row(i, row); err != nil {
				return 0, fmt.Errorf("export rows: %w", err)
			}
		}
	}
	if err := enc.Close(); err != nil {
		return 0, fmt.Errorf("export rows: %w", err)
	}
	return next, nil
}

// cut is the log index at which about limit rows after after end.
func (db *DB) cut(after, upto uint64, limit int) uint64 {
	var indexes []uint64
	for i, rows := range db.tables {
		for _, row := range rows {
			if index := indexOf(i, row); index > after && index <= upto {
				indexes = append(indexes, index)
			}
		}
	}
	if limit <= 0 || len(indexes) <= limit {
		return upto
	}
	slices.Sort(indexes)
	return indexes[limit-1]
}

// Import appends what Export wrote.
func (db *DB) Import(ctx context.Context, r io.Reader, next uint64) error {
	dec, err := store.NewDecoder(r)
	if err != nil {
		return fmt.Errorf("import rows: %w", err)
	}
	var rows []placed
	for {
		i, row, err := dec.Row()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return fmt.Errorf("import rows: %w", err)
		}
		rows = append(rows, placed{i, row})
	}
	unlock, err := db.lock(ctx)
	if err != nil {
		return err
	}
	defer unlock()
	from, done, err := store.Importable(dec, next, db.gaps)
	if err != nil || done {
		return err
	}
	rows = slices.DeleteFunc(rows, func(p placed) bool { return indexOf(p.table, p.row) <= from })
	db.write(rows)
	for i := range db.tables {
		if i != workers { // older rows than those that are there
			slices.SortStableFunc(db.tables[i], func(a, b store.Row) int { return cmp.Compare(indexOf(i, a), indexOf(i, b)) })
		}
	}
	if db.gaps[0].After = next; next == db.gaps[0].Upto {
		db.gaps = db.gaps[1:]
	}
	return nil
}
