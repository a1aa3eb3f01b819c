package main

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"labmesh"
	"labmesh/api"
	"labmesh/bench"
)

// timed is a run of a benchmark at one batch size whose median is ms.
func timed(run, batch int, arm string, ms float64, flags ...labmesh.BenchFlag) labmesh.BenchRow {
	r := labmesh.BenchRow{
		Run: fmt.Sprint("r", run, arm), Repeat: run, Arm: arm, Status: labmesh.BenchOK, N: 100, Flags: flags, Comparable: len(flags) == 0,
		Work: labmesh.BenchWork{Model: "mlp", Batch: batch, Requested: "fp32", Effective: "fp32", Engine: "labmesh-go", DeviceClass: "cpu", DeviceName: "EPYC"},
		Wall: &labmesh.BenchTiming{P50: ms, P90: new(2 * ms), Min: ms, Max: ms, Mean: ms, CI95: &[2]float64{ms - 0.5, ms + 0.5}}, Throughput: new(float64(batch) * 1000 / ms),
	}
	r.Series, r.Compare = fmt.Sprint("s", batch), fmt.Sprint("c", batch)
	r.Resources.HostPeak = new(int64(1 << 30))
	for _, f := range flags {
		r.Doubts = append(r.Doubts, "it was "+string(f))
	}
	return r
}

func untimed(batch int, status labmesh.BenchStatus, reason string) labmesh.BenchRow {
	r := timed(1, batch, "", 1)
	r.Status, r.Reason, r.Wall, r.Throughput, r.N, r.Comparable, r.Resources.HostPeak = status, reason, nil, nil, 0, false, nil
	return r
}

// benchLab is two machines, one of them with two GPUs of which one is usable.
func benchLab() []api.Worker {
	summary := func(id, host, status string) api.WorkerSummary {
		return api.WorkerSummary{ID: labmesh.WorkerID(id), Hostname: host, Status: status, Slots: 4}
	}
	caps := func(devices ...labmesh.Device) labmesh.Capabilities {
		c := labmesh.Capabilities{Hardware: []string{"cpu"}, Memory: labmesh.Memory{TotalGB: 64}, Devices: append([]labmesh.Device{{Class: "cpu", Level: labmesh.DeviceUsable}}, devices...)}
		for range devices[:min(1, len(devices))] {
			c.Hardware = append(c.Hardware, "cuda")
		}
		return c
	}
	kinds := []labmesh.Kind{labmesh.Benchmark, labmesh.Custom}
	return []api.Worker{
		{WorkerSummary: summary("w1", "big", api.WorkerBusy), Kinds: kinds, Full: caps(
			labmesh.Device{Class: "cuda", UUID: "GPU-1", Name: "H100", MemoryGB: 80, Level: labmesh.DeviceUsable, Engines: []string{"torch"}},
			labmesh.Device{Class: "cuda", Index: 1, Name: "GTX 750", Level: labmesh.DeviceDriver, Reason: "torch does not see it"})},
		{WorkerSummary: summary("w2", "small", "active"), Kinds: kinds, Full: caps(), Tags: map[string]string{"site": "attic"}},
		{WorkerSummary: summary("w3", "gone", "offline"), Kinds: kinds, Full: caps()},
	}
}

func TestBenchSubmitsWhatTheFlagsSay(t *testing.T) {
	t.Parallel()
	n := newFakeNode(t)
	n.workers = benchLab()
	n.measured = func(labmesh.Spec) []labmesh.BenchRow { return []labmesh.BenchRow{timed(1, 1, "", 2)} }
	r := n.labmesh(t, "bench", "BERT", "--batch-sizes", "1,8", "--precision", "fp32,fp16", "--iterations", "7", "--warmup", "3", "--min-seconds", "0.5", "--max-seconds", "9",
		"--repeats", "2", "--threads", "1", "--seed", "5", "--sequence-length", "64", "--on", "hardware=cuda", "--on", "tag.site=attic", "--min-memory-gb", "8", "--min-cuda-compute", "7.5",
		"--label", "who=me", "--no-git", "--fallback", "fp32", "--quiet-seconds", "-1", "--timeout", "1h", "--env", "A=1")
	if r.code != 0 || len(n.specs) != 2 || n.batches != 1 {
		t.Fatalf("%d tasks, exit code %d: %s", len(n.specs), r.code, r.err)
	}
	for i, precision := range []string{"fp32", "fp16"} {
		s := n.specs[i]
		c, refused := bench.Parse(s.Config)
		if refused != nil {
			t.Fatal(refused)
		}
		want := bench.Config{
			Model: "bert-base-uncased", Source: "auto", Engine: "auto", Device: "auto", Precision: precision, Fallback: "fp32", BatchSizes: []int{1, 8}, SequenceLength: 64,
			Iterations: 7, MinSeconds: 0.5, MaxSeconds: 9, WarmupIterations: 3, WarmupSeconds: bench.DefaultWarmupSeconds, Repeats: 2, QuietSeconds: -1, Threads: 1, Seed: 5,
		}
		got, _ := json.Marshal(c)
		if w, _ := json.Marshal(want); string(got) != string(w) {
			t.Errorf("config\n%s, want\n%s", got, w)
		}
		q := s.Requirements
		if s.Kind != labmesh.Benchmark || !slices.Equal(q.Hardware, []string{"cuda"}) || q.Tags["site"] != "attic" || q.MinMemoryGB != 8 || q.MinCUDACompute != 7.5 ||
			!maps.Equal(s.Labels, map[string]string{"who": "me"}) || s.TimeoutSeconds != 3600 || s.Env["A"] != "1" {
			t.Errorf("%+v", s)
		}
	}
	n = newFakeNode(t)
	n.labmesh(t, "bench", "mlp", "--detach", "--no-git", "--bundle", strings.Repeat("ab", 32), "--runner", "python3 'my runner.py' -x").want(t, 0, "t1\n", "")
	if c, _ := bench.Parse(n.specs[0].Config); !slices.Equal(c.Runner, []string{"python3", "my runner.py", "-x"}) || c.Engine != bench.EngineCommand || n.specs[0].Bundle == "" {
		t.Errorf("config %s, bundle %q", n.specs[0].Config, n.specs[0].Bundle)
	}
	n.labmesh(t, "bench", "mlp", "--wait=false", "--no-git").want(t, 0, "t2\n", "")
}

func TestBenchRefusesNonsense(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	write := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	base := write("base.yaml", "type: benchmark\nconfig: {model: mlp, env: {X: '1'}}\n")
	for name, c := range map[string]struct {
		args  string
		inErr string
	}{
		"no model":               {"", "it takes one model"},
		"two models":             {"mlp gpt2", "it takes one model"},
		"an unknown model":       {"bert-bse", `MODEL: "bert-bse" is not known: did you mean bert-base?`},
		"batch 0":                {"mlp --batch-sizes 1,0", "--batch-sizes: 0 is not in 1 to 1000000"},
		"batch 10^9":             {"mlp --batch-sizes 1000000000", "--batch-sizes: 1000000000 is not in"},
		"the same batch twice":   {"mlp --batch-sizes 2,2", "--batch-sizes: 2 is there twice"},
		"an unknown precision":   {"mlp --precision fp12", `--precision: "fp12" is not one of fp64, fp32`},
		"a precision twice":      {"mlp --precision fp32,fp32", "--precision: fp32 is there twice"},
		"no iterations":          {"mlp --iterations 0", "--iterations: 0 is not in 1 to 1000000"},
		"no repeats":             {"mlp --repeats 0", "--repeats: 0 is not in 1 to 100"},
		"no warm-up":             {"mlp --warmup 0", "--warmup: it is more than 0"},
		"negative length":        {"mlp --sequence-length -3", "--sequence-length: -3 is not in 0 to 1048576"},
		"an unknown engine":      {"mlp --engine onnx", `--engine: "onnx" is not one of auto, torch`},
		"an engine without it":   {"gpt2 --engine labmesh-go", "--engine: labmesh-go does not run gpt2"},
		"a file without bundle":  {"model.onnx", "name its directory by --bundle"},
		"each of nothing":        {"mlp --each gpu", `--each: "gpu" is not one of gpu.name, device`},
		"somewhere":              {"mlp --on site=attic", "--on site=attic: there is no site"},
		"on two workers":         {"mlp --on worker=a --on worker=b", "for several of them there is --each worker"},
		"a gate without a base":  {"mlp --gate", "--gate: it is for --ab"},
		"waiting and not":        {"mlp --wait --detach", "it is one or the other"},
		"one file":               {"--ab " + base, "it takes two files"},
		"a missing file":         {"--ab " + base + " " + dir + "/none.yaml", "no such file"},
		"flags beside files":     {"--ab " + base + " " + base + " --iterations 5", "--iterations: with --ab the two files say what to measure"},
		"files of other kinds":   {"--ab " + base + " " + write("custom.yaml", "type: custom\nconfig: {name: x}\n"), "it holds one benchmark task"},
		"files that differ":      {"--ab " + base + " " + write("hardware.yaml", "type: benchmark\nrequirements: {hardware: [cuda]}\nconfig: {model: mlp, env: {X: '1'}}\n"), "they differ in requirements"},
		"a variable taken away":  {"--ab " + base + " " + write("env.yaml", "type: benchmark\nconfig: {model: mlp}\n"), "env.X is only in the first"},
		"other batch sizes":      {"--ab " + base + " " + write("batch.yaml", "type: benchmark\nconfig: {model: mlp, batch_sizes: [2], env: {X: '1'}}\n"), "batch_sizes and repeats must be those of the base"},
		"a file with for_each":   {"--ab " + base + " " + write("each.yaml", "type: benchmark\nfor_each: worker\nconfig: {model: mlp, env: {X: '1'}}\n"), "say --each worker in place of for_each"},
		"a candidate of its own": {"--ab " + base + " " + write("cand.yaml", "type: benchmark\nconfig: {model: mlp, env: {X: '1'}, candidate: {threads: 1}}\n"), "the second has one already"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			n := newFakeNode(t)
			n.labmesh(t, append([]string{"bench"}, strings.Fields(c.args)...)...).want(t, exitUsage, "", c.inErr)
			if len(n.specs) > 0 {
				t.Error("something was submitted")
			}
		})
	}
}

func TestBenchPrintsATable(t *testing.T) {
	t.Parallel()
	n := newFakeNode(t)
	n.workers = benchLab()
	n.measured = func(labmesh.Spec) (rows []labmesh.BenchRow) {
		for i, ms := range []float64{10, 12, 11, 13, 9, 11, 10, 12} {
			rows = append(rows, timed(i+1, 1, "", ms))
		}
		for i, ms := range []float64{40, 44} {
			rows = append(rows, timed(i+1, 4, "", ms), timed(i+1, 8, "", 2*ms, labmesh.FlagContended, labmesh.FlagNoisy))
		}
		return append(rows, timed(3, 4, "", 400, labmesh.FlagContended), timed(1, 16, "", 100), untimed(32, labmesh.BenchOOM, "out of memory: 5 GiB"))
	}
	r := n.labmesh(t, "bench", "mlp", "--batch-sizes", "1,4,8,16,32", "--no-git")
	want := `MACHINE  DEVICE  ENGINE      PRECISION  BATCH  P50 MS  RANGE        P90 MS  ITEMS/S  RUNS         MEMORY   NOTES
big      EPYC    labmesh-go  fp32       1      11.00   9.000–12.00  22.00   90.91    8            1.0 GiB  -
big      EPYC    labmesh-go  fp32       4      42.00   40.00–44.00  84.00   95.45    2 of 3 good  1.0 GiB  others used the processor
big      EPYC    labmesh-go  fp32       8      84.00   80.00–88.00  168.0   95.45    0 of 2 good  1.0 GiB  others used the processor, machine was not quiet
big      EPYC    labmesh-go  fp32       16     100.0   99.50–100.5  200.0   160.0    1            1.0 GiB  -
big      EPYC    labmesh-go  fp32       32     oom     -            -       -        0            -        out of memory: 5 GiB
`
	if r.code != 0 || r.stdout != want {
		t.Errorf("exit code %d\n%s\nwant\n%s", r.code, r.stdout, want)
	}
	for _, line := range []string{"big: it was contended (one of 3 measurements with the flag contended)\n", "big: it was noisy (one of 2", "1 line of 5 without a run that is good enough"} {
		if !strings.Contains(r.err, line) {
			t.Errorf("stderr lacks %q:\n%s", line, r.err)
		}
	}
	var report struct {
		Tasks   []benchEnd
		Results []benchResult
		Left    []any `json:"left_out"`
	}
	r = n.labmesh(t, "bench", "mlp", "--json", "--no-git")
	if err := json.Unmarshal([]byte(r.stdout), &report); err != nil || r.code != 0 {
		t.Fatalf("%d: %v: %s", r.code, err, r.stdout)
	}
	if x := report.Results[1]; len(report.Results) != 5 || *x.P50 != 42 || x.Comparable != 2 || x.Runs != 3 || x.Host != "big" || len(x.Doubts) != 1 || report.Left == nil || report.Tasks[0].Rows != 15 {
		t.Errorf("%+v", report)
	}
	if x := report.Results[4]; x.P50 != nil || x.Status != labmesh.BenchOOM {
		t.Errorf("%+v", x)
	}
}

func TestBenchSaysWhenNothingWasMeasured(t *testing.T) {
	t.Parallel()
	n := newFakeNode(t)
	n.measured = func(labmesh.Spec) []labmesh.BenchRow {
		return []labmesh.BenchRow{untimed(1, labmesh.BenchUnsupported, "fp16 is not for this device")}
	}
	r := n.labmesh(t, "bench", "mlp", "--no-git")
	if r.code != exitFailed || !strings.Contains(r.stdout, "unsupported") || !strings.Contains(r.err, "nothing could be measured") {
		t.Errorf("%+v", r)
	}
	n.fate = func(_ labmesh.Spec, t *api.TaskDetail) {
		t.Status, t.Error = labmesh.Failed, "no engine of this worker can run mlp"
	}
	n.measured = nil
	n.labmesh(t, "bench", "mlp", "--no-git").want(t, exitFailed, "", "failed mlp fp32 (t2): no engine of this worker can run mlp")
}

func TestBenchShowsTheRestWhenRowsCannotBeRead(t *testing.T) {
	t.Parallel()
	n := newFakeNode(t)
	n.measured = func(labmesh.Spec) []labmesh.BenchRow { return []labmesh.BenchRow{timed(1, 1, "", 2)} }
	n.override = func(w http.ResponseWriter, r *http.Request) bool {
		if broken := r.URL.Path == "/api/tasks/t2/benchmarks"; broken {
			answer(w, 400, api.Error{Message: "no rows today"})
			return true
		}
		return false
	}
	r := n.labmesh(t, "bench", "mlp", "--precision", "fp32,bf16", "--no-git")
	if r.code != exitFailed || strings.Count(r.stdout, "labmesh-go") != 1 || !strings.Contains(r.err, "what t2 measured could not be read: no rows today") {
		t.Errorf("%+v", r)
	}
}

func TestBenchOnEachDevice(t *testing.T) {
	t.Parallel()
	n := newFakeNode(t)
	n.workers = benchLab()
	n.measured = func(s labmesh.Spec) []labmesh.BenchRow { return []labmesh.BenchRow{timed(1, 1, "", 2)} }
	r := n.labmesh(t, "bench", "mlp", "--each", "device", "--on", "hardware=cuda", "--precision", "fp32,bf16", "--no-git")
	if r.code != 0 || len(n.specs) != 2 {
		t.Fatalf("%d tasks, exit code %d: %s", len(n.specs), r.code, r.err)
	}
	for _, s := range n.specs {
		if s.Requirements.WorkerID != "w1" || !strings.Contains(string(s.Config), `"device_uuid":"GPU-1"`) || s.Labels["for_each"] != "big cuda:0 H100" {
			t.Errorf("%+v, config %s", s, s.Config)
		}
	}
	for _, line := range []string{"without big GTX 750: it has cuda (GTX 750, driver), but torch does not see it\n", "without small: it has no cuda\n", "without gone: it is offline\n"} {
		if strings.Count(r.err, line) != 1 {
			t.Errorf("stderr lacks %q:\n%s", line, r.err)
		}
	}
	n.labmesh(t, "bench", "mlp", "--each", "tag.rack", "--no-git").want(t, exitFailed, "", "for each tag.rack: no worker of the mesh fits; nothing was submitted")
	if len(n.specs) != 2 {
		t.Errorf("%d tasks", len(n.specs))
	}
}

func TestFilesStandForEach(t *testing.T) {
	t.Parallel()
	n := newFakeNode(t)
	n.workers = benchLab()
	input := "- type: custom\n  config: {name: 'true'}\n- type: custom\n  for_each: worker\n  config: {name: uname}\n- type: benchmark\n  for_each: gpu.name\n  config: {model: mlp}\n"
	n.with(t, t.Context(), input, nil, "submit").want(t, 0, "t1\nt2\nt3\nt4\n", "without gone: it is offline")
	var where []string
	for _, s := range n.specs {
		where = append(where, string(s.Kind)+" "+string(s.Requirements.WorkerID))
	}
	if want := []string{"custom ", "custom w1", "custom w2", "benchmark w1"}; !slices.Equal(where, want) {
		t.Errorf("tasks %q, want %q", where, want)
	}
	for name, c := range map[string]struct{ input, inErr string }{
		"an unknown word": {`{"type":"custom","for_each":"host","config":{"name":"x"}}`, `task 1 (line 1): for_each: "host" is not one of`},
		"a number":        {`{"type":"custom","for_each":7,"config":{"name":"x"}}`, "for_each: it is a text such as worker"},
		"with an id":      {`{"type":"custom","for_each":"worker","task_id":"a","config":{"name":"x"}}`, "task 1: task_id: for_each makes several tasks"},
		"no GPU for it":   {`{"type":"custom","for_each":"device","config":{"name":"x"}}`, "for_each: device is for benchmarks"},
	} {
		n := newFakeNode(t)
		n.workers = benchLab()
		if r := n.with(t, t.Context(), c.input, nil, "submit"); r.code != exitUsage || !strings.Contains(r.err, c.inErr) || len(n.specs) > 0 {
			t.Errorf("%s: %+v", name, r)
		}
	}
}

func TestBenchComparesTwoFiles(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	base, cand := filepath.Join(dir, "base.yaml"), filepath.Join(dir, "cand.json")
	if err := os.WriteFile(base, []byte("type: benchmark\nenv: {A: '1', B: '2'}\nconfig: {model: mlp, threads: 2, batch_sizes: [1, 8]}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(cand, []byte(`{"type":"benchmark","env":{"A":"1","B":"3","C":"4"},"config":{"model":"mlp","batch_sizes":[1,8],"tf32":true}}`), 0o600); err != nil {
		t.Fatal(err)
	}
	n := newFakeNode(t)
	slower := 1.2
	n.measured = func(labmesh.Spec) (rows []labmesh.BenchRow) {
		for i := range 10 {
			for _, batch := range []int{1, 8} {
				rows = append(rows, timed(i+1, batch, "a", 10+0.01*float64(i)), timed(i+1, batch, "b", slower*(10+0.013*float64(i))))
			}
		}
		return rows
	}
	r := n.labmesh(t, "bench", "--ab", base, cand, "--no-git", "--on", "worker=w1", "--label", "x=y")
	if r.code != 0 || strings.Count(r.stdout, "regression: slower by") != 2 || !strings.Contains(r.stdout, "A  "+base) || !strings.Contains(r.stdout, "ARM") {
		t.Errorf("exit code %d: %s%s", r.code, r.stdout, r.err)
	}
	s := n.specs[0]
	a, refused := bench.Parse(s.Config)
	if refused != nil {
		t.Fatal(refused)
	}
	b, _ := a.B()
	if a.Threads != 2 || b.Threads != 0 || a.TF32 || !b.TF32 || a.Repeats != abRepeats || b.Repeats != abRepeats || !maps.Equal(s.Env, map[string]string{"A": "1"}) ||
		!maps.Equal(a.Env, map[string]string{"B": "2"}) || !maps.Equal(b.Env, map[string]string{"B": "3", "C": "4"}) || s.Requirements.WorkerID != "w1" || s.Labels["x"] != "y" {
		t.Errorf("%+v\na %+v\nb %+v", s, a, b)
	}
	n.labmesh(t, "bench", "--ab", base, cand, "--no-git", "--gate", "--repeats", "12", "--json").wantCode(t, exitFailed, "gate: 2 regressions")
	if c, _ := bench.Parse(n.specs[1].Config); c.Repeats != 12 {
		t.Errorf("%d repeats", c.Repeats)
	}
	slower = 1
	n.labmesh(t, "bench", "--ab", base, cand, "--no-git", "--gate").wantCode(t, 0, "")
	n.labmesh(t, "bench", "--ab", base, base, "--no-git", "--gate").wantCode(t, 0, "ask for the same")
	n.measured = func(labmesh.Spec) []labmesh.BenchRow {
		return []labmesh.BenchRow{timed(1, 1, "a", 10), timed(1, 8, "a", 10)}
	}
	n.labmesh(t, "bench", "--ab", base, cand, "--no-git", "--gate").wantCode(t, exitFailed, "gate:")
}

// wantCode checks the exit code and what stderr holds.
func (r ran) wantCode(t *testing.T, code int, inErr string) {
	t.Helper()
	if r.code != code || !strings.Contains(r.err, inErr) {
		t.Errorf("exit code %d, want %d\n%s\nstderr %q, want %q in it", r.code, code, r.stdout, r.err, inErr)
	}
}

// TestPairsRunWhatTheirFilesSay: whatever two configs say, the task that compares
// them runs the one as A and the other as B.
func TestPairsRunWhatTheirFilesSay(t *testing.T) {
	t.Parallel()
	config := rapid.Custom(func(t *rapid.T) bench.Config {
		c := bench.Config{
			Model: rapid.SampledFrom([]string{"mlp", "resnet18"}).Draw(t, "model"), Engine: rapid.SampledFrom([]string{"", "auto", "torch", "labmesh-go"}).Draw(t, "engine"),
			Device: rapid.SampledFrom([]string{"", "cpu", "cuda:1"}).Draw(t, "device"), DeviceUUID: rapid.SampledFrom([]string{"", "GPU-1"}).Draw(t, "uuid"),
			Precision: rapid.SampledFrom([]string{"", "fp16"}).Draw(t, "precision"), Fallback: rapid.SampledFrom([]string{"", "fp32"}).Draw(t, "fallback"),
			Threads: rapid.IntRange(0, 3).Draw(t, "threads"), Seed: rapid.Int64Range(-1, 1).Draw(t, "seed"), Compile: rapid.Bool().Draw(t, "compile"),
			MinSeconds: rapid.SampledFrom([]float64{0, 0.5}).Draw(t, "min"), Env: map[string]string{"X": rapid.SampledFrom([]string{"1", "2"}).Draw(t, "env")},
			SequenceLength: rapid.IntRange(0, 2).Draw(t, "length"),
		}
		return c
	})
	rapid.Check(t, func(t *rapid.T) {
		x, y := config.Draw(t, "a"), config.Draw(t, "b")
		spec := func(c bench.Config) labmesh.Spec {
			data, err := json.Marshal(c)
			if err != nil {
				t.Fatal(err)
			}
			return labmesh.Spec{Kind: labmesh.Benchmark, Config: data}
		}
		s, _, err := pairOf(spec(x), spec(y), 3)
		if err != nil {
			t.Fatal(err)
		}
		a, refused := bench.Parse(s.Config)
		if refused != nil {
			t.Fatal(refused)
		}
		b, refused := a.B()
		if refused != nil {
			t.Fatal(refused)
		}
		a.Candidate = nil
		for _, side := range []struct {
			got  bench.Config
			from bench.Config
		}{{a, x}, {b, y}} {
			side.from.Repeats = 3
			want, refused := bench.Parse(spec(side.from).Config)
			if refused != nil {
				t.Fatal(refused)
			}
			g, _ := json.Marshal(side.got)
			if w, _ := json.Marshal(want); string(g) != string(w) {
				t.Fatalf("runs %s, want %s", g, w)
			}
		}
	})
}

func TestCtrlCCancelsBenchmarksAndShowsWhatThereIs(t *testing.T) {
	t.Parallel()
	n := newFakeNode(t)
	n.fate = func(labmesh.Spec, *api.TaskDetail) {} // pending until cancelled
	n.measured = func(labmesh.Spec) []labmesh.BenchRow { return []labmesh.BenchRow{timed(1, 1, "", 2)} }
	ctx, cancel := context.WithCancel(t.Context())
	go func() { <-n.submitted; cancel() }()
	r := n.with(t, ctx, "", nil, "bench", "mlp", "--precision", "fp32,bf16", "--no-git")
	if r.code != exitInterrupted || strings.Count(r.stdout, "labmesh-go") != 2 || !strings.Contains(r.err, "cancelling 2 tasks") {
		t.Errorf("%+v", r)
	}
	for id, task := range n.tasks {
		if task.Status != labmesh.Cancelled {
			t.Errorf("%s is %s", id, task.Status)
		}
	}
}

func TestGitLabels(t *testing.T) {
	t.Parallel()
	if _, err := exec.LookPath("git"); err != nil {
		t.Skip("git is not on this machine")
	}
	dir := t.TempDir()
	if got := gitLabels(t.TempDir()); len(got) != 0 {
		t.Errorf("outside of git: %v", got)
	}
	run := func(args ...string) {
		t.Helper()
		cmd := exec.Command("git", append([]string{"-c", "user.name=a", "-c", "user.email=a@b", "-C", dir}, args...)...)
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
	}
	run("init", "-q", "-b", "trunk")
	if got := gitLabels(dir); len(got) != 0 {
		t.Errorf("without a commit: %v", got)
	}
	file := filepath.Join(dir, "a")
	for i, text := range []string{"1", "2"} {
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if i == 0 {
			run("add", "a")
			run("commit", "-q", "-m", "x")
		}
		got := gitLabels(dir)
		if len(got["git_sha"]) != 40 || got["branch"] != "trunk" || (got["git_dirty"] == "true") != (i == 1) {
			t.Errorf("%d: %v", i, got)
		}
	}
}

func TestProgressIsReadLineByLine(t *testing.T) {
	t.Parallel()
	var got []string
	w := &lineWriter{each: func(line string) { got = append(got, line) }}
	for _, piece := range []string{"run 1/5 ba", "tch 1: 2/9\r\nsecond\n", "", "\n", strings.Repeat("x", benchLineMax), strings.Repeat("x", benchLineMax) + "\nlast\nhalf"} {
		if n, err := w.Write([]byte(piece)); n != len(piece) || err != nil {
			t.Fatal(n, err)
		}
	}
	if len(got) != 5 || got[0] != "run 1/5 batch 1: 2/9" || got[1] != "second" || got[2] != "" || len(got[3]) > benchLineMax || got[4] != "last" {
		t.Errorf("%.100q", got)
	}
	a := newApp(nil, new(strings.Builder), new(strings.Builder), func(string) (string, bool) { return "", false })
	now := time.Unix(0, 0)
	a.now = func() time.Time { now = now.Add(time.Minute); return now }
	s := a.newBenchScreen(3)
	s.progress(&benchJob{name: "mlp fp32"}, bench.Progress{Run: 1, Runs: 5, Batch: 8, N: 3, Of: 100, P50: 1.5})
	out := a.err.(*lockedWriter).w.(*strings.Builder).String()
	if want := "labmesh: 0/3  mlp fp32: run 1/5 batch 8: 3/100, p50 1.5 ms\n"; out != want {
		t.Errorf("%q, want %q", out, want)
	}
}
