package gemm

import (
	"math"
	"unsafe"
)

// The tile of the scalar kernel: what fits into the registers of most machines.
const (
	scalarRows = 2
	scalarCols = 4
)

func scalar() *Kernel {
	return &Kernel{
		Name: "scalar", rows: scalarRows, cols: scalarCols, width: 1, tiles: []tile{scalarTile1, scalarTile2}, zeros: make([]float32, scalarCols),
		relu: scalarReLU, addReLU: scalarAddReLU, max: scalarMax, gelu: scalarGELU, largest: scalarLargest, expSum: scalarExpSum,
		scale: scalarScale, addSum: scalarAddSum, squares: scalarSquares, normalise: scalarNormalise,
	}
}

const floatBytes = 4

func scalarTile1(k int, a *float32, _ int, b *float32, init *float32, _ int, c *float32, _ int) {
	in, out := (*[scalarCols]float32)(unsafe.Pointer(init)), (*[scalarCols]float32)(unsafe.Pointer(c))
	c0, c1, c2, c3 := in[0], in[1], in[2], in[3]
	x, y := unsafe.Slice(a, k), unsafe.Slice(b, k*scalarCols)
	for _, v := range x {
		c0 += v * y[0]
		c1 += v * y[1]
		c2 += v * y[2]
		c3 += v * y[3]
		y = y[scalarCols:]
	}
	*out = [scalarCols]float32{c0, c1, c2, c3}
}

func scalarTile2(k int, a *float32, lda int, b *float32, init *float32, ldi int, c *float32, ldc int) {
	in0, in1 := (*[scalarCols]float32)(unsafe.Pointer(init)), (*[scalarCols]float32)(unsafe.Add(unsafe.Pointer(init), ldi))
	c00, c01, c02, c03 := in0[0], in0[1], in0[2], in0[3]
	c10, c11, c12, c13 := in1[0], in1[1], in1[2], in1[3]
	x0, x1, y := unsafe.Slice(a, k), unsafe.Slice((*float32)(unsafe.Add(unsafe.Pointer(a), lda)), k), unsafe.Slice(b, k*scalarCols)
	for i, v := range x0 {
		w := x1[i]
		b0, b1, b2, b3 := y[0], y[1], y[2], y[3]
		c00 += v * b0
		c01 += v * b1
		c02 += v * b2
		c03 += v * b3
		c10 += w * b0
		c11 += w * b1
		c12 += w * b2
		c13 += w * b3
		y = y[scalarCols:]
	}
	*(*[scalarCols]float32)(unsafe.Pointer(c)) = [scalarCols]float32{c00, c01, c02, c03}
	*(*[scalarCols]float32)(unsafe.Add(unsafe.Pointer(c), ldc)) = [scalarCols]float32{c10, c11, c12, c13}
}

func scalarReLU(n int, x *float32) {
	for i, v := range unsafe.Slice(x, n) {
		if v < 0 {
			unsafe.Slice(x, n)[i] = 0
		}
	}
}

func scalarAddReLU(n int, x, y *float32) {
	xs, ys := unsafe.Slice(x, n), unsafe.Slice(y, n)
	for i := range xs {
		xs[i] = max(xs[i]+ys[i], 0)
	}
}

func scalarMax(n int, x, y *float32) {
	xs, ys := unsafe.Slice(x, n), unsafe.Slice(y, n)
	for i := range xs {
		xs[i] = max(xs[i], ys[i])
	}
}

func scalarGELU(n int, x *float32) {
	xs := unsafe.Slice(x, n)
	for i, v := range xs {
		xs[i] = v / 2 * (1 + float32(math.Erf(float64(v)/math.Sqrt2)))
	}
}

func scalarLargest(n int, x *float32) float32 {
	top := float32(math.Inf(-1))
	for _, v := range unsafe.Slice(x, n) {
		top = max(top, v)
	}
	return top
}

func scalarExpSum(n int, x *float32, scale, less float32) (sum float32) {
	xs := unsafe.Slice(x, n)
	for i, v := range xs {
		xs[i] = float32(math.Exp(float64(scale*v - less)))
		sum += xs[i]
	}
	return sum
}

func scalarScale(n int, x *float32, by float32) {
	xs := unsafe.Slice(x, n)
	for i := range xs {
		xs[i] *= by
	}
}

func scalarAddSum(n int, x, y *float32) (sum float32) {
	xs, ys := unsafe.Slice(x, n), unsafe.Slice(y, n)
	for i := range xs {
		xs[i] += ys[i]
		sum += xs[i]
	}
	return sum
}

func scalarSquares(n int, x *float32, mean float32) (sum float32) {
	for _, v := range unsafe.Slice(x, n) {
		sum += (v - mean) * (v - mean)
	}
	return sum
}

func scalarNormalise(n int, x, gamma, beta *float32, mean, by float32) {
	xs, g, b := unsafe.Slice(x, n), unsafe.Slice(gamma, n), unsafe.Slice(beta, n)
	for i := range xs {
		xs[i] = (xs[i]-mean)*by*g[i] + b[i]
	}
}

func sqrt(x float32) float32 { return float32(math.Sqrt(float64(x))) }
