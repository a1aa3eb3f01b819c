package stats_test

import (
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"labmesh"
	"labmesh/stats"
)

func near(a, b float64) bool { return math.Abs(a-b) < 1e-9 }

func TestTiming(t *testing.T) {
	t.Parallel()
	if stats.Timing(nil) != nil {
		t.Error("there are statistics of nothing")
	}
	one := stats.Timing([]float64{7})
	if one.P50 != 7 || one.SD != nil || one.CI95 != nil || one.P90 != nil || one.MAD != 0 {
		t.Errorf("of one: %+v", one)
	}
	var ms []float64
	for i := range 101 {
		ms = append(ms, float64(100-i))
	}
	got := stats.Timing(ms)
	if got.P50 != 50 || !near(*got.P90, 90) || !near(*got.P95, 95) || !near(*got.P99, 99) || got.Min != 0 || got.Max != 100 || got.Mean != 50 || got.MAD != 25 {
		t.Errorf("0 to 100: %+v", got)
	}
	if got.CI95[0] != 40 || got.CI95[1] != 60 { // order statistics 41 and 61 of 101
		t.Errorf("interval of the median: %v", *got.CI95)
	}
	if short := stats.Timing(ms[:99]); short.P99 != nil || short.P95 == nil {
		t.Errorf("99 iterations have no 99th percentile: %+v", short)
	}
}

func TestTimingHoldsTogether(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(r *rapid.T) {
		ms := rapid.SliceOfN(rapid.Float64Range(0.001, 1e6), 1, 300).Draw(r, "ms")
		before := slices.Clone(ms)
		s := stats.Timing(ms)
		order := []float64{s.Min, s.P50}
		for _, p := range []*float64{s.P90, s.P95, s.P99} {
			if p != nil {
				order = append(order, *p)
			}
		}
		if order = append(order, s.Max); !slices.IsSorted(order) {
			r.Fatalf("%v are not in order", order)
		}
		if s.CI95 != nil && (s.CI95[0] > s.P50 || s.CI95[1] < s.P50) {
			r.Fatalf("the median %g is not in its interval %v", s.P50, *s.CI95)
		}
		if !slices.Equal(ms, before) {
			r.Fatal("the samples were changed")
		}
	})
}

func TestStability(t *testing.T) {
	t.Parallel()
	flat, drift, few := make([]float64, 60), make([]float64, 60), make([]float64, 14)
	for i := range flat {
		flat[i], drift[i] = 10+0.1*float64(i%3), 10+0.1*float64(i)
	}
	if s := stats.Stability(flat); s.Verdict != stats.Stable || !stats.Steady(flat) {
		t.Errorf("flat: %+v", s)
	}
	if s := stats.Stability(drift); s.Verdict != stats.Unstable || *s.Drift < 20 || *s.Autocorr < 0.9 {
		t.Errorf("drifting: %+v", s)
	}
	if s := stats.Stability(few); s != nil {
		t.Errorf("14 iterations: %+v", s)
	}
	warm := append([]float64{100, 60, 30, 20, 15, 14, 13, 12, 12, 11}, flat...)
	if stats.Steady(warm[:10]) || !stats.Steady(warm) {
		t.Error("a warm-up is not seen to become steady")
	}
}

func TestKeys(t *testing.T) {
	t.Parallel()
	w := labmesh.BenchWork{Model: "bert-base-uncased", Batch: 4, Requested: "fp32", Engine: "torch", EngineVersion: "2.1.3", DeviceClass: "cpu", DeviceName: "EPYC", Iterations: 100}
	series, compare := stats.Keys(w)
	for name, c := range map[string]struct {
		change                  func(*labmesh.BenchWork)
		sameSeries, sameCompare bool
	}{
		"more iterations":                    {func(w *labmesh.BenchWork) { w.Iterations = 50 }, true, true},
		"a patch":                            {func(w *labmesh.BenchWork) { w.EngineVersion = "2.1.4+cu1" }, true, true},
		"another release":                    {func(w *labmesh.BenchWork) { w.EngineVersion = "2.2.0" }, false, true},
		"another engine":                     {func(w *labmesh.BenchWork) { w.Engine = "labmesh-go" }, false, true},
		"another device":                     {func(w *labmesh.BenchWork) { w.DeviceName = "Xeon" }, false, true},
		"the same GPU model in another slot": {func(w *labmesh.BenchWork) { w.DeviceUUID = "GPU-2" }, true, true},
		"an engine that counts operations":   {func(w *labmesh.BenchWork) { w.FLOPs = 1e9 }, true, true},
		"another way to the same result":     {func(w *labmesh.BenchWork) { w.Attention, w.Kernel, w.Threads = "sdpa", "avx2", 2 }, false, true},
		"another batch":                      {func(w *labmesh.BenchWork) { w.Batch = 8 }, false, false},
		"another precision":                  {func(w *labmesh.BenchWork) { w.Effective = "fp16" }, false, false},
	} {
		v := w
		c.change(&v)
		s, k := stats.Keys(v)
		if (s == series) != c.sameSeries || (k == compare) != c.sameCompare {
			t.Errorf("%s: series kept %v, compare kept %v", name, s == series, k == compare)
		}
	}
}

// runs makes n runs around a median with the spread that was measured between
// runs of one program on a shared machine: heavy to the slow side.
func runs(rnd *rand.Rand, n int, median, spread float64) []stats.Run {
	out := make([]stats.Run, n)
	for i := range out {
		m := median * math.Exp(spread*rnd.NormFloat64())
		if rnd.Float64() < 0.05 {
			m *= 1.2
		}
		out[i] = stats.Run{Median: m, Throughput: 1000 / m, Comparable: true}
	}
	return out
}

func TestCompareRuns(t *testing.T) {
	t.Parallel()
	rnd := rand.New(rand.NewPCG(1, 1))
	base := runs(rnd, 8, 100, 0.01)
	slower, faster := runs(rnd, 8, 130, 0.01), runs(rnd, 8, 75, 0.01)
	if v := stats.CompareRuns(base, slower, stats.Options{}); v.Outcome != stats.Regression || v.CI95[0] > *v.Ratio || v.CI95[1] < *v.Ratio {
		t.Errorf("30 %% slower: %+v", v)
	}
	if v := stats.CompareRuns(base, faster, stats.Options{}); v.Outcome != stats.Improvement {
		t.Errorf("25 %% faster: %+v", v)
	}
	if v := stats.CompareRuns(base, base, stats.Options{}); v.Outcome != stats.Same {
		t.Errorf("the same runs: %+v", v)
	}
	if v := stats.CompareRuns(base, runs(rnd, 8, 102, 0.0001), stats.Options{MADs: 0.001}); v.Outcome != stats.Same || *v.P > 0.01 {
		t.Errorf("2 %% slower for sure is no regression: %+v", v)
	}
	if v := stats.CompareRuns(base[:4], slower[:4], stats.Options{}); v.Outcome != stats.Insufficient || v.P != nil {
		t.Errorf("four against four: %+v", v)
	}
	if v := stats.CompareRuns(base[:5], slower[:5], stats.Options{}); v.Outcome != stats.Regression {
		t.Errorf("five against five: %+v", v)
	}
	if v := stats.CompareRuns(nil, nil, stats.Options{}); v.Outcome != stats.Insufficient || v.Ratio != nil {
		t.Errorf("nothing against nothing: %+v", v)
	}
	doubtful := slices.Clone(slower)
	for i := range doubtful {
		doubtful[i].Comparable = i == 0
	}
	if v := stats.CompareRuns(base, doubtful, stats.Options{}); v.Outcome != stats.Insufficient {
		t.Errorf("runs that may not be compared were: %+v", v)
	}
	contrary := slices.Clone(slower)
	for i := range contrary {
		contrary[i].Throughput = 2000 / base[0].Median
	}
	if v := stats.CompareRuns(base, contrary, stats.Options{}); v.Outcome != stats.Same {
		t.Errorf("slower and with more throughput: %+v", v)
	}
}

func TestCorrectHoldsManyComparisonsToOneStandard(t *testing.T) {
	t.Parallel()
	p := func(v float64) stats.Verdict { return stats.Verdict{Outcome: stats.Regression, P: &v} }
	many := []stats.Verdict{p(0.009), p(0.0001), {Outcome: stats.Insufficient}, p(0.5), p(0.004)}
	many[3].Outcome = stats.Same
	stats.Correct(many, stats.Options{})
	want := []stats.Outcome{stats.Same, stats.Regression, stats.Insufficient, stats.Same, stats.Regression}
	// sorted 0.0001 ≤ 0.0025, 0.004 ≤ 0.005, 0.009 > 0.0075
	for i, v := range many {
		if v.Outcome != want[i] {
			t.Errorf("%d: %s, want %s (%s)", i, v.Outcome, want[i], v.Why)
		}
	}
}

// TestFewRunsAreNotCalledEqual: five against five runs can tell one regression,
// but not one among five comparisons.
func TestFewRunsAreNotCalledEqual(t *testing.T) {
	t.Parallel()
	rnd := rand.New(rand.NewPCG(11, 11))
	base, slower := runs(rnd, 5, 100, 0.01), runs(rnd, 5, 150, 0.01)
	one := []stats.Verdict{stats.CompareRuns(base, slower, stats.Options{})}
	for range 4 {
		one = append(one, stats.CompareRuns(base, base, stats.Options{}))
	}
	stats.Correct(one, stats.Options{})
	if one[0].Outcome != stats.Insufficient || !strings.Contains(one[0].Why, "7 runs a side") || one[1].Outcome != stats.Same {
		t.Errorf("one of five: %+v, and %+v", one[0], one[1])
	}
	all := make([]stats.Verdict, 5)
	for i := range all {
		all[i] = stats.CompareRuns(base, slower, stats.Options{})
	}
	stats.Correct(all, stats.Options{})
	for _, v := range all {
		if v.Outcome != stats.Regression {
			t.Errorf("five of five: %+v", v)
		}
	}
}

func pairs(rnd *rand.Rand, n int, factor, drift, spread float64) []stats.Pair {
	out := make([]stats.Pair, n)
	level := 1.0
	for i := range out {
		level *= math.Exp(drift * rnd.NormFloat64())
		run := func(m float64) stats.Run {
			m *= level * math.Exp(spread*rnd.NormFloat64())
			return stats.Run{Median: m, Throughput: 1000 / m, Comparable: true}
		}
		out[i] = stats.Pair{A: run(100), B: run(100 * factor)}
	}
	return out
}

func TestComparePairs(t *testing.T) {
	t.Parallel()
	rnd := rand.New(rand.NewPCG(2, 2))
	if v := stats.ComparePairs(pairs(rnd, 10, 1.1, 0.1, 0.01), stats.Options{}); v.Outcome != stats.Regression || math.Abs(*v.Ratio-1.1) > 0.02 {
		t.Errorf("10 %% slower on a machine that drifts: %+v", v)
	}
	if v := stats.ComparePairs(pairs(rnd, 10, 0.9, 0.1, 0.01), stats.Options{}); v.Outcome != stats.Improvement {
		t.Errorf("10 %% faster: %+v", v)
	}
	if v := stats.ComparePairs(pairs(rnd, 10, 1.01, 0, 0.0001), stats.Options{}); v.Outcome != stats.Same {
		t.Errorf("1 %% slower for sure does not matter: %+v", v)
	}
	if v := stats.ComparePairs(pairs(rnd, 8, 2, 0, 0.01), stats.Options{}); v.Outcome != stats.Insufficient {
		t.Errorf("eight pairs: %+v", v)
	}
	if v := stats.ComparePairs(pairs(rnd, 40, 1.1, 0.1, 0.02), stats.Options{}); v.Outcome != stats.Regression {
		t.Errorf("forty pairs: %+v", v)
	}
}

// TestThroughputIsComparedWithinPairs: that a drift is larger than the change does
// not make the throughput contradict it; a throughput that rises in most pairs does.
func TestThroughputIsComparedWithinPairs(t *testing.T) {
	t.Parallel()
	var drifting, contrary []stats.Pair
	for i := range 10 {
		level := math.Pow(1.5, float64(i%5))
		p := stats.Pair{A: stats.Run{Median: 100, Throughput: 10 * level, Comparable: true}, B: stats.Run{Median: 110, Throughput: 9 * level, Comparable: true}}
		if i > 7 {
			p.B.Throughput *= 9 // two pairs in which the baseline was disturbed
		}
		drifting = append(drifting, p)
		p.B.Throughput = 11 * level
		contrary = append(contrary, p)
	}
	if v := stats.ComparePairs(drifting, stats.Options{}); v.Outcome != stats.Regression {
		t.Errorf("drifting: %+v", v)
	}
	if v := stats.ComparePairs(contrary, stats.Options{}); v.Outcome != stats.Same {
		t.Errorf("contrary: %+v", v)
	}
}

func TestChangePoints(t *testing.T) {
	t.Parallel()
	rnd := rand.New(rand.NewPCG(3, 3))
	series := func(levels ...float64) (y []float64) {
		for _, l := range levels {
			for range 30 {
				y = append(y, l*math.Exp(0.01*rnd.NormFloat64()))
			}
		}
		return y
	}
	if got := stats.ChangePoints(series(100, 108, 90), stats.TrendOptions{}); len(got) != 2 || got[0].At != 30 || got[1].At != 60 || got[0].Change() < 0.06 || got[1].Change() > -0.14 {
		t.Errorf("up and down: %+v", got)
	}
	if got := stats.ChangePoints(series(100), stats.TrendOptions{}); len(got) != 0 {
		t.Errorf("flat: %+v", got)
	}
	if got := stats.ChangePoints(series(100)[:9], stats.TrendOptions{}); len(got) != 0 {
		t.Errorf("too short: %+v", got)
	}
	if got := stats.ChangePoints(make([]float64, 50), stats.TrendOptions{}); len(got) != 0 {
		t.Errorf("all zero: %+v", got)
	}
}

// TestVerdictsAreSeldomWrong holds what is promised: of 200 comparisons of
// identical code at most one percent alarm, and ten pairs find ten percent.
func TestVerdictsAreSeldomWrong(t *testing.T) {
	t.Parallel()
	const comparisons = 200
	rnd := rand.New(rand.NewPCG(9, 9))
	alarms, found := 0, 0
	for range comparisons {
		if v := stats.CompareRuns(runs(rnd, 10, 100, 0.03), runs(rnd, 10, 100, 0.03), stats.Options{}); v.Outcome != stats.Same {
			alarms++
		}
		if v := stats.ComparePairs(pairs(rnd, 10, 1, 0.1, 0.03), stats.Options{}); v.Outcome != stats.Same {
			alarms++
		}
		if v := stats.ComparePairs(pairs(rnd, 10, 1.1, 0.1, 0.03), stats.Options{}); v.Outcome == stats.Regression {
			found++
		}
	}
	if alarms > 2*comparisons/100 || found < 95*comparisons/100 {
		t.Errorf("%d false alarms in %d comparisons, %d of %d regressions found", alarms, 2*comparisons, found, comparisons)
	}
}

// BenchmarkVerdicts is how often the tests are wrong: of 200 comparisons of equal
// things, and of things 10 % apart, with the spread between runs that was
// measured on shared machines.
func BenchmarkVerdicts(b *testing.B) {
	const comparisons = 200
	for b.Loop() {
		rnd := rand.New(rand.NewPCG(4, 4))
		var falseRuns, falsePairs, foundPairs, foundRuns int
		for range comparisons {
			if v := stats.CompareRuns(runs(rnd, 10, 100, 0.03), runs(rnd, 10, 100, 0.03), stats.Options{}); v.Outcome != stats.Same {
				falseRuns++
			}
			if v := stats.CompareRuns(runs(rnd, 10, 100, 0.03), runs(rnd, 10, 110, 0.03), stats.Options{}); v.Outcome == stats.Regression {
				foundRuns++
			}
			if v := stats.ComparePairs(pairs(rnd, 10, 1, 0.1, 0.03), stats.Options{}); v.Outcome != stats.Same {
				falsePairs++
			}
			if v := stats.ComparePairs(pairs(rnd, 10, 1.1, 0.1, 0.03), stats.Options{}); v.Outcome == stats.Regression {
				foundPairs++
			}
		}
		percent := func(n int) float64 { return 100 * float64(n) / comparisons }
		b.ReportMetric(percent(falseRuns), "%false-A/A")
		b.ReportMetric(percent(foundRuns), "%found+10%")
		b.ReportMetric(percent(falsePairs), "%false-ABBA")
		b.ReportMetric(percent(foundPairs), "%found-ABBA+10%")
	}
}

// BenchmarkTrend is how often a step of 8 % in sixty points is found within three
// points, with 3 % noise and outliers, and how often one that is not there.
func BenchmarkTrend(b *testing.B) {
	const series = 200
	for b.Loop() {
		rnd := rand.New(rand.NewPCG(5, 5))
		draw := func(step float64) []float64 {
			y := make([]float64, 60)
			for i := range y {
				y[i] = 100 * math.Exp(0.03*rnd.NormFloat64())
				if rnd.Float64() < 0.05 {
					y[i] *= 1.3
				}
				if i >= 30 {
					y[i] *= step
				}
			}
			return y
		}
		found, alarms := 0, 0
		for range series {
			if got := stats.ChangePoints(draw(1.08), stats.TrendOptions{}); slices.ContainsFunc(got, func(c stats.ChangePoint) bool { return c.At >= 27 && c.At <= 33 }) {
				found++
			}
			if len(stats.ChangePoints(draw(1), stats.TrendOptions{})) > 0 {
				alarms++
			}
		}
		b.ReportMetric(100*float64(found)/series, "%found")
		b.ReportMetric(100*float64(alarms)/series, "%false")
	}
}
