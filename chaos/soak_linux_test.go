package chaos_test

import (
	"testing"
	"time"

	"labmesh"
	"labmesh/chaos"
	"labmesh/lab"
)

// soak plays the faults of a seed against a mesh under load, and verifies what came of it.
func soak(t testing.TB, seed uint64, nodes, clients int, d time.Duration) chaos.Verdict {
	t.Helper()
	net := network(t)
	m := mesh(t, lab.Config{Nodes: nodes, Slots: 2, Place: net.Place})
	w := diary(t)
	plan := chaos.NewPlan(seed, nodes, d, true)
	t.Log(plan)
	l := load(t, m.Nodes, clients, 300*time.Millisecond, func() labmesh.Spec { return w.Task(400 * time.Millisecond) })
	inject := chaos.Injector{Mesh: m, Lines: net, Back: func() {
		if err := l.Aim(m.Running()); err != nil {
			t.Error(err)
		}
	}}
	err := inject.Run(t.Context(), plan)
	l.Stop()
	if err != nil {
		t.Fatal(err)
	}
	return verify(t, m, w, l.Tasks())
}

// TestNothingIsLostWhateverFails is the short form of the proof.
func TestNothingIsLostWhateverFails(t *testing.T) {
	if testing.Short() {
		t.Skip("it breaks things for some seconds")
	}
	if v := soak(t, seed(t), 3, 4, 8*time.Second); v.Submitted == 0 {
		t.Error("nothing was acknowledged")
	}
}

// BenchmarkSoak plays one seed after the other on five nodes.
func BenchmarkSoak(b *testing.B) {
	for b.Loop() {
		first := seed(b)
		var sum chaos.Verdict
		for i := range *count["soaks"] {
			v := soak(b, first+uint64(i), 5, 8, 30*time.Second)
			sum.Submitted, sum.Lost, sum.Double = sum.Submitted+v.Submitted, sum.Lost+v.Lost, sum.Double+v.Double
			sum.Overlaps = append(sum.Overlaps, v.Overlaps...)
		}
		report(b, *count["soaks"], sum)
	}
}
