package httpapi

import (
	"bytes"
	"context"
	"encoding/json"
	"encoding/xml"
	"fmt"
	"image/png"
	"strings"
	"testing"
	"time"

	"labmesh"
	"labmesh/bench/report"
	"labmesh/stats"
)

// measuredLedger is a ledger with benchmark results of two tasks, of which the
// second is slower, and of ten days before.
func measuredLedger(t *testing.T) *fake {
	t.Helper()
	f := newFake()
	var rows [][]any
	add := func(task string, at time.Time, runs int, ms float64) {
		for k := range runs {
			for _, batch := range []int{4, 1} {
				r := report.Row{Task: labmesh.TaskID(task), Worker: "w1", Labels: map[string]string{"git_sha": "c-" + task}}
				r.Run, r.Started = fmt.Sprint(task, k), at
				r.Work = labmesh.BenchWork{Model: "mlp", Batch: batch, Requested: "fp32", Engine: "labmesh-go", DeviceClass: "cpu"}
				r.Series, r.Compare = stats.Keys(r.Work)
				r.Status, r.Comparable = labmesh.BenchOK, true
				r.Wall, r.Throughput = &labmesh.BenchTiming{P50: ms * float64(batch) * (1 + 0.001*float64(k)), Min: ms}, new(1000/ms)
				data, err := json.Marshal(r)
				if err != nil {
					t.Fatal(err)
				}
				rows = append(rows, []any{string(data)})
			}
		}
	}
	add("new", noon, 8, 3)
	add("old", noon.Add(-24*time.Hour), 8, 2)
	for i := range 10 {
		add(fmt.Sprint("day-", i), noon.Add(-time.Duration(i+2)*24*time.Hour), 1, 2)
	}
	f.query = func(_ context.Context, q Query) (QueryResult, error) {
		return QueryResult{Columns: []string{"result"}, Types: []string{"VARCHAR"}, Rows: rows}, nil
	}
	return f
}

func TestReportsOnBenchmarks(t *testing.T) {
	t.Parallel()
	f := measuredLedger(t)
	a, _ := newAPI(t, f)
	get := func(target string, to any) {
		t.Helper()
		w := do(a, "GET", target, "")
		if w.Code != 200 || w.Header().Get("Content-Type") != "application/json" {
			t.Fatalf("%s: %d %s", target, w.Code, w.Body)
		}
		if err := json.Unmarshal(w.Body.Bytes(), to); err != nil {
			t.Fatal(err)
		}
	}
	var set report.CurveSet
	get("/api/benchmarks/series?model=mlp", &set)
	if len(set.Curves) != 1 || len(set.Curves[0].Points) != 2 || set.Curves[0].Points[0].Batch != 1 || set.Curves[0].Points[0].Task != "new" {
		t.Errorf("%+v", set)
	}
	if !strings.Contains(f.asked.SQL, "b.model = 'mlp'") || f.asked.MaxRows != report.RowsMax+1 {
		t.Errorf("asked %+v", f.asked)
	}
	var trends report.Trends
	get("/api/benchmarks/trend?model=mlp&batch=4", &trends)
	if len(trends.Series) != 1 || len(trends.Series[0].Points) != 12 || trends.Series[0].Points[11].Commit != "c-new" {
		t.Errorf("%+v", trends)
	}
	var rep report.Comparisons
	get("/api/benchmarks/compare?a=old&b=git_sha%3Dc-new&effect=0.1", &rep)
	if rep.Regressions != 2 || rep.Comparisons[1].Batch != 4 {
		t.Errorf("%+v", rep)
	}
	get("/api/benchmarks/compare?a=old&b=new&effect=0.6&batch=1", &rep)
	if rep.Regressions != 0 || rep.Same != 1 {
		t.Errorf("an effect of 60 %%: %+v", rep)
	}
}

func TestReportsAreDrawn(t *testing.T) {
	t.Parallel()
	a, _ := newAPI(t, measuredLedger(t))
	for _, target := range []string{"/api/benchmarks/series?model=mlp", "/api/benchmarks/trend?model=mlp", "/api/benchmarks/compare?a=old&b=new"} {
		for _, ask := range []struct{ suffix, accept, media string }{
			{"&format=svg", "", "image/svg+xml"}, {"&format=png", "", "image/png"}, {"", "image/svg+xml", "image/svg+xml"},
			{"", "text/html, image/svg+xml", "application/json"}, {"&format=json", "image/png", "application/json"},
		} {
			w := do(a, "GET", target+ask.suffix, "", "Accept", ask.accept)
			if w.Code != 200 || w.Header().Get("Content-Type") != ask.media {
				t.Errorf("%s%s: %d %s", target, ask.suffix, w.Code, w.Header().Get("Content-Type"))
			}
			switch ask.media {
			case "image/png":
				if _, err := png.Decode(bytes.NewReader(w.Body.Bytes())); err != nil {
					t.Error(err)
				}
			case "image/svg+xml":
				if err := xml.Unmarshal(w.Body.Bytes(), new(struct{})); err != nil || !strings.Contains(w.Header().Get("Content-Security-Policy"), "default-src 'none'") {
					t.Errorf("%v, %v", err, w.Header())
				}
			}
		}
	}
}

func TestReportsRefuse(t *testing.T) {
	t.Parallel()
	a, _ := newAPI(t, measuredLedger(t))
	for target, want := range map[string]string{
		"compare": `400 a: it is missing`, "compare?a=old&b=none": `404 no benchmark results are chosen by \"none\"; there are models mlp`, "compare?a=worker:": "400 ",
		"compare?a=old&b=new&alpha=x": "400 alpha", "compare?a=old&b=new&alpha=NaN": "400 alpha", "compare?a=old&b=new&effect=99": "400 effect",
		"trend?model=gpt2": "404 no benchmark results fit model gpt2; there are models mlp", "trend?batch=x": "400 batch", "trend?batch=0": "400 batch",
		"series?where=x": "400 where", "series?since=never": "400 since", "series?format=pdf": "400 format",
	} {
		w := do(a, "GET", "/api/benchmarks/"+target, "")
		if got := fmt.Sprint(w.Code, " ", w.Body); !strings.HasPrefix(got, want[:3]) || !strings.Contains(got, want[4:]) {
			t.Errorf("%s: %s, want %s", target, got, want)
		}
	}
	if w := do(a, "GET", "/api/benchmarks/series", "", "X-API-Key", workerKey); w.Code != 403 {
		t.Errorf("a worker's key: %d", w.Code)
	}
	if w := do(a, "GET", "/api/benchmarks/series", "", "X-API-Key", ""); w.Code != 401 {
		t.Errorf("no key: %d", w.Code)
	}
	none := newFake()
	none.query = func(context.Context, Query) (QueryResult, error) { return QueryResult{}, nil }
	a, _ = newAPI(t, none)
	if w := do(a, "GET", "/api/benchmarks/series", ""); w.Code != 404 || !strings.Contains(w.Body.String(), "labmesh bench MODEL") {
		t.Errorf("an empty ledger: %d %s", w.Code, w.Body)
	}
}
