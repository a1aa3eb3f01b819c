package infer

import (
	"bufio"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"syscall"
	"testing"
	"time"

	"google.golang.org/protobuf/encoding/protowire"

	"labmesh/infer/gemm"
)

// These tests hold the engine against ONNX Runtime, with the same weights and
// inputs: what comes out, and the CPU time it takes. They need onnxruntime-node: `make bench-engine` fetches it.

// ortEnv names the directory whose node_modules has onnxruntime-node.
const ortEnv = "LABMESH_TEST_ORT"

// onnx writes a model in the format of ONNX (onnx.proto3), of which it knows as much as our models need.
type onnx struct {
	made   reference
	nodes  []byte
	tensor []byte // the initializers
	names  int
}

func field(b []byte, number protowire.Number, value []byte) []byte {
	return protowire.AppendBytes(protowire.AppendTag(b, number, protowire.BytesType), value)
}

func integer(b []byte, number protowire.Number, v int) []byte {
	return protowire.AppendVarint(protowire.AppendTag(b, number, protowire.VarintType), uint64(v))
}

const (
	onnxFloat = 1
	onnxInt64 = 7
)

func (o *onnx) fresh() string {
	o.names++
	return fmt.Sprintf("t%d", o.names)
}

// node adds an operation and returns the name of its result.
func (o *onnx) node(op string, attributes map[string]any, inputs ...string) string {
	out := o.fresh()
	var n []byte
	for _, in := range inputs {
		n = field(n, 1, []byte(in))
	}
	n = field(n, 2, []byte(out))
	n = field(n, 4, []byte(op))
	for name, v := range attributes {
		a := field(nil, 1, []byte(name))
		switch v := v.(type) {
		case float64:
			a = protowire.AppendFixed32(protowire.AppendTag(a, 2, protowire.Fixed32Type), math.Float32bits(float32(v)))
			a = integer(a, 20, 1)
		case int:
			a = integer(integer(a, 3, v), 20, 2)
		case []int:
			for _, i := range v {
				a = integer(a, 8, i)
			}
			a = integer(a, 20, 7)
		}
		n = field(n, 5, a)
	}
	o.nodes = field(o.nodes, 1, n)
	return out
}

func (o *onnx) initializer(dims []int, kind int, raw []byte) string {
	name := o.fresh()
	var t []byte
	for _, d := range dims {
		t = integer(t, 1, d)
	}
	t = field(integer(t, 2, kind), 8, []byte(name))
	o.tensor = field(o.tensor, 5, field(t, 9, raw))
	return name
}

func rawFloats(values []float32) []byte {
	out := make([]byte, 0, floatBytes*len(values))
	for _, v := range values {
		out = binary.LittleEndian.AppendUint32(out, math.Float32bits(v))
	}
	return out
}

func (o *onnx) floats(dims []int, values ...float32) string {
	return o.initializer(dims, onnxFloat, rawFloats(values))
}

func (o *onnx) ints(values ...int) string {
	var raw []byte
	for _, v := range values {
		raw = binary.LittleEndian.AppendUint64(raw, uint64(v))
	}
	return o.initializer([]int{len(values)}, onnxInt64, raw)
}

// parameter adds a parameter as the checkpoint has it.
func (o *onnx) parameter(name string) string {
	p, ok := o.made[name]
	if !ok {
		return ""
	}
	values := make([]float32, p.len())
	p.source.fill(values, 0)
	return o.floats(p.shape, values...)
}

// dense adds x·Wᵀ + b with W laid out the way in which runtimes are fastest.
func (o *onnx) dense(x, name string) string {
	p := o.made[name+".weight"]
	out, in := p.shape[0], p.shape[1]
	values, turned := make([]float32, p.len()), make([]float32, p.len())
	p.source.fill(values, 0)
	for r := range out {
		for c := range in {
			turned[c*out+r] = values[r*in+c]
		}
	}
	return o.node("Add", nil, o.node("MatMul", nil, x, o.floats([]int{in, out}, turned...)), o.parameter(name+".bias"))
}

func (o *onnx) layerNorm(x, name string) string {
	return o.node("LayerNormalization", map[string]any{"axis": -1, "epsilon": bertEps}, x, o.parameter(name+".weight"), o.parameter(name+".bias"))
}

func (o *onnx) bert(b *bert) (outputs []string) {
	w, d := b.width, b.width/b.heads
	x := o.node("Gather", nil, o.parameter("embeddings.word_embeddings.weight"), "input")
	x = o.node("Add", nil, x, o.floats([]int{b.length, w}, b.places[:b.length*w]...))
	x = o.layerNorm(o.node("Add", nil, x, o.floats([]int{w}, b.types[:w]...)), "embeddings.LayerNorm")
	split, join := o.ints(0, 0, b.heads, d), o.ints(0, 0, w)
	for l := range b.layers {
		at := fmt.Sprintf("encoder.layer.%d.", l)
		part := func(name string, order ...int) string {
			return o.node("Transpose", map[string]any{"perm": order}, o.node("Reshape", nil, o.dense(x, at+"attention.self."+name), split))
		}
		q, k, v := part("query", 0, 2, 1, 3), part("key", 0, 2, 3, 1), part("value", 0, 2, 1, 3)
		scores := o.node("Div", nil, o.node("MatMul", nil, q, k), o.floats(nil, float32(math.Sqrt(float64(d)))))
		context := o.node("MatMul", nil, o.node("Softmax", map[string]any{"axis": -1}, scores), v)
		context = o.node("Reshape", nil, o.node("Transpose", map[string]any{"perm": []int{0, 2, 1, 3}}, context), join)
		x = o.layerNorm(o.node("Add", nil, o.dense(context, at+"attention.output.dense"), x), at+"attention.output.LayerNorm")
		up := o.dense(x, at+"intermediate.dense")
		erf := o.node("Erf", nil, o.node("Div", nil, up, o.floats(nil, math.Sqrt2)))
		gelu := o.node("Mul", nil, o.node("Mul", nil, up, o.node("Add", nil, erf, o.floats(nil, 1))), o.floats(nil, 0.5))
		x = o.layerNorm(o.node("Add", nil, o.dense(gelu, at+"output.dense"), x), at+"output.LayerNorm")
	}
	first := o.node("Gather", map[string]any{"axis": 1}, x, o.initializer(nil, onnxInt64, make([]byte, 8)))
	return []string{x, o.node("Tanh", nil, o.dense(first, "pooler.dense"))}
}

func (o *onnx) conv(x, name, norm string, c conv, relu bool) string {
	y := o.node("Conv", map[string]any{"kernel_shape": []int{c.kernel, c.kernel}, "strides": []int{c.stride, c.stride}, "pads": []int{c.pad, c.pad, c.pad, c.pad}}, x, o.parameter(name+".weight"))
	y = o.node("BatchNormalization", map[string]any{"epsilon": resnetEps}, y, o.parameter(norm+".weight"), o.parameter(norm+".bias"), o.parameter(norm+".running_mean"), o.parameter(norm+".running_var"))
	if relu {
		y = o.node("Relu", nil, y)
	}
	return y
}

func (o *onnx) resnet(r *resnet) (outputs []string) {
	x := o.conv("input", "conv1", "bn1", r.stem, true)
	x = o.node("MaxPool", map[string]any{"kernel_shape": []int{3, 3}, "strides": []int{2, 2}, "pads": []int{1, 1, 1, 1}}, x)
	for s, stage := range r.stages {
		for i, block := range stage {
			at, y, past := fmt.Sprintf("layer%d.%d.", s+1, i), x, x
			for j, c := range block.convs {
				y = o.conv(y, fmt.Sprintf("%sconv%d", at, j+1), fmt.Sprintf("%sbn%d", at, j+1), c, j < len(block.convs)-1)
			}
			if block.down != nil {
				past = o.conv(x, at+"downsample.0", at+"downsample.1", *block.down, false)
			}
			x = o.node("Relu", nil, o.node("Add", nil, y, past))
		}
	}
	x = o.node("Flatten", nil, o.node("GlobalAveragePool", nil, x))
	return []string{o.dense(x, "fc")}
}

func (o *onnx) mlp() (outputs []string) {
	x := o.node("Relu", nil, o.dense("input", "fc1"))
	return []string{o.dense(o.node("Relu", nil, o.dense(x, "fc2")), "fc3")}
}

// value describes an input or output; without dims its shape is left open.
func value(name string, kind int, dims []int) []byte {
	t := integer(nil, 1, kind)
	if dims != nil {
		var shape []byte
		for _, d := range dims {
			shape = field(shape, 1, integer(nil, 1, d))
		}
		t = field(t, 2, shape)
	}
	return field(field(nil, 1, []byte(name)), 2, field(nil, 1, t))
}

// onnxInput is what a model in ONNX is fed.
type onnxInput struct {
	Type string `json:"type"`
	Dims []int  `json:"dims"`
	File string `json:"file"`
	raw  []byte
}

// export writes m, for one item, with its input to dir.
func export(t *testing.T, m *Model, dir string) (model string, input onnxInput) {
	t.Helper()
	o := &onnx{made: references(m.made)}
	var outputs []string
	kind := onnxFloat
	input.Type = "float32"
	switch n := m.network.(type) {
	case *bert:
		outputs, kind, input.Type, input.Dims = o.bert(n), onnxInt64, "int64", []int{1, n.length}
		for i := range n.length {
			input.raw = binary.LittleEndian.AppendUint64(input.raw, uint64(n.token(i)))
		}
	case *resnet:
		outputs, input.Dims = o.resnet(n), []int{1, 3, n.image, n.image}
		pixels := make([]float32, 3*n.image*n.image)
		for i := range pixels {
			pixels[i%3*n.image*n.image+i/3] = n.pixels.at(i)
		}
		input.raw = rawFloats(pixels)
	case *mlp:
		outputs, input.Dims = o.mlp(), []int{1, mlpWidths()[0]}
		values := make([]float32, mlpWidths()[0])
		n.input.fill(values, 0)
		input.raw = rawFloats(values)
	}
	graph := field(append(o.nodes, field(nil, 2, []byte(m.Name))...), 11, value("input", kind, input.Dims))
	for _, out := range outputs {
		graph = field(graph, 12, value(out, onnxFloat, nil))
	}
	graph = append(graph, o.tensor...)
	opset := integer(field(nil, 1, nil), 2, 17)
	model = filepath.Join(dir, m.Name+".onnx")
	input.File = filepath.Join(dir, m.Name+".input")
	for file, data := range map[string][]byte{model: field(field(integer(nil, 1, 8), 8, opset), 7, graph), input.File: input.raw} {
		if err := os.WriteFile(file, data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return model, input
}

// ort is a process that runs one model with ONNX Runtime.
type ort struct {
	t     *testing.T
	ask   *json.Encoder
	reply *bufio.Scanner
}

func startORT(t *testing.T, model string) *ort {
	t.Helper()
	dir := os.Getenv(ortEnv)
	if dir == "" {
		t.Skipf("there is no ONNX Runtime to compare with: `make bench-engine` fetches it and sets %s", ortEnv)
	}
	cmd := exec.Command("node", "testdata/ort.js", dir, model, "1")
	cmd.Stderr = os.Stderr // it ends when its input does
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		in.Close()
		if err := cmd.Wait(); err != nil {
			t.Error(err)
		}
	})
	return &ort{t, json.NewEncoder(in), bufio.NewScanner(out)}
}

func (o *ort) do(ask, answer any) {
	o.t.Helper()
	if err := o.ask.Encode(ask); err != nil {
		o.t.Fatal(err)
	}
	if !o.reply.Scan() {
		o.t.Fatal("ONNX Runtime does not answer")
	}
	if err := json.Unmarshal(o.reply.Bytes(), answer); err != nil {
		o.t.Fatal(err)
	}
}

// cpuMS is the CPU time this process has taken.
func cpuMS(t testing.TB) float64 {
	t.Helper()
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		t.Fatal(err)
	}
	return float64(u.Utime.Nano()+u.Stime.Nano()) / 1e6
}

func median(v []float64) float64 {
	slices.Sort(v)
	return v[len(v)/2]
}

func TestONNXRuntimeComesToTheSame(t *testing.T) {
	for _, g := range goldens {
		t.Run(g.Model, func(t *testing.T) {
			if os.Getenv(ortEnv) == "" {
				startORT(t, "") // says why it is skipped
			}
			o := g.Options
			o.Kernel, o.Threads = gemm.Kernels()[0], 2
			m, err := Load(t.Context(), o)
			if err != nil {
				t.Fatal(err)
			}
			defer m.Close()
			want := ortOutputs(t, m)
			b, err := m.Prepare(1)
			if err != nil {
				t.Fatal(err)
			}
			defer b.Close()
			for _, out := range b.plan.outputs { // theirs in the place of ours, to be summed up in the same way
				for r := range out.rows {
					want = want[copy(out.row(r), want):]
				}
			}
			theirs := b.Summary()
			if err := b.Run(t.Context()); err != nil {
				t.Fatal(err)
			}
			ours := b.Summary()
			t.Logf("ONNX Runtime %.6e %.6e, ours %.6e %.6e", theirs.RMS, theirs.Projection, ours.RMS, ours.Projection)
			for _, s := range []Summary{ours, {g.rms, g.projection, true}} {
				if math.Abs(s.RMS-theirs.RMS) > 1e-4*theirs.RMS || math.Abs(s.Projection-theirs.Projection) > 1e-4*theirs.RMS {
					t.Errorf("%v is not what ONNX Runtime comes to", s)
				}
			}
		})
	}
}

func ortOutputs(t *testing.T, m *Model) []float32 {
	t.Helper()
	dir := t.TempDir()
	model, input := export(t, m, dir)
	output := filepath.Join(dir, "output")
	var said struct{ Version string }
	startORT(t, model).do(map[string]any{"inputs": map[string]onnxInput{"input": input}, "output": output}, &said)
	data, err := os.ReadFile(output)
	if err != nil {
		t.Fatal(err)
	}
	out := make([]float32, len(data)/floatBytes)
	for i := range out {
		out[i] = math.Float32frombits(binary.LittleEndian.Uint32(data[i*floatBytes:]))
	}
	return out
}

// rounds are how often each engine has its turn, and turn how many iterations that is.
const (
	rounds = 5
	turn   = 6
)

func TestCPUTimeAgainstONNXRuntime(t *testing.T) {
	const most = 2.0 // times theirs
	for _, o := range []Options{{Model: "bert-base-uncased"}, {Model: "resnet50"}, {Model: "resnet18"}, {Model: "mlp"}} {
		t.Run(o.Model, func(t *testing.T) {
			if os.Getenv(ortEnv) == "" {
				startORT(t, "")
			}
			for _, k := range gemm.Kernels() {
				if k.Name == "scalar" {
					continue
				}
				o.Kernel, o.Threads = k, 1
				m, err := Load(t.Context(), o)
				if err != nil {
					t.Fatal(err)
				}
				b, err := m.Prepare(1)
				if err != nil {
					t.Fatal(err)
				}
				model, input := export(t, m, t.TempDir())
				theirs := startORT(t, model)
				var said struct {
					Version string
					CPUMS   []float64 `json:"cpu_ms"`
				}
				theirs.do(map[string]any{"inputs": map[string]onnxInput{"input": input}, "output": os.DevNull}, &said)
				var us, them []float64
				start := time.Now()
				for range rounds {
					theirs.do(map[string]int{"iterations": turn}, &said)
					them = append(them, said.CPUMS...)
					for range turn {
						before := cpuMS(t)
						if err := b.Run(t.Context()); err != nil {
							t.Fatal(err)
						}
						us = append(us, cpuMS(t)-before)
					}
				}
				a, z := median(us), median(them)
				t.Logf("%s, %s: CPU ms an iteration on one thread: ours %.1f (least %.1f), ONNX Runtime %s %.1f (least %.1f): %.2f times; %.0f GFLOPS; took %.0f s",
					o.Model, k.Name, a, us[0], said.Version, z, them[0], a/z, m.FLOPs()/a/1e6, time.Since(start).Seconds())
				if o.Model == "bert-base-uncased" && k == gemm.Kernels()[0] && a > most*z {
					t.Errorf("that is more than %.0f times", most)
				}
				b.Close()
				m.Close()
			}
		})
	}
}
