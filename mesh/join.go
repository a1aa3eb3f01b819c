package mesh

import (
	"context"
	"encoding/json"

	"labmesh"
)

// JoinProtocol is the only protocol that strangers may speak.
const JoinProtocol = "/labmesh/join/1"

// JoinRequest is what a stranger says of itself. Node and InviteID are proved
// by the time a [JoinHandler] sees them; the rest is the stranger's word.
type JoinRequest struct {
	Node     labmesh.NodeID  `json:"node_id,omitempty"`   // filled in from the connection
	InviteID string          `json:"invite_id,omitempty"` // filled in from the proof
	Hostname string          `json:"hostname,omitempty"`
	Addrs    []string        `json:"addrs,omitempty"` // multiaddrs; filled in when empty
	Version  string          `json:"version,omitempty"`
	Feature  int             `json:"feature,omitempty"`
	Payload  json.RawMessage `json:"payload,omitempty"` // the node's own words
}

// JoinReply is what an admitted newcomer is told.
type JoinReply struct {
	Mesh    labmesh.MeshID   `json:"mesh_id"`
	Members []labmesh.Member `json:"members"` // the one who answered included
	Role    labmesh.Role     `json:"role"`
	Payload json.RawMessage  `json:"payload,omitempty"`
	// Server is the node that answered, proved to know the invite.
	Server labmesh.NodeID `json:"server"`
}

// JoinHandler lets strangers in. Its errors reach the stranger when they are a
// [labmesh.Error]; others reach it as an internal fault without their text.
type JoinHandler interface {
	// InviteKey is the key of an invite, SHA-256 of its secret. It refuses an
	// invite that is unknown, expired or used up, and says which.
	InviteKey(ctx context.Context, inviteID string) (key []byte, err error)
	// Admit makes the stranger, who has proved the invite, a member. Once it has
	// returned, [Config.Admit] must say yes to the node.
	Admit(ctx context.Context, req JoinRequest) (JoinReply, error)
}
