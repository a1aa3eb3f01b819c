package security

import (
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"labmesh"
)

// Lives of tokens and of the keys that prove them.
const (
	TokenTTL      = time.Hour
	TokenKeyEvery = 24 * time.Hour // a key signs so long, until the next
	TokenKeyTTL   = 48 * time.Hour // a key proves so long, longer than any token that it signed lasts
	TokenKeyLead  = time.Minute    // a key signs only so long after it was made: by then every node has it

	tokenLeeway      = 30 * time.Second // by which clocks of nodes may differ
	tokenBytesMax    = 4096
	tokenSecretBytes = 32
)

// Token is what a JSON web token of the mesh says of who bears it.
type Token struct {
	Subject string           // the worker that it was made for, or else the key
	Key     string           // id of the API key that it was made with: it is good only as long as that is
	Worker  labmesh.WorkerID // "" for a token that stands for the key
	Role    labmesh.Role
	Project string
	Issued  time.Time
	Expires time.Time
}

// claims are a token on the wire.
type claims struct {
	jwt.RegisteredClaims
	Roles   []labmesh.Role `json:"roles"`
	Project string         `json:"project,omitempty"`
	Key     string         `json:"key"`
}

// MintTokenKey draws a key for tokens from random: its id and its secret, still to be sealed.
func MintTokenKey(random io.Reader) (id string, secret []byte, err error) {
	var raw [8 + tokenSecretBytes]byte
	if _, err := io.ReadFull(random, raw[:]); err != nil {
		return "", nil, fmt.Errorf("mint token key: %w", err)
	}
	return hex.EncodeToString(raw[:8]), raw[8:], nil
}

// NextTokenKey says when the next key for tokens is to begin to sign, and whether it is to be made now.
func NextTokenKey(keys []*labmesh.TokenKey, now time.Time) (from time.Time, due bool) {
	newest, ok := signer(keys, now.Add(TokenKeyLead))
	switch {
	case !ok:
		return now, true // nothing signs: whoever has it may use it at once
	case now.Sub(newest.From) < TokenKeyEvery-TokenKeyLead:
		return time.Time{}, false
	}
	return now.Add(TokenKeyLead), true
}

// SigningKey is the key that signs tokens now.
func SigningKey(keys []*labmesh.TokenKey, now time.Time) (*labmesh.TokenKey, bool) {
	return signer(keys, now)
}

// signer is the newest key whose time has come at now, and that proves what it signs to its end.
func signer(keys []*labmesh.TokenKey, now time.Time) (newest *labmesh.TokenKey, ok bool) {
	for _, k := range keys {
		if !k.From.After(now) && k.Until.After(now.Add(TokenTTL)) && (newest == nil || k.From.After(newest.From)) {
			newest = k
		}
	}
	return newest, newest != nil
}

// SignToken is t as a JSON web token, signed by the token key with the id kid.
func SignToken(t Token, mesh labmesh.MeshID, kid string, secret []byte) (string, error) {
	if len(secret) < tokenSecretBytes {
		return "", fmt.Errorf("sign token: the secret of token key %s has %d bytes", kid, len(secret))
	}
	token := jwt.NewWithClaims(jwt.SigningMethodHS256, claims{
		RegisteredClaims: jwt.RegisteredClaims{
			Issuer: string(mesh), Subject: t.Subject, IssuedAt: jwt.NewNumericDate(t.Issued), ExpiresAt: jwt.NewNumericDate(t.Expires),
		},
		Roles: []labmesh.Role{t.Role}, Project: t.Project, Key: t.Key,
	})
	token.Header["kid"] = kid
	signed, err := token.SignedString(secret)
	if err != nil {
		return "", fmt.Errorf("sign token: %w", err)
	}
	return signed, nil
}

// IsToken reports whether a credential has the form of a token.
func IsToken(credential string) bool {
	return len(credential) <= tokenBytesMax && strings.Count(credential, ".") == 2
}

// ReadToken proves a token of a mesh. secret finds the secret of a token key that
// still proves. A refusal with reason Denied has a message only for who
// has proven to bear a token of this mesh; errors of secret come back as they are.
func ReadToken(token string, mesh labmesh.MeshID, now time.Time, secret func(kid string) ([]byte, error)) (Token, error) {
	if !IsToken(token) {
		return Token{}, labmesh.Refuse(labmesh.Denied, "")
	}
	parser := jwt.NewParser(jwt.WithValidMethods([]string{jwt.SigningMethodHS256.Alg()}), jwt.WithIssuer(string(mesh)), jwt.WithStrictDecoding(),
		jwt.WithExpirationRequired(), jwt.WithLeeway(tokenLeeway), jwt.WithTimeFunc(func() time.Time { return now }))
	var c claims
	var unknown error
	_, err := parser.ParseWithClaims(token, &c, func(t *jwt.Token) (any, error) {
		kid, _ := t.Header["kid"].(string)
		var s []byte
		s, unknown = secret(kid)
		return s, unknown
	})
	switch {
	case unknown != nil:
		return Token{}, unknown
	case errors.Is(err, jwt.ErrTokenExpired): // checked only once its signature has been
		return Token{}, labmesh.Refuse(labmesh.Denied, "the token ended at %s: make another (labmesh token)", c.ExpiresAt.UTC().Format(time.RFC3339))
	case err != nil, c.Key == "", c.Subject == "", len(c.Roles) != 1, c.IssuedAt == nil:
		return Token{}, labmesh.Refuse(labmesh.Denied, "")
	}
	t := Token{Subject: c.Subject, Key: c.Key, Role: c.Roles[0], Project: c.Project, Issued: c.IssuedAt.Time, Expires: c.ExpiresAt.Time}
	if t.Role == labmesh.RoleWorker && t.Subject != t.Key {
		t.Worker = labmesh.WorkerID(t.Subject)
	}
	if !slices.Contains(labmesh.KeyRoles(), t.Role) {
		return Token{}, labmesh.Refuse(labmesh.Denied, "")
	}
	return t, nil
}
