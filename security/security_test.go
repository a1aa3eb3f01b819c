package security_test

import (
	"bytes"
	"crypto/rand"
	"strings"
	"testing"
	"time"

	"labmesh"
	"labmesh/security"
)

func TestOnlyTheKeyItselfOpens(t *testing.T) {
	t.Parallel()
	key, kept, err := security.MintKey(rand.Reader, labmesh.RoleAdmin, "ada")
	if err != nil {
		t.Fatal(err)
	}
	other, _, err := security.MintKey(rand.Reader, labmesh.RoleAdmin, "eve")
	if err != nil {
		t.Fatal(err)
	}
	if id, ok := security.KeyID(key); !ok || id != kept.ID {
		t.Errorf("KeyID(%s) = %q, %v; want %q", key[:8], id, ok, kept.ID)
	}
	if bytes.Contains(kept.Hash, []byte(key)) || strings.Contains(kept.ID, key) {
		t.Error("the mesh keeps the key itself")
	}
	for k, want := range map[string]bool{key: true, other: false, key[:len(key)-1]: false, key + "x": false, "": false} {
		if got := security.Opens(k, &kept); got != want {
			t.Errorf("Opens(%.12q…) = %v", k, got)
		}
	}
	for _, k := range []string{"", "lmk_", "lmk_abc", "lmk__x", "abc", "Bearer lmk_a_b", "lmk_" + strings.Repeat("a", 65) + "_b"} {
		if _, ok := security.KeyID(k); ok {
			t.Errorf("%q counts as a key", k)
		}
	}
}

func TestInviteComesBackAsItWas(t *testing.T) {
	t.Parallel()
	inv, kept, err := security.MintInvite(rand.Reader, "m1", labmesh.RoleNode, time.Now().Add(time.Hour), 3, "ada", []string{"/ip4/127.0.0.1/tcp/1/p2p/x"})
	if err != nil {
		t.Fatal(err)
	}
	got, err := security.ParseInvite(" " + inv.String() + "\n")
	if err != nil {
		t.Fatal(err)
	}
	if got.String() != inv.String() || !bytes.Equal(got.Secret, inv.Secret) || got.Role != labmesh.RoleNode {
		t.Errorf("got %+v, want %+v", got, inv)
	}
	if bytes.Equal(kept.Key, inv.Secret) || kept.Uses != 3 || kept.ID != inv.ID {
		t.Errorf("the mesh keeps %+v", kept)
	}
}

func TestBadInvitesAreRefusedWithoutRepeatingThem(t *testing.T) {
	t.Parallel()
	inv, _, err := security.MintInvite(rand.Reader, "m1", labmesh.RoleNode, time.Now(), 1, "", []string{"/ip4/127.0.0.1/tcp/1/p2p/x"})
	if err != nil {
		t.Fatal(err)
	}
	good := inv.String()
	for _, s := range []string{"", "hello", good[:len(good)-5], good[:20], good + "!", "labmesh1:", "labmesh1:e30", "labmesh2:" + good[9:], good + strings.Repeat("A", 9000)} {
		_, err := security.ParseInvite(s)
		if labmesh.ReasonOf(err) != labmesh.Invalid {
			t.Errorf("%.20q…: %v", s, err)
		}
		if err != nil && len(s) > 30 && strings.Contains(err.Error(), s[10:30]) {
			t.Errorf("the error repeats the invite: %v", err)
		}
	}
	for _, r := range []labmesh.Role{"", "admin", "king"} {
		if _, _, err := security.MintInvite(rand.Reader, "m", r, time.Now(), 1, "", nil); labmesh.ReasonOf(err) != labmesh.Invalid {
			t.Errorf("role %q: %v", r, err)
		}
	}
}

func FuzzParseInvite(f *testing.F) {
	f.Add("labmesh1:e30")
	f.Fuzz(func(t *testing.T, s string) {
		inv, err := security.ParseInvite(s)
		if err != nil {
			return
		}
		again, err := security.ParseInvite(inv.String())
		if err != nil || again.String() != inv.String() {
			t.Errorf("%q does not come back: %v", s, err)
		}
	})
}
