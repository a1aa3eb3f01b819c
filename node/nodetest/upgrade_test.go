package nodetest_test

import (
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"labmesh"
	"labmesh/exec"
	"labmesh/node/nodetest"
)

// TestRollingUpgrade: while one replica is of an older build, no command that it
// does not know enters the log; when the last one has been replaced the mesh
// takes them.
func TestRollingUpgrade(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := nodetest.StartAt(t, 3, 2, map[labmesh.Kind]exec.Runner{labmesh.Custom: &nodetest.Runner{}})
		hold := func(i int) error {
			return m.Nodes[i].Service().HoldWorker(t.Context(), "w1", labmesh.WorkerDraining, "x", "ada")
		}
		for i := range m.Nodes {
			if err := hold(i); labmesh.ReasonOf(err) != labmesh.Unavailable || !strings.Contains(err.Error(), "feature level 2") {
				t.Fatalf("node %d, with %d of 3 upgraded: %v", i, i, err)
			}
			if err := m.Nodes[i].Service().PutSecret(t.Context(), labmesh.Secret{Name: "S", Value: "v"}); err != nil {
				t.Fatalf("what all know is refused: %v", err)
			}
			m.Halt(t, i)
			m.Nodes[i].Feature = 3
			m.Run(t, i)
			m.Leader(t)
			time.Sleep(10 * time.Second)
		}
		m.Wait(t, time.Minute, "the mesh to rise", func() bool { return hold(0) == nil })
		for i := range m.Nodes {
			m.Wait(t, time.Minute, "the worker to be held", func() bool {
				w, _, err := m.Nodes[i].Service().Worker(t.Context(), "w1")
				return err == nil && w.Status == labmesh.WorkerDraining
			})
		}
	})
}
