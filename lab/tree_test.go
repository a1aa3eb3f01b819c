package lab_test

import (
	"errors"
	"strings"
	"syscall"
	"testing"
	"time"

	"labmesh"
	"labmesh/lab"
)

// tree is a script whose children leave its process group and its session, are
// nobody's children, and do not mind SIGTERM.
const tree = `trap '' TERM
(setsid sh -c 'trap "" TERM; sleep 300 & sleep 300' >/dev/null 2>&1 &)
(sleep 300 &)
echo grown
while :; do sleep 300; done`

// grown waits until all of tree is there.
func grown(t *testing.T, m *lab.Mesh) {
	t.Helper()
	until(t, 15*time.Second, "the tree has grown", func() bool {
		left, err := m.Attempts()
		if err != nil {
			t.Fatal(err)
		}
		sleeps := 0
		for _, p := range left {
			if strings.HasPrefix(p.Command, "sleep 300") {
				sleeps++
			}
		}
		return sleeps == 4
	})
}

func gone(t *testing.T, m *lab.Mesh, within time.Duration) {
	t.Helper()
	until(t, within, "the tree is gone", func() bool {
		left, err := m.Attempts()
		return err == nil && len(left) == 0
	})
}

func TestNoProcessOutlivesItsTask(t *testing.T) {
	t.Parallel()
	m := start(t, lab.Config{Nodes: 1, Slots: 2})
	n := m.Nodes[0]

	t.Run("cancelled", func(t *testing.T) {
		s := shell(tree)
		s.Config = mustJSON(map[string]any{"name": tree, "shell": true, "grace_seconds": 0.5})
		id := submit(t, n, s)[0]
		grown(t, m)
		began := time.Now()
		if _, err := n.Client().Cancel(t.Context(), id, "it was a test"); err != nil {
			t.Fatal(err)
		}
		if err := n.Client().Wait(within(t, 20*time.Second), []labmesh.TaskID{id}, nothing); err != nil {
			t.Fatal(err)
		}
		if took := time.Since(began); took > 5*time.Second {
			t.Errorf("a task that ignores SIGTERM was cancelled in %s", took)
		}
		if d := task(t, n, id); d.Status != labmesh.Cancelled || d.Attempts != 1 {
			t.Errorf("it is %s after %d attempts", d.Status, d.Attempts)
		}
		gone(t, m, 3*time.Second)
	})
	t.Run("timed out", func(t *testing.T) {
		s := shell(tree)
		s.Config = mustJSON(map[string]any{"name": tree, "shell": true, "grace_seconds": 0.2})
		s.TimeoutSeconds = 1
		if d := run(t, n, s); d.Status != labmesh.TimedOut {
			t.Errorf("it is %s: %s", d.Status, d.Error)
		}
		gone(t, m, 3*time.Second)
	})
	t.Run("its main process ended", func(t *testing.T) {
		if d := run(t, n, shell(strings.Replace(tree, "while :; do sleep 300; done", "sleep 0.2; exit 0", 1))); d.Status != labmesh.Completed {
			t.Errorf("it is %s: %s", d.Status, d.Error)
		}
		gone(t, m, 3*time.Second)
	})
	t.Run("its node was killed and came back", func(t *testing.T) {
		s := shell(tree)
		s.MaxAttempts = 1
		id := submit(t, n, s)[0]
		grown(t, m)
		if err := n.Kill(); err != nil {
			t.Fatal(err)
		}
		if left, err := m.Attempts(); err != nil || len(left) < 4 {
			t.Fatalf("the kill of the node took its attempts along: %v, %v", left, err)
		}
		if err := n.Start(t.Context()); err != nil {
			t.Fatal(err)
		}
		grown(t, m) // it goes on
		if _, err := n.Client().Cancel(t.Context(), id, "it was a test"); err != nil {
			t.Fatal(err)
		}
		if err := n.Client().Wait(within(t, 30*time.Second), []labmesh.TaskID{id}, nothing); err != nil {
			t.Fatal(err)
		}
		if d := task(t, n, id); d.Status != labmesh.Cancelled || d.Attempts != 1 {
			t.Errorf("it is %s (%s: %s) after %d attempts", d.Status, d.Cause, d.Error, d.Attempts)
		}
		gone(t, m, 3*time.Second)
	})
	t.Run("its node and its keeper were killed", func(t *testing.T) {
		s := shell(tree)
		s.MaxAttempts = 1
		id := submit(t, n, s)[0]
		grown(t, m)
		if err := errors.Join(n.Kill(), syscall.Kill(n.Keeper(), syscall.SIGKILL), n.Start(t.Context())); err != nil {
			t.Fatal(err)
		}
		gone(t, m, 5*time.Second)
		if err := n.Client().Wait(within(t, 30*time.Second), []labmesh.TaskID{id}, nothing); err != nil {
			t.Fatal(err)
		}
		if d := task(t, n, id); d.Status != labmesh.Failed || string(d.Cause) != string(labmesh.CauseWorkerLost) || d.Attempts != 1 {
			t.Errorf("a task that may run once is %s (%s: %s) after %d attempts", d.Status, d.Cause, d.Error, d.Attempts)
		}
	})
	t.Run("its node was killed and did not come back", func(t *testing.T) {
		submit(t, n, shell(tree))
		grown(t, m)
		if err := n.Kill(); err != nil {
			t.Fatal(err)
		}
		gone(t, m, 10*time.Second)
		if err := n.Start(t.Context()); err != nil {
			t.Fatal(err)
		}
		grown(t, m) // it was begun again
	})
	t.Run("its node was stopped", func(t *testing.T) {
		if err := n.Stop(); err != nil {
			t.Fatal(err)
		}
		gone(t, m, time.Second)
	})
}
