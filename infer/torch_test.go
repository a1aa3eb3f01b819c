package infer_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"os"
	"os/exec"
	"strings"
	"testing"

	"labmesh/bench"
	"labmesh/infer/serve"
)

// torchEnv names a Python that has PyTorch.
const torchEnv = "LABMESH_BENCH_TORCH"

// TestCPUTimeAgainstTorch gives both runners the same specs in turn.
func TestCPUTimeAgainstTorch(t *testing.T) {
	python := os.Getenv(torchEnv)
	if python == "" {
		t.Skipf("there is no PyTorch to compare with: `make bench-engine` finds one and sets %s", torchEnv)
	}
	const repeats = 3
	for _, model := range []string{"bert-base-uncased", "resnet50"} {
		t.Run(model, func(t *testing.T) {
			spec := bench.Spec{V: bench.Protocol, Model: model, Source: "builtin", Device: "cpu", Precision: "fp32", BatchSizes: []int{1}, Iterations: 5, WarmupIterations: 2, MaxSeconds: 60, Threads: 1}
			data, err := json.Marshal(spec)
			if err != nil {
				t.Fatal(err)
			}
			var ours, theirs []float64
			for range repeats {
				var out bytes.Buffer
				if err := serve.Run(t.Context(), bytes.NewReader(data), &out, false); err != nil {
					t.Fatal(err)
				}
				ours = append(ours, cpuOf(t, &out))
				cmd := exec.CommandContext(t.Context(), python, "../exec/bench/py/runner.py", "torch", "run")
				cmd.Env = append(os.Environ(), "OMP_NUM_THREADS=1", "OPENBLAS_NUM_THREADS=1", "MKL_NUM_THREADS=1")
				cmd.Stdin = bytes.NewReader(data)
				said, err := cmd.Output()
				if err != nil {
					t.Fatalf("%v: %s", err, said)
				}
				theirs = append(theirs, cpuOf(t, bytes.NewReader(said)))
			}
			a, z := least(ours), least(theirs)
			t.Logf("%s: CPU ms an iteration on one thread: ours %.1f, PyTorch %.1f: %.2f times", model, a, z, a/z)
			if a > z {
				t.Error("PyTorch is faster")
			}
		})
	}
}

func least(v []float64) float64 {
	out := v[0]
	for _, x := range v {
		out = min(out, x)
	}
	return out
}

// cpuOf is the CPU time of an iteration, in ms, that a runner says it took.
func cpuOf(t *testing.T, out io.Reader) float64 {
	t.Helper()
	var all strings.Builder
	for d := json.NewDecoder(io.TeeReader(out, &all)); ; {
		var e bench.Event
		if err := d.Decode(&e); errors.Is(err, io.EOF) {
			t.Fatalf("no times in %s", all.String())
		} else if err != nil {
			t.Fatal(err)
		}
		if e.Kind == bench.EventBatchEnd && e.N > 0 && e.CPUMS != nil {
			return *e.CPUMS / float64(e.N)
		}
	}
}
