package lab_test

import (
	"strings"
	"testing"
	"time"

	"labmesh"
	"labmesh/lab"
)

func TestLeavesWorkThroughReplicasThatComeAndGo(t *testing.T) {
	t.Parallel()
	const leaves = 5
	m := start(t, lab.Config{Nodes: 3, Slots: 2, Args: []string{"--max-replicas", "3"}})
	var out []*lab.Node
	for range leaves {
		n, err := m.Join(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, n)
	}
	for _, n := range out {
		d := run(t, n, on(n, shell("echo hello from $LABMESH_TASK_ID")))
		if d.Status != labmesh.Completed || !strings.Contains(string(d.Result), "hello from "+string(d.ID)) {
			t.Errorf("on %s, asked through itself: %s, %s", n.Name, d.Status, d.Result)
		}
	}
	s, err := out[0].Client().Status(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if s.Role != "leaf" || s.Via == "" || len(s.Replicas) != 3 || len(s.Leaves) != leaves {
		t.Errorf("status of a leaf: role %s via %q, %d replicas, %d leaves", s.Role, s.Via, len(s.Replicas), len(s.Leaves))
	}

	// The replica of a leaf dies; what the leaf runs goes on, and is told to another.
	ids := submit(t, out[0], on(out[0], program("sleep", "4")))
	until(t, 10*time.Second, "it runs", func() bool { return task(t, m.Nodes[0], ids[0]).Status == labmesh.Running })
	for _, n := range m.Nodes[:3] {
		if n.ID() == s.Via {
			if err := n.Kill(); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := out[0].Client().Wait(within(t, 30*time.Second), ids, nothing); err != nil {
		t.Fatal(err)
	}
	until(t, 10*time.Second, "another leaf knows of it", func() bool { return task(t, out[1], ids[0]).Status.Final() }) // its replica may be a little behind
	if d := task(t, out[1], ids[0]); d.Status != labmesh.Completed || d.Attempts != 1 {
		t.Errorf("what ran on a leaf whose replica died is %s after %d attempts", d.Status, d.Attempts)
	}
}
