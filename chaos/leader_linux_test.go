package chaos_test

import (
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"time"

	"labmesh"
	"labmesh/chaos"
	"labmesh/lab"
)

// A loaded mesh: 64 clients and 6 workers, as the figures ask for. The pauses and
// the length of tasks leave the processors room, so that what is measured is the mesh.
const (
	workers     = 6
	clients     = 64
	clientPause = 2 * time.Second
	shortTask   = 200 * time.Millisecond
	outageWait  = 20 * time.Second
	pauseFor    = 20 * time.Second // longer than any lease
)

// loaded is a mesh at work.
type loaded struct {
	t  testing.TB
	m  *lab.Mesh
	w  *chaos.Work
	l  *chaos.Load
	it chaos.Injector
}

func work(t testing.TB, cfg lab.Config, clients int, pause time.Duration) *loaded {
	t.Helper()
	x := &loaded{t: t, m: mesh(t, cfg), w: diary(t)}
	x.l = load(t, x.m.Nodes, clients, pause, func() labmesh.Spec { return x.w.Task(shortTask) })
	until(t, 20*time.Second, "the load is under way", func() bool { return len(x.l.Acks()) >= clients })
	return x
}

// outage waits until submits are taken again after t, and returns how long none was.
func (x *loaded) outage(since time.Time) (longest time.Duration) {
	x.t.Helper()
	until(x.t, outageWait, "a submit is acknowledged again", func() (over bool) {
		longest, over = x.l.Outage(since)
		return over
	})
	return longest
}

// whole waits until the mesh is complete, and has the clients know its nodes.
func (x *loaded) whole() {
	x.t.Helper()
	if err := x.m.Formed(within(x.t, time.Minute)); err != nil {
		x.t.Fatal(err)
	}
	if err := x.l.Aim(x.m.Running()); err != nil {
		x.t.Fatal(err)
	}
}

// done ends the load and verifies.
func (x *loaded) done() chaos.Verdict {
	x.t.Helper()
	x.l.Stop()
	return verify(x.t, x.m, x.w, x.l.Tasks())
}

// killLeaders kills the leader with -9 so many times.
func killLeaders(t testing.TB, kills, nodes, clients int, pause time.Duration) (outages []time.Duration, v chaos.Verdict) {
	t.Helper()
	chance := rand.New(rand.NewPCG(seed(t), 1))
	x := work(t, lab.Config{Nodes: nodes, Slots: 2}, clients, pause)
	for range kills {
		rest(t, time.Duration(chance.Int64N(int64(time.Second))))
		old := leader(t, x.m)
		at := time.Now()
		if err := old.Kill(); err != nil {
			t.Fatal(err)
		}
		outages = append(outages, x.outage(at))
		if err := old.Start(t.Context()); err != nil {
			t.Fatal(err)
		}
		x.whole()
	}
	return outages, x.done()
}

// BenchmarkLeaderKilled measures how long no submit is taken when the leader is
// killed with -9, and counts what gets lost.
func BenchmarkLeaderKilled(b *testing.B) {
	for b.Loop() {
		outages, v := killLeaders(b, *count["kills"], workers, clients, clientPause)
		figures(b, "outage", outages)
		report(b, len(outages), v)
	}
}

// pauseLeader has the leader stand still for d and go on, while clients ask it
// too: their requests are what it finds when it goes on. It returns what it
// acknowledged to them; all of it must be in the log of the others.
func pauseLeader(t testing.TB, x *loaded, d time.Duration) (outage time.Duration, acknowledged []labmesh.TaskID) {
	t.Helper()
	old := leader(t, x.m)
	before, err := old.Client().Status(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	at := time.Now()
	if err := old.Pause(); err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	replies := make([]labmesh.TaskID, 8)
	for i := range replies {
		wg.Go(func() {
			if reply, err := old.Client().Submit(t.Context(), x.w.Task(0)); err == nil {
				replies[i] = reply.ID
			}
		})
	}
	outage = x.outage(at)
	rest(t, d-time.Since(at))
	if err := old.Resume(); err != nil {
		t.Fatal(err)
	}
	wg.Wait()
	x.whole()
	after, err := old.Client().Status(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if after.Term <= before.Term {
		t.Errorf("the term was %d before the pause and is %d after it: nobody took over", before.Term, after.Term)
	}
	return outage, slices.DeleteFunc(replies, func(id labmesh.TaskID) bool { return id == "" })
}

// BenchmarkLeaderPaused has the leader stand still for 20 s, again and again. What it
// accepts in its old term would be acknowledged and lost.
func BenchmarkLeaderPaused(b *testing.B) {
	for b.Loop() {
		x := work(b, lab.Config{Nodes: 3, Slots: 2}, 16, clientPause)
		var outages []time.Duration
		var late []labmesh.TaskID
		for range *count["pauses"] {
			outage, ids := pauseLeader(b, x, pauseFor)
			outages, late = append(outages, outage), append(late, ids...)
		}
		x.l.Stop()
		v := verify(b, x.m, x.w, append(x.l.Tasks(), late...))
		figures(b, "outage", outages)
		report(b, len(outages), v)
	}
}

// BenchmarkBlackout kills all nodes, and what keeps their programs, at the same
// time, and measures how long it takes from their start until work is taken and run.
// The system goes on, so what was written without fsync is not lost here.
func BenchmarkBlackout(b *testing.B) {
	for b.Loop() {
		x := work(b, lab.Config{Nodes: 3, Slots: 2}, 16, clientPause)
		var back []time.Duration
		for range *count["blackouts"] {
			rest(b, time.Second)
			together(b, x.m.Nodes, (*lab.Node).Kill)
			together(b, x.m.Nodes, (*lab.Node).EndKeeper)
			at := time.Now()
			together(b, x.m.Nodes, func(n *lab.Node) error { return n.Start(b.Context()) })
			performs(b, x, x.m.Nodes[0])
			back = append(back, time.Since(at))
			x.whole()
		}
		v := x.done()
		figures(b, "scheduling", back)
		report(b, len(back), v)
	}
}

// performs waits until a task that is submitted to n has run.
func performs(t testing.TB, x *loaded, n *lab.Node) {
	t.Helper()
	s := x.w.Task(0)
	s.Priority = 10 // before what waits
	var ids []labmesh.TaskID
	until(t, time.Minute, "a task is taken", func() bool {
		reply, err := n.Client().SubmitBatch(t.Context(), []labmesh.Spec{s})
		ids = reply.IDs
		return err == nil
	})
	until(t, time.Minute, "a task has run", func() bool {
		d, err := n.Client().Task(t.Context(), ids[0])
		return err == nil && d.Status.Final()
	})
}

// together does the same to all nodes at the same time.
func together(t testing.TB, nodes []*lab.Node, do func(*lab.Node) error) {
	t.Helper()
	var wg sync.WaitGroup
	for _, n := range nodes {
		wg.Go(func() {
			if err := do(n); err != nil {
				t.Errorf("%s: %v", n.Name, err)
			}
		})
	}
	wg.Wait()
	if t.Failed() {
		t.FailNow()
	}
}

// BenchmarkColdRestart kills a whole mesh and starts it again, every node under
// another address than before.
func BenchmarkColdRestart(b *testing.B) {
	for b.Loop() {
		x := work(b, lab.Config{Nodes: *count["nodes"], Slots: 1}, 8, clientPause)
		x.l.Stop()
		together(b, x.m.Nodes, (*lab.Node).Kill)
		at := time.Now()
		together(b, x.m.Nodes, func(n *lab.Node) error { return n.Start(b.Context()) })
		started := time.Since(at)
		performs(b, x, x.m.Nodes[0])
		figures(b, "scheduling", []time.Duration{time.Since(at)})
		figures(b, "processes", []time.Duration{started})
		v := x.done()
		report(b, *count["nodes"], v)
	}
}

// BenchmarkLedgerKilled kills a follower again and again while it writes its ledger;
// it must come back each time, and in the end have the same rows as all others.
func BenchmarkLedgerKilled(b *testing.B) {
	for b.Loop() {
		chance := rand.New(rand.NewPCG(seed(b), 2))
		m, w := mesh(b, lab.Config{Nodes: 3, Slots: 2}), diary(b)
		old := leader(b, m)
		victim := m.Followers(old)[0]
		l := load(b, m.Followers(victim), 4, 100*time.Millisecond, func() labmesh.Spec { return w.Task(0) })
		var starts []time.Duration
		for range *count["ledgerkills"] {
			rest(b, time.Duration(chance.Int64N(int64(700*time.Millisecond))))
			if err := victim.Kill(); err != nil {
				b.Fatal(err)
			}
			at := time.Now()
			if err := victim.Start(b.Context()); err != nil {
				b.Fatal(err)
			}
			starts = append(starts, time.Since(at))
		}
		l.Stop()
		v := verify(b, m, w, l.Tasks())
		figures(b, "start", starts)
		report(b, len(starts), v)
	}
}
