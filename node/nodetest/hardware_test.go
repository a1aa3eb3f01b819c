package nodetest_test

import (
	"encoding/json"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"labmesh"
	"labmesh/exec"
	"labmesh/node/nodetest"
)

// TestSeedsBenchmarkWaitsForAGPU: the benchmark task of the seed, word for word, is
// pending as long as no engine can use a GPU of the mesh, and why says which machine
// lacks what. It runs when a machine with one comes.
func TestSeedsBenchmarkWaitsForAGPU(t *testing.T) {
	const task = `{"type":"benchmark","config":{"model":"bert-base-uncased","batch_sizes":[1,2,4,8,16],"precision":"fp16","iterations":100},"requirements":{"hardware":["cuda"],"min_memory_gb":8,"min_cuda_compute":7.5}}`
	synctest.Test(t, func(t *testing.T) {
		var spec labmesh.Spec
		if err := json.Unmarshal([]byte(task), &spec); err != nil {
			t.Fatal(err)
		}
		m := nodetest.Start(t, 1, map[labmesh.Kind]exec.Runner{labmesh.Benchmark: &nodetest.Runner{Takes: time.Second}})
		id := m.Submit(t, 0, spec)
		waits := func(want ...string) {
			t.Helper()
			time.Sleep(3 * time.Second)
			why, err := m.Nodes[0].Service().Why(t.Context(), id)
			if err != nil || why.Status != labmesh.Pending {
				t.Fatalf("it is %s: %+v, %v", why.Status, why, err)
			}
			for _, w := range want {
				if !strings.Contains(why.Summary, w) {
					t.Errorf("%q does not say %q", why.Summary, w)
				}
			}
		}
		waits("w0 (a): it has no cuda (no NVIDIA driver)")

		gpu := nodetest.Plain()
		gpu.Hardware = append(gpu.Hardware, "cuda")
		gpu.Devices = []labmesh.Device{{Class: "cuda", Name: "NVIDIA T4", MemoryGB: 14.75, Compute: "7.5", Level: labmesh.DeviceDriver, Reason: "no engine can use it: torch: it is built without CUDA"}}
		m.Join(t, gpu)
		waits("w1 (b): it has cuda (NVIDIA T4, driver), but no engine can use it: torch: it is built without CUDA", "w0 (a)")

		small := nodetest.Plain()
		small.Memory.TotalGB = 256
		small.Devices = []labmesh.Device{{Class: "cuda", Name: "NVIDIA A2", MemoryGB: 7.5, Compute: "8.6", Level: labmesh.DeviceUsable, Engines: []string{"torch"}}}
		m.Join(t, small)
		waits("w2 (c): its cuda (NVIDIA A2) has 7.5 GiB of memory, the task needs 8 on one device")

		gpu.Devices = []labmesh.Device{{Class: "cuda", Name: "NVIDIA T4", MemoryGB: 14.75, Compute: "7.5", Level: labmesh.DeviceUsable, Engines: []string{"torch"}}}
		n := m.Join(t, gpu)
		m.Wait(t, time.Minute, "the task to run", func() bool { return m.Task(t, 0, id).Phase == labmesh.Completed })
		if got := m.Task(t, 0, id); got.Worker != "w3" || n.Index != 3 {
			t.Errorf("it ran on %s", got.Worker)
		}
	})
}
