package gemm

import (
	"fmt"
	"slices"
	"strings"
	"unsafe"
)

// Kernel is one member of the family. Its vector functions work on whole vectors of
// width floats; what is left is the scalar kernel's.
type Kernel struct {
	Name string // avx512, avx2 or scalar

	rows, cols int // of a tile
	tiles      []tile
	width      int // floats in a vector

	relu      func(n int, x *float32)
	addReLU   func(n int, x, y *float32)
	max       func(n int, x, y *float32)
	gelu      func(n int, x *float32)
	largest   func(n int, x *float32) float32
	expSum    func(n int, x *float32, scale, less float32) float32
	scale     func(n int, x *float32, by float32)
	addSum    func(n int, x, y *float32) float32
	squares   func(n int, x *float32, mean float32) float32
	normalise func(n int, x, gamma, beta *float32, mean, by float32)

	zeros []float32 // a row of no biases
}

// tile computes c = init + a·b for as many rows as its place in Kernel.tiles says
// and one panel of b; strides are in bytes.
type tile func(k int, a *float32, lda int, b *float32, init *float32, ldi int, c *float32, ldc int)

// Kernels are the kernels that this machine can run, the fastest first; the last is scalar.
func Kernels() []*Kernel { return append(native(), scalar()) }

// Choose is the kernel of that name, or the fastest for "".
func Choose(name string) (*Kernel, error) {
	all := Kernels()
	if name == "" {
		return all[0], nil
	}
	i := slices.IndexFunc(all, func(k *Kernel) bool { return k.Name == name })
	if i < 0 {
		var names []string
		for _, k := range all {
			names = append(names, k.Name)
		}
		return nil, fmt.Errorf("kernel %q: this machine has %s", name, strings.Join(names, ", "))
	}
	return all[i], nil
}

// ReLU replaces what is negative in x by 0.
func (k *Kernel) ReLU(x []float32) {
	n := k.whole(x)
	k.relu(n, unsafe.SliceData(x))
	scalarReLU(len(x)-n, rest(x, n))
}

// AddReLU adds y, which is as long, to x and replaces what is negative by 0.
func (k *Kernel) AddReLU(x, y []float32) {
	y = y[:len(x)]
	n := k.whole(x)
	k.addReLU(n, unsafe.SliceData(x), unsafe.SliceData(y))
	scalarAddReLU(len(x)-n, rest(x, n), rest(y, n))
}

// Max sets each of x to the larger of it and its like in y, which is as long.
func (k *Kernel) Max(x, y []float32) {
	y = y[:len(x)]
	n := k.whole(x)
	k.max(n, unsafe.SliceData(x), unsafe.SliceData(y))
	scalarMax(len(x)-n, rest(x, n), rest(y, n))
}

// GELU applies x·Φ(x), the Gaussian error linear unit with the exact Φ.
func (k *Kernel) GELU(x []float32) {
	n := k.whole(x)
	k.gelu(n, unsafe.SliceData(x))
	scalarGELU(len(x)-n, rest(x, n))
}

// Softmax turns scale·x into shares that add up to 1.
func (k *Kernel) Softmax(x []float32, scale float32) {
	n := k.whole(x)
	p, left, tail := unsafe.SliceData(x), len(x)-n, rest(x, n)
	top := max(k.largest(n, p), scalarLargest(left, tail))
	less := scale * top
	sum := k.expSum(n, p, scale, less) + scalarExpSum(left, tail, scale, less)
	k.scale(n, p, 1/sum)
	scalarScale(left, tail, 1/sum)
}

// Scale multiplies x.
func (k *Kernel) Scale(x []float32, by float32) {
	n := k.whole(x)
	k.scale(n, unsafe.SliceData(x), by)
	scalarScale(len(x)-n, rest(x, n), by)
}

// Add adds y, which is as long, to x and returns the sum of the result.
func (k *Kernel) Add(x, y []float32) float32 {
	y = y[:len(x)]
	n := k.whole(x)
	return k.addSum(n, unsafe.SliceData(x), unsafe.SliceData(y)) + scalarAddSum(len(x)-n, rest(x, n), rest(y, n))
}

// LayerNorm adds y to x, brings the result to mean 0 and variance 1, and applies gamma and
// beta. All are as long as x.
func (k *Kernel) LayerNorm(x, y, gamma, beta []float32, eps float32) {
	gamma, beta = gamma[:len(x)], beta[:len(x)]
	count := float32(len(x))
	mean := k.Add(x, y) / count
	n := k.whole(x)
	p, left, tail := unsafe.SliceData(x), len(x)-n, rest(x, n)
	variance := (k.squares(n, p, mean) + scalarSquares(left, tail, mean)) / count
	by := 1 / sqrt(variance+eps)
	k.normalise(n, p, unsafe.SliceData(gamma), unsafe.SliceData(beta), mean, by)
	scalarNormalise(left, tail, rest(gamma, n), rest(beta, n), mean, by)
}

// whole is how many of x fill whole vectors.
func (k *Kernel) whole(x []float32) int { return len(x) - len(x)%k.width }

// rest is where x goes on after n; it may point behind the end when nothing is left,
// which is why nothing is read of it then.
func rest(x []float32, n int) *float32 { return unsafe.SliceData(x[n:]) }
