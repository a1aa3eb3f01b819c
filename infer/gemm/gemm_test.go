package gemm

import (
	"math"
	"math/rand/v2"
	"testing"

	"pgregory.net/rapid"
)

func numbers(r *rand.Rand, n int) []float32 {
	out := make([]float32, n)
	for i := range out {
		out[i] = float32(r.NormFloat64())
	}
	return out
}

// product multiplies in float64, the slow and plain way.
func product(a []float32, lda int, b []float32, ldb int, bias []float32, m, k, n int) []float64 {
	out := make([]float64, m*n)
	for i := range m {
		for j := range n {
			var sum float64
			if bias != nil {
				sum = float64(bias[j])
			}
			for l := range k {
				sum += float64(a[i*lda+l]) * float64(b[l*ldb+j])
			}
			out[i*n+j] = sum
		}
	}
	return out
}

// guard is a value that nobody computes: where it stood before it must stand afterwards.
const guard = 12345.75

func checkProduct(t interface {
	Helper()
	Fatalf(string, ...any)
}, kn *Kernel, seed uint64, m, k, n, gap int, biased, transposed bool) {
	t.Helper()
	r := rand.New(rand.NewPCG(seed, 1))
	lda, ldb, ldc := k+gap, n+gap, n+gap
	a, b := numbers(r, m*lda), numbers(r, k*ldb)
	var bias []float32
	if biased {
		bias = numbers(r, kn.Panels(n)*kn.cols)
	}
	packed := kn.Matrix(make([]float32, kn.Len(k, n)), k, n)
	for i := range packed.Data {
		packed.Data[i] = guard
	}
	if transposed {
		columns := make([]float32, n*lda)
		for l := range k {
			for j := range n {
				columns[j*lda+l] = b[l*ldb+j]
			}
		}
		packed.PackTransposed(columns, lda)
	} else {
		packed.Pack(b, ldb)
	}
	c := make([]float32, m*ldc)
	for i := range c {
		c[i] = guard
	}
	middle := packed.Panels() / 2
	th := kn.Thread(0)
	th.Multiply(c, ldc, a, lda, m, packed, bias, 0, middle)
	th.Multiply(c, ldc, a, lda, m, packed, bias, middle, packed.Panels())
	want := product(a, lda, b, ldb, bias, m, k, n)
	for i := range m {
		for j := range ldc {
			got := float64(c[i*ldc+j])
			if j >= n {
				if got != guard {
					t.Fatalf("%s %d×%d×%d: it wrote behind row %d", kn.Name, m, k, n, i)
				}
				continue
			}
			if w := want[i*n+j]; math.Abs(got-w) > 1e-5*math.Sqrt(float64(k+1))*(1+math.Abs(w)) {
				t.Fatalf("%s %d×%d×%d: element %d,%d is %v, not %v", kn.Name, m, k, n, i, j, got, w)
			}
		}
	}
}

func TestProductsOfAllSmallSizes(t *testing.T) {
	t.Parallel()
	for _, kn := range Kernels() {
		t.Run(kn.Name, func(t *testing.T) {
			t.Parallel()
			for m := 1; m <= 70; m += 1 + m/14 {
				for n := 1; n <= 70; n += 1 + n/8 {
					for _, k := range []int{1, 3, 4, 5, 8, 70} {
						checkProduct(t, kn, uint64(m*n*k), m, k, n, (m+n)%3, m%2 == 0, n%2 == 0)
					}
				}
			}
			checkProduct(t, kn, 1, 13, 2*depthMax+3, 33, 1, true, false)
			checkProduct(t, kn, 2, 25, depthMax+1, 7, 0, false, true)
		})
	}
}

func TestProductsOfAnySize(t *testing.T) {
	t.Parallel()
	all := Kernels()
	rapid.Check(t, func(t *rapid.T) {
		size := rapid.IntRange(1, 70)
		checkProduct(t, all[rapid.IntRange(0, len(all)-1).Draw(t, "kernel")], rapid.Uint64().Draw(t, "seed"), size.Draw(t, "m"), size.Draw(t, "k"), size.Draw(t, "n"),
			rapid.IntRange(0, 20).Draw(t, "gap"), rapid.Bool().Draw(t, "biased"), rapid.Bool().Draw(t, "transposed"))
	})
}

func FuzzProduct(f *testing.F) {
	f.Add(uint64(1), uint8(13), uint8(64), uint8(33), true)
	f.Fuzz(func(t *testing.T, seed uint64, m, k, n uint8, biased bool) {
		for _, kn := range Kernels() {
			checkProduct(t, kn, seed, int(m)%70+1, int(k)%70+1, int(n)%70+1, int(seed%5), biased, seed%2 == 0)
		}
	})
}

// vectorOps are the functions on vectors; each changes x and may return a number.
var vectorOps = map[string]func(k *Kernel, x, y, z []float32) float32{
	"relu":      func(k *Kernel, x, _, _ []float32) float32 { k.ReLU(x); return 0 },
	"addrelu":   func(k *Kernel, x, y, _ []float32) float32 { k.AddReLU(x, y); return 0 },
	"max":       func(k *Kernel, x, y, _ []float32) float32 { k.Max(x, y); return 0 },
	"gelu":      func(k *Kernel, x, _, _ []float32) float32 { k.GELU(x); return 0 },
	"softmax":   func(k *Kernel, x, _, _ []float32) float32 { k.Softmax(x, 0.125); return 0 },
	"scale":     func(k *Kernel, x, _, _ []float32) float32 { k.Scale(x, 3); return 0 },
	"add":       func(k *Kernel, x, y, _ []float32) float32 { return k.Add(x, y) },
	"layernorm": func(k *Kernel, x, y, z []float32) float32 { k.LayerNorm(x, y, y, z, 1e-12); return 0 },
}

func TestVectorsAreAsTheScalarOnes(t *testing.T) {
	t.Parallel()
	slow := scalar()
	for name, op := range vectorOps {
		for _, kn := range native() {
			t.Run(name+"/"+kn.Name, func(t *testing.T) {
				t.Parallel()
				for n := 1; n <= 300; n += 1 + n/70 {
					r := rand.New(rand.NewPCG(uint64(n), 2))
					x, y, z := numbers(r, n+1), numbers(r, n), numbers(r, n)
					for i := range x {
						x[i] *= 4 // into the tails
					}
					x[n] = guard
					want := append([]float32(nil), x...)
					a, b := op(kn, x[:n], y, z), op(slow, want[:n], y, z)
					if x[n] != guard {
						t.Fatalf("n = %d: it wrote behind the end", n)
					}
					if !near(a, b, 1e-4) {
						t.Fatalf("n = %d: it returns %v, not %v", n, a, b)
					}
					for i := range want {
						if n > 1 && !near(x[i], want[i], 2e-5) {
							t.Fatalf("n = %d: element %d is %v, not %v", n, i, x[i], want[i])
						}
					}
				}
			})
		}
	}
}

func near(a, b float32, tolerance float64) bool {
	return math.Abs(float64(a)-float64(b)) <= tolerance*(1+math.Abs(float64(b)))
}

func TestSoftmaxOfWhatIsLarge(t *testing.T) {
	t.Parallel()
	for _, kn := range Kernels() {
		x := make([]float32, 40)
		for i := range x {
			x[i] = float32(i) * -1e4
		}
		kn.Softmax(x, 1)
		if !near(x[0], 1, 1e-6) || x[1] > 1e-30 || x[39] > 1e-30 {
			t.Errorf("%s: %v", kn.Name, x)
		}
	}
}

func TestChoose(t *testing.T) {
	t.Parallel()
	for _, kn := range Kernels() {
		if got, err := Choose(kn.Name); err != nil || got.Name != kn.Name {
			t.Errorf("%s: %v, %v", kn.Name, got, err)
		}
	}
	if _, err := Choose("abacus"); err == nil {
		t.Error("there is no such kernel")
	}
}

func BenchmarkProduct(b *testing.B) {
	const m, k, n = 128, 768, 3072
	for _, kn := range Kernels() {
		b.Run(kn.Name, func(b *testing.B) {
			r := rand.New(rand.NewPCG(1, 3))
			a, c := numbers(r, m*k), make([]float32, m*n)
			packed := kn.Matrix(make([]float32, kn.Len(k, n)), k, n)
			packed.Pack(numbers(r, k*n), n)
			t := kn.Thread(0)
			for b.Loop() {
				t.Multiply(c, n, a, k, m, packed, nil, 0, packed.Panels())
			}
			b.ReportMetric(2*m*k*n*float64(b.N)/b.Elapsed().Seconds()/1e9, "GFLOPS")
		})
	}
}
