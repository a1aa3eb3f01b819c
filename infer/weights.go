package infer

import (
	"context"

	"labmesh/infer/gemm"
)

// loader makes the weights of a model. The names and shapes of its parameters are those of
// the published checkpoints, in the layout of PyTorch. After an error it makes nothing more.
type loader struct {
	ctx    context.Context
	seed   int64
	kernel *gemm.Kernel
	pool   *pool
	arena  *arena
	made   []parameter
	err    error
}

// parameter is a tensor of a model, as a checkpoint would have it.
type parameter struct {
	name   string
	shape  []int
	source source
	buffer bool // no parameter, but what was learnt of the data: it is not counted
}

func (p parameter) len() int {
	n := 1
	for _, d := range p.shape {
		n *= d
	}
	return n
}

// count is how many parameters have been made.
func (l *loader) count() (n int64) {
	for _, p := range l.made {
		if !p.buffer {
			n += int64(p.len())
		}
	}
	return n
}

// parameter notes a tensor and returns where its numbers come from.
func (l *loader) parameter(name string, mean, sd float64, shape ...int) source {
	p := parameter{name: name, shape: shape, source: normal(l.seed, name, mean, sd)}
	l.made = append(l.made, p)
	return p.source
}

// learnt notes a tensor that is no parameter.
func (l *loader) learnt(name string, mean, sd float64, n int) source {
	s := l.parameter(name, mean, sd, n)
	l.made[len(l.made)-1].buffer = true
	return s
}

// floats are n zeros, or nil after an error.
func (l *loader) floats(n int) []float32 {
	if l.err == nil {
		l.err = l.ctx.Err()
	}
	if l.err != nil {
		return nil
	}
	var out []float32
	out, l.err = l.arena.floats(n)
	return out
}

// vector is a parameter of one dimension.
func (l *loader) vector(name string, mean, sd float64, n int) []float32 {
	return l.table(name, mean, sd, 1, n)
}

// table is a parameter of rows by n, as it is.
func (l *loader) table(name string, mean, sd float64, rows, n int) []float32 {
	s := l.parameter(name, mean, sd, rows, n)
	if rows == 1 {
		l.made[len(l.made)-1].shape = []int{n}
	}
	out := l.floats(rows * n)
	if out != nil {
		l.pool.each(rows, func(_ *gemm.Thread, r int) {
			s.fill(out[r*n:(r+1)*n], r*n)
		})
	}
	return out
}

// linear is a matrix to multiply by, and what to add; made for one kernel.
type linear struct {
	m    gemm.Matrix
	bias []float32 // filled up to whole panels
}

// linear makes a matrix of one or more fully connected layers side by side, each with its
// weights (out by in) and biases.
func (l *loader) linear(in, out int, sd float64, names ...string) linear {
	weights, biases := make([]source, len(names)), make([]source, len(names))
	for i, name := range names {
		weights[i] = l.parameter(name+".weight", 0, sd, out, in)
		biases[i] = l.parameter(name+".bias", 0, sd, out)
	}
	return l.matrix(in, out*len(names), func(c int, to []float32) { weights[c/out].fill(to, c%out*in) }, func(c int) float32 { return biases[c/out].at(c % out) })
}

func (l *loader) matrix(rows, n int, value func(c int, to []float32), bias func(c int) float32) linear {
	data, b := l.floats(l.kernel.Len(rows, n)), l.floats(l.kernel.Panels(n)*l.kernel.Columns())
	if l.err != nil {
		return linear{}
	}
	out := linear{l.kernel.Matrix(data, rows, n), b}
	l.pool.each(out.m.Panels(), func(_ *gemm.Thread, p int) { out.m.Fill(p, value) })
	for c := range n {
		b[c] = bias(c)
	}
	return out
}
