package lab_test

import (
	"fmt"
	"testing"
	"time"

	"labmesh"
	"labmesh/lab"
)

// load is a mix of real tasks, n of them: short and longer, good and bad.
func load(t testing.TB, n int) (specs []labmesh.Spec) {
	for i := range n {
		switch i % 5 {
		case 0:
			specs = append(specs, program("/bin/true"))
		case 1:
			specs = append(specs, shell(fmt.Sprintf("echo task %d; sleep 0.3", i)))
		case 2:
			specs = append(specs, program("seq", "1000"))
		case 3:
			specs = append(specs, program("sleep", "0.2"))
		default:
			specs = append(specs, shell("echo this one fails >&2; exit 3"))
		}
	}
	return specs
}

func TestEveryTaskEndsOnceAlthoughItsLeaderIsKilled(t *testing.T) {
	m := start(t, lab.Config{Nodes: 3, Slots: 2})
	old := leader(t, m)
	rest := m.Followers(old)
	witness := m.Witness(t.Context(), rest...)
	defer witness.Close()

	ids := submit(t, rest[0], on(rest[0], program("sleep", "4")), on(rest[1], program("sleep", "4")),
		on(rest[0], testFile(t, "gotest/quantile_test.go")), on(rest[1], testFile(t, "pytest/test_wilson.py")))
	long := ids[:2]
	for _, n := range m.Nodes {
		ids = append(ids, submit(t, n, load(t, 40)...)...)
	}
	running(t, rest[0], long[0])
	running(t, rest[0], long[1])
	until(t, 20*time.Second, "the load is under way", func() bool { return witness.Ended() >= 10 })

	killed := time.Now()
	if err := old.Kill(); err != nil {
		t.Fatal(err)
	}
	next, err := witness.After(within(t, 15*time.Second), killed)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%s after the kill of %s the next leader committed a result", next.Seen.Sub(killed).Round(time.Millisecond), old.Name)
	ids = append(ids, submit(t, rest[1], load(t, 10)...)...)
	if err := rest[0].Client().Wait(within(t, 60*time.Second), ids, nothing); err != nil {
		t.Fatal(err)
	}
	check := func() {
		t.Helper()
		if err := m.Identical(within(t, 30*time.Second)); err != nil {
			t.Fatal(err)
		}
		for _, n := range m.Running() {
			tally, err := n.Tally(t.Context(), ids, old.Worker())
			if err != nil {
				t.Fatal(err)
			}
			if !tally.OK() || tally.Completed != len(ids)-26 { // one in five fails, on purpose
				t.Errorf("%s: %s", n.Name, tally)
			}
		}
	}
	check()
	for _, id := range long {
		if d := task(t, rest[0], id); d.Attempts != 1 || d.Status != labmesh.Completed {
			t.Errorf("%s ran beside the leader: %d attempts, %s", id, d.Attempts, d.Status)
		}
	}

	if err := old.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := m.Formed(within(t, 30*time.Second)); err != nil {
		t.Fatal(err)
	}
	check()
	if d := run(t, old, on(old, program("echo", "back"))); d.Status != labmesh.Completed {
		t.Errorf("a task on the node that came back is %s: %s", d.Status, d.Error)
	}
	if left, err := m.Attempts(); err != nil || len(left) > 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}

func TestAPausedLeaderIsReplacedAndComesBack(t *testing.T) {
	if testing.Short() {
		t.Skip("it waits for leases to run out")
	}
	m := start(t, lab.Config{Nodes: 3, Slots: 2})
	old := leader(t, m)
	rest := m.Followers(old)
	held := submit(t, old, on(old, shell("sleep 3; echo done")))
	running(t, rest[0], held[0])
	if err := old.Pause(); err != nil {
		t.Fatal(err)
	}
	until(t, 15*time.Second, "another leads", func() bool {
		st, err := rest[0].Client().Status(t.Context())
		return err == nil && st.Leader != "" && string(st.Leader) != string(old.ID())
	})
	if d := run(t, rest[0], on(rest[1], program("/bin/true"))); d.Status != labmesh.Completed {
		t.Errorf("a task without the old leader is %s: %s", d.Status, d.Error)
	}
	if err := old.Resume(); err != nil {
		t.Fatal(err)
	}
	if err := rest[0].Client().Wait(within(t, 60*time.Second), held, nothing); err != nil {
		t.Fatal(err)
	}
	if err := m.Formed(within(t, 30*time.Second)); err != nil {
		t.Fatal(err)
	}
	if err := m.Identical(within(t, 30*time.Second)); err != nil {
		t.Fatal(err)
	}
	if tally, err := rest[0].Tally(t.Context(), held, old.Worker()); err != nil || !tally.OK() || tally.Completed != 1 {
		t.Errorf("%s, %v", tally, err)
	}
}

func TestAStoppedNodeKeepsNobodyWaiting(t *testing.T) {
	t.Parallel()
	m := start(t, lab.Config{Nodes: 2, Slots: 2})
	stays, goes := m.Nodes[0], m.Nodes[1]
	once := program("sleep", "60")
	once.MaxAttempts = 1 // so that it does not come back from the node that stops
	ids := submit(t, stays, once, once, once, once)
	for _, id := range ids {
		running(t, stays, id)
	}
	specs := load(t, 10)
	for i := range specs {
		specs[i].Priority = 10
	}
	next := submit(t, stays, specs...)
	stopped := make(chan error, 1)
	go func() { stopped <- goes.Stop() }()
	for _, id := range ids {
		if d := task(t, stays, id); string(d.Worker) == stays.Name {
			if _, err := stays.Client().Cancel(t.Context(), id, ""); err != nil {
				t.Error(err)
			}
		}
	}
	if err := <-stopped; err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	if err := stays.Client().Wait(within(t, 20*time.Second), next, nothing); err != nil {
		t.Fatal(err)
	}
	if took := time.Since(began); took > 4*time.Second {
		t.Errorf("tasks waited %s for a node that had stopped in order", took.Round(time.Millisecond))
	}
	for _, id := range next {
		if d := task(t, stays, id); string(d.Worker) != stays.Name {
			t.Errorf("%s ended as %s on %s", id, d.Status, d.Worker)
		}
	}
}
