package state

import (
	"iter"
	"time"

	"labmesh"
)

// inviteKeep is how long an invite that expired is remembered, so that who
// comes late is told so.
const inviteKeep = 30 * 24 * time.Hour

// accessLevel is the feature level from which on keys end.
const accessLevel = 4

// keyKeep is how long a key that opens nothing any more is remembered.
const keyKeep = 30 * 24 * time.Hour

func (x *change) putInvite(cmd labmesh.PutInvite) *labmesh.Error {
	if _, ok := x.v.invites.Get(cmd.Invite.ID); ok {
		return nil // sent twice; what was used up stays used up
	}
	var old []string
	x.v.invites.Scan(func(id string, inv *labmesh.Invite) bool {
		if inv.Expires.Add(inviteKeep).Before(x.at) {
			old = append(old, id)
		}
		return true
	})
	for _, id := range old {
		x.v.invites.Delete(id)
	}
	inv := cmd.Invite
	x.v.invites.Set(inv.ID, &inv)
	x.tell(labmesh.Event{Type: labmesh.InviteMade, Actor: inv.By, Detail: string(inv.Role)})
	return nil
}

func (x *change) dropInvite(cmd labmesh.DropInvite) *labmesh.Error {
	inv, ok := x.v.invites.Get(cmd.ID)
	if !ok {
		return labmesh.Refuse(labmesh.NotFound, "no invite %s", cmd.ID)
	}
	if inv.Uses == 0 {
		return nil // sent twice
	}
	used := *inv
	used.Uses = 0 // it is remembered until it expires, so that who comes late is told
	x.v.invites.Set(used.ID, &used)
	x.tell(labmesh.Event{Type: labmesh.InviteDropped, Actor: cmd.By, Detail: cmd.ID})
	return nil
}

func (x *change) putKey(cmd labmesh.PutKey) *labmesh.Error {
	if cmd.Key.ID == "" || len(cmd.Key.Hash) == 0 {
		return labmesh.Refuse(labmesh.Invalid, "put key: it needs an id and a hash")
	}
	k := cmd.Key
	if x.v.Level() >= accessLevel {
		if refused := checkKey(&k); refused != nil {
			return refused
		}
	}
	if old, ok := x.v.apiKeys.Get(k.ID); ok {
		if old.Signing == nil || k.Signing == nil || old.Signing.Key == k.Signing.Key {
			return nil // sent twice
		}
		again := *old
		again.Signing = k.Signing // sealed anew
		x.v.apiKeys.Set(k.ID, &again)
		return nil
	}
	if x.v.Level() >= accessLevel {
		x.forgetKeys(x.at.Add(-keyKeep))
		if x.v.apiKeys.Len() >= labmesh.KeysMax {
			x.forgetKeys(x.at) // rather those that open nothing than the new one
		}
		if x.v.apiKeys.Len() >= labmesh.KeysMax {
			return labmesh.Refuse(labmesh.Exhausted, "put key: the mesh holds %d already: revoke some (labmesh key revoke)", labmesh.KeysMax)
		}
	}
	k.Created = x.at
	x.v.apiKeys.Set(k.ID, &k)
	actor := k.By
	if actor == "" {
		actor = k.Name
	}
	x.tell(labmesh.Event{Type: labmesh.KeyMade, Actor: actor, Detail: k.ID})
	return nil
}

// checkKey refuses a key that means nothing. A project is what a key for the
// tasks of one cannot do without.
func checkKey(k *labmesh.Key) *labmesh.Error {
	switch {
	case !k.Role.Known():
		return labmesh.RefuseField("role", "role: %.40q is not one of %v", k.Role, labmesh.KeyRoles())
	case k.Role == labmesh.RoleSubmitter && k.Project == "":
		return labmesh.RefuseField("project", "project: a key with the role submitter needs one")
	case len(k.Project) > labmesh.ProjectCharMax:
		return labmesh.RefuseField("project", "project: it has more than %d bytes", labmesh.ProjectCharMax)
	}
	return nil
}

// forgetKeys forgets keys that have opened nothing since a time.
func (x *change) forgetKeys(since time.Time) {
	var old []string
	x.v.apiKeys.Scan(func(id string, k *labmesh.Key) bool {
		if !k.Revoked.IsZero() && !k.Revoked.After(since) || !k.Expires.IsZero() && !k.Expires.After(since) {
			old = append(old, id)
		}
		return true
	})
	for _, id := range old {
		x.v.apiKeys.Delete(id)
	}
}

func (x *change) revokeKey(cmd labmesh.RevokeKey) *labmesh.Error {
	old, ok := x.v.apiKeys.Get(cmd.ID)
	if !ok {
		return labmesh.Refuse(labmesh.NotFound, "no key %s", cmd.ID)
	}
	if !old.Revoked.IsZero() {
		return nil // sent twice
	}
	if old.Role == labmesh.RoleAdmin && x.onlyAdmin(cmd.ID) {
		return labmesh.Refuse(labmesh.Conflict, "key %s is the last admin key: make another first (labmesh key create --role admin)", cmd.ID)
	}
	k := *old
	k.Revoked = x.at
	x.v.apiKeys.Set(k.ID, &k)
	x.tell(labmesh.Event{Type: labmesh.KeyRevoked, Actor: cmd.By, Detail: cmd.ID})
	return nil
}

// onlyAdmin reports whether no other key may do everything.
func (x *change) onlyAdmin(id string) bool {
	only := true
	x.v.apiKeys.Scan(func(other string, k *labmesh.Key) bool {
		only = other == id || k.Role != labmesh.RoleAdmin || !k.Valid(x.at)
		return only
	})
	return only
}

func (x *change) useKeys(cmd labmesh.UseKeys) *labmesh.Error {
	for _, use := range cmd.Used {
		if old, ok := x.v.apiKeys.Get(use.ID); ok && old.LastUsed.Before(use.At) {
			k := *old
			k.LastUsed = use.At
			x.v.apiKeys.Set(k.ID, &k)
		}
	}
	return nil
}

func (x *change) putTokenKey(cmd labmesh.PutTokenKey) *labmesh.Error {
	k := cmd.Key
	if k.ID == "" || len(k.Secret.Data) == 0 || !k.From.Before(k.Until) {
		return labmesh.Refuse(labmesh.Invalid, "put token key: it needs an id, a secret and a time in which it is good")
	}
	old, ok := x.v.tokenKeys.Get(k.ID)
	if ok && old.Secret.Key == k.Secret.Key {
		return nil // sent twice
	}
	k.Created = x.at
	if ok {
		k.Created, k.From, k.Until = old.Created, old.From, old.Until // sealed anew
	}
	var past []string
	x.v.tokenKeys.Scan(func(id string, k *labmesh.TokenKey) bool {
		if k.Until.Before(x.at) {
			past = append(past, id)
		}
		return true
	})
	for _, id := range past {
		x.v.tokenKeys.Delete(id)
	}
	x.v.tokenKeys.Set(k.ID, &k)
	x.tell(labmesh.Event{Type: labmesh.TokenKeyMade, Detail: k.ID})
	return nil
}

func (x *change) putSealKey(cmd labmesh.PutSealKey) *labmesh.Error {
	if cmd.ID == "" {
		return labmesh.Refuse(labmesh.Invalid, "put seal key: it needs an id")
	}
	if x.v.sealKey == cmd.ID {
		return nil // sent twice
	}
	x.v.sealKey = cmd.ID
	x.tell(labmesh.Event{Type: labmesh.SealKeyMade, Actor: cmd.By, Detail: cmd.ID})
	return nil
}

func (x *change) recordAudit(cmd labmesh.RecordAudit) *labmesh.Error {
	if len(cmd.Records) == 0 || len(cmd.Records) > labmesh.AuditRecordsMax {
		return labmesh.Refuse(labmesh.Invalid, "record audit: 1 to %d records", labmesh.AuditRecordsMax)
	}
	x.tell(labmesh.Event{Type: labmesh.Audited, Audit: cmd.Records})
	return nil
}

// Invite is an invite by its id, also one that lets nobody in any more.
func (v View) Invite(id string) (*labmesh.Invite, bool) { return v.invites.Get(id) }

// Invites are all invites that are remembered.
func (v View) Invites() iter.Seq[*labmesh.Invite] { return values(v.invites) }

// Key is an API key by its id, also one that opens nothing any more.
func (v View) Key(id string) (*labmesh.Key, bool) { return v.apiKeys.Get(id) }

// Keys are all API keys that are remembered.
func (v View) Keys() iter.Seq[*labmesh.Key] { return values(v.apiKeys) }

// TokenKey is a key that proves tokens, by its id.
func (v View) TokenKey(id string) (*labmesh.TokenKey, bool) { return v.tokenKeys.Get(id) }

// TokenKeys are the keys that prove tokens, or did lately.
func (v View) TokenKeys() iter.Seq[*labmesh.TokenKey] { return values(v.tokenKeys) }

// SealKey is the id of the key by which secrets are sealed; "" while none are.
func (v View) SealKey() string { return v.sealKey }
