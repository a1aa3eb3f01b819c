package infer

import (
	"context"
	"fmt"
	"math"
	"time"

	"labmesh/infer/gemm"
)

// Version is that of the engine. Rows of versions that differ before the second dot are not compared as
// one series: it goes up when the engine becomes faster or slower, or computes something else.
const Version = "1.0"

// The product that [MeasureGFLOPS] repeats: large enough for the caches of the first and
// second level to matter as they do to a model, small enough to end in milliseconds.
const (
	measureRows  = 384
	measureDepth = 768
	measureCols  = 1024
)

// MeasureGFLOPS multiplies matrices on so many threads for d, or until ctx ends, and returns how many 10⁹ operations
// a second that were, and with which kernel.
func MeasureGFLOPS(ctx context.Context, threads int, d time.Duration) (gflops float64, kernel string) {
	k := gemm.Kernels()[0]
	p := newPool(k, max(threads, 1))
	defer p.close()
	w := k.Matrix(make([]float32, k.Len(measureDepth, measureCols)), measureDepth, measureCols)
	numbers := normal(0, "measure", 0, 1)
	p.each(w.Panels(), func(_ *gemm.Thread, i int) {
		w.Fill(i, func(c int, to []float32) { numbers.fill(to, c*measureDepth) })
	})
	in, out := make([]float32, measureRows*stride(measureDepth)), make([][]float32, len(p.threads))
	numbers.fill(in, 0)
	for i := range out {
		out[i] = make([]float32, measureRows*stride(measureCols))
	}
	work := func(t *gemm.Thread, _ int) {
		t.Multiply(out[t.Index], stride(measureCols), in, stride(measureDepth), measureRows, w, nil, 0, w.Panels())
	}
	const each = 4 // products for every thread before the clock is read
	p.each(each*len(p.threads), work)
	products, start := 0, time.Now()
	for ctx.Err() == nil && (products == 0 || time.Since(start) < d) {
		p.each(each*len(p.threads), work)
		products += each * len(p.threads)
	}
	return 2 * measureRows * measureDepth * measureCols * float64(products) / time.Since(start).Seconds() / 1e9, k.Name
}

// Check multiplies two small matrices with k and errs if the product is wrong.
func Check(ctx context.Context, k *gemm.Kernel) error {
	const m, depth, n = 17, 70, 65
	a, b := normal(1, "a", 0, 1), normal(1, "b", 0, 1)
	in, out := make([]float32, m*depth), make([]float32, m*n)
	a.fill(in, 0)
	w := k.Matrix(make([]float32, k.Len(depth, n)), depth, n)
	for p := range w.Panels() {
		w.Fill(p, func(c int, to []float32) { b.fill(to, c*depth) })
	}
	k.Thread(0).Multiply(out, n, in, depth, m, w, nil, 0, w.Panels())
	for i, got := range out {
		var want float64
		for l := range depth {
			want += float64(in[i/n*depth+l]) * float64(b.at(i%n*depth+l))
		}
		if !(math.Abs(float64(got)-want) < 1e-3) {
			return fmt.Errorf("kernel %s: element %d of a product is %v, not %v", k.Name, i, got, want)
		}
	}
	return ctx.Err()
}
