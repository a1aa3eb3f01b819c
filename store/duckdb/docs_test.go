package duckdb

import (
	"os"
	"strings"
	"testing"

	"labmesh"
	"labmesh/store"
)

// TestExamplesOfTheDocumentsRun runs every statement of docs/sql.md and docs/benchmarks.md, with what is
// live and without.
func TestExamplesOfTheDocumentsRun(t *testing.T) {
	t.Parallel()
	db := recorded(t, []suite{
		{"w1", map[string]string{"steady": "p", "retried": "fp", "arm": "p"}},
		{"arm1", map[string]string{"steady": "p", "retried": "p", "arm": "f"}},
		{"w2", map[string]string{"broken": "c"}},
		{"w2", map[string]string{"retried": "fp", "broken": "f"}},
	})
	benchmarked(t, db,
		[]measured{{"w1", 1, 10, ""}, {"w1", 1, 12, ""}, {"w1", 8, 90, labmesh.FlagContended}, {"w1", 16, 0, ""}},
		[]measured{{"arm1", 1, 40, ""}, {"arm1", 8, 300, ""}},
		[]measured{{"w1", 1, 22, ""}, {"w1", 1, 20, ""}, {"w1", 8, 160, ""}})
	doc, err := os.ReadFile("../../docs/sql.md")
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	run := func(sql string) {
		t.Helper()
		n++
		result, err := db.Query(t.Context(), store.Query{SQL: sql})
		if err != nil || len(result.Rows) == 0 && !strings.Contains(sql, "distributed_tasks") {
			t.Errorf("%s: %d rows, %v", sql, len(result.Rows), err)
		}
		if _, err := db.Query(t.Context(), store.Query{SQL: sql, Live: live{index: 99}}); err != nil {
			t.Errorf("%s, with what is live: %v", sql, err)
		}
	}
	for i, part := range strings.Split(string(doc), "```") {
		sql, ok := strings.CutPrefix(part, "sql\n")
		if i%2 == 0 || !ok {
			continue
		}
		run(sql)
	}
	benchmarks, err := os.ReadFile("../../docs/benchmarks.md")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(benchmarks)) {
		if sql, ok := strings.CutPrefix(strings.TrimSpace(line), `labmesh sql "`); ok {
			run(strings.TrimSuffix(sql, `"`))
		}
	}
	if n < 15 {
		t.Errorf("%d statements were found", n)
	}
}
