package security_test

import (
	"bytes"
	"crypto/rand"
	"encoding/base64"
	"strings"
	"testing"
	"time"

	"labmesh"
	"labmesh/security"
)

var noon = time.Date(2026, 5, 6, 12, 0, 0, 0, time.UTC)

// secrets are token keys by their ids.
type secrets map[string][]byte

func (s secrets) find(kid string) ([]byte, error) {
	if secret, ok := s[kid]; ok {
		return secret, nil
	}
	return nil, labmesh.Refuse(labmesh.Denied, "")
}

func mint(tb testing.TB) (string, []byte) {
	tb.Helper()
	id, secret, err := security.MintTokenKey(rand.Reader)
	if err != nil {
		tb.Fatal(err)
	}
	return id, secret
}

func sign(tb testing.TB, t security.Token, mesh labmesh.MeshID, kid string, secret []byte) string {
	tb.Helper()
	token, err := security.SignToken(t, mesh, kid, secret)
	if err != nil {
		tb.Fatal(err)
	}
	return token
}

func aToken() security.Token {
	return security.Token{Subject: "ab12", Key: "ab12", Role: labmesh.RoleSubmitter, Project: "vision", Issued: noon, Expires: noon.Add(security.TokenTTL)}
}

func TestTokensComeBackAsTheyWere(t *testing.T) {
	t.Parallel()
	kid, secret := mint(t)
	known := secrets{kid: secret}
	worker := security.Token{Subject: "w1", Key: "ab12", Worker: "w1", Role: labmesh.RoleWorker, Issued: noon, Expires: noon.Add(time.Minute)}
	for _, want := range []security.Token{aToken(), worker} {
		token := sign(t, want, "m1", kid, secret)
		got, err := security.ReadToken(token, "m1", noon.Add(time.Second), known.find)
		got.Issued, got.Expires = got.Issued.UTC(), got.Expires.UTC()
		if err != nil || got != want {
			t.Errorf("%+v came back as %+v, %v", want, got, err)
		}
		payload, err := base64.RawURLEncoding.DecodeString(strings.Split(token, ".")[1])
		if err != nil || !strings.Contains(string(payload), `"roles":["`+string(want.Role)+`"]`) || !strings.Contains(string(payload), `"iat":1778068800`) {
			t.Errorf("on the wire it is %s", payload)
		}
	}
}

func TestOnlyTokensOfTheMeshAreTokens(t *testing.T) {
	t.Parallel()
	kid, secret := mint(t)
	otherKid, other := mint(t)
	known := secrets{kid: secret}
	good := sign(t, aToken(), "m1", kid, secret)
	parts := strings.Split(good, ".")
	raw := func(s string) string { return base64.RawURLEncoding.EncodeToString([]byte(s)) }
	none := raw(`{"alg":"none","kid":"`+kid+`"}`) + "." + parts[1] + "."
	stronger := raw(strings.Replace(`{"iss":"m1","sub":"ab12","key":"ab12","roles":["admin"],"iat":1778068800,"exp":1778072400}`, " ", "", -1))
	past := aToken()
	past.Expires = noon.Add(-time.Hour)
	node := aToken()
	node.Role = labmesh.RoleNode
	noKey := aToken()
	noKey.Key = ""
	for name, c := range map[string]struct {
		token string
		says  string // to who bears it
	}{
		"ended":           {sign(t, past, "m1", kid, secret), "the token ended"},
		"another mesh":    {sign(t, aToken(), "m2", otherKid, other), ""},
		"by name alone":   {sign(t, aToken(), "m2", kid, secret), ""},
		"another's key":   {sign(t, aToken(), "m1", kid, other), ""},
		"no algorithm":    {none, ""},
		"a better role":   {parts[0] + "." + stronger + "." + parts[2], ""},
		"a cut signature": {good[:len(good)-3], ""},
		"no signature":    {parts[0] + "." + parts[1] + ".", ""},
		"other bits":      {good[:len(good)-1] + "B", ""},
		"a role of nodes": {sign(t, node, "m1", kid, secret), ""},
		"of no key":       {sign(t, noKey, "m1", kid, secret), ""},
		"":                {"", ""},
		"dots":            {"..", ""},
		"long":            {good + strings.Repeat("A", 5000), ""},
	} {
		got, err := security.ReadToken(c.token, "m1", noon.Add(time.Second), known.find)
		if labmesh.ReasonOf(err) != labmesh.Denied {
			t.Errorf("%s: %+v, %v", name, got, err)
			continue
		}
		if msg := err.Error(); (msg == "") != (c.says == "") || !strings.Contains(msg, c.says) || len(c.token) > 20 && strings.Contains(msg, c.token[:20]) {
			t.Errorf("%s: it says %q", name, msg)
		}
	}
	if _, err := security.ReadToken(good, "m1", noon, func(string) ([]byte, error) { return nil, labmesh.Refuse(labmesh.Unavailable, "later") }); labmesh.ReasonOf(err) != labmesh.Unavailable {
		t.Errorf("what cannot be told just now: %v", err)
	}
	if _, err := security.SignToken(aToken(), "m1", kid, nil); err == nil {
		t.Error("signed by nothing")
	}
	if _, _, err := security.MintTokenKey(bytes.NewReader(nil)); err == nil {
		t.Error("a key of no chance")
	}
}

// TestThereIsAlwaysAKeyThatSigns lives through ten days, in which the leader looks now and then.
func TestThereIsAlwaysAKeyThatSigns(t *testing.T) {
	t.Parallel()
	for _, every := range []time.Duration{time.Second, time.Minute, 7 * time.Hour} {
		var keys []*labmesh.TokenKey
		made := 0
		for now := noon; now.Before(noon.Add(10 * 24 * time.Hour)); now = now.Add(every) {
			if from, due := security.NextTokenKey(keys, now); due {
				made++
				if made > 1 && from.Sub(now) < security.TokenKeyLead {
					t.Fatalf("every %s: key %d signs before all have it", every, made)
				}
				keys = append(keys, &labmesh.TokenKey{From: from, Until: from.Add(security.TokenKeyTTL)})
			}
			k, ok := security.SigningKey(keys, now)
			switch {
			case !ok:
				t.Fatalf("every %s: nothing signs at %s", every, now)
			case now.Before(k.From) || k.Until.Before(now.Add(security.TokenTTL)):
				t.Fatalf("every %s: at %s signs %+v", every, now, k)
			}
		}
		if made < 8 || made > 11 {
			t.Errorf("every %s: %d keys in ten days", every, made)
		}
	}
	old := []*labmesh.TokenKey{{From: noon, Until: noon.Add(security.TokenKeyTTL)}}
	if _, due := security.NextTokenKey(old, noon.Add(time.Hour)); due {
		t.Error("a second key after an hour")
	}
	if from, due := security.NextTokenKey(old, noon.Add(90*24*time.Hour)); !due || !from.Equal(noon.Add(90*24*time.Hour)) {
		t.Errorf("a mesh that was down for long waits until %s", from)
	}
}

func FuzzReadToken(f *testing.F) {
	kid, secret := mint(f)
	known := secrets{kid: secret}
	good := sign(f, aToken(), "m1", kid, secret)
	for _, s := range []string{good, "..", "eyJhbGciOiJub25lIn0.e30.", strings.Replace(good, ".", "..", 1), good + "."} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		got, err := security.ReadToken(s, "m1", noon, known.find)
		if s != good && err == nil {
			t.Errorf("%q is a token: %+v", s, got)
		}
		if s == good && err != nil {
			t.Error(err)
		}
	})
}

func FuzzKeyID(f *testing.F) {
	f.Add("lmk_ab12_secret")
	f.Fuzz(func(t *testing.T, s string) {
		id, ok := security.KeyID(s)
		if ok && (id == "" || !strings.HasPrefix(s, "lmk_"+id+"_")) {
			t.Errorf("%q has the id %q", s, id)
		}
	})
}

func BenchmarkReadToken(b *testing.B) {
	kid, secret := mint(b)
	known := secrets{kid: secret}
	good := sign(b, aToken(), "m1", kid, secret)
	for b.Loop() {
		if _, err := security.ReadToken(good, "m1", noon, known.find); err != nil {
			b.Fatal(err)
		}
	}
}
