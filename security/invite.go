package security

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"time"

	"labmesh"
)

// invitePrefix opens every invite and names its form.
const invitePrefix = "labmesh1:"

// Limits on invites.
const (
	InviteTTLMax  = 90 * 24 * time.Hour
	InviteUsesMax = 10_000
	inviteCharMax = 8 << 10 // an invite has to fit a command line
	inviteAddrMax = 16
)

// Invite is what a newcomer needs to come in, as it is passed to --join.
type Invite struct {
	Mesh    labmesh.MeshID `json:"m"`
	ID      string         `json:"i"`
	Secret  []byte         `json:"s"`
	Role    labmesh.Role   `json:"r"`
	Expires time.Time      `json:"e"`
	Addrs   []string       `json:"a"` // multiaddrs of members, with their peer ids
}

// MintInvite draws a new invite from random. The second result is what the
// mesh keeps of it, which proves the secret without holding it.
func MintInvite(random io.Reader, mesh labmesh.MeshID, role labmesh.Role, expires time.Time, uses int, by string, addrs []string) (Invite, labmesh.Invite, error) {
	switch {
	case role != labmesh.RoleNode && role != labmesh.RoleWorker:
		return Invite{}, labmesh.Invite{}, labmesh.RefuseField("role", "role: %q is none of node, worker", role)
	case uses < 1 || uses > InviteUsesMax:
		return Invite{}, labmesh.Invite{}, labmesh.RefuseField("uses", "uses: %d is not between 1 and %d", uses, InviteUsesMax)
	}
	var raw [40]byte // 8 bytes of id, 32 of secret
	if _, err := io.ReadFull(random, raw[:]); err != nil {
		return Invite{}, labmesh.Invite{}, fmt.Errorf("mint invite: %w", err)
	}
	inv := Invite{
		Mesh: mesh, ID: hex.EncodeToString(raw[:8]), Secret: raw[8:], Role: role,
		Expires: expires.UTC().Truncate(time.Second), Addrs: addrs[:min(len(addrs), inviteAddrMax)],
	}
	key := sha256.Sum256(inv.Secret)
	return inv, labmesh.Invite{ID: inv.ID, Key: key[:], Role: role, Expires: inv.Expires, Uses: uses, By: by}, nil
}

// String is the invite as one word, to be pasted. It holds the secret.
func (i Invite) String() string {
	data, err := json.Marshal(i)
	if err != nil {
		return "" // cannot be: an invite is text, bytes and a time
	}
	return invitePrefix + base64.RawURLEncoding.EncodeToString(data)
}

// ParseInvite reads what [Invite.String] wrote. It never says any of it in an
// error: an invite is a secret.
func ParseInvite(s string) (Invite, error) {
	s = strings.TrimSpace(s)
	rest, ok := strings.CutPrefix(s, invitePrefix)
	if !ok || len(s) > inviteCharMax {
		return Invite{}, labmesh.Refuse(labmesh.Invalid, "this is no invite: it does not begin with %q; get one with: labmesh invite", invitePrefix)
	}
	data, err := base64.RawURLEncoding.DecodeString(rest)
	if err != nil {
		return Invite{}, labmesh.Refuse(labmesh.Invalid, "the invite is damaged: was all of it copied?")
	}
	var inv Invite
	dec := json.NewDecoder(bytes.NewReader(data))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&inv); err != nil || inv.Mesh == "" || inv.ID == "" || len(inv.Secret) == 0 || len(inv.Addrs) == 0 || len(inv.Addrs) > inviteAddrMax {
		return Invite{}, labmesh.Refuse(labmesh.Invalid, "the invite is damaged: was all of it copied?")
	}
	return inv, nil
}
