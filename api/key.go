package api

import (
	"strings"
	"time"
	"unicode/utf8"

	"labmesh"
)

// KeyTTLMax bounds the time after which an API key ends that does not last for ever.
const KeyTTLMax = 10 * 365 * 24 * time.Hour

// KeyRequest is the body of POST /api/keys.
type KeyRequest struct {
	Role    labmesh.Role `json:"role"`              // admin, operator, submitter, observer or worker
	Name    string       `json:"name,omitempty"`    // for people
	Project string       `json:"project,omitempty"` // what is submitted with the key is in it; a submitter needs one
	// TTLSeconds is how long the key opens anything; 0 for ever.
	TTLSeconds    float64 `json:"ttl_seconds,omitempty"`
	RequireSigned bool    `json:"require_signed,omitempty"` // what is not signed with the key is refused
}

// Key is an API key as the API shows it: without what opens.
type Key struct {
	ID            string       `json:"id"` // the first part of the key, by which one recognises it
	Name          Text         `json:"name"`
	Role          labmesh.Role `json:"role"`
	Project       Text         `json:"project"`
	By            Text         `json:"by"` // the key that made it
	Created       Time         `json:"created"`
	Expires       Time         `json:"expires"`
	Revoked       Time         `json:"revoked"`
	LastUsed      Time         `json:"last_used"` // to within minutes
	RequireSigned bool         `json:"require_signed"`
}

// KeyReply is the reply to POST /api/keys, the only one that holds the key.
type KeyReply struct {
	APIKey string `json:"api_key"`
	Key
}

// KeyList is the reply to GET /api/keys.
type KeyList struct {
	Keys []Key `json:"keys"`
}

// RevokeReply is the reply to DELETE /api/keys/{id} and /api/invites/{id}.
type RevokeReply struct {
	ID      string `json:"id"`
	Message string `json:"message"`
}

// TokenRequest is the body of POST /api/tokens. It may be left out.
type TokenRequest struct {
	Worker labmesh.WorkerID `json:"worker_id,omitempty"` // make it for this worker; takes an admin's key, or a worker's, which needs it
}

// TokenReply is the reply to POST /api/tokens.
type TokenReply struct {
	Token   string           `json:"token"` // to be sent as Authorization: Bearer …
	Role    labmesh.Role     `json:"role"`
	Worker  labmesh.WorkerID `json:"worker_id,omitempty"`
	Expires Time             `json:"expires"`
}

// Invite is an invite as the API shows it: without its secret.
type Invite struct {
	ID      string       `json:"id"`
	Role    labmesh.Role `json:"role"`
	Expires Time         `json:"expires"`
	Uses    int          `json:"uses"` // how many more may come in by it
	By      Text         `json:"by"`
}

// InviteList is the reply to GET /api/invites.
type InviteList struct {
	Invites []Invite `json:"invites"`
}

// ValidateKey refuses a key that could not be, and names the field at fault.
func ValidateKey(r *KeyRequest) error {
	switch {
	case r.Role == "":
		return missing("role")
	case !r.Role.Known():
		return labmesh.RefuseField("role", "role: %.40q is not one of %s", r.Role, strings.Join(keyRoles(), ", "))
	case r.Role == labmesh.RoleSubmitter && r.Project == "":
		return labmesh.RefuseField("project", "project: a key with the role submitter needs one: it sees the tasks of that project and no others")
	case r.Project != "" && (!ValidID(r.Project) || len(r.Project) > labmesh.ProjectCharMax):
		return labmesh.RefuseField("project", "project: %.40q is not 1 to %d of A-Z a-z 0-9 . _ : -", r.Project, labmesh.ProjectCharMax)
	case utf8.RuneCountInString(r.Name) > NameCharsMax || strings.ContainsFunc(r.Name, control) || !utf8.ValidString(r.Name):
		return labmesh.RefuseField("name", "name: it is longer than %d characters or holds a control character", NameCharsMax)
	case r.TTLSeconds != 0 && !(r.TTLSeconds >= 1 && r.TTLSeconds <= KeyTTLMax.Seconds()):
		return labmesh.RefuseField("ttl_seconds", "ttl_seconds: %g is not 0 for ever, nor 1 to %g", r.TTLSeconds, KeyTTLMax.Seconds())
	}
	return nil
}

func keyRoles() (out []string) {
	for _, r := range labmesh.KeyRoles() {
		out = append(out, string(r))
	}
	return out
}
