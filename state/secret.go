package state

import (
	"iter"

	"labmesh"
)

func (x *change) putSecret(cmd labmesh.PutSecret) *labmesh.Error {
	s := cmd.Secret
	old, known := x.v.secrets.Get(s.Name)
	switch {
	case s.Name == "" || len(s.Value) > labmesh.SecretBytesMax || s.Sealed != nil && (s.Value != "" || len(s.Sealed.Data) > labmesh.SecretBytesMax+1024):
		return labmesh.Refuse(labmesh.Invalid, "put secret: it needs a name, and a value of at most %d bytes", labmesh.SecretBytesMax)
	case !known && x.v.secrets.Len() >= labmesh.SecretsMax:
		return labmesh.Refuse(labmesh.Exhausted, "put secret %s: the mesh holds %d already: remove some", s.Name, labmesh.SecretsMax)
	}
	if s.Sealed != nil && !s.Put.IsZero() { // sealed anew: what was put since is not to be undone
		if !known || !s.Put.Equal(old.Put) {
			return labmesh.Refuse(labmesh.Conflict, "put secret %s: another value was put in the meantime", s.Name)
		}
		s.Put, s.By = old.Put, old.By
		x.v.secrets.Set(s.Name, &s)
		return nil
	}
	s.Put = x.at
	x.v.secrets.Set(s.Name, &s)
	x.tell(labmesh.Event{Type: labmesh.SecretPut, Actor: s.By, Detail: s.Name})
	return nil
}

func (x *change) dropSecret(cmd labmesh.DropSecret) *labmesh.Error {
	if _, ok := x.v.secrets.Delete(cmd.Name); ok {
		x.tell(labmesh.Event{Type: labmesh.SecretDropped, Actor: cmd.By, Detail: cmd.Name})
	}
	return nil // dropped twice is dropped
}

// Secret is a secret by its name. Its value is for the attempts that ask for it.
func (v View) Secret(name string) (*labmesh.Secret, bool) { return v.secrets.Get(name) }

// Secrets are all secrets, in order of their names.
func (v View) Secrets() iter.Seq[*labmesh.Secret] {
	return func(yield func(*labmesh.Secret) bool) {
		v.secrets.Scan(func(_ string, s *labmesh.Secret) bool { return yield(s) })
	}
}
