package labmesh

import (
	"slices"
	"time"
)

// Role is what a member, or the bearer of a key, may do.
type Role string

// The roles. Members are nodes or workers, keys anything but nodes.
const (
	RoleNode      Role = "node"      // a member that may vote, submit and work
	RoleWorker    Role = "worker"    // a member that only works: it never votes; or a key for a light worker
	RoleAdmin     Role = "admin"     // a key that may do everything
	RoleOperator  Role = "operator"  // a key that may do everything with tasks and workers, of all projects
	RoleSubmitter Role = "submitter" // a key for the tasks of one project
	RoleObserver  Role = "observer"  // a key that may see everything and change nothing
)

// KeyRoles lists the roles that an API key may have.
func KeyRoles() []Role {
	return []Role{RoleAdmin, RoleOperator, RoleSubmitter, RoleObserver, RoleWorker}
}

// Known reports whether a key may have the role.
func (r Role) Known() bool { return slices.Contains(KeyRoles(), r) }

// Invite lets strangers in until it expires or is used up. The mesh keeps the
// key that proves the secret, never the secret.
type Invite struct {
	ID      string    `json:"id"`
	Key     []byte    `json:"key"` // SHA-256 of the secret
	Role    Role      `json:"role"`
	Expires time.Time `json:"expires"`
	Uses    int       `json:"uses"` // how many more may come in by it
	By      string    `json:"by,omitempty"`
}

// Key is an API key. The mesh keeps its hash, never the key.
type Key struct {
	ID      string    `json:"id"` // the part of the key that may be shown
	Hash    []byte    `json:"hash"`
	Role    Role      `json:"role"`
	Name    string    `json:"name,omitempty"`
	Created time.Time `json:"created"`

	Project  string    `json:"project,omitempty"` // whose tasks it is for; see [Task.Project]
	By       string    `json:"by,omitempty"`      // the id of the key that made it
	Expires  time.Time `json:"expires,omitzero"`
	Revoked  time.Time `json:"revoked,omitzero"`
	LastUsed time.Time `json:"last_used,omitzero"` // to within minutes
	// Signing proves signatures of messages. With RequireSigned a message that is not signed is refused.
	Signing       *Sealed `json:"signing,omitempty"`
	RequireSigned bool    `json:"require_signed,omitempty"`
}

// Valid reports whether k opens anything at a time.
func (k *Key) Valid(now time.Time) bool {
	return k.Revoked.IsZero() && (k.Expires.IsZero() || now.Before(k.Expires))
}

// Sealed is a secret as it may lie on disks: encrypted by a key of the mesh that
// is in no log and no snapshot.
type Sealed struct {
	Key  string `json:"key"` // id of the seal key
	Data []byte `json:"data"`
}

// TokenKey signs and proves the tokens of the mesh while they last. Every node has it.
type TokenKey struct {
	ID      string    `json:"id"`
	Secret  Sealed    `json:"secret"`
	From    time.Time `json:"from"`  // tokens are signed by the newest whose time has come
	Until   time.Time `json:"until"` // after this it proves no more
	Created time.Time `json:"created"`
}

// AuditRecord is one thing that somebody did, or tried to do, to the mesh.
type AuditRecord struct {
	At      time.Time `json:"time"`
	Actor   string    `json:"actor,omitempty"` // id of the API key, or of the node; "" for who is not known
	Name    string    `json:"name,omitempty"`  // of the key
	Role    Role      `json:"role,omitempty"`
	Remote  string    `json:"remote,omitempty"` // address that it came from
	Node    NodeID    `json:"node_id"`          // that it came to
	Action  string    `json:"action"`           // method and route, or another name of what was done
	Target  string    `json:"target,omitempty"` // id of what it was done to; the first of several
	Outcome string    `json:"outcome"`          // ok, or the reason of the refusal
	Detail  string    `json:"detail,omitempty"`
	Count   int       `json:"count,omitempty"` // things that were done at once; 0 means 1
}

// Limits on who may come in.
const (
	KeysMax         = 10_000 // in one mesh, revoked ones too
	AuditRecordsMax = 1000   // in one command
	ProjectCharMax  = 64
)
