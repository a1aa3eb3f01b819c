package chaos_test

import (
	"cmp"
	"context"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"labmesh"
	"labmesh/chaos"
	"labmesh/lab"
	"labmesh/lab/labtest"
)

// What `make chaos` may be told. A benchmark without its flag does few rounds.
var (
	seedFlag = flag.Uint64("chaos.seed", 0, "the seed whose faults are played; 0 picks one")
	long     = flag.Bool("chaos.long", false, "the tests that take minutes too, and every seed that ever failed")
	count    = map[string]*int{
		"kills":       flag.Int("chaos.kills", 3, "how often BenchmarkLeaderKilled kills the leader"),
		"pauses":      flag.Int("chaos.pauses", 1, "how often BenchmarkLeaderPaused pauses the leader"),
		"partitions":  flag.Int("chaos.partitions", 1, "how often BenchmarkPartitions makes each kind of partition"),
		"blackouts":   flag.Int("chaos.blackouts", 2, "how often BenchmarkBlackout kills all nodes at once"),
		"cuts":        flag.Int("chaos.cuts", 1, "how often BenchmarkWorkerCut cuts a worker off, for each length"),
		"deaths":      flag.Int("chaos.deaths", 1, "how often BenchmarkWorkerDeath kills a worker"),
		"ledgerkills": flag.Int("chaos.ledgerkills", 5, "how often BenchmarkLedgerKilled kills a node that writes its ledger"),
		"flaps":       flag.Int("chaos.flaps", 10, "how often BenchmarkFlaps cuts and heals the line of a node"),
		"nodes":       flag.Int("chaos.nodes", 6, "how many nodes BenchmarkColdRestart starts"),
		"soaks":       flag.Int("chaos.soaks", 1, "how many seeds BenchmarkSoak plays"),
	}
)

// bin is the labmesh under test, built once for all.
var bin string

func TestMain(m *testing.M) {
	dir, err := os.MkdirTemp("", "labmesh-chaos-")
	if err == nil {
		tidy(dir)
		err = os.Setenv("TMPDIR", dir) // where tests have their files
	}
	if err == nil {
		bin, err = lab.Build(context.Background(), dir)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	goleak.VerifyTestMain(m, goleak.IgnoreCurrent(), goleak.Cleanup(func(code int) {
		os.RemoveAll(dir) // the system sweeps temporary directories too
		os.Exit(code)
	}))
}

// seed is the one that was asked for, or any; it is in the log of whatever fails.
func seed(t testing.TB) uint64 {
	t.Helper()
	s := *seedFlag
	if s == 0 {
		s = rand.Uint64() >> 16
	}
	t.Logf("seed %d (again: -chaos.seed %d)", s, s)
	return s
}

// mesh makes a mesh of the labmesh under test that lasts as long as the test.
func mesh(t testing.TB, cfg lab.Config) *lab.Mesh {
	t.Helper()
	cfg.Bin = bin
	return labtest.Start(t, cfg)
}

// network makes a network that lasts as long as the test.
func network(t testing.TB) *chaos.Network {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("only root can make network namespaces")
	}
	n, err := chaos.NewNetwork()
	if err != nil {
		t.Skipf("no network of its own can be had: %v", err)
	}
	t.Cleanup(func() {
		if err := n.Close(); err != nil {
			t.Errorf("close network: %v", err)
		}
	})
	return n
}

func diary(t testing.TB) *chaos.Work {
	t.Helper()
	w, err := chaos.NewWork(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	return w
}

// load starts clients that last as long as the test.
func load(t testing.TB, nodes []*lab.Node, clients int, pause time.Duration, task func() labmesh.Spec) *chaos.Load {
	t.Helper()
	l, err := chaos.StartLoad(t.Context(), nodes, clients, pause, task)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(l.Stop)
	return l
}

// verify ends a run: nothing may be lost, double or different.
func verify(t testing.TB, m *lab.Mesh, w *chaos.Work, ids []labmesh.TaskID) chaos.Verdict {
	t.Helper()
	v, err := chaos.Verify(t.Context(), m, w, ids)
	t.Log(v)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func within(t testing.TB, d time.Duration) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeoutCause(t.Context(), d, fmt.Errorf("not done after %s", d))
	t.Cleanup(cancel)
	return ctx
}

func until(t testing.TB, d time.Duration, what string, done func() bool) {
	t.Helper()
	if err := lab.Until(within(t, d), done); err != nil {
		t.Fatalf("%s: %v", what, err)
	}
}

// rest is for so long.
func rest(t testing.TB, d time.Duration) {
	t.Helper()
	select {
	case <-time.After(d):
	case <-t.Context().Done():
	}
}

func leader(t testing.TB, m *lab.Mesh) *lab.Node {
	t.Helper()
	n, err := m.Leader(within(t, 30*time.Second))
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func submit(t testing.TB, n *lab.Node, specs ...labmesh.Spec) []labmesh.TaskID {
	t.Helper()
	reply, err := n.Client().SubmitBatch(t.Context(), specs)
	if err != nil {
		t.Fatalf("submit to %s: %v", n.Name, err)
	}
	return reply.IDs
}

// running waits until a task runs.
func running(t testing.TB, n *lab.Node, id labmesh.TaskID) {
	t.Helper()
	until(t, 20*time.Second, fmt.Sprintf("%s runs", id), func() bool {
		d, err := n.Client().Task(t.Context(), id)
		return err == nil && d.Status == labmesh.Running
	})
}

// on has the task run on n and nowhere else.
func on(n *lab.Node, s labmesh.Spec) labmesh.Spec {
	s.Requirements.WorkerID = n.Worker()
	return s
}

// figures reports the median, the 99th percentile and the worst of some times.
func figures(b *testing.B, name string, times []time.Duration) {
	b.Helper()
	if len(times) == 0 {
		return
	}
	slices.Sort(times)
	ms := func(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }
	b.ReportMetric(ms(times[len(times)/2]), name+"-p50-ms")
	b.ReportMetric(ms(times[(len(times)*99+99)/100-1]), name+"-p99-ms")
	b.ReportMetric(ms(times[len(times)-1]), name+"-max-ms")
}

// report says what a run came to, and how busy the machine was.
func report(b *testing.B, rounds int, v chaos.Verdict) {
	b.Helper()
	b.ReportMetric(0, "ns/op") // it says nothing here
	b.ReportMetric(float64(rounds), "rounds")
	b.ReportMetric(float64(v.Submitted), "acknowledged")
	b.ReportMetric(float64(v.Lost), "lost")
	b.ReportMetric(float64(v.Double), "double")
	b.ReportMetric(float64(len(v.Overlaps)), "overlaps")
	data, err := os.ReadFile("/proc/loadavg")
	if err != nil {
		return
	}
	if load, err := strconv.ParseFloat(cmp.Or(strings.Fields(string(data))...), 64); err == nil {
		b.ReportMetric(load, "load")
	}
}
