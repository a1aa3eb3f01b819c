package main

import (
	"testing"

	"labmesh"
	"labmesh/api"
)

func TestTheEndOfALog(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ end, in, want string }{
		{"", "a\nb\n", "a\nb\n"}, {"1", "a\nb\n", "b\n"}, {"2", "a\nb\nc", "b\nc"}, {"9", "a\nb\n", "a\nb\n"}, {"0", "a\nb\n", ""},
		{"3B", "a\nb\n", "\nb\n"}, {"1K", "a", "a"}, {"1", "", ""}, {"1", "\n\n", "\n"},
	} {
		n := newFakeNode(t)
		n.fate = func(_ labmesh.Spec, task *api.TaskDetail) { task.Status = labmesh.Completed }
		n.logs = map[string]string{"stdout": c.in, "stderr": ""}
		n.labmesh(t, "run", "--detach", "x")
		args := []string{"logs", "t1"}
		if c.end != "" {
			args = append(args, "--tail", c.end)
		}
		n.labmesh(t, args...).want(t, 0, c.want, "")
	}
	n := newFakeNode(t)
	for _, end := range []string{"x", "-1", "5X", "K", "999999999999"} {
		n.labmesh(t, "logs", "--tail="+end, "t1").want(t, 2, "", "--tail "+end+": it is a number of lines")
	}
}
