package stats

import (
	"math"

	"labmesh"
)

// When times count as steady: the medians of three windows in a row lie within
// ten percent, as perf_analyzer has it.
const (
	windows     = 3
	windowMin   = 5  // iterations in a window
	windowMax   = 50 // in a window of [Steady]
	spreadMax   = 10 // percent
	autocorrMin = 10 // iterations
)

// The verdicts on stability.
const (
	Stable   = "stable"
	Unstable = "unstable"
)

// Stability says how steady the times of consecutive iterations were; nil when
// there are too few to say.
func Stability(ms []float64) *labmesh.BenchStable {
	w := len(ms) / windows
	if w < windowMin {
		return nil
	}
	spread := windowSpread(ms, w)
	s := &labmesh.BenchStable{Verdict: Stable, WindowSpread: &spread, Autocorr: lag1(ms)}
	if first := Median(ms[:w]); first > 0 {
		s.Drift = new(100 * (Median(ms[len(ms)-w:])/first - 1))
	}
	if spread > spreadMax {
		s.Verdict = Unstable
	}
	return s
}

// Steady reports whether a warm-up has come to steady times: the last three
// windows of its iterations agree.
func Steady(ms []float64) bool {
	w := min(max(len(ms)/(2*windows), windowMin), windowMax)
	return len(ms) >= windows*w && windowSpread(ms, w) <= spreadMax
}

// windowSpread is how far the medians of the last windows of w iterations lie
// apart, in percent of the middle one.
func windowSpread(ms []float64, w int) float64 {
	lo, hi := math.Inf(1), math.Inf(-1)
	medians := make([]float64, windows)
	for i := range windows {
		end := len(ms) - i*w
		m := Median(ms[end-w : end])
		medians[i], lo, hi = m, min(lo, m), max(hi, m)
	}
	if mid := Median(medians); mid > 0 {
		return 100 * (hi - lo) / mid
	}
	return 0
}

// lag1 is the correlation of each time with the one before it, nil where there
// are too few or all are equal.
func lag1(ms []float64) *float64 {
	if len(ms) < autocorrMin {
		return nil
	}
	m, num, den := mean(ms), 0.0, 0.0
	for i, v := range ms {
		den += (v - m) * (v - m)
		if i > 0 {
			num += (v - m) * (ms[i-1] - m)
		}
	}
	if den == 0 {
		return nil
	}
	return new(num / den)
}
