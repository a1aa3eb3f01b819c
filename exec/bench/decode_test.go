package bench

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"

	"labmesh"
	"labmesh/bench"
	"labmesh/exec/bench/engines"
)

// hear is what a decoder makes of a text that comes in pieces of n bytes.
func hear(text string, n int) (events []bench.Event, faults int) {
	d := &decoder{emit: func(m said) {
		if m.event != nil {
			events = append(events, *m.event)
		}
	}}
	for piece := range slices.Chunk([]byte(text), n) {
		_, _ = d.Write(piece)
	}
	d.flush()
	return events, d.faults
}

func TestDecoderCountsWhatCannotBe(t *testing.T) {
	t.Parallel()
	long := `{"v":1,"seq":1,"event":"hello","runner":"` + strings.Repeat("x", 5<<20) + `"}`
	for _, c := range []struct {
		text           string
		events, faults int
	}{
		{"", 0, 0},
		{"\n\r\n  \n", 0, 0},
		{`{"v":1,"seq":1,"event":"hello"}`, 1, 0}, // without a newline at its end
		{`{"v":1,"seq":1,"event":"hello"}` + "\r\n" + `{"v":1,"seq":2,"event":"done","new":{"a":[1]}}`, 2, 0},
		{`{"v":1,"seq":2,"event":"hello"}`, 1, 1},
		{`{"v":1,"seq":1,"event":"hello"}` + "\n" + `{"v":1,"seq":1,"event":"hello"}`, 2, 1},
		{`{"v":2,"seq":1,"event":"hello"}`, 1, 1},
		{`{"v":1,"seq":1,"event":"of a later version"}`, 1, 0},
		{`{"v":1,"seq":1}`, 0, 1},
		{`null`, 0, 1},
		{`[]`, 0, 1},
		{"loss: nan\nTrue\n{", 0, 3},
		{`{"v":1,"seq":1,"event":"samples","ms":[[NaN]]}`, 0, 1},
		{`{"v":1,"seq":1,"event":"samples","ms":[[1e999]]}`, 0, 1},
		{`{"v":1,"seq":1,"event":"batch_end","n":-1,"host_peak_bytes":-5,"cpu_ms":-1}`, 1, 1},
		{`{"v":9,"seq":9,"event":"batch_end","n":-1}`, 1, 1},
		{`{"v":1,"seq":1,"event":"hello","env":[1]}`, 1, 0},
		{long, 0, 1},
		{long + "\n" + `{"v":1,"seq":1,"event":"done"}`, 1, 1},
		{strings.Repeat("[", 1<<20), 0, 1},
	} {
		for _, n := range []int{1 << 20, 4096, 7} {
			if n < 100 && len(c.text) > 1<<20 {
				continue
			}
			events, faults := hear(c.text, n)
			if len(events) != c.events || faults != c.faults {
				t.Errorf("%.80q in pieces of %d: %d events, %d faults, want %d and %d", c.text, n, len(events), faults, c.events, c.faults)
			}
			for _, e := range events {
				if e.N < 0 || e.HostPeak != nil || e.CPUMS != nil || e.Env != nil {
					t.Errorf("%.80q: %+v", c.text, e)
				}
			}
		}
	}
}

func TestDecoderForgetsLongLines(t *testing.T) {
	t.Parallel()
	d := &decoder{emit: func(said) {}}
	block := bytes.Repeat([]byte("x"), 1<<20)
	for range 20 {
		_, _ = d.Write(block)
		if cap(d.line) > 2*lineBytesMax {
			t.Fatalf("%d bytes are kept of a line", cap(d.line))
		}
	}
	if _, _ = d.Write([]byte("\n")); cap(d.line) > lineBytesKept {
		t.Errorf("%d bytes are kept after the line", cap(d.line))
	}
}

func FuzzDecoder(f *testing.F) {
	f.Add([]byte(`{"v":1,"seq":1,"event":"samples","batch":2,"i0":0,"ms":[[1.5,1.25]]}`+"\n"+`{"v":1,"seq":2,"event":"batch_end","status":"ok","n":1,"wall_s":1}`), 3)
	f.Add([]byte(`{"v":1,"seq":1,"event":"model","input_shape":{"a":-1},"params":-1,"notes":["a","b"],"flops_per_item":1e300}`), 100)
	f.Fuzz(func(t *testing.T, text []byte, n int) {
		if n < 1 {
			return
		}
		events, faults := hear(string(text), n)
		whole, same := hear(string(text), len(text)+1)
		if len(events) != len(whole) || faults != same {
			t.Errorf("in pieces: %d events, %d faults; whole: %d and %d", len(events), faults, len(whole), same)
		}
		if lines := bytes.Count(text, []byte("\n")) + 1; len(events) > lines || faults > lines {
			t.Errorf("%d events and %d faults in %d lines", len(events), faults, lines)
		}
		for _, e := range events {
			if len(e.Message) > messageBytesMax+3 || len(e.Env) > labmesh.BenchEnvBytesMax || e.N < 0 || e.Threads < 0 || e.Params < 0 || len(e.Notes) > notesMax ||
				e.WallS != nil && (*e.WallS < 0 || math.IsNaN(*e.WallS) || math.IsInf(*e.WallS, 0)) {
				t.Errorf("%+v", e)
			}
			if _, err := json.Marshal(e); err != nil {
				t.Error(err)
			}
		}
	})
}

func BenchmarkDecoder(b *testing.B) {
	ms := make([][]float64, 256)
	for i := range ms {
		ms[i] = []float64{1.2345678 + float64(i)/1000, 1.1234567}
	}
	line, err := json.Marshal(bench.Event{V: 1, Seq: 1, Kind: bench.EventSamples, MS: ms})
	if err != nil {
		b.Fatal(err)
	}
	line = append(line, '\n')
	d := &decoder{emit: func(said) {}}
	b.SetBytes(int64(len(line)))
	for b.Loop() {
		d.seq = 0
		_, _ = d.Write(line)
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/256, "ns/iteration")
}

func TestTurnsAlternate(t *testing.T) {
	t.Parallel()
	var got []string
	for _, turn := range turns([]*arm{{name: "a"}, {name: "b"}}, 3) {
		got = append(got, fmt.Sprint(turn.arm.name, turn.repeat))
	}
	if want := []string{"a1", "b1", "b2", "a2", "a3", "b3"}; !slices.Equal(got, want) {
		t.Errorf("%v, want %v", got, want)
	}
	if n := len(turns([]*arm{{}}, 5)); n != 5 {
		t.Errorf("%d runs of 5", n)
	}
}

func TestChoice(t *testing.T) {
	t.Parallel()
	cpu := bench.Device{Class: "cpu"}
	gpu := func(i int, name, uuid, cc string, mem float64) bench.Device {
		return bench.Device{Class: "cuda", Index: i, Name: name, UUID: uuid, Compute: cc, MemoryGB: mem}
	}
	engine := func(name, reason string, devices ...bench.Device) engines.Found {
		return engines.Found{Engine: labmesh.Engine{Name: name, Version: "1.0", Reason: reason}, Command: []string{name}, Devices: devices}
	}
	full := []engines.Found{
		engine("labmesh-go", "", cpu), engine("onnxruntime", "", cpu), engine("torch", "", cpu, gpu(1, "H100", "GPU-b", "9.0", 79), gpu(0, "T4", "GPU-a", "7.5", 15)),
	}
	builtIn := full[:1]
	broken := []engines.Found{engine("torch", "libcudart is missing"), full[0]}
	for _, c := range []struct {
		name     string
		config   string
		hardware []string
		memory   float64
		compute  float64
		there    []engines.Found
		engine   string // "" for a refusal
		device   string
		says     string // in the reason, or the refusal
	}{
		{"torch first", `{"model":"bert"}`, nil, 0, 0, full, "torch", "cpu ", "it is the first"},
		{"built in last", `{"model":"bert"}`, []string{"cpu"}, 0, 0, builtIn, "labmesh-go", "cpu ", "torch is not on it; onnxruntime runs .onnx files"},
		{"what is broken is passed over", `{"model":"bert"}`, nil, 0, 0, broken, "labmesh-go", "cpu ", "torch does not work: libcudart is missing"},
		{"a GPU by the requirements", `{"model":"bert"}`, []string{"CUDA"}, 0, 0, full, "torch", "cuda GPU-a", ""},
		{"of several the one that meets them", `{"model":"bert"}`, []string{"cuda"}, 16, 0, full, "torch", "cuda GPU-b", ""},
		{"by its compute capability", `{"model":"bert"}`, []string{"cuda"}, 0, 8, full, "torch", "cuda GPU-b", ""},
		{"10.0 is more than 9.0", `{"model":"bert"}`, []string{"cuda"}, 0, 9, []engines.Found{engine("torch", "", gpu(0, "B200", "GPU-c", "10.0", 180))}, "torch", "cuda GPU-c", ""},
		{"a compute capability asks for cuda", `{"model":"bert"}`, nil, 0, 7.5, full, "torch", "cuda GPU-a", ""},
		{"by its index", `{"model":"bert","device":"cuda:1"}`, nil, 0, 0, full, "torch", "cuda GPU-b", ""},
		{"by its UUID", `{"model":"bert","device":"cuda","device_uuid":"b"}`, nil, 0, 0, full, "torch", "cuda GPU-b", ""},
		{"the processor although there is a GPU", `{"model":"bert","device":"cpu"}`, []string{"cuda"}, 0, 0, full, "torch", "cpu ", ""},
		{"a file", `{"model":"a.onnx"}`, nil, 0, 0, full, "onnxruntime", "cpu ", ""},
		{"pinned", `{"model":"bert","engine":"labmesh-go"}`, nil, 0, 0, full, "labmesh-go", "cpu ", "the task asks for it"},
		{"brought along", `{"model":"x","runner":["./r"]}`, []string{"cuda"}, 0, 0, nil, "command", "cuda ", "brings its own"},
		{"pinned and not there", `{"model":"bert","engine":"torch"}`, nil, 0, 0, builtIn, "", "", "torch is not on it"},
		{"pinned and broken", `{"model":"bert","engine":"torch"}`, nil, 0, 0, broken, "", "", "libcudart"},
		{"nothing there", `{"model":"bert"}`, nil, 0, 0, nil, "", "", "no engine of this worker"},
		{"no GPU", `{"model":"bert"}`, []string{"cuda"}, 0, 0, builtIn, "", "", "labmesh-go sees no cuda device"},
		{"too small", `{"model":"bert"}`, []string{"cuda"}, 100, 0, full, "", "", "the task needs 100"},
		{"too old", `{"model":"bert"}`, []string{"cuda"}, 0, 9.5, full, "", "", "compute capability 9.0, the task needs 9.5"},
		{"another index", `{"model":"bert","device":"cuda:7"}`, nil, 0, 0, full, "", "", "cuda:7"},
		{"not built in", `{"model":"gpt2"}`, nil, 0, 0, builtIn, "", "", "does not have the model"},
		{"from the hub", `{"model":"bert","model_source":"hf"}`, nil, 0, 0, builtIn, "", "", "torch is not on it"},
	} {
		conf, refused := bench.Parse(json.RawMessage(c.config))
		if refused != nil {
			t.Fatalf("%s: %v", c.name, refused)
		}
		got, refused := choose(conf, labmesh.Requirements{Hardware: c.hardware, MinMemoryGB: c.memory, MinCUDACompute: c.compute}, c.there)
		switch {
		case refused != nil:
			if c.engine != "" || !strings.Contains(refused.Message, c.says) {
				t.Errorf("%s: %s", c.name, refused.Message)
			}
		case got.engine.Name != c.engine || got.device.Class+" "+got.device.UUID != c.device || !strings.Contains(got.why, c.says) || got.why == "":
			t.Errorf("%s: %s on %+v because %s", c.name, got.engine.Name, got.device, got.why)
		}
	}
}

func TestDevicesAreNamedToTheRunner(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		device        bench.Device
		index         bool
		spec, visible string
	}{
		{bench.Device{Class: "cpu"}, false, "cpu", ""},
		{bench.Device{Class: "cuda"}, false, "cuda", ""},
		{bench.Device{Class: "cuda", Index: 2}, false, "cuda:2", ""},
		{bench.Device{Class: "cuda", Index: 2, UUID: "GPU-x"}, true, "cuda", "CUDA_VISIBLE_DEVICES=GPU-x"},
		{bench.Device{Class: "cuda", UUID: "x"}, false, "cuda", "CUDA_VISIBLE_DEVICES=GPU-x"},
		{bench.Device{Class: "cuda", UUID: "MIG-x"}, false, "cuda", "CUDA_VISIBLE_DEVICES=MIG-x"},
		{bench.Device{Class: "rocm", Index: 1, UUID: "u"}, true, "rocm:1", ""},
	} {
		a := &arm{conf: bench.Config{Threads: 3}, choice: choice{device: c.device, index: c.index}}
		env := environment(a)
		if got := specOf(a, []int{1}, "").Device; got != c.spec {
			t.Errorf("%+v: %s, want %s", c.device, got, c.spec)
		}
		if c.visible != "" && !slices.Contains(env, c.visible) || c.visible == "" && strings.Contains(strings.Join(env, " "), "VISIBLE") {
			t.Errorf("%+v: %v, want %q", c.device, env, c.visible)
		}
		if !slices.Contains(env, "MKL_NUM_THREADS=3") || !slices.Contains(env, "HF_HUB_OFFLINE=1") {
			t.Errorf("%v", env)
		}
	}
}
