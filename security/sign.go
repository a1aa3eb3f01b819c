package security

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"time"

	"labmesh"
)

// SignatureWindow is how far the time of a signature may be from ours, either way.
const SignatureWindow = 60 * time.Second

// The fields of a message that belong to its signature.
const (
	timestampField = "timestamp"
	signatureField = "signature"
)

// Signature is one that was proved: what it was made with, and when. Given to
// [Replays] it is good once.
type Signature struct {
	By    string    // id of the key
	At    time.Time // to the second
	Nonce string    // or the signature itself, where there is none
}

// SignMessage is a JSON object in canonical form with "timestamp" and "signature"
// set. key is the secret as text, and is not decoded.
func SignMessage(key string, message []byte, at time.Time) ([]byte, error) {
	o, err := parseObject(message)
	if err != nil {
		return nil, labmesh.Refuse(labmesh.Invalid, "sign: %v", err)
	}
	o = o.with(signatureField, nil).with(timestampField, json.Number(strconv.FormatInt(at.Unix(), 10)))
	return o.with(signatureField, mac(key, o.appendTo(nil))).appendTo(nil), nil
}

// VerifyMessage proves the signature of a message by the key with the id by.
func VerifyMessage(by, key string, message []byte, now time.Time) (Signature, error) {
	o, err := parseObject(message)
	if err != nil {
		return Signature{}, badSignature("%v", err)
	}
	given, _ := o.find(signatureField)
	signature, ok := given.(string)
	if !ok {
		return Signature{}, badSignature("the message bears none")
	}
	stamp, _ := o.find(timestampField)
	seconds, ok := stamp.(json.Number)
	if !ok {
		return Signature{}, badSignature("its timestamp is no number of seconds since 1970")
	}
	at, err := signedAt(seconds.String(), now)
	if err != nil {
		return Signature{}, err
	}
	if want := mac(key, o.with(signatureField, nil).appendTo(nil)); !hmac.Equal([]byte(want), []byte(signature)) {
		return Signature{}, badSignature("it is not that of this message and this key")
	}
	return Signature{By: by, At: at, Nonce: signature}, nil
}

// Signed reports whether a message bears a signature, good or not.
func Signed(message []byte) bool {
	o, err := parseObject(message)
	if err != nil {
		return false
	}
	_, ok := o.find(signatureField)
	return ok
}

// SignatureHeader is the header of an HTTP request that bears its signature, as
// "t=<unix seconds>,n=<nonce>,v1=<base64 of the HMAC-SHA256>".
const SignatureHeader = "X-Labmesh-Signature"

// Limits on nonces.
const (
	nonceCharMin = 8
	nonceCharMax = 128
)

// SignRequest is the value of [SignatureHeader] for a request. uri is the path and
// query as sent; a nonce is good once.
func SignRequest(key, method, uri string, body [sha256.Size]byte, at time.Time, nonce string) string {
	t := strconv.FormatInt(at.Unix(), 10)
	return "t=" + t + ",n=" + nonce + ",v1=" + mac(key, requestText(method, uri, t, nonce, body))
}

// requestText is what is signed of a request: a line each, none of which can hold a line's end.
func requestText(method, uri, t, nonce string, body [sha256.Size]byte) []byte {
	return []byte(strings.Join([]string{"labmesh request v1", method, uri, t, nonce, hex.EncodeToString(body[:])}, "\n"))
}

// VerifyRequest proves a request by what its [SignatureHeader] says.
func VerifyRequest(by, key, header, method, uri string, body [sha256.Size]byte, now time.Time) (Signature, error) {
	t, rest, ok1 := strings.Cut(header, ",")
	n, v, ok2 := strings.Cut(rest, ",")
	t, ok3 := strings.CutPrefix(t, "t=")
	nonce, ok4 := strings.CutPrefix(n, "n=")
	signature, ok5 := strings.CutPrefix(v, "v1=")
	switch {
	case header == "":
		return Signature{}, badSignature("the request bears none in %s, and its key asks for one", SignatureHeader)
	case !ok1 || !ok2 || !ok3 || !ok4 || !ok5:
		return Signature{}, badSignature("%s is not of the form t=SECONDS,n=NONCE,v1=SIGNATURE", SignatureHeader)
	case len(nonce) < nonceCharMin || len(nonce) > nonceCharMax || strings.ContainsAny(nonce, " \t\r\n"):
		return Signature{}, badSignature("a nonce has %d to %d characters and no blanks", nonceCharMin, nonceCharMax)
	case strings.ContainsAny(uri+method, "\r\n"):
		return Signature{}, badSignature("the request's line is no line")
	}
	at, err := signedAt(t, now)
	if err != nil {
		return Signature{}, err
	}
	if want := mac(key, requestText(method, uri, t, nonce, body)); !hmac.Equal([]byte(want), []byte(signature)) {
		return Signature{}, badSignature("it is not that of this request and this key")
	}
	return Signature{By: by, At: at, Nonce: nonce}, nil
}

// signedAt is the time of a signature, if it is about now.
func signedAt(seconds string, now time.Time) (time.Time, error) {
	s, err := strconv.ParseInt(seconds, 10, 64)
	if err != nil {
		return time.Time{}, badSignature("its timestamp is no number of seconds since 1970")
	}
	// Differences of seconds, since a duration cannot hold those of all times.
	if away := now.Unix() - s; s < 0 || away > int64(SignatureWindow/time.Second) || away < -int64(SignatureWindow/time.Second) {
		return time.Time{}, badSignature("it was made more than %s before or after this node's time: is the clock right?", SignatureWindow)
	}
	return time.Unix(s, 0), nil
}

func badSignature(format string, args ...any) *labmesh.Error {
	return labmesh.Refuse(labmesh.Denied, "bad signature: "+format, args...)
}

// mac is the HMAC-SHA256 of text in base64.
func mac(key string, text []byte) string {
	h := hmac.New(sha256.New, []byte(key))
	h.Write(text)
	return base64.StdEncoding.EncodeToString(h.Sum(nil))
}

// replaysMax bounds the signatures that are remembered from one window.
const replaysMax = 500_000

// Replays remembers signatures for as long as they could be sent again. It is
// safe for concurrent use.
type Replays struct {
	since time.Time // what was signed before may have been seen by whoever was here then

	mu          sync.Mutex
	turned      time.Time
	newer, past map[[16]byte]struct{} // of this span of twice the window, and of the one before
}

// NewReplays remembers from now on. Signatures made before are refused, since they
// may have been taken before a restart.
func NewReplays(now time.Time) *Replays {
	return &Replays{since: now.Truncate(time.Second), turned: now, newer: map[[16]byte]struct{}{}}
}

// Take uses a signature up. One that was taken already is refused as Denied.
func (r *Replays) Take(s Signature, now time.Time) error {
	if s.At.Before(r.since) {
		return badSignature("it was made before this node started: sign it anew")
	}
	sum := sha256.Sum256(fmt.Appendf(nil, "%d:%s%s", len(s.By), s.By, s.Nonce))
	id := [16]byte(sum[:16])
	r.mu.Lock()
	defer r.mu.Unlock()
	if span := 2 * SignatureWindow; now.Sub(r.turned) > span {
		r.past = r.newer
		if now.Sub(r.turned) > 2*span {
			r.past = nil
		}
		r.newer, r.turned = map[[16]byte]struct{}{}, now
	}
	_, seen := r.newer[id]
	_, before := r.past[id]
	switch {
	case seen || before:
		return badSignature("it was used before")
	case len(r.newer) >= replaysMax:
		return labmesh.Refuse(labmesh.Exhausted, "more signed messages came than this node can tell apart: try again in %s", SignatureWindow)
	}
	r.newer[id] = struct{}{}
	return nil
}
