package main

import (
	"bytes"
	"context"
	"encoding/csv"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"labmesh/api"
	"labmesh/client"
)

// sqlFlags is how the rows of a query are wanted.
type sqlFlags struct {
	format, file string
	timeout      time.Duration
	maxRows      int
}

func newSQLCommand(a *app) *cobra.Command {
	var f sqlFlags
	cmd := &cobra.Command{
		Use:   "sql \"SELECT …\"",
		Short: "Ask the ledger in SQL, read-only",
		Long: `Ask the ledger in SQL: one read-only statement in DuckDB's dialect. The tables are
worker_nodes, distributed_tasks, task_execution_history, test_results and events; over
test results there are ready views: flaky_tests, failing_tests, slowest_tests and
tests_by_platform. Any node answers, also when the mesh has no leader.`,
		Example: `  labmesh sql "SELECT status, count(*) FROM distributed_tasks GROUP BY ALL"
  labmesh sql "FROM flaky_tests LIMIT 10"
  labmesh sql --format csv -o tasks.csv "SELECT * FROM distributed_tasks"
  labmesh sql --format parquet -o attempts.parquet "SELECT * FROM task_execution_history"`,
		Args: args(cobra.ExactArgs(1), "it takes one statement, in quotes"),
		RunE: func(cmd *cobra.Command, statement []string) error {
			if a.json && !cmd.Flags().Changed("format") {
				f.format = "json"
			}
			if err := f.check(a.out); err != nil {
				return err
			}
			c, err := a.client()
			if err != nil {
				return err
			}
			defer c.Close()
			q := api.QueryRequest{SQL: statement[0], TimeoutSeconds: f.timeout.Seconds(), MaxRows: f.maxRows}
			return f.write(a.out, func(w io.Writer) error { return a.query(cmd.Context(), c, q, f.format, w) })
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&f.format, "format", "table", "how to print the rows: `FORMAT` is table, json, csv or parquet")
	flags.StringVarP(&f.file, "output", "o", "", "write to this `FILE` instead of stdout")
	flags.DurationVar(&f.timeout, "timeout", 0, "give up on the query after this long (default the node's)")
	flags.IntVar(&f.maxRows, "max-rows", 0, "at most this many rows (default the node's)")
	return cmd
}

func (f sqlFlags) check(out io.Writer) error {
	switch f.format {
	case "table", "json", "csv":
	case "parquet":
		if f.file == "" && isTerminal(out) {
			return usagef("--format parquet is no text: name a file with -o")
		}
	default:
		return usagef("--format %s: it is table, json, csv or parquet", f.format)
	}
	if f.timeout < 0 || f.timeout > api.QueryTimeoutMax {
		return usagef("--timeout %s: it is 0s to %s", f.timeout, api.QueryTimeoutMax)
	}
	if f.maxRows < 0 || f.maxRows > api.QueryRowsMax {
		return usagef("--max-rows %d: it is 1 to %d", f.maxRows, api.QueryRowsMax)
	}
	return nil
}

// write has fill write to out, or to the file: whole or not at all.
func (f sqlFlags) write(out io.Writer, fill func(io.Writer) error) error {
	if f.file == "" {
		return fill(out)
	}
	if info, err := os.Stat(f.file); err == nil && !info.Mode().IsRegular() { // a device, a pipe: it stays what it is
		file, err := os.OpenFile(f.file, os.O_WRONLY, 0)
		if err != nil {
			return usagef("-o %s: %w", f.file, err)
		}
		return errors.Join(fill(file), file.Close())
	}
	tmp, err := os.CreateTemp(filepath.Dir(f.file), "."+filepath.Base(f.file)+".*")
	if err != nil {
		return usagef("-o %s: %w", f.file, err)
	}
	defer os.Remove(tmp.Name()) // after the rename it is not there
	if err := fill(tmp); err != nil {
		tmp.Close() // it is being given up
		return err
	}
	if err := tmp.Chmod(0o644); err != nil {
		tmp.Close() // it is being given up
		return fmt.Errorf("write %s: %w", f.file, err)
	}
	if err := tmp.Close(); err != nil {
		return fmt.Errorf("write %s: %w", f.file, err)
	}
	if err := os.Rename(tmp.Name(), f.file); err != nil {
		return fmt.Errorf("write %s: %w", f.file, err)
	}
	return nil
}

func (a *app) query(ctx context.Context, c *client.Client, q api.QueryRequest, format string, w io.Writer) error {
	if format == "parquet" {
		return c.QueryParquet(ctx, q, w)
	}
	r, err := c.Query(ctx, q)
	if err != nil {
		return err
	}
	if r.Truncated {
		a.note("Only the first %d rows: --max-rows takes up to %d.", len(r.Rows), api.QueryRowsMax)
	}
	switch format {
	case "json":
		enc := json.NewEncoder(w)
		enc.SetIndent("", "  ")
		enc.SetEscapeHTML(false)
		return enc.Encode(r)
	case "csv":
		return writeCSV(w, r)
	}
	t := newTable(w, r.Columns...)
	for _, row := range r.Rows {
		cells := make([]any, len(row))
		for i, v := range row {
			cells[i] = text(v, "NULL")
		}
		t.row(cells...)
	}
	return t.flush()
}

func writeCSV(w io.Writer, r api.QueryReply) error {
	out := csv.NewWriter(w)
	if err := out.Write(r.Columns); err != nil {
		return err
	}
	for _, row := range r.Rows {
		cells := make([]string, len(row))
		for i, v := range row {
			cells[i] = text(v, "")
		}
		if err := out.Write(cells); err != nil {
			return err
		}
	}
	out.Flush()
	return out.Error()
}

// text is a value of a row as text: strings as they are, the rest as JSON.
func text(v any, null string) string {
	switch v := v.(type) {
	case nil:
		return null
	case string:
		return v
	case json.Number:
		return v.String()
	}
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil { // what came as JSON goes as JSON
		return fmt.Sprint(v)
	}
	return string(bytes.TrimSpace(b.Bytes()))
}
