package infer

import (
	"context"
	"fmt"
	"math"

	"labmesh/bench"
	"labmesh/infer/gemm"
)

// Options say what to load and how to run it. Zero fields stand for what a model has by itself.
type Options struct {
	Model          string // a name or alias of [bench.Models] that is built in
	SequenceLength int    // tokens of an item
	ImageSize      int    // pixels of a side
	Seed           int64  // of weights and inputs
	Kernel         *gemm.Kernel
	Threads        int
}

// Defaults and limits of inputs.
const (
	LengthDefault = 128
	LengthMax     = bertPositions
	ImageDefault  = 224
	ImageMin      = 32
	ImageMax      = 4096
)

// Model is a model with its weights. One goroutine at a time may use it and its batches.
type Model struct {
	Name   string
	Params int64          // as counted
	Shape  map[string]int // of one item of the input

	pool    *pool
	arena   arena
	network network
	made    []parameter
}

// network is a kind of model: it plans what an iteration does and where its outputs will be.
type network interface {
	plan(p *plan) (outputs []*buffer)
}

// InputError says that a model cannot have an input of that shape.
type InputError struct{ Message string }

func (e InputError) Error() string { return e.Message }

// UnknownError says that there is no such model here.
type UnknownError struct{ Name string }

func (e UnknownError) Error() string {
	return fmt.Sprintf("labmesh-go does not run %.60q", e.Name)
}

// CountError says that a model has not as many parameters as the published one: it is not that model.
type CountError struct {
	Name       string
	Has, Wants int64
}

func (e CountError) Error() string {
	return fmt.Sprintf("%s has %d parameters, the published one %d", e.Name, e.Has, e.Wants)
}

// Load makes a model. It errs with one of the errors above or [ErrMemory], or when ctx ends.
func Load(ctx context.Context, o Options) (*Model, error) {
	known, _ := bench.FindModel(o.Model)
	make, shape, err := maker(known.Name, o)
	if err != nil {
		return nil, err
	}
	if err := checkMemory(known.Name, float64(known.Params)*floatBytes); err != nil {
		return nil, err
	}
	m := &Model{Name: known.Name, Shape: shape, pool: newPool(o.Kernel, max(o.Threads, 1))}
	l := &loader{ctx: ctx, seed: o.Seed, kernel: o.Kernel, pool: m.pool, arena: &m.arena}
	m.network = make(l)
	m.Params, m.made = l.count(), l.made
	if l.err == nil && m.Params != known.Params {
		l.err = CountError{known.Name, m.Params, known.Params}
	}
	if l.err != nil {
		m.Close()
		return nil, l.err
	}
	return m, nil
}

// maker finds what makes the model called name, and the shape of its input.
func maker(name string, o Options) (func(*loader) network, map[string]int, error) {
	length, image := o.SequenceLength, o.ImageSize
	if length == 0 {
		length = LengthDefault
	}
	if image == 0 {
		image = ImageDefault
	}
	text, pixels := map[string]int{"sequence_length": length}, map[string]int{"channels": 3, "image_size": image}
	switch name {
	case "bert-base-uncased", "bert-large-uncased":
		if length < 1 || length > LengthMax {
			return nil, nil, InputError{fmt.Sprintf("sequence_length: %s takes 1 to %d tokens, not %d", name, LengthMax, length)}
		}
		size := bertSize{768, 12, 12}
		if name == "bert-large-uncased" {
			size = bertSize{1024, 24, 16}
		}
		return func(l *loader) network { return loadBERT(l, size, length) }, text, nil
	case "resnet18", "resnet50":
		if image < ImageMin || image > ImageMax {
			return nil, nil, InputError{fmt.Sprintf("image_size: %s takes %d to %d pixels a side, not %d", name, ImageMin, ImageMax, image)}
		}
		size := resnetSize{[4]int{2, 2, 2, 2}, false}
		if name == "resnet50" {
			size = resnetSize{[4]int{3, 4, 6, 3}, true}
		}
		return func(l *loader) network { return loadResNet(l, size, image) }, pixels, nil
	case "mlp":
		return func(l *loader) network { return loadMLP(l) }, map[string]int{"features": mlpWidths()[0]}, nil
	}
	return nil, nil, UnknownError{o.Model}
}

// Threads is how many goroutines share an iteration.
func (m *Model) Threads() int { return len(m.pool.threads) }

// Kernel is the name of what the model is computed with.
func (m *Model) Kernel() string { return m.pool.threads[0].Name }

// ParamBytes is how much memory the parameters take.
func (m *Model) ParamBytes() int64 { return m.Params * floatBytes }

// FLOPs is how many operations an item takes in matrix products, an addition and a
// multiplication counted as two; all else a model does is little beside them.
func (m *Model) FLOPs() float64 {
	p := m.planned(1)
	return p.flops
}

func (m *Model) planned(batch int) *plan {
	p := &plan{pool: m.pool, batch: batch}
	p.outputs = m.network.plan(p)
	return p
}

// Close gives back the memory of the model and ends its goroutines.
func (m *Model) Close() {
	m.pool.close()
	m.arena.release()
}

// Batch is a model that is ready to run some items at once.
type Batch struct {
	plan  *plan
	arena arena
}

// Prepare plans an iteration of batch items, takes the memory it needs, and puts the
// inputs there. It errs with [ErrMemory] when there is too little.
func (m *Model) Prepare(batch int) (*Batch, error) {
	b := &Batch{plan: m.planned(batch)}
	err := checkMemory(fmt.Sprintf("%s with batch %d", m.Name, batch), b.plan.bytes())
	if err == nil {
		err = b.plan.allocate(&b.arena)
	}
	if err != nil {
		b.Close()
		return nil, err
	}
	for _, draw := range b.plan.inputs {
		draw()
	}
	return b, nil
}

// Run runs one iteration to its end, or to the end of ctx: then the outputs mean nothing.
func (b *Batch) Run(ctx context.Context) error {
	for _, s := range b.plan.steps {
		if err := ctx.Err(); err != nil {
			return err
		}
		b.plan.pool.each(s.parts, s.do)
	}
	return nil
}

// Close gives back the memory of the batch.
func (b *Batch) Close() { b.arena.release() }

// Summary is what came out of an iteration, in two numbers.
type Summary struct {
	RMS        float64 // root of the mean square of all outputs
	Projection float64 // the outputs on a fixed vector of signs, over the root of their number
	Finite     bool    // no NaN or infinity among them
}

// Summary sums the outputs up. It is the same for any number of threads; kernels add in different
// orders, so between them it differs in the last digits of an fp32.
func (b *Batch) Summary() Summary {
	signs := source{}
	var squares, projection float64
	n := 0
	for _, o := range b.plan.outputs {
		for r := range o.rows {
			for _, v := range o.row(r) {
				squares += float64(float64(v) * float64(v))
				if signs.word(n)>>63 == 0 {
					projection += float64(v)
				} else {
					projection -= float64(v)
				}
				n++
			}
		}
	}
	root := math.Sqrt(float64(n))
	return Summary{RMS: math.Sqrt(squares) / root, Projection: projection / root, Finite: !math.IsNaN(squares) && !math.IsInf(squares, 0)}
}

// String is the checksum of a row: equal for equal model, seed, shape, batch and kernel, and
// but for the last digit equal for all kernels.
func (s Summary) String() string { return fmt.Sprintf("%.4e %.4e", s.RMS, s.Projection) }
