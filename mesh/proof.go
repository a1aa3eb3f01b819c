package mesh

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"

	"labmesh"
)

// nonceBytes is the length of the nonces of a join.
const nonceBytes = 32

// The two sides of a join. Each proves under its own name, so that neither can
// be made to prove for the other.
const (
	sideJoiner = "joiner"
	sideServer = "server"
)

// handshake is all that a proof is bound to.
type handshake struct {
	mesh     labmesh.MeshID
	inviteID string
	joiner   labmesh.NodeID
	server   labmesh.NodeID
	nonceJ   []byte // the joiner's
	nonceS   []byte // the server's
}

// InviteKey is the key that proves an invite's secret: its SHA-256. The mesh
// keeps the key, and the bearer the secret.
func InviteKey(secret []byte) []byte {
	sum := sha256.Sum256(secret)
	return sum[:]
}

// proof is one side's word that it knows key, for this handshake and what it
// says in it. Each part goes in with its length, so that no two handshakes look
// the same.
func (h handshake) proof(key []byte, side string, said []byte) []byte {
	mac := hmac.New(sha256.New, key)
	parts := [][]byte{
		[]byte(JoinProtocol), []byte(side), []byte(h.mesh), []byte(h.inviteID),
		[]byte(h.joiner), []byte(h.server), h.nonceJ, h.nonceS, said,
	}
	for _, p := range parts {
		mac.Write(binary.BigEndian.AppendUint64(nil, uint64(len(p))))
		mac.Write(p)
	}
	return mac.Sum(nil)
}

// proves says whether a proof holds, in constant time.
func (h handshake) proves(key []byte, side string, said, proof []byte) bool {
	return len(h.nonceJ) == nonceBytes && len(h.nonceS) == nonceBytes &&
		hmac.Equal(proof, h.proof(key, side, said))
}

func newNonce() []byte {
	nonce := make([]byte, nonceBytes)
	_, _ = rand.Read(nonce) // it never fails: the program would end instead
	return nonce
}

// The frames of a join, in their order.
type (
	joinHello struct { // joiner: what it comes with
		Mesh     labmesh.MeshID `json:"mesh_id"`
		InviteID string         `json:"invite_id"`
		Nonce    []byte         `json:"nonce"`
	}
	joinChallenge struct { // server
		Nonce   []byte         `json:"nonce,omitempty"`
		Refused *labmesh.Error `json:"refused,omitempty"`
	}
	joinProof struct { // joiner: who it is; Request is a JoinRequest
		Request json.RawMessage `json:"request"`
		Proof   []byte          `json:"proof"`
	}
	joinVerdict struct { // server: Reply is a JoinReply
		Reply   json.RawMessage `json:"reply,omitempty"`
		Proof   []byte          `json:"proof,omitempty"`
		Refused *labmesh.Error  `json:"refused,omitempty"`
	}
)
