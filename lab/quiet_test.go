package lab_test

import (
	"context"
	"fmt"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"labmesh"
	"labmesh/lab"
)

// burn starts a process that uses a processor until the test ends.
func burn(t testing.TB) {
	t.Helper()
	cmd := exec.Command("/bin/sh", "-c", "while :; do :; done")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
}

// lingerer is a runner that takes a second over one batch, and no processor.
const lingerer = `n=0
say() { n=$((n+1)); echo "{\"v\":1,\"seq\":$n,\"t\":$n,$1}"; }
say '"event":"hello","runner":"lingerer"'
say '"event":"model","name":"m","precision_effective":"fp32","device_class":"cpu"'
say '"event":"batch_start","batch":1'
sleep 1
say '"event":"samples","batch":1,"i0":0,"ms":[[1],[1],[1]]'
say '"event":"batch_end","batch":1,"status":"ok","n":3'
say '"event":"done"'`

func TestABenchmarkBesideAnotherProcessSaysSo(t *testing.T) {
	t.Parallel()
	m := start(t, lab.Config{Nodes: 1})
	burn(t)
	spec := labmesh.Spec{Kind: labmesh.Benchmark, Config: mustJSON(map[string]any{
		"model": "m", "runner": []string{"/bin/sh", "-c", lingerer}, "iterations": 3, "repeats": 1, "quiet_seconds": 0.5,
	})}
	id := submit(t, m.Nodes[0], spec)[0]
	if err := m.Nodes[0].Client().Wait(within(t, 60*time.Second), []labmesh.TaskID{id}, nothing); err != nil {
		t.Fatal(err)
	}
	code, out, errs := labmeshCLI(t, m.Nodes[0], "", "sql", "--format", "csv", "SELECT flags, doubts, env FROM benchmark_results WHERE task_id = '"+string(id)+"'")
	for _, want := range []string{string(labmesh.FlagContended), string(labmesh.FlagNoisy), "other processes used", "cpu_model"} {
		if code != 0 || !strings.Contains(out, want) {
			t.Errorf("exit code %d, without %q: %s%s", code, want, out, errs)
		}
	}
}

// How the effect of a node is measured.
const (
	effectBlocks  = 6               // of each kind, with nodes and without, in the order A, B, B, A
	effectBlock   = 4 * time.Second // of iterations; less than the lease of a node
	effectSettle  = 3 * time.Second // for nodes that were paused to be a mesh again
	effectIterate = 50 * time.Millisecond
)

// BenchmarkAgentEffect is by how much idle nodes of a mesh slow down what is
// measured beside them. It does a fixed amount of work on all processors, again and
// again, with three nodes on this machine and with the three paused, and reports
//
//	wall-%       by how much the median of the times is higher with the nodes
//	cpu-%        the same of the CPU time of the work: caches and clocks, not who waits for whom
//	leader-%cpu  what the node that leads takes of a processor
//	node-%       what one node costs work on all processors: its share of them, and a third of cpu-%
//	spread-%     how far medians without nodes are apart; where that is more than a little, wall-% says nothing
func BenchmarkAgentEffect(b *testing.B) {
	for b.Loop() {
		m := start(b, lab.Config{Nodes: 3})
		n := calibrate(effectIterate)
		var with, without times
		var medians []float64
		var cpu, wall float64
		for i := range 2 * effectBlocks {
			if i%4 == 1 || i%4 == 2 {
				t := paused(b, m, n)
				without.add(t)
				medians = append(medians, middle(t.wall))
				continue
			}
			lead := leader(b, m) // another, perhaps, since they were paused
			before, began := usage(b, lead), time.Now()
			with.add(iterate(effectBlock, n))
			cpu += usage(b, lead).CPUSeconds - before.CPUSeconds
			wall += time.Since(began).Seconds()
		}
		share, slower := 100*cpu/wall, 100*(middle(with.cpu)/middle(without.cpu)-1)
		b.ReportMetric(100*(middle(with.wall)/middle(without.wall)-1), "wall-%")
		b.ReportMetric(slower, "cpu-%")
		b.ReportMetric(share, "leader-%cpu")
		b.ReportMetric(share/float64(runtime.NumCPU())+slower/3, "node-%")
		b.ReportMetric(100*(slices.Max(medians)/slices.Min(medians)-1), "spread-%")
		busy(b)
	}
}

// times are those of iterations, in seconds.
type times struct{ wall, cpu []float64 }

func (t *times) add(more times) {
	t.wall, t.cpu = append(t.wall, more.wall...), append(t.cpu, more.cpu...)
}

// paused iterates while all nodes are paused, and lets them settle afterwards.
func paused(b *testing.B, m *lab.Mesh, n int) times {
	b.Helper()
	for _, node := range m.Nodes {
		if err := node.Pause(); err != nil {
			b.Fatal(err)
		}
	}
	t := iterate(effectBlock, n)
	for _, node := range m.Nodes {
		if err := node.Resume(); err != nil {
			b.Fatal(err)
		}
	}
	ctx, cancel := context.WithTimeout(b.Context(), time.Minute)
	defer cancel()
	if err := m.Formed(ctx); err != nil {
		b.Fatal(err)
	}
	began := time.Now()
	until(b, time.Minute, "the nodes settle", func() bool { return time.Since(began) >= effectSettle })
	return t
}

// iterate does n units of work on every processor at once, again and again, and
// returns how long each time took until the last was done.
func iterate(d time.Duration, n int) (t times) {
	for began := time.Now(); time.Since(began) < d; {
		at, used := time.Now(), ownCPU()
		var all sync.WaitGroup
		for range runtime.NumCPU() {
			all.Go(func() { work(n) })
		}
		all.Wait()
		t.wall, t.cpu = append(t.wall, time.Since(at).Seconds()), append(t.cpu, ownCPU()-used)
	}
	return t
}

// ownCPU is the CPU time of this process, in seconds.
func ownCPU() float64 {
	var u syscall.Rusage
	if syscall.Getrusage(syscall.RUSAGE_SELF, &u) != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano()).Seconds()
}

// work is a fixed amount of arithmetic.
func work(n int) {
	x := 1.0
	for range n {
		x += 1 / x
	}
	if x < 0 {
		panic(fmt.Sprint("it cannot be ", x))
	}
}

// calibrate is how much work takes so long.
func calibrate(d time.Duration) int {
	const n = 1_000_000
	least := time.Hour
	for range 20 {
		at := time.Now()
		work(n)
		least = min(least, time.Since(at))
	}
	return int(n * d / least)
}
