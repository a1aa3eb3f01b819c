package lab_test

import (
	"encoding/json"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"testing"
	"time"

	"labmesh"
	"labmesh/api"
	"labmesh/bench"
	"labmesh/bench/report"
	"labmesh/lab"
	"labmesh/stats"
)

// How much BenchmarkVerdicts does; LABMESH_VERDICTS_TASKS raises the number of A/B tasks.
const (
	sameRuns     = 60  // process runs of one and the same thing
	sideRuns     = 10  // of them on each side of a comparison
	comparisons  = 200 // of identical code
	abTasks      = 20  // tasks of ten pairs, of which one half does a tenth more
	falseMost    = 0.01
	foundLeast   = 0.95
	spinEnv      = "LABMESH_LAB_SPIN" // makes this test binary a runner
	spinUnits    = 1000               // of work in an iteration; the candidate does 1100
	spinPerUnit  = 250                // steps of arithmetic: an iteration takes less than a time slice, so most are not interrupted
	spinSamples  = 200
	spinWarm     = 50
	verdictsWait = 15 * time.Minute
)

// spin is a runner whose iterations do a known amount of work on one processor.
func spin(units int) error {
	enc, seq, began := json.NewEncoder(os.Stdout), 0, time.Now()
	say := func(e bench.Event) error {
		seq++
		e.V, e.Seq, e.T = bench.Protocol, seq, time.Since(began).Seconds()
		return enc.Encode(e)
	}
	if err := say(bench.Event{Kind: bench.EventHello, Runner: "spin", RunnerVersion: "1", Pid: os.Getpid()}); err != nil {
		return err
	}
	if err := say(bench.Event{Kind: bench.EventModel, Source: "file", Effective: "fp32", DeviceClass: "cpu", Threads: 1}); err != nil {
		return err
	}
	x := 1.0
	iterate := func() float64 {
		t := time.Now()
		for range units * spinPerUnit {
			x = x*1.0000001 + 1e-9
		}
		return float64(time.Since(t)) / float64(time.Millisecond)
	}
	if err := say(bench.Event{Kind: bench.EventBatchStart, Batch: 1}); err != nil {
		return err
	}
	for range spinWarm {
		iterate()
	}
	var ms [][]float64
	from := time.Now()
	for range spinSamples {
		ms = append(ms, []float64{iterate()})
	}
	wall := time.Since(from).Seconds()
	if err := say(bench.Event{Kind: bench.EventSamples, Batch: 1, MS: ms}); err != nil {
		return err
	}
	if err := say(bench.Event{Kind: bench.EventBatchEnd, Batch: 1, Status: labmesh.BenchOK, N: len(ms), WallS: &wall, Finite: new(x > 0)}); err != nil {
		return err
	}
	return say(bench.Event{Kind: bench.EventDone, TotalS: new(time.Since(began).Seconds())})
}

// benchTask runs a benchmark task to its end and returns its id.
func benchTask(b *testing.B, n *lab.Node, config map[string]any) labmesh.TaskID {
	b.Helper()
	data, err := json.Marshal(config)
	if err != nil {
		b.Fatal(err)
	}
	reply, err := n.Client().Submit(b.Context(), labmesh.Spec{Kind: labmesh.Benchmark, Config: data, Requirements: labmesh.Requirements{Hardware: []string{"cpu"}}})
	if err != nil {
		b.Fatal(err)
	}
	if err := n.Client().Wait(within(b, verdictsWait), []labmesh.TaskID{reply.ID}, nothing); err != nil {
		b.Fatal(err)
	}
	if d := task(b, n, reply.ID); d.Status != labmesh.Completed {
		b.Fatalf("%s is %s: %s", reply.ID, d.Status, d.Error)
	}
	return reply.ID
}

func spinning(units int) []string {
	return []string{"/usr/bin/env", spinEnv + "=" + strconv.Itoa(units), os.Args[0]}
}

// BenchmarkVerdicts is how often verdicts are wrong, by real runs of real processes
// in a mesh, on this machine as it is, busy or not.
//
// Same things: runs of the built-in engine, one after the other, of which two
// sides are drawn that share none. "blocks" are runs next to each other in time, as
// in life before and after a change; "mixed" are drawn from all. They are drawn from the
// same runs again and again, so they say less than as many independent
// comparisons would. All runs count, also those that labmesh itself would leave out because
// others were busy on the machine; how many it would have is reported.
//
// A tenth more: tasks of ten pairs of runs, of which the candidate's iterations do
// 10 % more of the same work; and as many whose candidate does the same.
func BenchmarkVerdicts(b *testing.B) {
	m := start(b, lab.Config{Nodes: 1, Slots: 1})
	n := m.Nodes[0]
	ask := func(sql string) (out []string, err error) {
		reply, err := n.Client().Query(b.Context(), api.QueryRequest{SQL: sql, MaxRows: report.RowsMax + 1})
		for _, row := range reply.Rows {
			out = append(out, row[0].(string))
		}
		return out, err
	}
	for range b.N {
		same(b, n, ask)
		pairs(b, n, ask)
	}
}

func same(b *testing.B, n *lab.Node, ask report.Ask) {
	id := benchTask(b, n, map[string]any{"model": "mlp", "runner": []string{bin, "internal", "bench-runner"}, "iterations": 40, "min_seconds": 0.2, "warmup_iterations": 5, "warmup_min_seconds": 0.1, "max_seconds_per_batch": 5,
		"repeats": sameRuns, "quiet_seconds": -1, "threads": 1, "batch_sizes": []int{1}})
	rows, _, err := report.Filter{Model: "mlp"}.Load(ask)
	if err != nil {
		b.Fatal(err)
	}
	var runs []stats.Run
	believed := 0
	for _, r := range rows {
		if r.Task == id && r.Wall != nil {
			runs = append(runs, stats.Run{Median: r.Wall.P50, Throughput: *r.Throughput, Comparable: true})
			if r.Comparable {
				believed++
			}
		}
	}
	if len(runs) < 3*sideRuns {
		b.Fatalf("only %d runs have times", len(runs))
	}
	var medians []float64
	for _, r := range runs {
		medians = append(medians, r.Median)
	}
	b.Logf("%d runs of the mlp, %d of them comparable; median %.2f ms, MAD %.2f ms, %.2f to %.2f ms", len(runs), believed, stats.Median(medians), stats.MAD(medians), slices.Min(medians), slices.Max(medians))
	rnd := rand.New(rand.NewPCG(1, 2))
	blocks, mixed := 0, 0
	for range comparisons {
		first := rnd.IntN(len(runs) - 2*sideRuns + 1)
		second := first + sideRuns + rnd.IntN(len(runs)-first-2*sideRuns+1)
		blocks += alarm(runs[first:first+sideRuns], runs[second:second+sideRuns])
		drawn := slices.Clone(runs)
		rnd.Shuffle(len(drawn), func(i, j int) { drawn[i], drawn[j] = drawn[j], drawn[i] })
		mixed += alarm(drawn[:sideRuns], drawn[sideRuns:2*sideRuns])
	}
	b.ReportMetric(100*float64(blocks)/comparisons, "%false-blocks")
	b.ReportMetric(100*float64(mixed)/comparisons, "%false-mixed")
	if float64(mixed)/comparisons > falseMost {
		b.Errorf("%d of %d comparisons of runs of the same thing, drawn from all, are called different", mixed, comparisons)
	}
}

func alarm(x, y []stats.Run) int {
	switch stats.CompareRuns(x, y, stats.Options{}).Outcome {
	case stats.Regression, stats.Improvement:
		return 1
	}
	return 0
}

func pairs(b *testing.B, n *lab.Node, ask report.Ask) {
	tasks := abTasks
	if more, err := strconv.Atoi(os.Getenv("LABMESH_VERDICTS_TASKS")); err == nil && more > 0 {
		tasks = more
	}
	ab := func(units int) (v stats.Verdict) {
		id := benchTask(b, n, map[string]any{"model": "spin", "runner": spinning(spinUnits), "candidate": map[string]any{"runner": spinning(units)}, "repeats": sideRuns, "quiet_seconds": -1})
		s, err := report.ParseSelector(string(id))
		if err != nil {
			b.Fatal(err)
		}
		rows, _, err := report.Filter{Sides: []report.Selector{s}}.Load(ask)
		if err != nil {
			b.Fatal(err)
		}
		for i := range rows {
			rows[i].Comparable = rows[i].Wall != nil // as above: also what was disturbed
		}
		rep, err := report.Compare(rows, s, report.Selector{}, stats.Options{})
		if err != nil || len(rep.Comparisons) != 1 {
			b.Fatalf("%+v, %v", rep, err)
		}
		return rep.Comparisons[0].Verdict
	}
	found, alarms := 0, 0
	var ratios []float64
	for range tasks {
		if v := ab(spinUnits * 11 / 10); v.Outcome == stats.Regression {
			found++
			ratios = append(ratios, *v.Ratio)
		} else {
			b.Logf("a tenth more is %s: %s, ratio %.3f", v.Outcome, v.Why, *v.Ratio)
		}
		if v := ab(spinUnits); v.Outcome != stats.Same {
			alarms++
			b.Logf("the same is %s: %s", v.Outcome, v.Why)
		}
	}
	b.Logf("%d of %d tasks with a tenth more found, median ratio %.3f; %d of %d with nothing more called different", found, tasks, stats.Median(ratios), alarms, tasks)
	b.ReportMetric(100*float64(found)/float64(tasks), "%found+10%")
	b.ReportMetric(100*float64(alarms)/float64(tasks), "%false-pairs")
	if float64(found)/float64(tasks) < foundLeast {
		b.Errorf("%d of %d regressions of 10 %% were found", found, tasks)
	}
}
