package infer

import (
	"context"
	"errors"
	"math"
	"slices"
	"testing"
	"time"

	"labmesh/infer/gemm"
)

// makeSmall makes a network that is not one of the published ones.
func makeSmall(t *testing.T, k *gemm.Kernel, threads int, network func(l *loader) network) *Model {
	t.Helper()
	m := &Model{pool: newPool(k, threads)}
	l := &loader{ctx: t.Context(), seed: 7, kernel: k, pool: m.pool, arena: &m.arena}
	m.network = network(l)
	m.made = l.made
	if l.err != nil {
		t.Fatal(l.err)
	}
	t.Cleanup(m.Close)
	return m
}

func outputs(t *testing.T, m *Model, batch int) []*buffer {
	t.Helper()
	b, err := m.Prepare(batch)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(b.Close)
	for range 2 { // the second must find its inputs as the first did
		if err := b.Run(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	return b.plan.outputs
}

func compare(t *testing.T, what string, got []float32, want []float64) {
	t.Helper()
	var scale float64
	for _, v := range want {
		scale = max(scale, math.Abs(v))
	}
	if len(got) != len(want) {
		t.Fatalf("%s: there are %d numbers, not %d", what, len(got), len(want))
	}
	for i, v := range got {
		if !(math.Abs(float64(v)-want[i]) <= 2e-5*scale) {
			t.Fatalf("%s: number %d is %v, not %v", what, i, v, want[i])
		}
	}
}

// everyKernel makes a network with each kernel in turn, and has what comes out looked at.
func everyKernel(t *testing.T, threads, batch int, network func(l *loader) network, look func(t *testing.T, m *Model, out []*buffer)) {
	t.Helper()
	for _, k := range gemm.Kernels() {
		t.Run(k.Name, func(t *testing.T) {
			m := makeSmall(t, k, threads, network)
			look(t, m, outputs(t, m, batch))
		})
	}
}

func TestBERTComputesWhatItsDefinitionSays(t *testing.T) {
	t.Parallel()
	const width, layers, heads, length, batch = 64, 2, 2, 131, 2 // more tokens than queries are scored at once
	const item = 1
	var hidden [][]float64
	var pooled []float64
	everyKernel(t, 2, batch, func(l *loader) network { return loadBERT(l, bertSize{width, layers, heads}, length) }, func(t *testing.T, m *Model, out []*buffer) {
		if hidden == nil {
			var tokens []int
			for i := range length {
				tokens = append(tokens, m.network.(*bert).token(item*length+i))
			}
			hidden, pooled = references(m.made).bert(tokens, width, layers, heads)
		}
		for i, want := range hidden {
			compare(t, "hidden state", out[0].row(item*length+i), want)
		}
		compare(t, "pooler output", out[1].row(item), pooled)
	})
}

func TestResNetComputesWhatItsDefinitionSays(t *testing.T) {
	t.Parallel()
	const side, batch, item = 33, 2, 1
	for name, size := range map[string]resnetSize{"bottleneck": {[4]int{1, 1, 1, 1}, true}, "basic": {[4]int{2, 1, 1, 1}, false}} {
		t.Run(name, func(t *testing.T) {
			var want []float64
			everyKernel(t, 2, batch, func(l *loader) network { return loadResNet(l, size, side) }, func(t *testing.T, m *Model, out []*buffer) {
				if want == nil {
					x := image{make([][]float64, 3), side}
					for i := range 3 * side * side {
						x.channels[i%3] = append(x.channels[i%3], float64(m.network.(*resnet).pixels.at(item*3*side*side+i)))
					}
					want = references(m.made).resnet(x, size.blocks, size.bottleneck)
				}
				compare(t, "classes", out[0].row(item), want)
			})
		})
	}
}

func TestMLPComputesWhatItsDefinitionSays(t *testing.T) {
	t.Parallel()
	const batch, item = 3, 2
	var want []float64
	everyKernel(t, 1, batch, func(l *loader) network { return loadMLP(l) }, func(t *testing.T, m *Model, out []*buffer) {
		if want == nil {
			x := make([]float64, mlpWidths()[0])
			for i := range x {
				x[i] = float64(m.network.(*mlp).input.at(item*len(x) + i))
			}
			want = references(m.made).mlp(x)
		}
		compare(t, "classes", out[0].row(item), want)
	})
}

// goldens are the checksums of seed 0. ONNX Runtime comes to the same: see onnx_test.go.
var goldens = []struct {
	Options
	batch           int
	rms, projection float64
}{
	{Options{Model: "bert-base-uncased", SequenceLength: 16}, 1, 0.975827, -0.301442},
	{Options{Model: "bert-large-uncased", SequenceLength: 8}, 1, 0.955582, 0.390027},
	{Options{Model: "resnet18", ImageSize: 64}, 1, 5.96270, 4.12058},
	{Options{Model: "resnet50", ImageSize: 64}, 1, 310.181, 231.028},
	{Options{Model: "mlp"}, 1, 1.43393, 0.332803},
}

func TestModelsComeToTheirGoldenChecksums(t *testing.T) {
	if testing.Short() {
		t.Skip("it makes whole models, which takes seconds: -short asks for less")
	}
	for _, g := range goldens {
		t.Run(g.Model, func(t *testing.T) {
			if raceDetector && g.Model == "bert-large-uncased" {
				t.Skip("the race detector makes 335 million weights slow: without -race it runs")
			}
			for _, k := range gemm.Kernels() {
				o := g.Options
				o.Kernel, o.Threads = k, 2
				m, err := Load(t.Context(), o)
				if err != nil {
					t.Fatal(err)
				}
				b, err := m.Prepare(g.batch)
				if err != nil {
					t.Fatal(err)
				}
				if err := b.Run(t.Context()); err != nil {
					t.Fatal(err)
				}
				s := b.Summary()
				t.Logf("%s: %s", k.Name, s)
				if !s.Finite || math.Abs(s.RMS-g.rms) > 1e-4*g.rms || math.Abs(s.Projection-g.projection) > 1e-4*g.rms {
					t.Errorf("%s: %s, not %.6e %.6e", k.Name, s, g.rms, g.projection)
				}
				b.Close()
				m.Close()
				if raceDetector || g.Model == "bert-large-uncased" {
					break // the fastest kernel alone
				}
			}
		})
	}
}

func TestThreadsAndBatchDoNotMatterToAnItem(t *testing.T) {
	t.Parallel()
	k := gemm.Kernels()[0]
	of := func(threads, batch int) []float32 {
		m := makeSmall(t, k, threads, func(l *loader) network { return loadBERT(l, bertSize{64, 1, 1}, 33) })
		return outputs(t, m, batch)[1].row(0)
	}
	want := of(1, 1)
	for _, threads := range []int{1, 2, 5} {
		if got := of(threads, 3); !slices.Equal(got, want) {
			t.Errorf("with %d threads and batch 3 the first item is another", threads)
		}
	}
}

func TestNumbersAreTheSameForEver(t *testing.T) {
	t.Parallel()
	s := normal(1, "fc1.weight", 0, 1)
	got := []float32{s.at(0), s.at(1), s.at(1_000_000_000)}
	if want := []float32{0.2336763, -1.0007117, 0.4092886}; !slices.Equal(got, want) {
		t.Errorf("%v, not %v", got, want)
	}
	var sum, squares, fourth float64
	const n = 100_000
	for i := range n {
		v := float64(s.at(i))
		sum, squares, fourth = sum+v, squares+v*v, fourth+v*v*v*v
	}
	if math.Abs(sum/n) > 0.02 || math.Abs(squares/n-1) > 0.02 || math.Abs(fourth/n-2.85) > 0.1 {
		t.Errorf("mean %v, variance %v, fourth moment %v: they should be 0, 1 and 2.85", sum/n, squares/n, fourth/n)
	}
}

func TestWhatCannotBeLoaded(t *testing.T) {
	t.Parallel()
	k := gemm.Kernels()[0]
	var shape InputError
	var unknown UnknownError
	for _, o := range []Options{
		{Model: "bert-base-uncased", SequenceLength: 513}, {Model: "bert-base-uncased", SequenceLength: -1}, {Model: "resnet18", ImageSize: 8}, {Model: "resnet18", ImageSize: 1 << 20},
	} {
		o.Kernel = k
		if _, err := Load(t.Context(), o); !errors.As(err, &shape) {
			t.Errorf("%+v: %v", o, err)
		}
	}
	for _, name := range []string{"", "gpt2", "bort"} {
		if _, err := Load(t.Context(), Options{Model: name, Kernel: k}); !errors.As(err, &unknown) {
			t.Errorf("%q: %v", name, err)
		}
	}
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := Load(ended, Options{Model: "mlp", Kernel: k}); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}

func TestTooLargeABatchIsAnError(t *testing.T) {
	t.Parallel()
	m := makeSmall(t, gemm.Kernels()[0], 1, func(l *loader) network { return loadResNet(l, resnetSize{[4]int{1, 1, 1, 1}, false}, 256) })
	if _, err := m.Prepare(1_000_000); !errors.Is(err, ErrMemory) {
		t.Fatal(err)
	}
	b, err := m.Prepare(1)
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if err := b.Run(ended); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}

func TestBuffersWhoseTimesOverlapShareNothing(t *testing.T) {
	t.Parallel()
	p := &plan{}
	a := p.take(10, 100)
	b := p.take(5, 100)
	p.drop(a)
	c := p.take(2, 100)
	d := p.take(20, 100)
	if c.slot != a.slot || d.slot == b.slot || d.slot == c.slot {
		t.Errorf("slots: %d %d %d %d", a.slot, b.slot, c.slot, d.slot)
	}
	var memory arena
	defer memory.release()
	if err := p.allocate(&memory); err != nil {
		t.Fatal(err)
	}
	for _, x := range []*buffer{b, c, d} {
		for i := range x.data {
			x.data[i] = float32(x.rows)
		}
	}
	if b.data[0] != 5 || c.data[0] != 2 || d.data[0] != 20 {
		t.Error("they overlap")
	}
}

func TestMeasureGFLOPS(t *testing.T) {
	t.Parallel()
	got, kernel := MeasureGFLOPS(t.Context(), 2, 20*time.Millisecond)
	if got <= 0 || kernel != gemm.Kernels()[0].Name {
		t.Errorf("%v GFLOPS with %s", got, kernel)
	}
	for _, k := range gemm.Kernels() {
		if err := Check(t.Context(), k); err != nil {
			t.Error(err)
		}
	}
}

func BenchmarkIteration(b *testing.B) {
	for _, model := range []string{"bert-base-uncased", "resnet50", "resnet18", "mlp"} {
		for _, k := range gemm.Kernels() {
			b.Run(model+"/"+k.Name, func(b *testing.B) {
				m, err := Load(b.Context(), Options{Model: model, Kernel: k, Threads: 1})
				if err != nil {
					b.Fatal(err)
				}
				defer m.Close()
				batch, err := m.Prepare(1)
				if err != nil {
					b.Fatal(err)
				}
				defer batch.Close()
				before := cpuMS(b)
				for b.Loop() {
					if err := batch.Run(b.Context()); err != nil {
						b.Fatal(err)
					}
				}
				took := cpuMS(b) - before // what others do to the time on the wall it does not see
				b.ReportMetric(took/float64(b.N), "CPU-ms/op")
				b.ReportMetric(m.FLOPs()*float64(b.N)/took/1e6, "GFLOP/CPU-s")
			})
		}
	}
}

func BenchmarkLoad(b *testing.B) {
	for b.Loop() {
		m, err := Load(b.Context(), Options{Model: "bert-base-uncased", Kernel: gemm.Kernels()[0], Threads: 1})
		if err != nil {
			b.Fatal(err)
		}
		m.Close()
	}
}
