package security

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"slices"

	"labmesh"
)

// Sealer encrypts secrets for the log by the mesh's seal key, and opens them again.
type Sealer interface {
	Seal(plain []byte) (labmesh.Sealed, error)
	Open(labmesh.Sealed) ([]byte, error)
}

// Limits on rings.
const (
	sealKeyBytes = 32
	ringKeysMax  = 100
	ringBytesMax = 64 << 10
	ringVersion  = 1
)

// SealKey is a key of the mesh for AES-256-GCM. Members have it; no log and no snapshot does.
type SealKey struct {
	id     string
	secret [sealKeyBytes]byte
}

// MintSealKey draws a new seal key from random.
func MintSealKey(random io.Reader) (SealKey, error) {
	var secret [sealKeyBytes]byte
	if _, err := io.ReadFull(random, secret[:]); err != nil {
		return SealKey{}, fmt.Errorf("mint seal key: %w", err)
	}
	return newSealKey(secret), nil
}

// newSealKey names a key by its hash, so that nobody can pass off another under its name.
func newSealKey(secret [sealKeyBytes]byte) SealKey {
	sum := sha256.Sum256(append([]byte("labmesh seal key:"), secret[:]...))
	return SealKey{hex.EncodeToString(sum[:8]), secret}
}

// ID names the key and tells nothing of it.
func (k SealKey) ID() string { return k.id }

// String hides the key.
func (k SealKey) String() string { return "seal key " + k.id }

// GoString hides the key too.
func (k SealKey) GoString() string { return k.String() }

// MarshalText is how the key goes into a ring's file and to another member. It is the secret itself.
func (k SealKey) MarshalText() ([]byte, error) {
	return base64.StdEncoding.AppendEncode(nil, k.secret[:]), nil
}

// UnmarshalText reads what MarshalText wrote.
func (k *SealKey) UnmarshalText(text []byte) error {
	data, err := base64.StdEncoding.DecodeString(string(text))
	if err != nil || len(data) != sealKeyBytes {
		return fmt.Errorf("a seal key is %d bytes in base64", sealKeyBytes)
	}
	*k = newSealKey([sealKeyBytes]byte(data))
	return nil
}

// Seal encrypts plain. Its nonce is drawn anew each time.
func (k SealKey) Seal(plain []byte) (labmesh.Sealed, error) {
	aead, err := k.cipher()
	if err != nil {
		return labmesh.Sealed{}, err
	}
	return labmesh.Sealed{Key: k.id, Data: aead.Seal(nil, nil, plain, []byte(k.id))}, nil
}

func (k SealKey) cipher() (cipher.AEAD, error) {
	block, err := aes.NewCipher(k.secret[:])
	if err != nil {
		return nil, fmt.Errorf("seal: %w", err)
	}
	aead, err := cipher.NewGCMWithRandomNonce(block)
	if err != nil {
		return nil, fmt.Errorf("seal: %w", err)
	}
	return aead, nil
}

// Ring holds the seal keys that a member has: the newest, and those by which
// something is still sealed. It never changes: With and Without return others.
type Ring struct{ keys []SealKey } // sorted by id

// String hides the keys.
func (r Ring) String() string { return fmt.Sprintf("%d seal keys", len(r.keys)) }

// GoString hides the keys too.
func (r Ring) GoString() string { return r.String() }

// Key finds a key.
func (r Ring) Key(id string) (SealKey, bool) {
	i, ok := slices.BinarySearchFunc(r.keys, id, func(k SealKey, id string) int { return bytes.Compare([]byte(k.id), []byte(id)) })
	if !ok {
		return SealKey{}, false
	}
	return r.keys[i], true
}

// IDs names the keys on the ring, sorted.
func (r Ring) IDs() []string {
	out := make([]string, len(r.keys))
	for i, k := range r.keys {
		out[i] = k.id
	}
	return out
}

// With is the ring with one more key.
func (r Ring) With(k SealKey) Ring {
	if _, ok := r.Key(k.id); ok {
		return r
	}
	keys := append(slices.Clone(r.keys), k)
	slices.SortFunc(keys, func(a, b SealKey) int { return bytes.Compare([]byte(a.id), []byte(b.id)) })
	return Ring{keys}
}

// Without is the ring without a key.
func (r Ring) Without(id string) Ring {
	return Ring{slices.DeleteFunc(slices.Clone(r.keys), func(k SealKey) bool { return k.id == id })}
}

// Open decrypts what a key of the ring sealed.
func (r Ring) Open(s labmesh.Sealed) ([]byte, error) {
	k, ok := r.Key(s.Key)
	if !ok {
		return nil, labmesh.Refuse(labmesh.Unavailable, "this node does not have seal key %s yet: it asks the other members for it", s.Key)
	}
	aead, err := k.cipher()
	if err != nil {
		return nil, err
	}
	plain, err := aead.Open(nil, nil, s.Data, []byte(k.id))
	if err != nil {
		return nil, labmesh.Refuse(labmesh.Internal, "what seal key %s sealed is damaged", s.Key)
	}
	return plain, nil
}

// ringFile is a ring as it is written.
type ringFile struct {
	Version int       `json:"labmesh_seal_keys"`
	Keys    []SealKey `json:"keys"`
}

// Encode writes the ring. It holds the keys themselves.
func (r Ring) Encode() ([]byte, error) {
	data, err := json.MarshalIndent(ringFile{ringVersion, append([]SealKey{}, r.keys...)}, "", "  ")
	if err != nil {
		return nil, fmt.Errorf("write seal keys: %w", err)
	}
	return append(data, '\n'), nil
}

// ParseRing reads what [Ring.Encode] wrote. Its errors repeat none of it.
func ParseRing(data []byte) (Ring, error) {
	var f ringFile
	dec := json.NewDecoder(bytes.NewReader(data))
	dec.DisallowUnknownFields()
	switch err := dec.Decode(&f); {
	case len(data) > ringBytesMax || err != nil || len(f.Keys) > ringKeysMax:
		return Ring{}, labmesh.Refuse(labmesh.Invalid, "the seal keys are damaged")
	case f.Version != ringVersion:
		return Ring{}, labmesh.Refuse(labmesh.Invalid, "the seal keys are written in form %d, and this build knows %d: upgrade it", f.Version, ringVersion)
	}
	var r Ring
	for _, k := range f.Keys {
		r = r.With(k)
	}
	return r, nil
}
