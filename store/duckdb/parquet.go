package duckdb

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"labmesh"
	"labmesh/store"
)

// WriteParquet runs q and writes its rows as a Parquet file. The file is made
// in a directory of its own, which nothing else may be in: it is the one place
// that DuckDB may open files in.
func (db *DB) WriteParquet(ctx context.Context, q store.Query, w io.Writer) error {
	dir := db.exports()
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("write parquet: %w", err)
	}
	file, err := os.CreateTemp(dir, "*.parquet")
	if err != nil {
		return fmt.Errorf("write parquet: %w", err)
	}
	defer os.Remove(file.Name())
	defer file.Close()
	err = db.console(ctx, &q, func(ctx context.Context, s *session) error {
		return s.copyTo(ctx, filepath.Join(dir, filepath.Base(file.Name())))
	})
	if err != nil {
		return err
	}
	made, err := os.Open(file.Name()) // DuckDB may have replaced the file
	if err != nil {
		return fmt.Errorf("write parquet: %w", err)
	}
	defer made.Close()
	if _, err := io.Copy(w, made); err != nil {
		return fmt.Errorf("write parquet: %w", err)
	}
	return nil
}

func (s *session) copyTo(ctx context.Context, path string) error {
	_, plan, err := s.columns()
	if err != nil {
		return err
	}
	if plan {
		return labmesh.Refuse(labmesh.Invalid, "query: a plan cannot be written as Parquet")
	}
	statement := fmt.Sprintf("COPY (SELECT * FROM (\n%s\n) LIMIT %d) TO %s (FORMAT parquet, COMPRESSION zstd)",
		bare(s.query.SQL), s.query.MaxRows, quote(path))
	_, err = s.conn.ExecContext(ctx, statement, nil)
	return err
}
