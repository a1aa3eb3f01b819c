package security_test

import (
	"bytes"
	"crypto/rand"
	"encoding/base64"
	"fmt"
	"slices"
	"strings"
	"testing"

	"labmesh"
	"labmesh/security"
)

func mintSealKey(t testing.TB) security.SealKey {
	t.Helper()
	k, err := security.MintSealKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func TestOnlyTheRingThatHoldsTheKeyOpens(t *testing.T) {
	t.Parallel()
	key, other := mintSealKey(t), mintSealKey(t)
	ring := security.Ring{}.With(other).With(key).With(key)
	if got := ring.IDs(); len(got) != 2 || !slices.IsSorted(got) {
		t.Errorf("the ring holds %v", got)
	}
	for _, plain := range [][]byte{nil, []byte("a"), bytes.Repeat([]byte("secret"), 10_000)} {
		sealed, err := key.Seal(plain)
		if err != nil {
			t.Fatal(err)
		}
		again, err := key.Seal(plain)
		if err != nil || bytes.Equal(sealed.Data, again.Data) {
			t.Errorf("sealing twice gives the same: %v", err)
		}
		if len(plain) > 3 && bytes.Contains(sealed.Data, plain[:6]) {
			t.Error("the secret shows")
		}
		if got, err := ring.Open(sealed); err != nil || !bytes.Equal(got, plain) {
			t.Errorf("opened: %.20q, %v", got, err)
		}
		if _, err := ring.Without(key.ID()).Open(sealed); labmesh.ReasonOf(err) != labmesh.Unavailable {
			t.Errorf("without its key: %v", err)
		}
		for i := range min(len(sealed.Data), 40) {
			bad := labmesh.Sealed{Key: sealed.Key, Data: slices.Clone(sealed.Data)}
			bad.Data[i] ^= 1
			if _, err := ring.Open(bad); labmesh.ReasonOf(err) != labmesh.Internal {
				t.Fatalf("byte %d changed: %v", i, err)
			}
		}
		if _, err := ring.Open(labmesh.Sealed{Key: other.ID(), Data: sealed.Data}); err == nil {
			t.Error("opened by another key")
		}
	}
}

func TestARingComesBackAsItWas(t *testing.T) {
	t.Parallel()
	ring := security.Ring{}
	for range 5 {
		ring = ring.With(mintSealKey(t))
	}
	data, err := ring.Encode()
	if err != nil {
		t.Fatal(err)
	}
	got, err := security.ParseRing(data)
	if err != nil || !slices.Equal(got.IDs(), ring.IDs()) {
		t.Errorf("%v, %v", got.IDs(), err)
	}
	for _, bad := range []string{"", "{", "[]", `{"labmesh_seal_keys":2,"keys":[]}`, `{"labmesh_seal_keys":1,"keys":["AAAA"]}`, `{"labmesh_seal_keys":1,"keys":["???"]}`,
		`{"labmesh_seal_keys":1,"keys":[],"more":1}`, strings.Repeat(" ", 70<<10) + string(data)} {
		if _, err := security.ParseRing([]byte(bad)); labmesh.ReasonOf(err) != labmesh.Invalid {
			t.Errorf("%.40q: %v", bad, err)
		}
	}
}

func TestASealKeyDoesNotPrint(t *testing.T) {
	t.Parallel()
	k := mintSealKey(t)
	text, err := k.MarshalText()
	if err != nil {
		t.Fatal(err)
	}
	raw, err := base64.StdEncoding.DecodeString(string(text))
	if err != nil {
		t.Fatal(err)
	}
	for _, format := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x"} {
		for _, v := range []any{k, &k, []security.SealKey{k}, security.Ring{}.With(k)} {
			got := fmt.Sprintf(format, v)
			if strings.Contains(got, string(text)) || strings.Contains(got, fmt.Sprintf("%x", raw)) || strings.Contains(got, fmt.Sprint(raw[:8])[1:10]) {
				t.Errorf("%s of %T: %s", format, v, got)
			}
		}
	}
}

func FuzzParseRing(f *testing.F) {
	f.Add([]byte(`{"labmesh_seal_keys":1,"keys":["AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="]}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		ring, err := security.ParseRing(data)
		if err != nil {
			return
		}
		written, err := ring.Encode()
		if err != nil {
			t.Fatal(err)
		}
		again, err := security.ParseRing(written)
		if err != nil || !slices.Equal(again.IDs(), ring.IDs()) {
			t.Errorf("%q does not come back: %v", data, err)
		}
	})
}
