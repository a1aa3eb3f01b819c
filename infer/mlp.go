package infer

import (
	"math"

	"labmesh/infer/gemm"
)

// mlp is a perceptron of three layers with ReLU between them: 1024 → 4096 → 4096 → 1000.
type mlp struct {
	input  source
	layers []linear
}

func mlpWidths() []int { return []int{1024, 4096, 4096, 1000} }

func loadMLP(l *loader) *mlp {
	m, widths, names := &mlp{input: normal(l.seed, "input", 0, 1)}, mlpWidths(), []string{"fc1", "fc2", "fc3"}
	for i, name := range names {
		m.layers = append(m.layers, l.linear(widths[i], widths[i+1], math.Sqrt(2/float64(widths[i])), name))
	}
	return m
}

func (m *mlp) plan(p *plan) (outputs []*buffer) {
	widths := mlpWidths()
	x := p.take(p.batch, widths[0])
	input := x // it is kept, for every iteration
	p.inputs = append(p.inputs, func() {
		p.pool.each(p.batch, func(_ *gemm.Thread, i int) {
			m.input.fill(input.row(i), i*widths[0])
		})
	})
	for i, layer := range m.layers {
		var then after = reluRow
		if i == len(m.layers)-1 {
			then = nil
		}
		out := p.take(p.batch, widths[i+1])
		p.product(x, out, layer, then)
		if x != input {
			p.drop(x)
		}
		x = out
	}
	return []*buffer{x}
}
