package duckdb

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"labmesh"
	benchreport "labmesh/bench/report"
	"labmesh/stats"
	"labmesh/store"
	"labmesh/store/storetest"
)

// TestReportsAskTheLedgerForWhatTheyMean: of all rows of a ledger a report is
// given those that its selectors and filters choose, and they are whole.
func TestReportsAskTheLedgerForWhatTheyMean(t *testing.T) {
	t.Parallel()
	db := open(t, Config{})
	var m storetest.Mesh
	worker := m.Worker("w1", labmesh.WorkerJoined, labmesh.WorkerActive)
	if err := db.Append(t.Context(), m.Index, worker); err != nil {
		t.Fatal(err)
	}
	full := m.Bench(storetest.BenchRows(6)...)
	full[0].Task.Spec.Labels = map[string]string{"it's": "o'clock", "$.x": "1", "commit": "FEDCBA98", "": "none"}
	if err := db.Append(t.Context(), m.Index, full); err != nil {
		t.Fatal(err)
	}
	benchmarked(t, db, []measured{{worker: "w1", batch: 1, ms: 2}, {worker: "w1", batch: 1, ms: 2.5}}, []measured{{worker: "w2", batch: 8, ms: 4}, {worker: "w2", batch: 8}})

	asked := 0
	ask := func(sql string) (out []string, err error) {
		asked++
		r, err := db.Query(t.Context(), store.Query{SQL: sql, MaxRows: benchreport.RowsMax + 1})
		for _, row := range r.Rows {
			out = append(out, row[0].(string))
		}
		return out, err
	}
	all, truncated, err := benchreport.Filter{}.Load(ask)
	if err != nil || truncated || len(all) != 10 {
		t.Fatalf("%d rows, %v", len(all), err)
	}
	host := all[slices.IndexFunc(all, func(r benchreport.Row) bool { return r.Worker == "w1" })].Host
	if host == "" {
		t.Error("a worker's hostname is not known")
	}
	last := all[len(all)-2] // the newest are last, and of these the one with times
	if last.Task == "" || last.Attempt != 1 || last.Run == "" || last.Repeat != 1 || last.Wall == nil || last.Wall.P50 != 4 || last.Wall.Min != 4 || *last.Throughput != 2000 || !last.Comparable ||
		last.Commit() == "" || last.Work.Batch != 8 || last.Work.DeviceName != "cpu of w2" || last.Series != "bert-w2-8" || last.Compare != "bert-8" || last.Started.Before(storetest.Epoch) || last.N != 100 {
		t.Errorf("%+v", last)
	}
	chosen := map[string]int{}
	for _, text := range []string{
		"bench-3", "task:bench-3", "bench-3-1", "run:bench-3-1", "worker:w1", "worker:" + host, "worker:W2", "engine:LABMESH-GO", "device:cpu", "device:CPU OF W2", "device:of w",
		"commit:c", "fedc", "FEDCBA98", "branch=main", "branch=größe", "it's=o'clock", "$.x=1", "arm:a", "arm:b", "git_sha=c3,worker:w1", "nothing", "branch=main,engine:none", "device:%",
	} {
		s, err := benchreport.ParseSelector(text)
		if err != nil {
			t.Fatal(err)
		}
		rows, _, err := benchreport.Filter{Sides: []benchreport.Selector{s}}.Load(ask)
		if err != nil {
			t.Errorf("%s: %v", text, err)
		}
		got, want := 0, 0
		for i := range rows {
			if s.Matches(&rows[i]) {
				got++
			}
		}
		for i := range all {
			if s.Matches(&all[i]) {
				want++
			}
		}
		if got != want {
			t.Errorf("%s: %d of %d rows came", text, got, want)
		}
		chosen[text] = want
	}
	for text, want := range map[string]int{"bench-3": 2, "worker:" + host: 8, "branch=main": 4, "it's=o'clock": 6, "$.x=1": 6, "fedc": 6, "nothing": 0, "device:of w": 4} {
		if chosen[text] != want {
			t.Errorf("%s chooses %d rows, want %d", text, chosen[text], want)
		}
	}
	for i, f := range []benchreport.Filter{
		{Model: "bert"}, {Model: "gpt2"}, {Batch: 8}, {Worker: "w2"}, {Device: "w1"}, {Engine: "torch"}, {Where: map[string]string{"branch": "main"}},
		{Since: last.Started}, {Since: last.Started.Add(-24 * time.Hour), Model: "bert-base-uncased"}, {Model: "x' OR 1=1 --"},
	} {
		rows, _, err := f.Load(ask)
		if want := len(f.Keep(all)); err != nil || len(rows) != want {
			t.Errorf("filter %d: %d rows, want %d, %v", i, len(rows), want, err)
		}
	}
	benchmarked(t, db, series(8, 5), series(8, 6))
	a, b := selectorOf(t, "bench-5"), selectorOf(t, "bench-6")
	rep, err := benchreport.CompareIn(ask, benchreport.Filter{}, a, b, stats.Options{})
	if err != nil || rep.Regressions != 1 || rep.Comparisons[0].A.Host != host {
		t.Errorf("%+v, %v", rep, err)
	}
	asked = 0
	if _, err := benchreport.CompareIn(ask, benchreport.Filter{}, a, selectorOf(t, "bench-99"), stats.Options{}); labmesh.ReasonOf(err) != labmesh.NotFound || asked != 2 {
		t.Errorf("%v after %d questions", err, asked)
	}
	main := benchreport.Filter{Model: "bert", Where: map[string]string{"branch": "main"}}
	if trends, err := benchreport.ChangesIn(ask, main, stats.TrendOptions{}); err != nil || len(trends.Series) != 2 {
		t.Errorf("%+v, %v", trends, err)
	}
	if curves, err := benchreport.CurvesIn(ask, main); err != nil || len(curves.Curves) != 2 {
		t.Errorf("%+v, %v", curves, err)
	}
}

func series(runs int, ms float64) (out []measured) {
	for i := range runs {
		out = append(out, measured{worker: "w1", batch: 1, ms: ms * (1 + 0.001*float64(i))})
	}
	return out
}

func selectorOf(t *testing.T, text string) benchreport.Selector {
	t.Helper()
	s, err := benchreport.ParseSelector(text)
	if err != nil {
		t.Fatal(fmt.Errorf("%s: %w", text, err))
	}
	return s
}
