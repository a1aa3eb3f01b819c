package node

import (
	"time"

	"labmesh"
	"labmesh/node/httpapi"
	"labmesh/security"
)

// Authenticate finds out who bears an API key.
func (s *service) Authenticate(credential string) (httpapi.Caller, error) {
	view := s.n.replica.View()
	if id, ok := security.KeyID(credential); ok {
		if k, ok := view.Key(id); ok && security.Opens(credential, k) {
			return callerOf(k, time.Now())
		}
	}
	if !s.n.caughtUp.Load() {
		return httpapi.Caller{}, labmesh.Refuse(labmesh.Unavailable, "this node has only just started and does not know the mesh's keys yet")
	}
	return httpapi.Caller{}, labmesh.Refuse(labmesh.Denied, "")
}

// callerOf is the bearer of a key, who has proven to be that.
func callerOf(k *labmesh.Key, now time.Time) (httpapi.Caller, error) {
	switch {
	case !k.Revoked.IsZero():
		return httpapi.Caller{}, labmesh.Refuse(labmesh.Denied, "the key %s was revoked", k.ID)
	case !k.Valid(now):
		return httpapi.Caller{}, labmesh.Refuse(labmesh.Denied, "the key %s expired at %s", k.ID, k.Expires.UTC().Format(time.RFC3339))
	}
	return httpapi.Caller{ID: k.ID, Name: k.Name, Role: k.Role, Project: k.Project, RequireSigned: k.RequireSigned}, nil
}
