// Command asm writes the assembly of package gemm: `go generate` in that
// directory runs it. It is a module of its own, so that labmesh does not depend
// on the generator.
package main

import (
	"fmt"
	"math"

	"github.com/mmcloughlin/avo/attr"
	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"
)

// isa is an instruction set with vectors: how wide they are and how many rows a
// tile of two vectors' width may have before registers run out.
type isa struct {
	name string
	rows int
	vec  func() reg.VecVirtual
	wide int // bytes in a vector
}

const float = 4 // bytes

func main() {
	ConstraintExpr("amd64")
	for _, s := range []isa{
		{"avx2", 6, YMM, 32},
		{"avx512", 12, ZMM, 64},
	} {
		for rows := 1; rows <= s.rows; rows++ {
			s.tile(rows)
		}
		s.relu()
		s.addReLU()
		s.maximum()
		s.gelu()
		s.largest()
		s.expSum()
		s.scale()
		s.addSum()
		s.squares()
		s.normalise()
	}
	Generate()
}

// tile writes the product of some rows of A with a panel of B, which is two
// vectors wide. The tile of C stays in registers from its first value, read from
// init (a row of biases with a stride of 0, or C itself), to its last.
func (s isa) tile(rows int) {
	TEXT(fmt.Sprintf("%sTile%d", s.name, rows), attr.NOSPLIT, "func(k int, a *float32, lda int, b *float32, init *float32, ldi int, c *float32, ldc int)")
	Doc(fmt.Sprintf("%sTile%d sets %d rows of c to init + a·b; strides are in bytes.", s.name, rows, rows))
	k := Load(Param("k"), GP64())
	b := Load(Param("b"), GP64())

	acc := make([][2]reg.VecVirtual, rows)
	from := s.rowsOf("init", "ldi", rows)
	for r := range acc {
		for v := range acc[r] {
			acc[r][v] = s.vec()
			VMOVUPS(from(r, v*s.wide), acc[r][v])
		}
	}
	pa, stride := s.pointers("a", "lda", rows)
	step := func(i int) {
		b0, b1 := s.vec(), s.vec()
		VMOVUPS(Mem{Base: b, Disp: i * 2 * s.wide}, b0)
		VMOVUPS(Mem{Base: b, Disp: i*2*s.wide + s.wide}, b1)
		for r := range acc {
			x := s.vec()
			VBROADCASTSS(row(pa, stride, r, i*float), x)
			VFMADD231PS(b0, x, acc[r][0])
			VFMADD231PS(b1, x, acc[r][1])
		}
	}
	advance := func(n int) {
		for _, p := range pa {
			ADDQ(U32(n*float), p)
		}
		ADDQ(U32(n*2*s.wide), b)
	}
	const unroll = 4
	Label("unrolled")
	CMPQ(k, Imm(unroll))
	JLT(LabelRef("single"))
	for i := range unroll {
		step(i)
	}
	advance(unroll)
	SUBQ(Imm(unroll), k)
	JMP(LabelRef("unrolled"))
	Label("single")
	TESTQ(k, k)
	JZ(LabelRef("store"))
	step(0)
	advance(1)
	DECQ(k)
	JMP(LabelRef("single"))

	Label("store")
	to := s.rowsOf("c", "ldc", rows)
	for r := range acc {
		for v := range acc[r] {
			VMOVUPS(acc[r][v], to(r, v*s.wide))
		}
	}
	VZEROUPPER()
	RET()
}

// pointers loads a pointer to every third row: with the stride as an index all
// others are within reach.
func (s isa) pointers(base, stride string, rows int) (p []reg.GPVirtual, st reg.GPVirtual) {
	st = GP64()
	Load(Param(stride), st)
	for r := 0; r < rows; r += 3 {
		q := GP64()
		if r == 0 {
			Load(Param(base), q)
		} else {
			LEAQ(Mem{Base: p[len(p)-1], Index: st, Scale: 2}, q)
			ADDQ(st, q)
		}
		p = append(p, q)
	}
	return p, st
}

func (s isa) rowsOf(base, stride string, rows int) func(r, disp int) Mem {
	p, st := s.pointers(base, stride, rows)
	return func(r, disp int) Mem { return row(p, st, r, disp) }
}

func row(p []reg.GPVirtual, stride reg.GPVirtual, r, disp int) Mem {
	m := Mem{Base: p[r/3], Disp: disp}
	if r%3 > 0 {
		m.Index, m.Scale = stride, uint8(r%3)
	}
	return m
}

// loop writes a loop over the n floats from each pointer; n is a multiple of a
// vector. Each round hands body the place of a vector behind each pointer.
func (s isa) loop(pointers []string, body func(at []Mem)) {
	n := Load(Param("n"), GP64())
	at := make([]Mem, len(pointers))
	for i, name := range pointers {
		at[i] = Mem{Base: Load(Param(name), GP64())}
	}
	Label("loop")
	TESTQ(n, n)
	JZ(LabelRef("done"))
	body(at)
	for _, m := range at {
		ADDQ(U32(s.wide), m.Base)
	}
	SUBQ(U32(s.wide/float), n)
	JMP(LabelRef("loop"))
	Label("done")
}

func (s isa) begin(name, signature, doc string) {
	TEXT(s.name+name, attr.NOSPLIT, signature)
	Doc(s.name + name + " " + doc)
}

func end() {
	VZEROUPPER()
	RET()
}

func (s isa) relu() {
	s.begin("ReLU", "func(n int, x *float32)", "replaces what is negative by 0.")
	zero := s.zero()
	s.loop([]string{"x"}, func(at []Mem) {
		v := s.vec()
		VMAXPS(at[0], zero, v)
		VMOVUPS(v, at[0])
	})
	end()
}

func (s isa) addReLU() {
	s.begin("AddReLU", "func(n int, x, y *float32)", "adds y to x and replaces what is negative by 0.")
	zero := s.zero()
	s.loop([]string{"x", "y"}, func(at []Mem) {
		v := s.vec()
		VMOVUPS(at[0], v)
		VADDPS(at[1], v, v)
		VMAXPS(v, zero, v)
		VMOVUPS(v, at[0])
	})
	end()
}

func (s isa) maximum() {
	s.begin("Max", "func(n int, x, y *float32)", "sets x to the larger of x and y.")
	s.loop([]string{"x", "y"}, func(at []Mem) {
		v := s.vec()
		VMOVUPS(at[0], v)
		VMAXPS(at[1], v, v)
		VMOVUPS(v, at[0])
	})
	end()
}

// gelu is x/2·(1 + erf(x/√2)) with erf as a quotient of polynomials on [-4, 4],
// with the coefficients of Eigen's generic_fast_erf_float.
func (s isa) gelu() {
	s.begin("GELU", "func(n int, x *float32)", "applies the Gaussian error linear unit.")
	s.loop([]string{"x"}, func(at []Mem) {
		x, u, u2, p, q := s.vec(), s.vec(), s.vec(), s.vec(), s.vec()
		VMOVUPS(at[0], x)
		VMULPS(s.constant(math.Sqrt2/2), x, u)
		VMINPS(s.constant(4), u, u)
		VMAXPS(s.constant(-4), u, u)
		VMULPS(u, u, u2)
		s.polynomial(u2, p, -2.72614225801306e-10, 2.77068142495902e-08, -2.10102402082508e-06, -5.69250639462346e-05, -7.34990630326855e-04, -2.95459980854025e-03, -1.60960333262415e-02)
		VMULPS(u, p, p)
		s.polynomial(u2, q, -1.45660718464996e-05, -2.13374055278905e-04, -1.68282697438203e-03, -7.37332916720468e-03, -1.42647390514189e-02)
		VDIVPS(q, p, p)
		VMULPS(s.constant(0.5), x, x)
		VFMADD213PS(x, x, p)
		VMOVUPS(p, at[0])
	})
	end()
}

// polynomial evaluates one by Horner's rule, highest coefficient first.
func (s isa) polynomial(x, p reg.VecVirtual, c ...float64) {
	VMOVUPS(s.constant(c[0]), p)
	for _, v := range c[1:] {
		VFMADD213PS(s.constant(v), x, p)
	}
}

func (s isa) largest() {
	s.begin("Largest", "func(n int, x *float32) float32", "is the largest of x; n > 0.")
	acc := s.vec()
	VMOVUPS(s.constant(math.Inf(-1)), acc)
	s.loop([]string{"x"}, func(at []Mem) { VMAXPS(at[0], acc, acc) })
	s.reduce(acc, func(a, b reg.VecVirtual) { VMAXPS(a, b, b) }, func(a, b reg.VecVirtual) { VMAXSS(a, b, b) })
}

// expSum is exp by 2ⁿ·exp(r) with |r| ≤ ln 2/2 and the polynomial of Cephes' expf.
func (s isa) expSum() {
	s.begin("ExpSum", "func(n int, x *float32, scale, less float32) float32", "replaces x by exp(scale·x - less) and adds that up.")
	scale, less, acc := s.broadcast("scale"), s.broadcast("less"), s.zero()
	s.loop([]string{"x"}, func(at []Mem) {
		x, n, y, p := s.vec(), s.vec(), s.vec(), s.vec()
		VMOVUPS(at[0], x)
		VFMSUB213PS(less, scale, x)
		VMAXPS(s.constant(expLeast), x, x)
		VMINPS(s.constant(expMost), x, x)
		VMULPS(s.constant(math.Log2E), x, n)
		if s.wide == 64 {
			VRNDSCALEPS(Imm(0), n, n)
		} else {
			VROUNDPS(Imm(0), n, n)
		}
		VFNMADD231PS(s.constant(0.693359375), n, x)
		VFNMADD231PS(s.constant(-2.12194440e-4), n, x)
		VMULPS(x, x, y)
		s.polynomial(x, p, 1.9875691500e-4, 1.3981999507e-3, 8.3334519073e-3, 4.1665795894e-2, 1.6666665459e-1, 5.0000001201e-1)
		VFMADD213PS(x, y, p)
		VADDPS(s.constant(1), p, p)
		VCVTPS2DQ(n, n)
		VPSLLD(Imm(23), n, n)
		VPADDD(p, n, p) // p·2ⁿ: p is in [0.7, 1.5], so its exponent has room
		VMOVUPS(p, at[0])
		VADDPS(p, acc, acc)
	})
	s.sum(acc)
}

// What exp is asked for at least and at most: beyond it the result is no normal number.
const (
	expLeast = -87
	expMost  = 88
)

func (s isa) scale() {
	s.begin("Scale", "func(n int, x *float32, by float32)", "multiplies x.")
	by := s.broadcast("by")
	s.loop([]string{"x"}, func(at []Mem) {
		v := s.vec()
		VMULPS(at[0], by, v)
		VMOVUPS(v, at[0])
	})
	end()
}

func (s isa) addSum() {
	s.begin("AddSum", "func(n int, x, y *float32) float32", "adds y to x and adds that up.")
	acc := s.zero()
	s.loop([]string{"x", "y"}, func(at []Mem) {
		v := s.vec()
		VMOVUPS(at[0], v)
		VADDPS(at[1], v, v)
		VMOVUPS(v, at[0])
		VADDPS(v, acc, acc)
	})
	s.sum(acc)
}

func (s isa) squares() {
	s.begin("Squares", "func(n int, x *float32, mean float32) float32", "adds up the squares of x - mean.")
	mean, acc := s.broadcast("mean"), s.zero()
	s.loop([]string{"x"}, func(at []Mem) {
		v := s.vec()
		VMOVUPS(at[0], v)
		VSUBPS(mean, v, v)
		VFMADD231PS(v, v, acc)
	})
	s.sum(acc)
}

func (s isa) normalise() {
	s.begin("Normalise", "func(n int, x, gamma, beta *float32, mean, by float32)", "sets x to (x - mean)·by·gamma + beta.")
	mean, by := s.broadcast("mean"), s.broadcast("by")
	s.loop([]string{"x", "gamma", "beta"}, func(at []Mem) {
		v := s.vec()
		VMOVUPS(at[0], v)
		VSUBPS(mean, v, v)
		VMULPS(by, v, v)
		g := s.vec()
		VMOVUPS(at[1], g)
		VFMADD213PS(at[2], g, v)
		VMOVUPS(v, at[0])
	})
	end()
}

func (s isa) zero() reg.VecVirtual {
	v := s.vec()
	if s.wide == 64 {
		VPXORD(v, v, v)
	} else {
		VXORPS(v, v, v)
	}
	return v
}

// broadcast fills a vector with an argument.
func (s isa) broadcast(param string) reg.VecVirtual {
	a, err := Param(param).Resolve()
	if err != nil {
		panic(err)
	}
	v := s.vec()
	VBROADCASTSS(a.Addr, v)
	return v
}

func (s isa) sum(acc reg.VecVirtual) {
	s.reduce(acc, func(a, b reg.VecVirtual) { VADDPS(a, b, b) }, func(a, b reg.VecVirtual) { VADDSS(a, b, b) })
}

// reduce folds the lanes of acc in halves and returns what is left.
func (s isa) reduce(acc reg.VecVirtual, fold, last func(a, b reg.VecVirtual)) {
	if s.wide == 64 {
		high := YMM()
		VEXTRACTF64X4(Imm(1), acc, high)
		low := YMM()
		VMOVUPS(acc.AsY(), low)
		fold(high, low)
		acc = low
	}
	high, low := XMM(), XMM()
	VEXTRACTF128(Imm(1), acc, high)
	VMOVUPS(acc.AsX(), low)
	fold(high, low)
	VMOVHLPS(low, low, high)
	fold(high, low)
	VMOVSHDUP(low, high)
	last(high, low)
	Store(low, ReturnIndex(0))
	end()
}

// constant is a vector in memory all of whose lanes are v.
func (s isa) constant(v float64) Mem {
	bits := math.Float32bits(float32(v))
	if m, ok := constants[bits]; ok {
		return m
	}
	m := GLOBL(fmt.Sprintf("lanes%08x", bits), attr.RODATA|attr.NOPTR)
	for i := range 16 {
		DATA(i*float, U32(bits))
	}
	constants[bits] = m
	return m
}

var constants = map[uint32]Mem{}
