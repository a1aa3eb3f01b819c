package gotest

import (
	"math"
	"math/rand/v2"
	"slices"
	"testing"
)

func TestQuantile(t *testing.T) {
	for _, c := range []struct {
		samples []float64
		p, want float64
	}{
		{[]float64{7}, 0.5, 7},
		{[]float64{3, 1, 2}, 0, 1},
		{[]float64{3, 1, 2}, 0.5, 2},
		{[]float64{3, 1, 2}, 1, 3},
		{[]float64{1, 2}, 0.25, 1.25},
	} {
		if got := Quantile(c.samples, c.p); got != c.want {
			t.Errorf("the %g-quantile of %v is %g, not %g", c.p, c.samples, got, c.want)
		}
	}
	if got := Quantile(nil, 0.5); !math.IsNaN(got) {
		t.Errorf("the median of nothing is %g", got)
	}
}

func TestQuantilesLieWithinTheSamples(t *testing.T) {
	for range 1000 {
		samples := make([]float64, 1+rand.IntN(50))
		for i := range samples {
			samples[i] = rand.NormFloat64()
		}
		last := math.Inf(-1)
		for p := 0.0; p <= 1; p += 0.125 {
			q := Quantile(samples, p)
			if q < last || q < slices.Min(samples) || q > slices.Max(samples) {
				t.Fatalf("the %g-quantile of %v is %g", p, samples, q)
			}
			last = q
		}
	}
}
