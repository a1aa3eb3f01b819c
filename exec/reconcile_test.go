package exec

import (
	"reflect"
	"testing"

	"labmesh"
)

func TestReconcile(t *testing.T) {
	t.Parallel()
	task := func(p labmesh.Phase) *labmesh.Task { return &labmesh.Task{ID: "t", Attempt: 2, Phase: p} }
	k := key{"t", 2}
	for name, c := range map[string]struct {
		held []*labmesh.Task
		have map[key]state
		left bool
		want plan
	}{
		"assigned and left by an earlier life: take it up":   {held: []*labmesh.Task{task(labmesh.Assigned)}, left: true, want: plan{resume: []*labmesh.Task{task(labmesh.Assigned)}}},
		"running and left by an earlier life: take it up":    {held: []*labmesh.Task{task(labmesh.Running)}, left: true, want: plan{resume: []*labmesh.Task{task(labmesh.Running)}}},
		"cancelling and left by an earlier life: take it up": {held: []*labmesh.Task{task(labmesh.Cancelling)}, left: true, want: plan{resume: []*labmesh.Task{task(labmesh.Cancelling)}}},
		"known and said to be left: go on":                   {held: []*labmesh.Task{task(labmesh.Running)}, have: map[key]state{k: live}, left: true},
		"assigned and new: start":                            {held: []*labmesh.Task{task(labmesh.Assigned)}, want: plan{start: []*labmesh.Task{task(labmesh.Assigned)}}},
		"assigned and live: go on":                           {held: []*labmesh.Task{task(labmesh.Assigned)}, have: map[key]state{k: live}},
		"running and live: go on":                            {held: []*labmesh.Task{task(labmesh.Running)}, have: map[key]state{k: live}},
		"running and not here: orphaned":                     {held: []*labmesh.Task{task(labmesh.Running)}, want: plan{orphaned: []*labmesh.Task{task(labmesh.Running)}}},
		"running and ended here: its report is":              {held: []*labmesh.Task{task(labmesh.Running)}, have: map[key]state{k: ended}},
		"assigned and ended here: never again":               {held: []*labmesh.Task{task(labmesh.Assigned)}, have: map[key]state{k: ended}},
		"cancelling and live: cancel":                        {held: []*labmesh.Task{task(labmesh.Cancelling)}, have: map[key]state{k: live}, want: plan{cancel: []key{k}}},
		"cancelling and never begun: say so":                 {held: []*labmesh.Task{task(labmesh.Cancelling)}, want: plan{orphaned: []*labmesh.Task{task(labmesh.Cancelling)}}},
		"cancelling after a declined start":                  {held: []*labmesh.Task{task(labmesh.Cancelling)}, have: map[key]state{k: declined}, want: plan{orphaned: []*labmesh.Task{task(labmesh.Cancelling)}}},
		"live and no longer held: drop":                      {have: map[key]state{k: live}, want: plan{drop: []key{k}}},
		"ended and no longer held: forget":                   {have: map[key]state{k: ended}, want: plan{forget: []key{k}}},
		"an older attempt does not count": {held: []*labmesh.Task{task(labmesh.Assigned)}, have: map[key]state{{"t", 1}: live},
			want: plan{start: []*labmesh.Task{task(labmesh.Assigned)}, drop: []key{{"t", 1}}}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if got := reconcile(c.held, c.have, func(of key) bool { return c.left && of == k }); !reflect.DeepEqual(got, c.want) {
				t.Errorf("got %+v, want %+v", got, c.want)
			}
		})
	}
}

func TestTaskDirStaysBelowItsRoot(t *testing.T) {
	t.Parallel()
	for id, want := range map[labmesh.TaskID]string{
		"a-1_B.c": "/r/a-1_B.c", "..": "/r/%2E.", "../x": "/r/%2E.%2Fx", "a/b": "/r/a%2Fb", ".free": "/r/%2Efree", "é": "/r/%C3%A9",
	} {
		if got := taskDir("/r", id); got != want {
			t.Errorf("taskDir(%q) = %s, want %s", id, got, want)
		}
	}
}
