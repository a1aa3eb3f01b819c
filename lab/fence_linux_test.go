package lab_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"labmesh"
	"labmesh/lab"
)

// lasting is a task that notes its process in a file and runs until there is a file beside it that ends in .go.
func lasting(n *lab.Node, path, policy string) labmesh.Spec {
	s := on(n, shell(fmt.Sprintf("echo $$ >>%[1]s; while [ ! -e %[1]s.go ]; do sleep 0.1; done", path)))
	s.OnDisconnect = policy
	return s
}

// noted are the processes that the attempts of such a task have noted.
func noted(path string) []string {
	data, _ := os.ReadFile(path) // without it none has
	return strings.Fields(string(data))
}

func lives(pid string) bool {
	var n int
	_, err := fmt.Sscan(pid, &n)
	return err == nil && syscall.Kill(n, 0) == nil
}

// TestANodeThatCannotStopItsProgramsHasThemStopped: its keeper does it, before the mesh gives the
// task to others, whether the node's process hangs or is gone. What may go on goes on, and is taken up again.
func TestANodeThatCannotStopItsProgramsHasThemStopped(t *testing.T) {
	t.Parallel()
	m := start(t, lab.Config{Nodes: 3, Slots: 4})
	leads := leader(t, m)
	var victim, seen *lab.Node
	for _, n := range m.Nodes {
		if n != leads {
			victim, seen = n, leads
		}
	}
	for _, how := range []struct {
		name      string
		out, back func() error
	}{
		{"its process hangs", victim.Pause, victim.Resume},
		{"its process is killed", victim.Kill, func() error { return victim.Start(t.Context()) }},
	} {
		dir := t.TempDir()
		stop, keep := filepath.Join(dir, "stop"), filepath.Join(dir, "keep")
		ids := submit(t, seen, lasting(victim, stop, ""), lasting(victim, keep, "keep"))
		until(t, 20*time.Second, "both run", func() bool { return len(noted(stop)) == 1 && len(noted(keep)) == 1 })
		first, kept := noted(stop)[0], noted(keep)[0]
		until(t, 20*time.Second, "the mesh hears that they run", func() bool {
			return task(t, seen, ids[0]).Status == labmesh.Running && task(t, seen, ids[1]).Status == labmesh.Running
		})
		out := time.Now()
		if err := how.out(); err != nil {
			t.Fatal(err)
		}
		// On a busy machine the leader may change in between, and leases begin anew with a leader.
		until(t, 90*time.Second, how.name+": the mesh gives up the attempt", func() bool { return task(t, seen, ids[0]).Status != labmesh.Running })
		t.Logf("%s: given up %.1f s later", how.name, time.Since(out).Seconds())
		if lives(first) {
			t.Errorf("%s: the mesh has given up what still runs there", how.name)
		}
		if !lives(kept) || task(t, seen, ids[1]).Status != labmesh.Running {
			t.Errorf("%s: what may go on does not: it is %s", how.name, task(t, seen, ids[1]).Status)
		}
		if err := how.back(); err != nil {
			t.Fatal(err)
		}
		for _, path := range []string{stop, keep} {
			if err := os.WriteFile(path+".go", nil, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		if err := seen.Client().Wait(within(t, 60*time.Second), ids, nothing); err != nil {
			t.Fatalf("%s: %v", how.name, err)
		}
		// An attempt that the worker was given in the moment of its going is given up without having begun.
		if d, ran := task(t, seen, ids[0]), len(noted(stop)); d.Status != labmesh.Completed || ran != 2 || d.Attempts < ran {
			t.Errorf("%s: on_disconnect stop: %s after %d attempts, %d of which began: %s", how.name, d.Status, d.Attempts, ran, d.Error)
		}
		if d, ran := task(t, seen, ids[1]), len(noted(keep)); d.Status != labmesh.Completed || ran != 1 || d.Attempts != 1 {
			t.Errorf("%s: on_disconnect keep: %s after %d attempts, %d of which began: %s", how.name, d.Status, d.Attempts, ran, d.Error)
		}
	}
}
