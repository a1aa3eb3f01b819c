package httpapi

import (
	"context"

	"labmesh"
)

// scopeTasksMax bounds the tasks that a scope remembers.
const scopeTasksMax = 4096

// scope tells which events are the business of a caller who sees the tasks of its project alone.
type scope struct {
	tasks  Tasks
	caller Caller
	known  map[labmesh.TaskID]bool // whether it sees tasks that were looked up
}

func newScope(tasks Tasks, c Caller) *scope {
	return &scope{tasks, c, map[labmesh.TaskID]bool{}}
}

// holds reports whether the caller may see e: what happens to tasks of its project.
func (s *scope) holds(ctx context.Context, e *labmesh.Event) (bool, error) {
	if e.Task == nil {
		return false, nil
	}
	if e.Task.Spec.Kind != "" {
		return s.caller.sees(e.Task), nil
	}
	// An event of long ago names its task and says no more of it.
	if sees, ok := s.known[e.Task.ID]; ok {
		return sees, nil
	}
	t, err := s.tasks.Task(ctx, e.Task.ID)
	if err != nil && labmesh.ReasonOf(err) != labmesh.NotFound {
		return false, err
	}
	if len(s.known) >= scopeTasksMax {
		clear(s.known)
	}
	sees := err == nil && s.caller.sees(&t)
	s.known[e.Task.ID] = sees
	return sees, nil
}
