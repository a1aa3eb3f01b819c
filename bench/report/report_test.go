package report_test

import (
	"bytes"
	"encoding/csv"
	"encoding/json"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"labmesh"
	"labmesh/bench/report"
	"labmesh/stats"
)

var noon = time.Date(2026, 3, 4, 12, 0, 0, 0, time.UTC)

// spec is a task whose runs [measure] makes up.
type spec struct {
	task    labmesh.TaskID
	worker  labmesh.WorkerID
	commit  string
	labels  map[string]string
	engine  string
	device  string
	name    string // of the device
	batches []int
	runs    int
	ms      float64 // of an item
	at      time.Time
	arms    bool
	status  labmesh.BenchStatus
	doubt   labmesh.BenchFlag
	slower  float64 // of arm b
}

// measure makes the rows of s, with run medians that differ by half a percent.
func measure(rnd *rand.Rand, s spec) []report.Row {
	if s.engine == "" {
		s.engine = "labmesh-go"
	}
	if s.device == "" {
		s.device, s.name = "cpu", "Example CPU"
	}
	if s.worker == "" {
		s.worker = "w1"
	}
	if s.at.IsZero() {
		s.at = noon
	}
	if s.runs == 0 {
		s.runs = 8
	}
	if s.batches == nil {
		s.batches = []int{1, 8}
	}
	labels := map[string]string{}
	if s.commit != "" {
		labels["git_sha"] = s.commit
	}
	for k, v := range s.labels {
		labels[k] = v
	}
	arms := []string{""}
	if s.arms {
		arms = []string{"a", "b"}
	}
	var out []report.Row
	for i := range s.runs {
		for _, arm := range arms {
			for _, b := range s.batches {
				r := report.Row{Task: s.task, Attempt: 1, Worker: s.worker, Host: "box-" + string(s.worker), Labels: labels}
				r.Run, r.Repeat, r.Arm = fmt.Sprintf("%s-%d%s", s.task, i+1, arm), i+1, arm
				r.Started = s.at.Add(time.Duration(i) * time.Minute)
				r.Work = labmesh.BenchWork{Model: "mlp", Batch: b, Requested: "fp32", Effective: "fp32", Engine: s.engine, EngineVersion: "1.2.3", DeviceClass: s.device, DeviceName: s.name, Threads: 1}
				if arm == "b" {
					r.Work.Threads = 2 // a candidate may be anything
				}
				r.Series, r.Compare = stats.Keys(r.Work)
				r.Status, r.Comparable = labmesh.BenchOK, s.doubt == ""
				if s.doubt != "" {
					r.Flags = []labmesh.BenchFlag{s.doubt}
				}
				if s.status != "" {
					r.Status, r.Comparable, r.Reason = s.status, false, "it did not fit"
					out = append(out, r)
					continue
				}
				ms := s.ms * float64(b) * math.Exp(0.005*rnd.NormFloat64())
				if arm == "b" {
					ms *= s.slower
				}
				r.N = 50
				r.Wall = &labmesh.BenchTiming{P50: ms, Min: ms * 0.98, Max: ms * 1.3, Mean: ms, MAD: ms * 0.01}
				r.Throughput = new(1000 * float64(b) / ms)
				out = append(out, r)
			}
		}
	}
	return out
}

func history(specs ...spec) (rows []report.Row) {
	rnd := rand.New(rand.NewPCG(1, 1))
	for _, s := range specs {
		rows = append(rows, measure(rnd, s)...)
	}
	return rows
}

func selector(t *testing.T, text string) report.Selector {
	t.Helper()
	s, err := report.ParseSelector(text)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func compare(t *testing.T, rows []report.Row, a, b string) *report.Comparisons {
	t.Helper()
	var second report.Selector
	if b != "" {
		second = selector(t, b)
	}
	c, err := report.Compare(rows, selector(t, a), second, stats.Options{})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestCommitsAreComparedOverTime(t *testing.T) {
	t.Parallel()
	rows := history(
		spec{task: "t1", commit: "aaaa1111", ms: 10}, spec{task: "t2", commit: "bbbb2222", ms: 13},
		spec{task: "t3", commit: "aaaa1111", ms: 20, worker: "w2"},
	)
	c := compare(t, rows, "aaaa", "git_sha=bbbb2222")
	if len(c.Comparisons) != 2 || c.Regressions != 2 {
		t.Fatalf("%+v", c)
	}
	x := c.Comparisons[0]
	if x.Kind != report.OverTime || x.Batch != 1 || x.A.Worker != "w1" || x.A.Runs != 8 || math.Abs(*x.Ratio-1.3) > 0.01 || x.A.Commits[0] != "aaaa1111" {
		t.Errorf("%+v", x)
	}
	if len(c.Leftovers) != 2 || c.Leftovers[0].Side != "a" || !strings.Contains(c.Leftovers[0].What, "box-w2") || !strings.Contains(c.Leftovers[0].Why, "same worker") {
		t.Errorf("runs of a machine that only one side has are not named: %+v", c.Leftovers)
	}
	if back := compare(t, rows, "bbbb2222", "aaaa1111"); back.Improvements != 2 {
		t.Errorf("the other way round: %+v", back)
	}
}

func TestWorkersAndEnginesAreComparedByTheirWork(t *testing.T) {
	t.Parallel()
	rows := history(
		spec{task: "t1", ms: 10}, spec{task: "t2", ms: 5, worker: "w2", device: "cuda", name: "NVIDIA H100"},
		spec{task: "t3", ms: 12, engine: "torch"}, spec{task: "t4", ms: 6, worker: "w2", device: "cuda", name: "NVIDIA H100", engine: "torch"},
	)
	c := compare(t, rows, "worker:w1", "worker:box-w2")
	if len(c.Comparisons) != 4 || c.Improvements != 4 || c.Comparisons[0].Kind != report.Across {
		t.Errorf("workers: each engine with itself: %+v", c)
	}
	c = compare(t, rows, "engine:labmesh-go", "engine:torch")
	if len(c.Comparisons) != 4 || c.Regressions != 4 || len(c.Leftovers) != 0 {
		t.Errorf("engines: each machine with itself: %+v", c)
	}
	c = compare(t, rows, "engine:torch,device:cpu", "engine:torch,device:h100")
	if len(c.Comparisons) != 2 || c.Improvements != 2 {
		t.Errorf("devices: %+v", c)
	}
	for _, x := range c.Comparisons {
		if x.A.Device != "cpu" || x.B.DeviceName != "NVIDIA H100" || !strings.Contains(x.B.String(), "torch on NVIDIA H100 of box-w2") {
			t.Errorf("%+v", x)
		}
	}
}

func TestArmsOfATaskArePairs(t *testing.T) {
	t.Parallel()
	rows := history(spec{task: "ab", ms: 10, arms: true, runs: 10, slower: 1.1}, spec{task: "few", ms: 10, arms: true, runs: 3, slower: 1.1})
	for _, second := range []string{"", "ab"} {
		c := compare(t, rows, "ab", second)
		if len(c.Comparisons) != 2 || c.Regressions != 2 || c.Comparisons[0].Kind != report.Paired || c.Comparisons[0].RunsA != 10 {
			t.Errorf("%q: %+v", second, c)
		}
	}
	if c := compare(t, rows, "few", ""); c.Insufficient != 2 || !strings.Contains(c.Comparisons[0].Why, "9 could") {
		t.Errorf("three pairs: %+v", c)
	}
	if c := compare(t, rows, "few", "ab"); c.Same+c.Insufficient != 2 {
		t.Errorf("without asking for the candidate one gets the base: %+v", c)
	}
}

func TestWhatFailsIsNamed(t *testing.T) {
	t.Parallel()
	rows := history(
		spec{task: "t1", commit: "aaaa", ms: 10, batches: []int{1, 8}},
		spec{task: "t2", commit: "bbbb", ms: 10, batches: []int{1}}, spec{task: "t3", commit: "bbbb", batches: []int{8}, status: labmesh.BenchOOM},
		spec{task: "t4", commit: "cccc", ms: 10, batches: []int{1}, doubt: labmesh.FlagContended},
	)
	c := compare(t, rows, "aaaa", "bbbb")
	if c.Broken != 1 || len(c.Comparisons) != 1 {
		t.Fatalf("%+v", c)
	}
	if i := slices.IndexFunc(c.Leftovers, func(l report.Leftover) bool { return l.Failed }); i < 0 || !strings.Contains(c.Leftovers[i].Why, "8 oom; it did not fit") {
		t.Errorf("%+v", c.Leftovers)
	}
	c = compare(t, rows, "aaaa", "cccc")
	if c.Insufficient != 1 || !strings.Contains(c.Comparisons[0].Why, "8 contended") {
		t.Errorf("runs that were disturbed: %+v", c)
	}
}

func TestRefusalsSayWhatThereIs(t *testing.T) {
	t.Parallel()
	rows := history(spec{task: "t1", commit: "abcd1111", ms: 10, labels: map[string]string{"branch": "main"}}, spec{task: "t2", commit: "abcd2222", ms: 10}, spec{task: "t3", ms: 1, batches: []int{64}})
	for _, c := range []struct{ a, b, want string }{
		{"t9", "t1", `no benchmark results are chosen by "t9"; there are models mlp; tasks t1, t2, t3; commits abcd1111, abcd2222; labels branch=main; workers w1; engines labmesh-go; devices Example CPU`},
		{"t1", "worker:w7", "workers w1"},
		{"abcd", "t1", "the beginning of 2 commits: abcd1111, abcd2222"},
		{"t1", "t3", "nothing in common: the first has mlp fp32, batch 1 by labmesh-go, mlp fp32, batch 8 by labmesh-go; the second has mlp fp32, batch 64"},
		{"t1", "", "no benchmark results are chosen by \"t1,arm:b\""},
		{"branch=main", "branch=main,t1", "nothing that"},
	} {
		var b report.Selector
		if c.b != "" {
			b = selector(t, c.b)
		}
		if _, err := report.Compare(rows, selector(t, c.a), b, stats.Options{}); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s against %s: %v, want %s", c.a, c.b, err, c.want)
		}
	}
	for _, bad := range []string{"", "worker:", "t1,", "=x", "k=", "arm:c", strings.Repeat("x", 2000)} {
		if _, err := report.ParseSelector(bad); labmesh.ReasonOf(err) != labmesh.Invalid {
			t.Errorf("%.40q: %v", bad, err)
		}
	}
	if _, err := report.Compare(rows, selector(t, "t1"), selector(t, "t2"), stats.Options{Alpha: math.NaN()}); err == nil {
		t.Error("NaN as alpha")
	}
}

// TestSelectorsChooseWhatTheySay: whatever the rows are, a selector made of a
// row's own values chooses it, a comma narrows, and a part that no row has
// chooses none.
func TestSelectorsChooseWhatTheySay(t *testing.T) {
	t.Parallel()
	word := rapid.StringMatching(`[a-z0-9]{5,9}`)
	rapid.Check(t, func(t *rapid.T) {
		var rows []report.Row
		for range rapid.IntRange(1, 12).Draw(t, "rows") {
			r := report.Row{Task: labmesh.TaskID("t-" + word.Draw(t, "task")), Worker: labmesh.WorkerID("w-" + word.Draw(t, "worker")),
				Labels: map[string]string{"git_sha": word.Draw(t, "commit"), "branch": word.Draw(t, "branch")}}
			r.Run, r.Work.Engine, r.Work.DeviceClass, r.Work.DeviceName = "r-"+word.Draw(t, "run"), word.Draw(t, "engine"), "cpu", word.Draw(t, "device")
			rows = append(rows, r)
		}
		row := rapid.SampledFrom(rows).Draw(t, "row")
		r := &row
		parts := []string{string(r.Task), r.Run, r.Commit(), r.Commit()[:4], "commit:" + r.Commit()[:2], "task:" + string(r.Task), "run:" + r.Run, "worker:" + string(r.Worker),
			"engine:" + strings.ToUpper(r.Work.Engine), "device:cpu", "device:" + r.Work.DeviceName[1:3], "branch=" + r.Labels["branch"]}
		one, two := rapid.SampledFrom(parts).Draw(t, "one"), rapid.SampledFrom(parts).Draw(t, "two")
		chosen := func(text string) (n int) {
			s, err := report.ParseSelector(text)
			if err != nil {
				t.Fatal(err)
			}
			for i := range rows {
				if s.Matches(&rows[i]) {
					n++
				}
			}
			return n
		}
		both := chosen(one + ", " + two)
		if both < 1 || both > chosen(one) || both > chosen(two) {
			t.Errorf("%s: %d, %s: %d, both: %d", one, chosen(one), two, chosen(two), both)
		}
		if chosen(one+",worker:nobody") != 0 {
			t.Errorf("%s of nobody chose rows", one)
		}
	})
}

func TestTrendFindsTheCommit(t *testing.T) {
	t.Parallel()
	var specs []spec
	for i := range 24 {
		s := spec{task: labmesh.TaskID(fmt.Sprintf("t%02d", i)), commit: fmt.Sprintf("c%06d", i), ms: 10, runs: 3, at: noon.Add(time.Duration(i) * 24 * time.Hour), batches: []int{1}}
		if i >= 14 {
			s.ms = 11.5
		}
		specs = append(specs, s)
	}
	specs = append(specs, spec{task: "other", worker: "w2", ms: 3}, spec{task: "noisy", ms: 30, doubt: labmesh.FlagNoisy, batches: []int{1}})
	trends, err := report.FindChanges(history(specs...), stats.TrendOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if len(trends.Series) != 3 || trends.Regressed() != 1 {
		t.Fatalf("%d series, %d of them slower", len(trends.Series), trends.Regressed())
	}
	s := trends.Series[0]
	if len(s.Points) != 24 || s.Points[0].Runs != 3 || s.LeftOut != 8 || len(s.Changes) != 1 {
		t.Fatalf("%+v", s)
	}
	c := s.Changes[0]
	if c.At != 14 || c.FirstCommit != "c000014" || c.LastCommit != "c000013" || c.First.Task != "t14" || c.Outcome != stats.Regression ||
		math.Abs(c.Share-0.15) > 0.01 || c.PointsBefore != 14 || c.PointsAfter != 10 || !c.First.Time.Equal(noon.Add(14*24*time.Hour)) {
		t.Errorf("%+v", c)
	}
	var b bytes.Buffer
	if err := trends.WriteCSV(&b); err != nil {
		t.Fatal(err)
	}
	lines, err := csv.NewReader(&b).ReadAll()
	if err != nil || len(lines) != 1+24+1+1 || lines[0][0] != "time" || lines[1][8] != "c000000" || lines[1][0] != "2026-03-04T12:00:00Z" {
		t.Errorf("%d lines, %v: %v", len(lines), err, lines[:2])
	}
}

// TestTrendOfEqualThingsIsFlat: the runs of a task share the machine's mood; a
// mood is no change.
func TestTrendOfEqualThingsIsFlat(t *testing.T) {
	t.Parallel()
	rnd := rand.New(rand.NewPCG(6, 6))
	alarms := 0
	const series = 100
	for range series {
		var rows []report.Row
		for i := range 20 {
			mood := math.Exp(0.03 * rnd.NormFloat64())
			rows = append(rows, measure(rnd, spec{task: labmesh.TaskID(fmt.Sprintf("t%02d", i)), ms: 10 * mood, runs: 5, batches: []int{1}, at: noon.Add(time.Duration(i) * time.Hour)})...)
		}
		trends, err := report.FindChanges(rows, stats.TrendOptions{})
		if err != nil {
			t.Fatal(err)
		}
		if len(trends.Series[0].Changes) > 0 {
			alarms++
		}
	}
	if alarms > 4 {
		t.Errorf("%d of %d flat series changed", alarms, series)
	}
}

func TestCurves(t *testing.T) {
	t.Parallel()
	rows := history(
		spec{task: "old", ms: 99, batches: []int{1, 2}}, spec{task: "t1", ms: 10, batches: []int{16, 4, 1}, at: noon.Add(time.Hour)},
		spec{task: "t2", ms: 1, worker: "w2", device: "cuda", name: "NVIDIA H100", batches: []int{1, 64}},
	)
	set := report.Curves(rows)
	if len(set.Curves) != 2 {
		t.Fatalf("%+v", set)
	}
	cpu := set.Curves[0]
	var batches []int
	for _, p := range cpu.Points {
		batches = append(batches, p.Batch)
	}
	if cpu.Name != "labmesh-go, Example CPU, box-w1" || !slices.Equal(batches, []int{1, 2, 4, 16}) || cpu.Points[0].Task != "t1" || cpu.Points[1].Task != "old" {
		t.Errorf("%+v", cpu)
	}
	if p := cpu.Points[0]; p.LowMS > p.MedianMS || p.HighMS < p.MedianMS || math.Abs(p.MedianMS-10) > 0.2 || p.Runs != 8 {
		t.Errorf("%+v", p)
	}
	c := compare(t, history(spec{task: "t1", ms: 10}, spec{task: "t2", ms: 12}), "t1", "t2")
	if two := c.Curves(); len(two.Curves) != 2 || len(two.Curves[1].Points) != 2 || !strings.HasPrefix(two.Curves[1].Name, "t2: ") {
		t.Errorf("%+v", two)
	}
}

// TestListsInReportsAreNeverNull, for those who read them in a browser.
func TestListsInReportsAreNeverNull(t *testing.T) {
	t.Parallel()
	trends, err := report.FindChanges(history(spec{task: "t1", ms: 1, doubt: labmesh.FlagNoisy}), stats.TrendOptions{})
	if err != nil {
		t.Fatal(err)
	}
	for _, v := range []any{trends, report.Curves(nil), compare(t, history(spec{task: "t1", ms: 1, doubt: labmesh.FlagNoisy}, spec{task: "t2", ms: 1}), "t1", "t2")} {
		data, err := json.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		for _, list := range []string{"series", "points", "changes", "curves", "comparisons", "leftovers", "commits", "tasks", "medians_ms", "left_out"} {
			if strings.Contains(string(data), `"`+list+`":null`) {
				t.Errorf("%s is null in %s", list, data)
			}
		}
	}
}

// TestTextsInSQLStayTexts, whatever people type.
func TestTextsInSQLStayTexts(t *testing.T) {
	t.Parallel()
	f := report.Filter{Model: "x'; DROP TABLE y; --", Where: map[string]string{"k'": "v'"}, Sides: []report.Selector{selector(t, "it's")}}
	sql := f.SQL()
	for _, want := range []string{"b.model = 'x''; DROP TABLE y; --'", "['k'''] = 'v'''", "b.task_id = 'it''s'"} {
		if !strings.Contains(sql, want) {
			t.Errorf("%s is not in %s", want, sql)
		}
	}
	if got := (report.Filter{Model: "BERT"}).SQL(); !strings.Contains(got, "'bert-base-uncased'") {
		t.Error("an alias is not resolved")
	}
}

func TestParseSince(t *testing.T) {
	t.Parallel()
	now := noon.In(time.FixedZone("east", 3600))
	for text, want := range map[string]time.Time{
		"": {}, "36h": noon.Add(-36 * time.Hour), "14d": noon.Add(-14 * 24 * time.Hour), "0.5d": noon.Add(-12 * time.Hour),
		"2026-03-01": time.Date(2026, 2, 28, 23, 0, 0, 0, time.UTC), "2026-03-01T00:00:00Z": time.Date(2026, 3, 1, 0, 0, 0, 0, time.UTC), "2026-03-01 12:30": time.Date(2026, 3, 1, 11, 30, 0, 0, time.UTC),
	} {
		if got, err := report.ParseSince(text, now); err != nil || !got.Equal(want) {
			t.Errorf("%q: %s, %v, want %s", text, got, err, want)
		}
	}
	for _, text := range []string{"yesterday", "-1h", "-3d", "NaNd", "99999999d", "2026-13-01", "14 d"} {
		if got, err := report.ParseSince(text, now); labmesh.ReasonOf(err) != labmesh.Invalid {
			t.Errorf("%q: %s, %v", text, got, err)
		}
	}
}

func FuzzSelector(f *testing.F) {
	for _, s := range []string{"t1", "a=b,worker:x", "commit:abc", ",,", "arm:a", "device:NVIDIA H100, engine:torch"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		s, err := report.ParseSelector(text)
		if err != nil {
			return
		}
		if s.String() != text {
			t.Errorf("%q became %q", text, s)
		}
		var r report.Row
		s.Matches(&r)
		_ = report.Filter{Sides: []report.Selector{s}}.SQL()
	})
}
