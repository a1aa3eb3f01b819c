package lab_test

import (
	"encoding/json"
	"os"
	"os/exec"
	"strconv"
	"testing"
	"time"

	"labmesh"
	"labmesh/exec/bench/py"
	"labmesh/lab"
	"labmesh/stats"
)

// How much BenchmarkTorch does.
const (
	torchPairs      = 10
	torchIterations = 60
	torchModel      = "resnet18"
)

// torchTimes are those of one run, in milliseconds.
type torchTimes struct {
	P50 float64 `json:"p50"` // wall
	Min float64 `json:"min"` // wall
	CPU float64 `json:"cpu"` // of an iteration
}

// BenchmarkTorch times a model through labmesh and by the loop that a person
// would write, in turn (A, B, B, A, …), and reports the median over the pairs of
// what labmesh measured to what the loop did: 1 means that labmesh adds nothing.
func BenchmarkTorch(b *testing.B) {
	pythonFor(b, "torch")
	dir := b.TempDir()
	if _, err := py.Write(dir); err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		n := start(b, lab.Config{Nodes: 1, Slots: 1}).Nodes[0]
		var p50, least, cpu []float64
		for i := range torchPairs {
			var mesh, hand torchTimes
			if i%2 == 0 {
				mesh = torchByMesh(b, n)
				hand = torchByHand(b, dir)
			} else {
				hand = torchByHand(b, dir)
				mesh = torchByMesh(b, n)
			}
			b.Logf("labmesh %+v, by hand %+v", mesh, hand)
			p50, least, cpu = append(p50, mesh.P50/hand.P50), append(least, mesh.Min/hand.Min), append(cpu, mesh.CPU/hand.CPU)
		}
		b.ReportMetric(stats.Median(p50), "median/hand")
		b.ReportMetric(stats.Median(least), "min/hand")
		b.ReportMetric(stats.Median(cpu), "cpu/hand")
		busy(b)
	}
}

// torchByMesh measures the model by a task.
func torchByMesh(b *testing.B, n *lab.Node) (t torchTimes) {
	b.Helper()
	id := submit(b, n, labmesh.Spec{Kind: labmesh.Benchmark, Config: mustJSON(map[string]any{
		"model": torchModel, "model_source": "builtin", "engine": "torch", "threads": 1, "repeats": 1, "iterations": torchIterations,
		"min_seconds": 0.001, "warmup_min_seconds": 0.001, "quiet_seconds": -1,
	})})[0]
	if err := n.Client().Wait(within(b, 2*time.Minute), []labmesh.TaskID{id}, nothing); err != nil { // on a busy machine
		b.Fatal(err)
	}
	for row, err := range n.Client().Benchmarks(b.Context(), id) {
		if err != nil {
			b.Fatal(err)
		}
		if row.Wall == nil || row.Resources.CPUMS == nil {
			b.Fatalf("the row is %+v", row)
		}
		t = torchTimes{row.Wall.P50, row.Wall.Min, *row.Resources.CPUMS}
	}
	if t.P50 == 0 {
		b.Fatalf("it measured nothing: %+v", task(b, n, id))
	}
	return t
}

// torchByHand measures the model by a loop.
func torchByHand(b *testing.B, dir string) (t torchTimes) {
	b.Helper()
	cmd := exec.CommandContext(b.Context(), "/usr/bin/python3", "testdata/byhand.py", dir, torchModel, strconv.Itoa(torchIterations))
	cmd.Env = append(os.Environ(), "OMP_NUM_THREADS=1", "OPENBLAS_NUM_THREADS=1", "MKL_NUM_THREADS=1")
	out, err := cmd.Output()
	if err != nil || json.Unmarshal(out, &t) != nil {
		b.Fatalf("by hand: %v: %s", err, out)
	}
	return t
}
