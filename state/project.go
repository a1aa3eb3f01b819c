package state

import "labmesh"

// taskKey is an idempotency key as the state knows it: projects do not see each
// other's. No idempotency key holds a NUL character.
func taskKey(project, key string) string {
	if project == "" || key == "" {
		return key
	}
	return project + "\x00" + key
}

// inReach reports whether tasks of a project may name a task that is known. Those
// of no project may name all.
func (v View) inReach(project string, id labmesh.TaskID) bool {
	return project == "" || v.projectOf(id) == project
}

// projectOf is whose task a task is that is known.
func (v View) projectOf(id labmesh.TaskID) string {
	if t, ok := v.Task(id); ok {
		return t.Project
	}
	return v.ending(id).Project
}

// TaskTaken refuses a submit under the id of a task of another project. That the id
// is taken is all that it tells of that task.
func TaskTaken(id labmesh.TaskID) *labmesh.Error {
	return &labmesh.Error{Reason: labmesh.Conflict, Field: "task_id", Message: "task_id: " + string(id) + " is taken: choose another, or leave it out"}
}
