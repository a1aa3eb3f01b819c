package infer

import (
	"labmesh/infer/gemm"
)

// plan is what one iteration does at one batch size: steps that follow one another, each in parts
// that do not care which goes first. While it is made, buffers have no memory yet: those whose time does not overlap share it.
type plan struct {
	pool    *pool
	batch   int
	steps   []step
	slots   []slot
	buffers []*buffer
	outputs []*buffer
	inputs  []func() // make the inputs, once
	flops   float64  // of one iteration: two for each multiplication with its addition, in matrix products
}

type step struct {
	parts int
	do    part
}

// slot is memory that buffers use one after another.
type slot struct {
	floats int
	taken  bool
}

// buffer is a matrix of activations.
type buffer struct {
	rows, cols, stride int
	data               []float32 // once the plan is made
	slot               int
}

// row is row i of b.
func (b *buffer) row(i int) []float32 { return b.data[i*b.stride : i*b.stride+b.cols] }

// stride is how far apart rows of so many columns are laid: rows that lie a multiple of a page apart would all
// want the same few places in the first-level cache.
func stride(cols int) int {
	s := (cols + aligned - 1) / aligned * aligned
	if s*floatBytes%4096 == 0 {
		s += aligned
	}
	return s
}

// take makes a buffer, of the smallest free memory that is large enough or else the largest there is.
func (p *plan) take(rows, cols int) *buffer {
	b := &buffer{rows: rows, cols: cols, stride: stride(cols), slot: -1}
	need := rows * b.stride
	for i, s := range p.slots {
		if s.taken {
			continue
		}
		if b.slot < 0 || better(s.floats, p.slots[b.slot].floats, need) {
			b.slot = i
		}
	}
	if b.slot < 0 {
		b.slot = len(p.slots)
		p.slots = append(p.slots, slot{})
	}
	s := &p.slots[b.slot]
	s.floats, s.taken = max(s.floats, need), true
	p.buffers = append(p.buffers, b)
	return b
}

// better reports whether a slot of a floats suits the need better than one of b.
func better(a, b, need int) bool {
	if a >= need && b >= need {
		return a < b
	}
	return a > b
}

// drop ends the time of b: later buffers may lie where it lay.
func (p *plan) drop(b *buffer) { p.slots[b.slot].taken = false }

// bytes is how much memory the buffers take.
func (p *plan) bytes() (sum float64) {
	for _, s := range p.slots {
		sum += float64(s.floats) * floatBytes
	}
	return sum
}

// allocate gives the buffers their memory.
func (p *plan) allocate(a *arena) error {
	memory := make([][]float32, len(p.slots))
	for i, s := range p.slots {
		var err error
		if memory[i], err = a.floats(s.floats); err != nil {
			return err
		}
	}
	for _, b := range p.buffers {
		b.data = memory[b.slot][:b.rows*b.stride]
	}
	return nil
}

func (p *plan) step(parts int, do part) { p.steps = append(p.steps, step{parts, do}) }

// rowsMost is how many rows a part of a product has: few enough that what they are multiplied
// into stays in the second-level cache until whatever follows has been done to it.
const rowsMost = 192

// block is one part of a product: some rows and some panels of columns.
type block struct{ row, rows, from, to int }

// share cuts a product of rows by panels so that there is enough for all threads.
func (p *plan) share(rows, most, panels int) (parts int, of func(i int) block) {
	high := (rows + most - 1) / most
	wide := 1
	if threads := len(p.pool.threads); threads > 1 {
		const each = 4 // parts for every thread, so that the last to end is not late
		wide = min(panels, max(1, (each*threads+high-1)/high))
	}
	return high * wide, func(i int) block {
		h, w := i/wide, i%wide
		row, from := h*rows/high, w*panels/wide
		return block{row, (h+1)*rows/high - row, from, (w + 1) * panels / wide}
	}
}

// after is done to a row's share of a product when it is done.
type after func(k *gemm.Thread, row int, out []float32, first int)

// product adds out = in·w + bias, and then for each row what follows.
func (p *plan) product(in, out *buffer, w linear, then after) {
	p.count(out.rows, w.m)
	parts, of := p.share(out.rows, rowsMost, w.m.Panels())
	p.step(parts, func(t *gemm.Thread, i int) {
		b := of(i)
		t.Multiply(out.data[b.row*out.stride:], out.stride, in.data[b.row*in.stride:], in.stride, b.rows, w.m, w.bias, b.from, b.to)
		finish(t, out, b, w.m.N, then)
	})
}

// finish does to the rows of a block what follows a product.
func finish(t *gemm.Thread, out *buffer, b block, n int, then after) {
	if then == nil {
		return
	}
	first, last := b.from*t.Columns(), min(b.to*t.Columns(), n)
	for r := b.row; r < b.row+b.rows; r++ {
		then(t, r, out.row(r)[first:last], first)
	}
}

// count counts the work of a product.
func (p *plan) count(rows int, m gemm.Matrix) {
	p.flops += 2 * float64(rows) * float64(m.K) * float64(m.N)
}

func reluRow(t *gemm.Thread, _ int, out []float32, _ int) { t.ReLU(out) }

func geluRow(t *gemm.Thread, _ int, out []float32, _ int) { t.GELU(out) }
