package main

import (
	"encoding/csv"
	"encoding/json"
	"encoding/xml"
	"fmt"
	"image/png"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"labmesh"
	"labmesh/api"
	"labmesh/bench/report"
	"labmesh/stats"
)

// benchRows are rows of tasks that measured the mlp, one task for each of ms:
// runs whose medians differ by little.
func benchRows(runs int, ms ...float64) (rows []report.Row) {
	for i, level := range ms {
		for k := range runs {
			for _, batch := range []int{1, 16} {
				r := report.Row{Task: labmesh.TaskID(fmt.Sprint("t", i+1)), Attempt: 1, Worker: "w-7", Host: "box1", Labels: map[string]string{"git_sha": fmt.Sprintf("%07x", 0xabc0000+i), "branch": "main"}}
				r.Run, r.Repeat = fmt.Sprintf("r%d-%d", i, k), k+1
				r.Started = time.Date(2026, 1, 1+i, 10, k, 0, 0, time.UTC)
				r.Work = labmesh.BenchWork{Model: "mlp", Batch: batch, Requested: "fp32", Effective: "fp32", Engine: "labmesh-go", DeviceClass: "cpu", DeviceName: "Example CPU"}
				r.Series, r.Compare = stats.Keys(r.Work)
				r.Status, r.Comparable, r.N = labmesh.BenchOK, true, 100
				p50 := level * float64(batch) * (1 + 0.001*float64((k*7+i*3)%10))
				r.Wall, r.Throughput = &labmesh.BenchTiming{P50: p50, Min: p50 * 0.97}, new(1000*float64(batch)/p50)
				rows = append(rows, r)
			}
		}
	}
	return rows
}

// withLedger has n answer every query with rows, as the ledger gives them.
func withLedger(t *testing.T, rows []report.Row) *fakeNode {
	t.Helper()
	n := newFakeNode(t)
	reply := api.QueryReply{Columns: []string{"result"}, Types: []string{"VARCHAR"}}
	for i := range rows {
		data, err := json.Marshal(rows[len(rows)-1-i])
		if err != nil {
			t.Fatal(err)
		}
		reply.Rows = append(reply.Rows, []any{string(data)})
	}
	n.override = func(w http.ResponseWriter, r *http.Request) bool {
		if r.URL.Path == "/api/query" {
			answer(w, 200, reply)
			return true
		}
		return false
	}
	return n
}

func TestCompareAndTrendPrintTables(t *testing.T) {
	t.Parallel()
	failed := benchRows(8, 2)
	for i := range failed {
		r := &failed[i]
		r.Task, r.Labels = "t9", map[string]string{"git_sha": "eee0000"}
		if r.Work.Batch == 16 {
			r.Status, r.Reason, r.Wall, r.Throughput, r.Comparable = labmesh.BenchOOM, "alloc of 2 GiB", nil, nil, false
		}
	}
	n := withLedger(t, append(benchRows(8, 2, 2.6), failed...))
	r := n.labmesh(t, "compare", "abc0000", "git_sha=abc0001")
	golden(t, "compare.txt", r.stdout)
	r.want(t, 0, r.stdout, "")
	r = n.labmesh(t, "compare", "t1", "t9", "--gate")
	golden(t, "compare-broken.txt", r.stdout)
	r.want(t, 1, r.stdout, "gate: 1 benchmark that A measured failed in B")

	levels := make([]float64, 16)
	for i := range levels {
		levels[i] = 3
		if i >= 9 {
			levels[i] = 3.6
		}
	}
	n = withLedger(t, benchRows(2, levels...))
	r = n.with(t, t.Context(), "", map[string]string{"TZ": "UTC"}, "trend", "mlp", "--gate")
	golden(t, "trend.txt", strings.ReplaceAll(r.stdout, time.Date(2026, 1, 10, 10, 0, 0, 0, time.UTC).Local().Format("2006-01-02 15:04"), "2026-01-10 10:00"))
	r.want(t, 1, r.stdout, "gate: 2 series became slower")
}

func TestCompareGate(t *testing.T) {
	t.Parallel()
	n := withLedger(t, benchRows(8, 2, 2.6, 2))
	for _, c := range []struct {
		args []string
		code int
		says string
	}{
		{[]string{"t1", "t2", "--gate"}, 1, "gate: 2 regressions"},
		{[]string{"t2", "t1", "--gate"}, 0, ""},
		{[]string{"t1", "t3", "--gate", "--strict"}, 0, ""},
		{[]string{"t1", "t2", "--gate", "--effect", "40%"}, 0, ""},
		{[]string{"t1", "t2", "--gate", "--strict", "--alpha", "1e-9"}, 1, "gate: 2 comparisons have too few runs"},
		{[]string{"t1", "t2", "--gate", "--batch", "1"}, 1, "gate: 1 regression"},
		{[]string{"t1", "t2", "--gate", "--model", "bert"}, 2, "there are none to choose from"},
		{[]string{"t1", "t7"}, 2, "tasks t1, t2, t3; commits abc0000"},
		{[]string{"t1", "t1"}, 2, "arm:b"},
		{[]string{"t1", "t2", "--strict"}, 2, "--strict is for --gate"},
		{[]string{"t1", "t2", "--since", "yesterday"}, 2, `--since: "yesterday" is not a time`},
		{[]string{"t1", "t2", "--since", "2h"}, 2, "tasks t2, t3"},
		{[]string{"t1", "t2", "--effect", "x"}, 2, "it is a share"},
		{[]string{"t1", "t2", "--alpha", "7"}, 2, "alpha: 7 is not in"},
		{[]string{"t1", "t2", "--plot", "x.pdf"}, 2, "a plot is a file .svg or .png"},
		{[]string{"worker:", "t2"}, 2, "without a value"},
		{[]string{"t1", "t2", "t3"}, 2, "it takes what to compare"},
	} {
		r := n.labmesh(t, append([]string{"compare"}, c.args...)...)
		if r.code != c.code || !strings.Contains(r.err, c.says) || c.says == "" && r.err != "" {
			t.Errorf("%v: exit code %d, want %d\n%s", c.args, r.code, c.code, r.err)
		}
	}
}

func TestCompareWritesFiles(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	junit, svg, image := filepath.Join(dir, "junit.xml"), filepath.Join(dir, "plot.svg"), filepath.Join(dir, "plot.png")
	n := withLedger(t, benchRows(8, 2, 2.6))
	r := n.labmesh(t, "compare", "t1", "t2", "--junit", junit, "--plot", svg, "--json", "--gate")
	var rep report.Comparisons
	if err := json.Unmarshal([]byte(r.stdout), &rep); err != nil || r.code != 1 || rep.Regressions != 2 || *rep.Comparisons[0].P > 0.01 {
		t.Errorf("exit code %d, %v: %s", r.code, err, r.stdout)
	}
	data, err := os.ReadFile(junit)
	if err != nil {
		t.Fatal(err)
	}
	if text := string(data); !strings.Contains(text, `tests="2" failures="2" errors="0" skipped="0"`) || !strings.Contains(text, `<failure message="slower by 29.9 %`) {
		t.Error(text)
	}
	if data, err := os.ReadFile(svg); err != nil || xml.Unmarshal(data, new(struct{})) != nil || !strings.Contains(string(data), "t2: labmesh-go, Example CPU") {
		t.Errorf("%v: %.200s", err, data)
	}
	n.labmesh(t, "trend", "mlp", "--plot", image, "--json")
	f, err := os.Open(image)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := png.Decode(f); err != nil {
		t.Error(err)
	}
	n.labmesh(t, "compare", "t1", "t2", "--plot", filepath.Join(dir, "none", "x.svg")).want(t, 2, n.labmesh(t, "compare", "t1", "t2").stdout, "none")
}

func TestTrendAsCSV(t *testing.T) {
	t.Parallel()
	n := withLedger(t, benchRows(3, 2, 2.1))
	r := n.labmesh(t, "trend", "mlp", "--format", "csv")
	lines, err := csv.NewReader(strings.NewReader(r.stdout)).ReadAll()
	if err != nil || len(lines) != 1+2*2 || !strings.Contains(r.err, "2 series") {
		t.Errorf("%v: %s%s", err, r.stdout, r.err)
	}
	r = n.labmesh(t, "trend", "mlp", "--format", "csv", "--batch", "16", "--where", "branch=main")
	if lines, err := csv.NewReader(strings.NewReader(r.stdout)).ReadAll(); err != nil || len(lines) != 1+2 || r.err != "" || lines[1][9] != "main" {
		t.Errorf("%v: %s%s", err, r.stdout, r.err)
	}
	for args, says := range map[string]string{"trend mlp --format xml": "table, json or csv", "trend gpt2": "there are models mlp", "trend mlp --where branch=x": "labels branch=main", "trend": "it takes a model"} {
		if r := n.labmesh(t, strings.Fields(args)...); r.code != 2 || !strings.Contains(r.err, says) {
			t.Errorf("%s: exit code %d: %s", args, r.code, r.err)
		}
	}
	r = n.labmesh(t, "trend", "mlp")
	if !strings.Contains(r.err, "from 10 points on") {
		t.Errorf("too few points: %s%s", r.stdout, r.err)
	}
}

func TestDigits(t *testing.T) {
	t.Parallel()
	for v, want := range map[float64]string{0.012345: "0.0123", 1.23456: "1.235", 12.3456: "12.35", 123.456: "123.5", 1234.56: "1235", 123456.7: "123457"} {
		if got := digits(v); got != want {
			t.Errorf("%g is %s, want %s", v, got, want)
		}
	}
}

func TestBenchDraws(t *testing.T) {
	t.Parallel()
	n := newFakeNode(t)
	n.workers = benchLab()
	n.measured = func(labmesh.Spec) (rows []labmesh.BenchRow) {
		return append(rows, timed(1, 1, "", 10), timed(1, 4, "", 35), timed(1, 8, "", 66))
	}
	file := filepath.Join(t.TempDir(), "mlp.svg")
	if r := n.labmesh(t, "bench", "mlp", "--no-git", "--plot", file); r.code != 0 {
		t.Errorf("exit code %d: %s", r.code, r.err)
	}
	if data, err := os.ReadFile(file); err != nil || xml.Unmarshal(data, new(struct{})) != nil || !strings.Contains(string(data), "labmesh-go, EPYC") {
		t.Errorf("%v: %.300s", err, data)
	}
	n.labmesh(t, "bench", "mlp", "--plot", "x.gif").want(t, 2, "", "a plot is a file .svg or .png")
	n.labmesh(t, "bench", "mlp", "--plot", "x.svg", "--detach").want(t, 2, "", "does not go with --detach")
}
