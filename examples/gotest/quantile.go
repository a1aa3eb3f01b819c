// Package gotest is an example of something to test on a mesh: quantiles of samples.
package gotest

import (
	"math"
	"slices"
)

// Quantile is the p-quantile of samples for p in 0 to 1, interpolated between
// neighbours; NaN when there are no samples. It leaves samples as they are.
func Quantile(samples []float64, p float64) float64 {
	if len(samples) == 0 {
		return math.NaN()
	}
	sorted := slices.Sorted(slices.Values(samples))
	at := p * float64(len(sorted)-1)
	below := int(at)
	if below+1 == len(sorted) {
		return sorted[below]
	}
	return sorted[below] + (at-float64(below))*(sorted[below+1]-sorted[below])
}
