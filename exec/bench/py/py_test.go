package py_test

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"labmesh"
	"labmesh/bench"
	"labmesh/exec/bench/py"
)

// pythons are those that the tests look at.
func pythons() []string {
	if p := os.Getenv("LABMESH_PYTHON"); p != "" {
		return []string{p, "python3", "/usr/bin/python3"}
	}
	return []string{"python3", "/usr/bin/python3"}
}

// which finds the first interpreter for which a program ends well.
func which(program string) string {
	for _, p := range pythons() {
		if exec.Command(p, "-c", program).Run() == nil {
			return p
		}
	}
	return ""
}

var (
	plain     = sync.OnceValue(func() string { return which("import sys; assert sys.version_info >= (3, 8)") })
	withTorch = sync.OnceValue(func() string { return which("import torch") })
	withONNX  = sync.OnceValue(func() string { return which("import onnxruntime") })
)

func python(t *testing.T) string {
	t.Helper()
	if plain() == "" {
		t.Skip("no python3 of 3.8 or later on this machine")
	}
	return plain()
}

// torch is an interpreter that has torch. Without one the test is skipped.
func torch(t *testing.T) string {
	t.Helper()
	if withTorch() == "" {
		t.Skip("no python3 has torch: LABMESH_TEST_TORCH=1 make test installs Debian's")
	}
	return withTorch()
}

// script is the runner, written for this test.
func script(t *testing.T) string {
	t.Helper()
	path, err := py.Write(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	return path
}

// command runs the runner with a spec.
func command(t *testing.T, interpreter, engine, what, spec string) *exec.Cmd {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), interpreter, "-B", script(t), engine, what)
	cmd.Stdin, cmd.Env = strings.NewReader(spec), os.Environ()
	return cmd
}

// events runs cmd and reads what it says. Each line must be an event, and none may be missing.
func events(t *testing.T, cmd *exec.Cmd) (all []bench.Event) {
	t.Helper()
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	for line := range bytes.Lines(out) {
		var e bench.Event
		if bad := json.Unmarshal(line, &e); bad != nil {
			t.Fatalf("%v in %q", bad, line)
		}
		if all = append(all, e); e.Seq != len(all) || e.V != bench.Protocol {
			t.Fatalf("event %d is %+v", len(all), e)
		}
	}
	if len(all) == 0 {
		t.Fatalf("it said nothing: %v\n%s", err, stderr.String())
	}
	return all
}

func only(all []bench.Event, kind bench.EventKind) (out []bench.Event) {
	for _, e := range all {
		if e.Kind == kind {
			out = append(out, e)
		}
	}
	return out
}

// spec is a short measurement of the mlp, with some fields set.
func spec(fields string) string {
	return `{"v":1,"model":"mlp","source":"builtin","device":"cpu","batch_sizes":[1],"iterations":12,"min_seconds":0,"warmup_iterations":2,"warmup_min_seconds":0,"max_seconds_per_batch":20` + fields + `}`
}

func TestTheRunnerMeasuresWithTorch(t *testing.T) {
	t.Parallel()
	all := events(t, command(t, torch(t), "torch", "run", strings.Replace(spec(`,"threads":1,"seed":7`), "[1]", "[2,1]", 1)))
	var kinds []string
	for _, e := range all {
		if e.Kind != bench.EventSamples {
			kinds = append(kinds, string(e.Kind))
		}
	}
	if want := "hello model batch_start warmup batch_end batch_start warmup batch_end done"; strings.Join(kinds, " ") != want {
		t.Fatalf("events %q, want %q", kinds, want)
	}
	model, _ := bench.FindModel("mlp")
	if m := all[1]; m.Params != model.Params || m.Effective != "fp32" || m.Threads != 1 || m.FLOPs <= 0 || m.DeviceClass != "cpu" || m.Weights != "random" {
		t.Errorf("model %+v", m)
	}
	n := map[int]int{}
	for _, e := range only(all, bench.EventSamples) {
		if e.I0 != n[e.Batch] || len(e.MS) > 256 {
			t.Errorf("samples from %d on, after %d: %d of them", e.I0, n[e.Batch], len(e.MS))
		}
		for _, ms := range e.MS {
			if len(ms) != 1 || ms[0] <= 0 {
				t.Errorf("a time of %v", ms)
			}
		}
		n[e.Batch] += len(e.MS)
	}
	for _, e := range only(all, bench.EventBatchEnd) {
		if e.Status != labmesh.BenchOK || e.N < 12 || e.N != n[e.Batch] || e.Finite == nil || !*e.Finite || e.Checksum == "" || e.WallS == nil || e.CPUMS == nil {
			t.Errorf("batch_end %+v with %d samples", e, n[e.Batch])
		}
	}
}

func TestEqualSeedsGiveEqualOutputs(t *testing.T) {
	t.Parallel()
	sum := func(seed string) string {
		return only(events(t, command(t, torch(t), "torch", "run", spec(`,"seed":`+seed))), bench.EventBatchEnd)[0].Checksum
	}
	if a, b, c := sum("1"), sum("1"), sum("2"); a != b || a == c {
		t.Errorf("checksums %s, %s and, of another seed, %s", a, b, c)
	}
}

func TestPrecisions(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		fields string
		want   string // effective precisions, or "unsupported: " and what the reason holds
	}{
		{`,"precision":"bf16"`, "bf16"},
		{`,"precision":"mixed"`, "mixed(bf16)"},
		{`,"precision":"int8"`, "int8-dynamic(linear)"},
		{`,"precision":"tf32"`, "unsupported: compute capability 8.0"},
		{`,"precision":"fp8","on_unsupported_precision":"fp32"`, "fp32"},
		{`,"precision":"fp16"`, "fp16|unsupported: Half"}, // newer versions of torch can
		{`,"precision":"fp16","cast":"native","on_unsupported_precision":"fp32"`, "fp16|fp32"},
	} {
		t.Run(c.fields, func(t *testing.T) {
			t.Parallel()
			all := events(t, command(t, torch(t), "torch", "run", spec(c.fields)))
			got := only(all, bench.EventModel)[0].Effective
			end := only(all, bench.EventBatchEnd)[0]
			if end.Status == labmesh.BenchUnsupported {
				got = "unsupported: " + end.Reason
			} else if end.Status != labmesh.BenchOK {
				t.Errorf("batch_end %+v", end)
			}
			if !slices.ContainsFunc(strings.Split(c.want, "|"), func(want string) bool {
				return got == want || strings.HasPrefix(want, "unsupported: ") && strings.HasPrefix(got, "unsupported: ") && strings.Contains(got, want[len("unsupported: "):])
			}) {
				t.Errorf("it ran in %q, want %q", got, c.want)
			}
		})
	}
}

func TestABatchThatDoesNotFitConcernsItAlone(t *testing.T) {
	t.Parallel()
	cmd := command(t, torch(t), "torch", "run", strings.Replace(spec(`,"threads":1`), "[1]", "[1,1000000,2]", 1))
	cmd.Args = append([]string{"sh", "-c", `ulimit -v 4000000 && exec "$0" "$@"`}, cmd.Args...) // KiB
	sh, err := exec.LookPath("sh")
	if err != nil {
		t.Skip("there is no sh")
	}
	cmd.Path = sh
	var got []string
	for _, e := range only(events(t, cmd), bench.EventBatchEnd) {
		got = append(got, fmt.Sprint(e.Batch, " ", e.Status))
	}
	if want := []string{"1 ok", "1000000 oom", "2 ok"}; !slices.Equal(got, want) {
		t.Errorf("ended %q, want %q", got, want)
	}
}

func TestTheRunnerFinishesItsIterationOnSIGTERM(t *testing.T) {
	t.Parallel()
	cmd := command(t, torch(t), "torch", "run", strings.Replace(spec(""), `"iterations":12`, `"iterations":1000000`, 1))
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	var end *bench.Event
	n, done := 0, false
	for lines := bufio.NewScanner(out); lines.Scan(); {
		var e bench.Event
		if err := json.Unmarshal(lines.Bytes(), &e); err != nil {
			t.Fatal(err)
		}
		switch e.Kind {
		case bench.EventSamples:
			if n == 0 {
				_ = cmd.Process.Signal(syscall.SIGTERM)
			}
			n += len(e.MS)
		case bench.EventBatchEnd:
			end = &e
		case bench.EventDone:
			done = true
		}
	}
	if err := cmd.Wait(); err != nil {
		t.Errorf("it ended with %v", err)
	}
	if end == nil || end.Status != labmesh.BenchCancelled || end.N != n || n == 0 || !done {
		t.Errorf("it ended with %+v after %d samples, done %v", end, n, done)
	}
}

// transformersThat makes a package called transformers, with a program for its module.
func transformersThat(t *testing.T, program string) (dir string) {
	t.Helper()
	dir = t.TempDir()
	for name, text := range map[string]string{
		"transformers/__init__.py":            program,
		"transformers-9.9.dist-info/METADATA": "Metadata-Version: 2.1\nName: transformers\nVersion: 9.9\n",
	} {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func TestWhatALibraryPrintsIsNoEvent(t *testing.T) {
	t.Parallel()
	dir := transformersThat(t, "import os, sys\nprint('{\"v\":1}')\nos.write(1, b'not an event\\n')\nos.system('echo nor this')\nraise ImportError('it needs another tokenizers')\n")
	cmd := command(t, torch(t), "torch", "run", strings.Replace(spec(""), "builtin", "auto", 1))
	cmd.Env = append(cmd.Env, "PYTHONPATH="+dir)
	all := events(t, cmd) // which wants nothing but events
	if m := only(all, bench.EventModel); len(m) != 1 || m[0].Source != "builtin" || !strings.Contains(strings.Join(m[0].Notes, " "), "another tokenizers") {
		t.Errorf("the model is %+v", m)
	}
}

func TestWhatCannotBeRunIsSaid(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		torch      bool
		spec       string
		code, says string
	}{
		"no JSON":           {false, "{", "bad_spec", "no JSON"},
		"nothing":           {false, "", "bad_spec", "no JSON"},
		"another version":   {false, `{"v":2}`, "bad_spec", "version 2"},
		"no object":         {false, "[1]", "bad_spec", "no JSON object"},
		"a batch of 0":      {false, strings.Replace(spec(""), "[1]", "[0]", 1), "bad_spec", "batch_sizes"},
		"a wrong type":      {false, spec(`,"image_size":"big"`), "bad_spec", "image_size"},
		"a negative":        {false, spec(`,"sequence_length":-1`), "bad_spec", "sequence_length"},
		"too long":          {false, strings.Repeat(" ", 2<<20), "bad_spec", "longer than"},
		"an unknown model":  {true, strings.Replace(spec(""), "mlp", "bertt", 1), "unknown_model", "resnet50"},
		"no such device":    {true, strings.Replace(spec(""), `"cpu"`, `"cuda:77"`, 1), "no_device", "cuda:77"},
		"a silly device":    {true, strings.Replace(spec(""), `"cpu"`, `"cuda:x"`, 1), "bad_spec", "index"},
		"a model file":      {true, strings.Replace(spec(""), "builtin", "file", 1), "unknown_model", "ONNX"},
		"too many tokens":   {true, strings.Replace(spec(`,"sequence_length":4096`), "mlp", "bert-base-uncased", 1), "bad_spec", "512"},
		"a hub, no library": {true, strings.Replace(spec(""), "builtin", "hf", 1), "", ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			interpreter := python(t)
			if c.torch {
				interpreter = torch(t)
			}
			all := events(t, command(t, interpreter, "torch", "run", c.spec))
			last := all[len(all)-1]
			if last.Kind != bench.EventFatal || last.Message == "" || c.code != "" && last.Code != c.code || !strings.Contains(last.Message, c.says) {
				t.Errorf("it ended with %+v, want %s: %s", last, c.code, c.says)
			}
		})
	}
}

func TestProbe(t *testing.T) {
	t.Parallel()
	all := events(t, command(t, torch(t), "torch", "probe", `{"v":1}`))
	if len(all) != 1 || all[0].Kind != bench.EventHello || !slices.ContainsFunc(all[0].Devices, func(d bench.Device) bool { return d.Class == "cpu" }) {
		t.Errorf("the probe said %+v", all)
	}
}

func TestONNXRuntime(t *testing.T) {
	t.Parallel()
	if withONNX() == "" {
		all := events(t, command(t, python(t), "onnxruntime", "probe", `{"v":1}`))
		if last := all[len(all)-1]; last.Kind != bench.EventFatal || last.Code != "no_engine" || !strings.Contains(last.Message, "onnxruntime") {
			t.Errorf("without onnxruntime the probe said %+v", last)
		}
		t.Skip("no python3 has onnxruntime: what it says without was tested")
	}
	p := withONNX()
	all := events(t, command(t, p, "onnxruntime", "probe", `{"v":1}`))
	if len(all) != 1 || len(all[0].Devices) == 0 {
		t.Fatalf("the probe said %+v", all)
	}
	if exec.Command(p, "-c", "import torch.onnx, onnx").Run() != nil {
		t.Skip("no torch beside onnxruntime that could export a model")
	}
	file := filepath.Join(t.TempDir(), "small.onnx")
	export := "import torch, sys\nm = torch.nn.Sequential(torch.nn.Linear(8, 16), torch.nn.ReLU(), torch.nn.Linear(16, 4)).eval()\n" +
		"torch.onnx.export(m, (torch.randn(1, 8),), sys.argv[1], input_names=['x'], output_names=['y'], dynamic_axes={'x': {0: 'batch'}, 'y': {0: 'batch'}}, **({'dynamo': False} if torch.__version__ >= '2.5' else {}))\n"
	if out, err := exec.Command(p, "-c", export, file).CombinedOutput(); err != nil {
		t.Fatalf("export: %v\n%s", err, out)
	}
	all = events(t, command(t, p, "onnxruntime", "run", strings.Replace(spec(fmt.Sprintf(`,"file":%q`, file)), "[1]", "[1,4]", 1)))
	for _, e := range only(all, bench.EventBatchEnd) {
		if e.Status != labmesh.BenchOK || e.Finite == nil || !*e.Finite || !strings.HasPrefix(e.Checksum, fmt.Sprint(4*e.Batch)+":") {
			t.Errorf("batch_end %+v", e)
		}
	}
	if len(only(all, bench.EventDone)) != 1 {
		t.Errorf("it said %+v", all)
	}
}

// entry is a line of a table of torch_models.py: "name": value
var entry = regexp.MustCompile(`(?m)^    "([^"]+)": "?([^",]+)"?,$`)

// table is one of the tables of torch_models.py.
func table(t *testing.T, name string) map[string]string {
	t.Helper()
	text, err := os.ReadFile("labmesh_bench/torch_models.py")
	if err != nil {
		t.Fatal(err)
	}
	_, after, _ := strings.Cut(string(text), "\n"+name+" = {\n")
	block, _, _ := strings.Cut(after, "\n}\n")
	out := map[string]string{}
	for _, m := range entry.FindAllStringSubmatch(block+"\n", -1) {
		out[m[1]] = m[2]
	}
	return out
}

func TestTheModelsAreThoseKnownByName(t *testing.T) {
	t.Parallel()
	params, aliases := table(t, "PARAMS"), table(t, "ALIASES")
	for _, m := range bench.Models() {
		if params[m.Name] != fmt.Sprint(m.Params) {
			t.Errorf("%s has %s parameters there and %d here", m.Name, params[m.Name], m.Params)
		}
		for _, a := range m.Aliases {
			if aliases[a] != m.Name {
				t.Errorf("%s is %q there and %s here", a, aliases[a], m.Name)
			}
			delete(aliases, a)
		}
		delete(params, m.Name)
	}
	if len(params)+len(aliases) > 0 {
		t.Errorf("only there: %v %v", params, aliases)
	}
}

// TestModelsHaveTheirPublishedParameters makes each of them, which the runner refuses if the number is another.
func TestModelsHaveTheirPublishedParameters(t *testing.T) {
	t.Parallel()
	p := torch(t)
	for _, m := range bench.Models() {
		heavy := m.Params > 100e6
		t.Run(m.Name, func(t *testing.T) {
			if heavy && os.Getenv("LABMESH_TEST_TORCH") == "" {
				t.Skip("it takes seconds and a gigabyte: LABMESH_TEST_TORCH=1 asks for it")
			}
			fields := `,"sequence_length":8,"threads":1`
			one := strings.NewReplacer(`"mlp"`, fmt.Sprintf("%q", m.Name), `"iterations":12`, `"iterations":1`, `"warmup_iterations":2`, `"warmup_iterations":1`).Replace(spec(fields))
			all := events(t, command(t, p, "torch", "run", one))
			made, ends := only(all, bench.EventModel), only(all, bench.EventBatchEnd)
			if len(made) != 1 || made[0].Params != m.Params || made[0].Name != m.Name {
				t.Fatalf("it said %+v", all)
			}
			if ends[0].Status != labmesh.BenchOK || ends[0].Finite == nil || !*ends[0].Finite {
				t.Errorf("batch_end %+v", ends[0])
			}
		})
	}
}

func TestWriteWritesOnce(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "deep", "er")
	path, err := py.Write(dir)
	if err != nil {
		t.Fatal(err)
	}
	old := time.Now().Add(-time.Hour)
	if err := os.Chtimes(path, old, old); err != nil {
		t.Fatal(err)
	}
	changed := filepath.Join(dir, "labmesh_bench", "wire.py")
	if err := os.WriteFile(changed, []byte("raise SystemExit\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := py.Write(dir); err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(path); err != nil || info.ModTime().After(old.Add(time.Minute)) {
		t.Errorf("%s was written anew: %v, %v", path, info, err)
	}
	if text, err := os.ReadFile(changed); err != nil || len(text) < 100 {
		t.Errorf("%s stayed as it was: %q, %v", changed, text, err)
	}
}

// TestTheExampleInTheDocsIsARunner runs the program that docs/runner-protocol.md shows.
func TestTheExampleInTheDocsIsARunner(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile("../../../docs/runner-protocol.md")
	if err != nil {
		t.Fatal(err)
	}
	_, after, _ := strings.Cut(string(text), "```python\n")
	program, _, found := strings.Cut(after, "\n```\n")
	if !found {
		t.Fatal("docs/runner-protocol.md shows no Python")
	}
	file := filepath.Join(t.TempDir(), "runner.py")
	if err := os.WriteFile(file, []byte(program+"\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	run := func(what string) []bench.Event {
		cmd := exec.CommandContext(t.Context(), python(t), file, what)
		cmd.Stdin = strings.NewReader(strings.Replace(spec(""), "[1]", "[1,3]", 1))
		return events(t, cmd)
	}
	if all := run("probe"); len(all) != 1 || len(all[0].Devices) != 1 {
		t.Errorf("its probe said %+v", all)
	}
	all := run("run")
	if ends := only(all, bench.EventBatchEnd); len(ends) != 2 || ends[1].N < 12 || ends[1].Batch != 3 || ends[1].Status != labmesh.BenchOK {
		t.Errorf("it said %+v", all)
	}
	n := 0
	for _, e := range only(all, bench.EventSamples) {
		n += len(e.MS)
	}
	if n < 24 || all[0].Kind != bench.EventHello || all[len(all)-1].Kind != bench.EventDone {
		t.Errorf("it said %+v", all)
	}
}
