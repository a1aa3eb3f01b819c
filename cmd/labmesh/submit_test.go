package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"labmesh"
	"labmesh/api"
)

func TestSubmitReadsEveryForm(t *testing.T) {
	t.Parallel()
	const one = `{"type":"custom","config":{"name":"true"}}`
	for name, c := range map[string]struct {
		input string
		tasks int
	}{
		"a task":             {one, 1},
		"a list":             {"[" + one + ",\n" + one + "]", 2},
		"a batch":            {`{"tasks":[` + one + `,` + one + `]}`, 2},
		"JSON Lines":         {one + "\n\n" + one + "\n" + one + "\n", 3},
		"with a BOM":         {"\ufeff" + one, 1},
		"YAML":               {"type: custom\nconfig:\n  name: \"true\"\n", 1},
		"YAML documents":     {"---\ntype: custom\nconfig: {name: \"true\"}\n---\n- type: custom\n  config: {name: \"true\"}\n- type: custom\n  config: {name: \"true\"}\n---\n", 3},
		"a YAML batch":       {"tasks:\n- type: custom\n  config: {name: \"true\"}\n", 1},
		"YAML with anchors":  {"- &a\n  type: custom\n  config: {name: \"true\"}\n- <<: *a\n  priority: 3\n", 2},
		"JSON with comments": {"# one task\n" + one, 1}, // which is YAML
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			n := newFakeNode(t)
			var ids strings.Builder
			for i := range c.tasks {
				fmt.Fprintf(&ids, "t%d\n", i+1)
			}
			n.with(t, t.Context(), c.input, nil, "submit").want(t, 0, ids.String(), "")
			for _, s := range n.specs {
				if s.Kind != labmesh.Custom || string(s.Config) != `{"name":"true"}` || s.Priority < api.PriorityDefault {
					t.Errorf("submitted %+v, config %s", s, s.Config)
				}
			}
			if want := min(c.tasks-1, 1); n.batches != want {
				t.Errorf("%d batches, want %d", n.batches, want)
			}
		})
	}
}

func TestBadInputIsNamedAndNothingSubmitted(t *testing.T) {
	t.Parallel()
	const good = `{"type":"custom","config":{"name":"true"}}`
	for name, c := range map[string]struct{ input, inErr string }{
		"nothing":             {"", "there is no task in it"},
		"no type":             {good + "\n" + `{"config":{}}`, "task 2 (line 2): Missing required field: type"},
		"an unknown field":    {good + "\n\n" + `{"type":"custom","confg":{}}`, "task 2 (line 3): confg: there is no such field"},
		"a wrong type":        {"[" + good + ",\n" + `{"type":"custom","priority":"high"}]`, "task 2 (line 2): priority"},
		"a wrong nested type": {`{"type":"custom","config":{"name":"x","args":[1]}}`, "config.args"},
		"malformed JSON":      {good + "\n" + `{"type":`, "line 2: malformed JSON"},
		"a syntax error":      {"[\n" + good + ",\n nope]", "line 3: malformed JSON"},
		"no object":           {`["x"]`, "task 1 (line 1): a task should be an object"},
		"an unknown kind":     {`{"type":"dance","config":{}}`, "not one of benchmark, test, custom"},
		"malformed YAML":      {"type: custom\n  config: x\n", "malformed YAML: line 2"},
		"a YAML field":        {"type: custom\nconfig: {name: \"true\"}\n---\ntype: custom\nprioritty: 1\n", "task 2 (line 4): prioritty"},
		"a scalar":            {"hello", "a task should be an object"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			n := newFakeNode(t)
			r := n.with(t, t.Context(), c.input, nil, "submit", "--wait")
			r.want(t, 2, "", c.inErr)
			if !strings.Contains(r.err, "stdin: ") || !strings.Contains(r.err, "nothing was submitted") || len(n.specs) > 0 {
				t.Errorf("stderr %q, %d tasks submitted", r.err, len(n.specs))
			}
		})
	}
}

func TestSubmitWaits(t *testing.T) {
	t.Parallel()
	n := newFakeNode(t)
	n.fate = func(s labmesh.Spec, task *api.TaskDetail) {
		task.Status = labmesh.Completed
		if s.Name == "7" {
			task.Status, task.Error = labmesh.Failed, "exit code 3"
		}
	}
	var input strings.Builder
	for i := range 20 {
		fmt.Fprintf(&input, `{"type":"custom","name":"%d","config":{"name":"true"}}`+"\n", i)
	}
	file := filepath.Join(t.TempDir(), "tasks.jsonl")
	if err := os.WriteFile(file, []byte(input.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	r := n.labmesh(t, "submit", "-f", file, "--wait")
	if r.code != 1 || strings.Count(r.stdout, "\n") != 20 || !strings.Contains(r.err, "t8 failed: exit code 3") || !strings.Contains(r.err, "19 completed, 1 failed") {
		t.Errorf("%+v", r)
	}
	r = n.labmesh(t, "submit", "-f", file, "--wait", "--json")
	if r.code != 1 || strings.Count(r.stdout, `"task_id"`) != 20 {
		t.Errorf("%+v", r)
	}
}

func TestSubmitStopsWaiting(t *testing.T) {
	t.Parallel()
	n := newFakeNode(t)
	n.fate = func(_ labmesh.Spec, task *api.TaskDetail) { task.Status = labmesh.Running }
	r := n.with(t, t.Context(), `{"type":"custom","config":{"name":"sleep"}}`, nil, "submit", "--wait", "--timeout", "10ms")
	r.want(t, 124, "t1\n", "1 of 1 tasks have not ended within 10ms")
}
