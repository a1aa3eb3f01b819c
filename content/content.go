package content

import (
	"crypto/sha256"
	"encoding/hex"

	"labmesh"
)

// HashBytes is the size of a hash.
const HashBytes = sha256.Size

// Hash is the SHA-256 of a chunk or of a manifest.
type Hash [HashBytes]byte

// Sum is the hash of data.
func Sum(data []byte) Hash { return sha256.Sum256(data) }

func (h Hash) String() string { return hex.EncodeToString(h[:]) }

// ParseID reads a content id: 64 lower-case hex digits.
func ParseID(id string) (Hash, error) {
	var h Hash
	if len(id) != 2*HashBytes {
		return h, badID(id)
	}
	for i := range len(id) {
		if c := id[i]; (c < '0' || c > '9') && (c < 'a' || c > 'f') {
			return h, badID(id)
		}
	}
	_, err := hex.Decode(h[:], []byte(id))
	return h, err
}

func badID(id string) error {
	if len(id) > 80 {
		id = id[:80] + "…"
	}
	return labmesh.Refuse(labmesh.Invalid, "%q is no content id: 64 lower-case hex digits", id)
}

// Chunk is a piece of a tree's stream: what is stored and sent as one.
type Chunk struct {
	Hash Hash
	Size uint32 // bytes, 1 to [ChunkBytesMax]
}
