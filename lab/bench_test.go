package lab_test

import (
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"labmesh"
	"labmesh/api"
	"labmesh/lab"
)

// How much each benchmark does. Run them with -benchtime 1x.
const (
	failovers     = 20
	joins         = 8
	singleTasks   = 300 // from each node
	batchOfTrue   = 2000
	submitSeconds = 4
	batches       = 6
	idleSeconds   = 10
	queuedFew     = 1_000
	queuedMany    = 100_000
)

// figures reports the median and the worst of some times, and how busy the machine was.
func figures(b *testing.B, name string, times []time.Duration) {
	b.Helper()
	slices.Sort(times)
	ms := func(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }
	b.ReportMetric(ms(times[len(times)/2]), name+"p50-ms")
	b.ReportMetric(ms(times[len(times)*95/100]), name+"p95-ms")
	b.ReportMetric(ms(times[len(times)-1]), name+"max-ms")
}

// busy reports the machine's load, without which no figure here says much.
func busy(b *testing.B) {
	b.Helper()
	b.ReportMetric(0, "ns/op") // it says nothing here
	data, err := os.ReadFile("/proc/loadavg")
	if err != nil {
		return
	}
	if load, err := strconv.ParseFloat(strings.Fields(string(data))[0], 64); err == nil {
		b.ReportMetric(load, "load")
	}
}

// unfit is a task that no worker fits, in one of fifty classes.
func unfit(class int) labmesh.Spec {
	s := program("/bin/true")
	s.Name = ""
	s.Requirements.Tags = map[string]string{"nowhere": strconv.Itoa(class % 50)}
	return s
}

// BenchmarkFailover kills the leader with -9 again and again, under load.
func BenchmarkFailover(b *testing.B) {
	for b.Loop() {
		m := start(b, lab.Config{Nodes: 3, Slots: 2})
		var times []time.Duration
		var sum lab.Tally
		for range failovers {
			took, tally := failover(b, m)
			times = append(times, took)
			sum.Lost += tally.Lost
			sum.Twice += tally.Twice
			sum.Restarted += tally.Restarted
			sum.Rerun += tally.Rerun
		}
		figures(b, "", times)
		b.ReportMetric(float64(sum.Lost), "lost")
		b.ReportMetric(float64(sum.Twice), "twice")
		b.ReportMetric(float64(sum.Restarted), "restarted")
		b.ReportMetric(float64(sum.Rerun), "rerun")
		busy(b)
		if sum.Lost+sum.Twice+sum.Restarted > 0 {
			b.Errorf("over %d failovers: %s", failovers, sum)
		}
	}
}

// failover kills the leader once, and puts the mesh together again.
func failover(b *testing.B, m *lab.Mesh) (time.Duration, lab.Tally) {
	b.Helper()
	old := leader(b, m)
	rest := m.Followers(old)
	witness := m.Witness(b.Context(), rest...)
	defer witness.Close()
	ids := submit(b, rest[0], on(rest[0], program("sleep", "2")), on(rest[1], program("sleep", "2")))
	specs := make([]labmesh.Spec, 120)
	for i := range specs {
		specs[i] = program("sleep", "0.1")
	}
	ids = append(ids, submit(b, rest[1], specs...)...)
	running(b, rest[0], ids[0])
	running(b, rest[0], ids[1])
	until(b, 20*time.Second, "the load is under way", func() bool { return witness.Ended() >= 5 })
	at := time.Now()
	if err := old.Kill(); err != nil {
		b.Fatal(err)
	}
	next, err := witness.After(within(b, 20*time.Second), at)
	if err != nil {
		b.Fatal(err)
	}
	if err := old.Start(b.Context()); err != nil {
		b.Fatal(err)
	}
	if err := rest[0].Client().Wait(within(b, 60*time.Second), ids, nothing); err != nil {
		b.Fatal(err)
	}
	if err := m.Formed(within(b, 30*time.Second)); err != nil {
		b.Fatal(err)
	}
	if err := m.Settle(within(b, 30*time.Second)); err != nil {
		b.Fatal(err)
	}
	tally, err := rest[1].Tally(b.Context(), ids, old.Worker())
	if err != nil {
		b.Fatal(err)
	}
	return next.Seen.Sub(at), tally
}

// BenchmarkJoin goes from the start of `labmesh up --join` to the result of the
// first task on the newcomer.
func BenchmarkJoin(b *testing.B) {
	for b.Loop() {
		var times []time.Duration
		for range joins {
			times = append(times, join(b))
		}
		figures(b, "", times)
		busy(b)
	}
}

func join(b *testing.B) time.Duration {
	b.Helper()
	m := start(b, lab.Config{Nodes: 1, Slots: 2})
	founder := m.Nodes[0]
	seen := watch(b, founder)
	n := m.NewNode()
	id := submit(b, founder, on(n, program("/bin/true")))[0]
	began := time.Now()
	if err := n.Start(b.Context()); err != nil {
		b.Fatal(err)
	}
	at, err := seen.when(within(b, 30*time.Second), id)
	if err != nil {
		b.Fatal(err)
	}
	if err := m.Close(); err != nil {
		b.Fatal(err)
	}
	return at.Sub(began)
}

// BenchmarkSubmitToResult submits /bin/true to an idle mesh of three and waits
// for its verdict at the same node, one task at a time.
func BenchmarkSubmitToResult(b *testing.B) {
	for b.Loop() {
		m := start(b, lab.Config{Nodes: 3, Slots: 2})
		lead := leader(b, m)
		body := mustJSON(program("/bin/true"))
		for _, c := range []struct {
			name string
			node *lab.Node
		}{{"leader-", lead}, {"follower1-", m.Followers(lead)[0]}, {"follower2-", m.Followers(lead)[1]}} {
			seen, conn, req := watch(b, c.node), dial(b, c.node), request(c.node, "/api/tasks", body)
			var times []time.Duration
			for range singleTasks {
				began := time.Now()
				reply, err := conn.send(req)
				if err != nil {
					b.Fatal(err)
				}
				at, err := seen.when(within(b, 20*time.Second), taskID(reply))
				if err != nil {
					b.Fatal(err)
				}
				times = append(times, at.Sub(began))
			}
			figures(b, c.name, times)
		}
		busy(b)
	}
}

// BenchmarkBatchOfTrue submits two thousand times /bin/true at once, to meshes of
// one node and of three on this one machine, beside what plain os/exec makes of
// it: the median of three batches.
func BenchmarkBatchOfTrue(b *testing.B) {
	for b.Loop() {
		raw := plainRate(b)
		b.ReportMetric(raw, "os/exec-tasks/s")
		for _, nodes := range []int{1, 3} {
			m := start(b, lab.Config{Nodes: nodes})
			lead := leader(b, m)
			rates := make([]float64, 3)
			for i := range rates {
				rates[i] = batchRate(b, lead, batchOfTrue)
			}
			slices.Sort(rates)
			rate := rates[len(rates)/2]
			name := strconv.Itoa(nodes) + "-nodes-"
			b.ReportMetric(rate, name+"tasks/s")
			b.ReportMetric(rate/raw, name+"of-os/exec")
			if err := m.Close(); err != nil {
				b.Fatal(err)
			}
		}
		busy(b)
	}
}

// plainRate is the best rate at which os/exec runs /bin/true here, with two, four
// or eight at once, its output captured.
func plainRate(b *testing.B) (best float64) {
	b.Helper()
	for _, at := range []int{2, 4, 8} {
		var next atomic.Int64
		var wg sync.WaitGroup
		began := time.Now()
		for range at {
			wg.Go(func() {
				for next.Add(1) <= batchOfTrue {
					if _, err := exec.Command("/bin/true").CombinedOutput(); err != nil {
						b.Error(err)
					}
				}
			})
		}
		wg.Wait()
		best = max(best, batchOfTrue/time.Since(began).Seconds())
	}
	return best
}

// batchRate is the rate at which n tasks submitted at once come to their verdicts.
// It asks for their number alone: whoever follows every event takes a good part
// of two cores.
func batchRate(b *testing.B, node *lab.Node, n int) float64 {
	b.Helper()
	specs := make([]labmesh.Spec, n)
	for i := range specs {
		specs[i] = program("/bin/true")
	}
	before := completed(b, node)
	conn, req := dial(b, node), request(node, "/api/tasks/batch", mustJSON(api.BatchRequest{Tasks: specs}))
	began := time.Now()
	if _, err := conn.send(req); err != nil {
		b.Fatal(err)
	}
	until(b, 2*time.Minute, "all tasks of the batch to end", func() bool { return completed(b, node) >= before+n })
	return float64(n) / time.Since(began).Seconds()
}

func completed(b *testing.B, node *lab.Node) int {
	b.Helper()
	st, err := node.Client().Status(b.Context())
	if err != nil {
		b.Fatal(err)
	}
	return st.Tasks[string(labmesh.Completed)]
}

// BenchmarkSingleSubmits is the rate of durable submits, one task a request.
func BenchmarkSingleSubmits(b *testing.B) {
	for b.Loop() {
		m := start(b, lab.Config{Nodes: 3, Slots: 2})
		lead := leader(b, m)
		body := mustJSON(unfit(1))
		for _, c := range []struct {
			name    string
			node    *lab.Node
			clients int
		}{{"leader-1-", lead, 1}, {"follower-1-", m.Followers(lead)[0], 1}, {"leader-64-", lead, 64}, {"follower-64-", m.Followers(lead)[0], 64}} {
			b.ReportMetric(submitRate(b, c.node, body, c.clients), c.name+"submits/s")
		}
		busy(b)
	}
}

func submitRate(b *testing.B, n *lab.Node, body []byte, clients int) float64 {
	b.Helper()
	var count atomic.Int64
	var wg sync.WaitGroup
	req := request(n, "/api/tasks", body)
	conns := make([]*lean, clients)
	for i := range conns {
		conns[i] = dial(b, n)
	}
	began := time.Now()
	for _, conn := range conns {
		wg.Go(func() {
			for time.Since(began) < submitSeconds*time.Second {
				if _, err := conn.send(req); err != nil {
					b.Error(err)
					return
				}
				count.Add(1)
			}
		})
	}
	wg.Wait()
	return float64(count.Load()) / time.Since(began).Seconds()
}

// BenchmarkBatchSubmit is the rate of durable submits in batches of ten thousand.
func BenchmarkBatchSubmit(b *testing.B) {
	for b.Loop() {
		m := start(b, lab.Config{Nodes: 3, Slots: 2})
		lead := leader(b, m)
		b.ReportMetric(queue(b, lead, batches*api.BatchTasksMax), "leader-tasks/s")
		b.ReportMetric(queue(b, m.Followers(lead)[0], batches*api.BatchTasksMax), "follower-tasks/s")
		busy(b)
	}
}

// queue submits tasks that fit no worker, and returns the rate.
func queue(b *testing.B, n *lab.Node, tasks int) float64 {
	b.Helper()
	specs := make([]labmesh.Spec, min(tasks, api.BatchTasksMax))
	for i := range specs {
		specs[i] = unfit(i)
	}
	conn, req := dial(b, n), request(n, "/api/tasks/batch", mustJSON(api.BatchRequest{Tasks: specs}))
	began := time.Now()
	for range tasks / len(specs) {
		if _, err := conn.send(req); err != nil {
			b.Fatal(err)
		}
	}
	return float64(tasks) / time.Since(began).Seconds()
}

// BenchmarkIdle is what nodes take of the machine when there is nothing to do.
func BenchmarkIdle(b *testing.B) {
	for b.Loop() {
		m := start(b, lab.Config{Nodes: 3})
		lead := leader(b, m)
		for name, n := range map[string]*lab.Node{"leader-": lead, "follower-": m.Followers(lead)[0]} {
			before := usage(b, n)
			began := time.Now()
			until(b, 2*idleSeconds*time.Second, "time passes", func() bool { return time.Since(began) >= idleSeconds*time.Second })
			after := usage(b, n)
			b.ReportMetric(float64(after.RSSBytes)/(1<<20), name+"MB")
			b.ReportMetric(100*(after.CPUSeconds-before.CPUSeconds)/time.Since(began).Seconds(), name+"%cpu")
		}
		busy(b)
	}
}

func usage(b *testing.B, n *lab.Node) lab.Usage {
	b.Helper()
	u, err := n.Usage()
	if err != nil {
		b.Fatal(err)
	}
	return u
}

// BenchmarkQueued is what a long queue costs: memory of the leader, and the rate
// at which tasks behind it are placed and run.
func BenchmarkQueued(b *testing.B) {
	for b.Loop() {
		m := start(b, lab.Config{Nodes: 3, Slots: 2})
		lead := leader(b, m)
		queue(b, lead, queuedFew)
		few := batchRate(b, lead, batchOfTrue)
		b.ReportMetric(few, "1k-queued-tasks/s")
		b.ReportMetric(float64(usage(b, lead).RSSBytes)/(1<<20), "1k-queued-MB")
		queue(b, lead, queuedMany)
		b.ReportMetric(float64(usage(b, lead).RSSBytes)/(1<<20), "100k-queued-MB")
		many := batchRate(b, lead, batchOfTrue)
		b.ReportMetric(many, "100k-queued-tasks/s")
		b.ReportMetric(many/few, "100k-of-1k")
		after := usage(b, lead)
		b.ReportMetric(float64(after.PeakBytes)/(1<<20), "peak-MB")
		busy(b)
	}
}
