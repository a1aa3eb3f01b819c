package lab_test

import (
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"labmesh"
	"labmesh/lab"
)

// say runs a command of labmesh and returns what it printed, and its exit code.
func say(t *testing.T, n *lab.Node, args ...string) (string, int) {
	t.Helper()
	cmd := n.Command(within(t, time.Minute), args...)
	out, err := cmd.CombinedOutput()
	if err != nil && cmd.ProcessState == nil {
		t.Fatal(err)
	}
	return string(out), cmd.ProcessState.ExitCode()
}

func TestAMeshComesBackFromABackup(t *testing.T) {
	t.Parallel()
	m := start(t, lab.Config{Nodes: 2, Slots: 2})
	ids := submit(t, m.Nodes[0], load(t, 30)...)
	if err := m.Nodes[0].Client().Wait(within(t, 60*time.Second), ids, nothing); err != nil {
		t.Fatal(err)
	}
	long := submit(t, m.Nodes[0], shell("sleep 3; echo done"))[0]
	running(t, m.Nodes[0], long)
	if err := m.Settle(within(t, 30*time.Second)); err != nil {
		t.Fatal(err)
	}
	set := m.Nodes[1].Command(within(t, time.Minute), "secret", "set", "TOKEN")
	set.Stdin = strings.NewReader("open sesame\n")
	if out, err := set.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	file := filepath.Join(t.TempDir(), "mesh.backup")
	if out, code := say(t, m.Nodes[1], "backup", file); code != 0 || !strings.Contains(out, "secrets") {
		t.Fatalf("backup: exit %d: %s", code, out)
	}
	if out, code := say(t, m.Nodes[1], "backup", file); code != 2 {
		t.Errorf("a second backup into the same file: exit %d: %s", code, out)
	}
	want := map[string][]string{}
	for _, table := range []string{"distributed_tasks", "task_execution_history", "test_results", "benchmark_results"} {
		rows, err := m.Nodes[0].Rows(t.Context(), table)
		if err != nil {
			t.Fatal(err)
		}
		want[table] = rows
	}
	if err := m.Close(); err != nil {
		t.Fatal(err)
	}

	fresh := m.NewNode()
	if out, code := say(t, fresh, "restore", file, "--data-dir", fresh.Dir); code != 0 {
		t.Fatalf("restore: exit %d: %s", code, out)
	}
	if out, code := say(t, fresh, "restore", file, "--data-dir", fresh.Dir); code != 2 || !strings.Contains(out, "not empty") {
		t.Errorf("restore over a data dir: exit %d: %s", code, out)
	}
	if err := fresh.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := fresh.Client().Wait(within(t, 30*time.Second), []labmesh.TaskID{long}, nothing); err != nil {
		t.Fatalf("what ran when the backup was made: %v", err)
	}
	if got := task(t, fresh, long); got.Status != labmesh.Completed {
		t.Errorf("what ran when the backup was made is %s", got.Status)
	}
	spec := shell(`[ "$TOKEN" = "open sesame" ]`)
	spec.Secrets = []string{"TOKEN"}
	if got := run(t, fresh, spec); got.Status != labmesh.Completed {
		t.Errorf("a secret after the restore: %s %s", got.Status, got.Error)
	}
	for table, before := range want {
		rows, err := fresh.Rows(t.Context(), table)
		if err != nil {
			t.Fatal(err)
		}
		for _, row := range before {
			if !slices.Contains(rows, row) && !strings.Contains(row, string(long)) { // but for what ran
				t.Errorf("%s lacks, or has otherwise: %s", table, row)
			}
		}
	}
	if out, code := say(t, fresh, "invite"); code != 0 {
		t.Errorf("invite: exit %d: %s", code, out)
	}
}

func TestAMeshWithoutAQuorumIsRecovered(t *testing.T) {
	t.Parallel()
	m := start(t, lab.Config{Nodes: 3, Slots: 2})
	ids := submit(t, m.Nodes[0], load(t, 20)...)
	if err := m.Nodes[0].Client().Wait(within(t, 60*time.Second), ids, nothing); err != nil {
		t.Fatal(err)
	}
	if err := m.Settle(within(t, 30*time.Second)); err != nil {
		t.Fatal(err)
	}
	last := m.Nodes[2]
	rows, err := last.Rows(t.Context(), "distributed_tasks")
	if err != nil {
		t.Fatal(err)
	}
	if err := last.Stop(); err != nil {
		t.Fatal(err)
	}
	recoverArgs := []string{"recover", "--data-dir", last.Dir, "--mesh-listen", "/ip4/127.0.0.1/tcp/0"}
	if out, code := say(t, last, append(recoverArgs, "--i-know-the-others-are-gone")...); code != 2 || !strings.Contains(out, "needs no recovery") {
		t.Fatalf("recover beside two voters: exit %d: %s", code, out)
	}
	for _, n := range m.Nodes[:2] {
		if err := n.Kill(); err != nil {
			t.Fatal(err)
		}
	}
	if out, code := say(t, last, recoverArgs...); code != 2 || !strings.Contains(out, "nothing is changed") {
		t.Fatalf("recover, and nobody confirms: exit %d: %s", code, out)
	}
	if out, code := say(t, last, append(recoverArgs, "--i-know-the-others-are-gone")...); code != 0 {
		t.Fatalf("recover: exit %d: %s", code, out)
	} else {
		t.Log(out)
	}
	if err := last.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	more := submit(t, last, load(t, 5)...)
	if err := last.Client().Wait(within(t, 30*time.Second), more, nothing); err != nil {
		t.Fatal(err)
	}
	after, err := last.Rows(t.Context(), "distributed_tasks")
	if err != nil {
		t.Fatal(err)
	}
	for _, row := range rows {
		if !slices.Contains(after, row) {
			t.Errorf("it lacks %s", row)
		}
	}
	if out, code := say(t, last, "status"); code != 0 {
		t.Errorf("status: exit %d: %s", code, out)
	}
}
