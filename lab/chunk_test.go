package lab_test

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"labmesh"
	"labmesh/api"
	"labmesh/client"
	"labmesh/lab"
)

// A chunk of a suite outlives the agent: killed in the middle, with a test that
// crashed behind it and one under way, no test is run twice or recorded twice.
func TestChunkOutlivesARestartOfItsNode(t *testing.T) {
	t.Parallel()
	pythonFor(t, "pytest")
	m := start(t, lab.Config{Nodes: 1, Slots: 1})
	node, dir, seen := m.Nodes[0], t.TempDir(), t.TempDir()
	const tests = 30
	text := fmt.Sprintf("import os, signal, time, pytest\ndef say(n): open(%q, 'a').write('%%s\\n' %% n)\n", filepath.Join(seen, "runs"))
	var cases []string
	for i := range tests {
		body := "time.sleep(0.1)"
		switch i {
		case 3:
			body = "os.kill(os.getpid(), signal.SIGSEGV)"
		case 5:
			body = "assert 0, 'as asked'"
		}
		text += fmt.Sprintf("def test_%d():\n    say(%d)\n    %s\n", i, i, body)
		cases = append(cases, fmt.Sprintf("test_a.py::test_%d", i))
	}
	if err := os.WriteFile(filepath.Join(dir, "test_a.py"), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	bundle, _, err := node.Client().UploadBundle(within(t, 30*time.Second), dir, client.BundleOptions{})
	if err != nil {
		t.Fatal(err)
	}
	config, err := json.Marshal(map[string]any{"suite": "s1", "framework": "pytest", "cases": cases, "case_timeout_seconds": 30})
	if err != nil {
		t.Fatal(err)
	}
	id := submit(t, node, labmesh.Spec{Kind: labmesh.Test, Bundle: bundle, Config: config, MaxAttempts: 1})[0]
	until(t, 30*time.Second, "the chunk to be in its second interpreter", func() bool {
		data, _ := os.ReadFile(filepath.Join(seen, "runs"))
		return strings.Count(string(data), "\n") > 8
	})
	if err := node.Kill(); err != nil {
		t.Fatal(err)
	}
	if err := node.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := node.Client().Wait(within(t, time.Minute), []labmesh.TaskID{id}, nothing); err != nil {
		t.Fatal(err)
	}
	d := task(t, node, id)
	var result struct{ Passed, Failed, Crashed int }
	if err := json.Unmarshal(d.Result, &result); err != nil || d.Attempts != 1 || d.Status != labmesh.Failed || result.Passed != tests-2 || result.Failed != 1 || result.Crashed != 1 {
		t.Errorf("%s in %d attempts: %s, %v", d.Status, d.Attempts, d.Result, err)
	}
	data, err := os.ReadFile(filepath.Join(seen, "runs"))
	if err != nil || len(strings.Fields(string(data))) != tests {
		t.Errorf("%d tests ran, %v: %q", len(strings.Fields(string(data))), err, data)
	}
	var rows [][]any
	until(t, 30*time.Second, "all cases to be in the ledger", func() bool {
		reply, err := node.Client().Query(t.Context(), api.QueryRequest{MaxRows: 1000, SQL: "SELECT name, count(*), any_value(verdict), any_value(message) FROM test_results WHERE suite = 's1' GROUP BY 1"})
		rows = reply.Rows
		return err == nil && len(rows) >= tests
	})
	for _, row := range rows {
		want := map[string]string{"test_3": "crashed", "test_5": "failed"}[fmt.Sprint(row[0])]
		if want == "" {
			want = "passed"
		}
		if fmt.Sprint(row[1]) != "1" || fmt.Sprint(row[2]) != want {
			t.Errorf("%v", row)
		}
	}
}

// A chunk that waits for a slot, with its interpreter begun, outlives the agent too:
// it runs once, and after the one before it.
func TestChunkThatWaitsOutlivesARestartOfItsNode(t *testing.T) {
	t.Parallel()
	pythonFor(t, "pytest")
	m := start(t, lab.Config{Nodes: 1, Slots: 1})
	node, dir, seen := m.Nodes[0], t.TempDir(), filepath.Join(t.TempDir(), "runs")
	text := fmt.Sprintf("import time, pytest\n@pytest.mark.parametrize('n', range(20))\ndef test(n):\n    time.sleep(0.1)\n    open(%q, 'a').write('%%d\\n' %% n)\n", seen)
	if err := os.WriteFile(filepath.Join(dir, "test_a.py"), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	bundle, _, err := node.Client().UploadBundle(within(t, 30*time.Second), dir, client.BundleOptions{})
	if err != nil {
		t.Fatal(err)
	}
	var ids []labmesh.TaskID
	var want strings.Builder
	for _, half := range []int{0, 10} {
		var cases []string
		for n := range 10 {
			cases = append(cases, fmt.Sprintf("test_a.py::test[%d]", half+n))
			fmt.Fprintf(&want, "%d\n", half+n)
		}
		config, err := json.Marshal(map[string]any{"suite": "s1", "framework": "pytest", "cases": cases})
		if err != nil {
			t.Fatal(err)
		}
		ids = append(ids, submit(t, node, labmesh.Spec{Kind: labmesh.Test, Bundle: bundle, Config: config, MaxAttempts: 1})...)
	}
	until(t, 30*time.Second, "the second chunk's interpreter to wait", func() bool {
		all, err := m.Attempts()
		return err == nil && slices.ContainsFunc(all, func(p lab.Process) bool { return p.Task == ids[1] })
	})
	if err := node.Kill(); err != nil {
		t.Fatal(err)
	}
	if err := node.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := node.Client().Wait(within(t, time.Minute), ids, nothing); err != nil {
		t.Fatal(err)
	}
	for _, id := range ids {
		if d := task(t, node, id); d.Status != labmesh.Completed || d.Attempts != 1 {
			t.Errorf("%s is %s after %d attempts: %s", id, d.Status, d.Attempts, d.Error)
		}
	}
	if data, err := os.ReadFile(seen); err != nil || string(data) != want.String() {
		t.Errorf("these ran, %v: %q", err, data)
	}
}
