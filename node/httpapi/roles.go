package httpapi

import (
	"strings"

	"labmesh"
)

// roles is a set of roles.
type roles uint8

// The roles, and the sets of them that routes ask for.
const (
	admins roles = 1 << iota
	operators
	submitters
	observers
	workers
	strangers // whoever asks, with a key or without

	hands    = admins | operators              // may change what is not theirs
	users    = admins | operators | submitters // submit tasks
	watchers = admins | operators | observers  // see all projects
	readers  = users | observers               // see tasks, submitters those of their project
	keys     = readers | workers
	open     = keys | strangers
)

// roleOf is each role as a set.
func roleOf(r labmesh.Role) roles {
	switch r {
	case labmesh.RoleAdmin:
		return admins
	case labmesh.RoleOperator:
		return operators
	case labmesh.RoleSubmitter:
		return submitters
	case labmesh.RoleObserver:
		return observers
	case labmesh.RoleWorker:
		return workers
	}
	return 0
}

// has reports whether a role is in the set.
func (s roles) has(r labmesh.Role) bool { return s == open || s&roleOf(r) != 0 }

// String lists the set for people.
func (s roles) String() string {
	if s == open {
		return "anybody"
	}
	var out []string
	for _, r := range labmesh.KeyRoles() {
		if s.has(r) {
			out = append(out, string(r))
		}
	}
	return strings.Join(out, ", ")
}
