package security

import (
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"io"
	"strings"

	"labmesh"
)

// keyPrefix marks API keys, so that a leaked one can be searched for.
const keyPrefix = "lmk_"

// keyIDMax bounds the part of a key that may be shown.
const keyIDMax = 64

// MintKey draws a new API key from random. The first result is the key itself,
// to be shown once; the second is what the mesh keeps of it.
func MintKey(random io.Reader, role labmesh.Role, name string) (string, labmesh.Key, error) {
	var raw [36]byte // 4 bytes of id, 32 of secret
	if _, err := io.ReadFull(random, raw[:]); err != nil {
		return "", labmesh.Key{}, fmt.Errorf("mint key: %w", err)
	}
	id := hex.EncodeToString(raw[:4])
	key := keyPrefix + id + "_" + base64.RawURLEncoding.EncodeToString(raw[4:])
	return key, labmesh.Key{ID: id, Hash: hash(key), Role: role, Name: name}, nil
}

// KeyID is the part of an API key under which the mesh keeps its hash; false
// for what is no API key at all.
func KeyID(key string) (string, bool) {
	rest, ok := strings.CutPrefix(key, keyPrefix)
	id, _, ok2 := strings.Cut(rest, "_")
	return id, ok && ok2 && id != "" && len(id) <= keyIDMax
}

// Opens reports whether key is the one of which the mesh keeps k, in constant time.
func Opens(key string, k *labmesh.Key) bool {
	return subtle.ConstantTimeCompare(hash(key), k.Hash) == 1
}

// hash needs no salt and no stretching: keys hold 256 bits of chance.
func hash(key string) []byte {
	sum := sha256.Sum256([]byte(key))
	return sum[:]
}
