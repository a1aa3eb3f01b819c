package stats

import (
	"math"
	"slices"

	moremath "github.com/aclements/go-moremath/stats"

	"labmesh"
)

// From how many iterations on a percentile is more than the maximum by another name.
const (
	minP90 = 10
	minP95 = 20
	minP99 = 100
	minCI  = 6 // below it no pair of order statistics covers the median with 95 %
)

// Timing are the statistics of iterations that took ms milliseconds each; nil for none.
func Timing(ms []float64) *labmesh.BenchTiming {
	if len(ms) == 0 {
		return nil
	}
	s := slices.Sorted(slices.Values(ms))
	t := &labmesh.BenchTiming{P50: quantile(s, 0.5), Min: s[0], Max: s[len(s)-1], Mean: mean(s), MAD: mad(s)}
	for _, p := range []struct {
		from int
		q    float64
		to   **float64
	}{{minP90, 0.9, &t.P90}, {minP95, 0.95, &t.P95}, {minP99, 0.99, &t.P99}} {
		if len(s) >= p.from {
			*p.to = new(quantile(s, p.q))
		}
	}
	if len(s) > 1 {
		t.SD = new(deviation(s))
		if t.Mean > 0 {
			t.CV = new(*t.SD / t.Mean)
		}
	}
	if len(s) >= minCI {
		t.CI95 = new(medianCI(s))
	}
	return t
}

// medianCI is a confidence interval of at least 95 % for the median: two order
// statistics, whatever the distribution (Conover, Practical Nonparametric
// Statistics, 3rd ed., 3.2).
func medianCI(sorted []float64) [2]float64 {
	ci := moremath.QuantileCI(len(sorted), 0.5, 0.95)
	lo, hi := max(ci.LoOrder, 1), min(ci.HiOrder, len(sorted))
	return [2]float64{sorted[lo-1], sorted[hi-1]}
}

// quantile is the q-quantile of sorted values, between neighbours by their
// distance (Hyndman and Fan 1996, type 7).
func quantile(sorted []float64, q float64) float64 {
	at := q * float64(len(sorted)-1)
	i := int(at)
	if i+1 >= len(sorted) {
		return sorted[len(sorted)-1]
	}
	return sorted[i] + (at-float64(i))*(sorted[i+1]-sorted[i])
}

// Median is the median of values in any order; NaN for none.
func Median(values []float64) float64 {
	if len(values) == 0 {
		return math.NaN()
	}
	return quantile(slices.Sorted(slices.Values(values)), 0.5)
}

// MAD is the median distance from the median, not scaled; NaN for no values.
func MAD(values []float64) float64 {
	if len(values) == 0 {
		return math.NaN()
	}
	return mad(slices.Sorted(slices.Values(values)))
}

func mad(sorted []float64) float64 {
	m := quantile(sorted, 0.5)
	d := make([]float64, len(sorted))
	for i, v := range sorted {
		d[i] = math.Abs(v - m)
	}
	slices.Sort(d)
	return quantile(d, 0.5)
}

func mean(values []float64) float64 {
	sum := 0.0
	for _, v := range values {
		sum += v
	}
	return sum / float64(len(values))
}

// deviation is the standard deviation of a sample.
func deviation(values []float64) float64 {
	m, sum := mean(values), 0.0
	for _, v := range values {
		sum += (v - m) * (v - m)
	}
	return math.Sqrt(sum / float64(len(values)-1))
}
