package chaos_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"labmesh"
	"labmesh/chaos"
	"labmesh/client"
	"labmesh/lab"
)

// Bounds and lengths of broken lines.
const (
	lease        = 6 * time.Second // of a worker; see docs/operations.md
	leaseMargin  = 2 * time.Second // that an attempt may go on for after it
	leaderLease  = time.Second     // after which a leader without voters must have stepped down
	partitionFor = 4 * time.Second
	longTask     = 30 * time.Second
)

// partition is a way in which five nodes may be parted: who is cut off, and how.
type partition struct {
	name  string
	split func(net *chaos.Network, led int) (minority []int, err error)
}

// next are the indexes of n other nodes than led.
func next(led, n int) (out []int) {
	for i := range n {
		out = append(out, (led+1+i)%5)
	}
	return out
}

func hosts(net *chaos.Network, at []int) (out []*chaos.Host) {
	for _, i := range at {
		out = append(out, net.Host(i))
	}
	return out
}

var partitions = []partition{
	{"symmetric", func(net *chaos.Network, led int) ([]int, error) {
		minority := append(next(led, 1), led)
		return minority, net.Cut(hosts(net, minority), hosts(net, next(led, 4)[1:]))
	}},
	{"leader-mute", func(net *chaos.Network, led int) ([]int, error) { return []int{led}, net.Break(chaos.Mute, led) }},
	{"leader-deaf", func(net *chaos.Network, led int) ([]int, error) { return []int{led}, net.Break(chaos.Deafen, led) }},
	{"bridge", func(net *chaos.Network, led int) ([]int, error) { // both halves have the bridge for a majority
		return nil, net.Break(chaos.Bridge, (led+1)%5)
	}},
}

// impatient is a client that takes the first answer of a node.
func impatient(t testing.TB, n *lab.Node) *client.Client {
	t.Helper()
	cfg := n.API()
	cfg.Patience = -1
	c, err := client.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// accepts counts the submits that nodes acknowledge until d is over.
func accepts(t testing.TB, x *loaded, at []int, d time.Duration) (ids []labmesh.TaskID) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), d)
	defer cancel()
	for _, i := range at {
		c := impatient(t, x.m.Nodes[i])
		defer c.Close()
		one, cancel := context.WithTimeout(ctx, d/time.Duration(len(at)+1))
		if reply, err := c.Submit(one, x.w.Task(0)); err == nil {
			ids = append(ids, reply.ID)
		}
		cancel()
	}
	return ids
}

// consistent waits until every node takes a submit, and every other knows it.
func consistent(t testing.TB, x *loaded) time.Duration {
	t.Helper()
	began := time.Now()
	ids := make([]labmesh.TaskID, len(x.m.Nodes))
	for i, n := range x.m.Nodes {
		c := impatient(t, n)
		defer c.Close()
		until(t, time.Minute, n.Name+" takes a submit", func() bool {
			one, cancel := context.WithTimeout(t.Context(), time.Second)
			defer cancel()
			reply, err := c.Submit(one, x.w.Task(0))
			ids[i] = reply.ID
			return err == nil
		})
	}
	for _, n := range x.m.Nodes {
		for _, id := range ids {
			until(t, time.Minute, fmt.Sprintf("%s knows %s", n.Name, id), func() bool {
				_, err := n.Client().Task(t.Context(), id)
				return err == nil
			})
		}
	}
	return time.Since(began)
}

// index of a node in its mesh.
func index(m *lab.Mesh, n *lab.Node) int {
	for i := range m.Nodes {
		if m.Nodes[i] == n {
			return i
		}
	}
	return -1
}

// BenchmarkPartitions parts five nodes in each way, and measures how long no submit
// is taken, what the cut-off side still takes, and how soon after healing all agree.
func BenchmarkPartitions(b *testing.B) {
	for _, p := range partitions {
		b.Run(p.name, func(b *testing.B) {
			for b.Loop() {
				net := network(b)
				x := work(b, lab.Config{Nodes: 5, Slots: 1, Place: net.Place}, 8, time.Second)
				var outages, healed []time.Duration
				wrong := 0
				for range *count["partitions"] {
					led := index(x.m, leader(b, x.m))
					at := time.Now()
					minority, err := p.split(net, led)
					if err != nil {
						b.Fatal(err)
					}
					rest(b, leaderLease)
					wrong += len(accepts(b, x, minority, partitionFor-time.Since(at)))
					outages = append(outages, x.outage(at))
					if err := net.Heal(); err != nil {
						b.Fatal(err)
					}
					healed = append(healed, consistent(b, x))
					x.whole()
				}
				v := x.done()
				if wrong > 0 {
					b.Errorf("%d submits were acknowledged by nodes that could not have a majority", wrong)
				}
				figures(b, "outage", outages)
				figures(b, "healed", healed)
				report(b, len(healed), v)
			}
		})
	}
}

// late is how long after its lease a run on a worker that was cut off at since went on, at most.
func late(runs []chaos.Run, w labmesh.WorkerID, since time.Duration) (longest time.Duration) {
	for _, r := range runs {
		if r.Worker == w && r.Start < since {
			longest = max(longest, r.Last-since-lease)
		}
	}
	return longest
}

// BenchmarkWorkerCut cuts a worker off for half a lease, one and three, and counts
// attempts that ran on beside, or after, another of their task.
func BenchmarkWorkerCut(b *testing.B) {
	for _, leases := range []float64{0.5, 1, 3} {
		b.Run(fmt.Sprintf("%gleases", leases), func(b *testing.B) {
			for b.Loop() {
				net := network(b)
				m, w := mesh(b, lab.Config{Nodes: 4, Slots: 2, Place: net.Place}), diary(b)
				var ids []labmesh.TaskID
				var beyond []time.Duration
				for range *count["cuts"] {
					held, victim := spread(b, m, w)
					ids = append(ids, held...)
					since := uptime(b)
					if err := net.Break(chaos.Cut, index(m, victim)); err != nil {
						b.Fatal(err)
					}
					rest(b, time.Duration(leases*float64(lease)))
					if err := net.Heal(); err != nil {
						b.Fatal(err)
					}
					if err := m.Nodes[0].Client().Wait(within(b, 3*time.Minute), held, func(client.Verdict) {}); err != nil {
						b.Fatal(err)
					}
					runs, err := w.Runs()
					if err != nil {
						b.Fatal(err)
					}
					if leases > 1 {
						beyond = append(beyond, late(runs, victim.Worker(), since))
					}
				}
				v := verify(b, m, w, ids)
				figures(b, "beyond-lease", beyond)
				b.ReportMetric(float64(v.Runs-len(ids)), "reruns")
				report(b, *count["cuts"], v)
			}
		})
	}
}

// spread fills the mesh with long tasks, and returns a follower that runs some.
func spread(t testing.TB, m *lab.Mesh, w *chaos.Work) (held []labmesh.TaskID, victim *lab.Node) {
	t.Helper()
	led := leader(t, m)
	victim = m.Followers(led)[len(m.Nodes)-2]
	for range 6 {
		held = append(held, submit(t, led, w.Task(longTask))...)
	}
	until(t, 20*time.Second, "the worker has its share", func() bool {
		runs, err := w.Runs()
		mine := 0
		for _, r := range runs {
			if r.Worker == victim.Worker() && !r.Ended {
				mine++
			}
		}
		return err == nil && mine > 0
	})
	return held, victim
}

func uptime(t testing.TB) time.Duration {
	t.Helper()
	up, err := chaos.Uptime()
	if err != nil {
		t.Fatal(err)
	}
	return up
}

// BenchmarkWorkerDeath kills a node and all that it runs, and measures when its tasks start elsewhere.
func BenchmarkWorkerDeath(b *testing.B) {
	for b.Loop() {
		m, w := mesh(b, lab.Config{Nodes: 4, Slots: 2}), diary(b)
		var ids []labmesh.TaskID
		var elsewhere []time.Duration
		for range *count["deaths"] {
			held, victim := spread(b, m, w)
			ids = append(ids, held...)
			since := uptime(b)
			if err := errors.Join(victim.Kill(), victim.EndKeeper()); err != nil {
				b.Fatal(err)
			}
			again := map[labmesh.TaskID]time.Duration{}
			until(b, time.Minute, "its tasks run elsewhere", func() bool {
				runs, err := w.Runs()
				if err != nil {
					b.Fatal(err)
				}
				lost := map[labmesh.TaskID]bool{}
				for _, r := range runs {
					if r.Worker == victim.Worker() && !r.Ended {
						lost[r.Task] = true
					} else if lost[r.Task] && r.Start > since {
						again[r.Task] = r.Start - since
						delete(lost, r.Task)
					}
				}
				return len(lost) == 0
			})
			for _, took := range again {
				elsewhere = append(elsewhere, took)
			}
			for _, id := range held { // they have shown what they could
				if _, err := m.Running()[0].Client().Cancel(b.Context(), id, ""); err != nil {
					b.Fatal(err)
				}
			}
			if err := victim.Start(b.Context()); err != nil {
				b.Fatal(err)
			}
			if err := m.Formed(within(b, time.Minute)); err != nil {
				b.Fatal(err)
			}
		}
		v := verify(b, m, w, ids)
		figures(b, "elsewhere", elsewhere)
		report(b, *count["deaths"], v)
	}
}

// BenchmarkFlaps cuts and heals the line of a node, again and again, and weighs all
// nodes before and after: nobody may be forgotten and nothing may pile up.
func BenchmarkFlaps(b *testing.B) {
	for b.Loop() {
		net := network(b)
		x := work(b, lab.Config{Nodes: 3, Slots: 2, Place: net.Place}, 2, time.Second)
		before := weigh(b, x.m)
		for i := range *count["flaps"] {
			if err := net.Break(chaos.Cut, i%3); err != nil {
				b.Fatal(err)
			}
			rest(b, 300*time.Millisecond)
			if err := net.Heal(); err != nil {
				b.Fatal(err)
			}
			rest(b, 300*time.Millisecond)
		}
		x.whole() // it knows all workers on all nodes
		v := x.done()
		rest(b, 3*time.Second)
		var goroutines, files, grown float64
		for i, now := range weigh(b, x.m) {
			goroutines = max(goroutines, float64(now.Goroutines-before[i].Goroutines))
			files = max(files, float64(now.Files-before[i].Files))
			grown = max(grown, float64(now.RSSBytes-before[i].RSSBytes)/(1<<20))
		}
		b.ReportMetric(goroutines, "more-goroutines")
		b.ReportMetric(files, "more-files")
		b.ReportMetric(grown, "more-MiB")
		report(b, *count["flaps"], v)
	}
}

func weigh(t testing.TB, m *lab.Mesh) (out []chaos.Footprint) {
	t.Helper()
	for _, n := range m.Nodes {
		f, err := chaos.Weigh(t.Context(), n)
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, f)
	}
	return out
}

// TestAWorkerBehindARouterWorks has a node join that nobody can call.
func TestAWorkerBehindARouterWorks(t *testing.T) {
	if testing.Short() || !*long {
		t.Skip("it is of the long form: -chaos.long")
	}
	net := network(t)
	m, w := mesh(t, lab.Config{Nodes: 3, Slots: 1, Place: net.Place}), diary(t)
	if _, err := net.AddBehind(); err != nil {
		t.Fatal(err)
	}
	home, err := m.Join(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := m.Formed(within(t, time.Minute)); err != nil {
		t.Fatal(err)
	}
	ids := submit(t, m.Nodes[1], on(home, w.Task(shortTask)))
	ids = append(ids, submit(t, home, on(m.Nodes[0], w.Task(shortTask)))...)
	if v := verify(t, m, w, ids); v.Runs != 2 {
		t.Errorf("%d runs", v.Runs)
	}
	if err := net.Break(chaos.Cut, 3); err != nil {
		t.Fatal(err)
	}
	rest(t, 2*time.Second)
	if err := net.Heal(); err != nil {
		t.Fatal(err)
	}
	verify(t, m, w, append(ids, submit(t, home, on(home, w.Task(shortTask)))...))
}
