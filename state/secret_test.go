package state

import (
	"bytes"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"labmesh"
)

func secrets(v View) map[string]string {
	out := map[string]string{}
	for s := range v.Secrets() {
		out[s.Name] = s.Value
	}
	return out
}

func TestSecretsArePutAndDropped(t *testing.T) {
	t.Parallel()
	m := newMesh()
	put := func(name, value string) *labmesh.Error {
		_, a := m.apply(labmesh.PutSecret{Secret: labmesh.Secret{Name: name, Value: value, By: "ada", Put: time.Unix(1, 0)}})
		return a[0].Refused
	}
	m.at = epoch.Add(time.Hour)
	if err := put("B", "two"); err != nil {
		t.Fatal(err)
	}
	before := m.c.View()
	for _, s := range []struct{ name, value string }{{"A", "one"}, {"B", "three"}, {"C", strings.Repeat("x", labmesh.SecretBytesMax)}} {
		if err := put(s.name, s.value); err != nil {
			t.Errorf("%s: %v", s.name, err)
		}
	}
	if s, ok := m.c.v.Secret("B"); !ok || s.Value != "three" || s.By != "ada" || !s.Put.Equal(m.at) {
		t.Errorf("B is %q by %s at %s", s.Value, s.By, s.Put)
	}
	if s, _ := before.Secret("B"); s.Value != "two" {
		t.Error("a view changed after it was taken")
	}
	for name, value := range map[string]string{"": "x", "D": strings.Repeat("x", labmesh.SecretBytesMax+1)} {
		if err := put(name, value); err == nil || err.Reason != labmesh.Invalid {
			t.Errorf("%q of %d bytes: %v", name, len(value), err)
		}
	}
	for _, want := range []int{1, 0} { // dropped twice is dropped once
		events, a := m.apply(labmesh.DropSecret{Name: "A", By: "bob"})
		if len(events) != want || a[0].Refused != nil {
			t.Errorf("drop: %v, %v", events, a)
		}
	}
	if _, ok := m.c.v.Secret("A"); ok {
		t.Error("a dropped secret is there")
	}
}

func TestSecretsAreBounded(t *testing.T) {
	t.Parallel()
	m := newMesh()
	put := func(i int) *labmesh.Error {
		_, a := m.apply(labmesh.PutSecret{Secret: labmesh.Secret{Name: fmt.Sprint("S", i), Value: "v"}})
		return a[0].Refused
	}
	for i := range labmesh.SecretsMax {
		if err := put(i); err != nil {
			t.Fatal(err)
		}
	}
	if err := put(labmesh.SecretsMax); err == nil || err.Reason != labmesh.Exhausted {
		t.Errorf("one too many: %v", err)
	}
	if err := put(7); err != nil {
		t.Errorf("one in place of itself: %v", err)
	}
	m.apply(labmesh.DropSecret{Name: "S7"})
	if err := put(labmesh.SecretsMax); err != nil {
		t.Errorf("in place of one that was dropped: %v", err)
	}
}

// TestSecretsAreAsThoseWhoSetThemSaid, with snapshots in between, and no event
// ever shows a value.
func TestSecretsAreAsThoseWhoSetThemSaid(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(r *rapid.T) {
		m := newMesh()
		want := map[string]string{}
		for range rapid.IntRange(1, 40).Draw(r, "commands") {
			name := rapid.SampledFrom([]string{"A", "B", "C"}).Draw(r, "name")
			value := rapid.StringMatching(`hidden-[0-9]{4}`).Draw(r, "value")
			var events []labmesh.Event
			if rapid.Bool().Draw(r, "put") {
				events, _ = m.apply(labmesh.PutSecret{Secret: labmesh.Secret{Name: name, Value: value, By: "ada"}})
				want[name] = value
			} else {
				events, _ = m.apply(labmesh.DropSecret{Name: name, By: "ada"})
				delete(want, name)
			}
			for _, e := range events {
				if strings.Contains(fmt.Sprintf("%#v", e), "hidden") || e.Detail != name || e.Actor != "ada" {
					r.Fatalf("event %#v", e)
				}
			}
			if rapid.IntRange(0, 4).Draw(r, "snapshot") == 0 {
				c, err := Decode(bytes.NewReader(encode(r, m.c)))
				if err != nil {
					r.Fatal(err)
				}
				m.c = c
			}
			if got := secrets(m.c.View()); !maps.Equal(got, want) {
				r.Fatalf("secrets %v, want %v", got, want)
			}
			if names := slices.Collect(maps.Keys(secrets(m.c.View()))); len(names) != len(want) {
				r.Fatal(names)
			}
		}
	})
}

// TestASecretDoesNotPrint: whatever prints one by mistake prints its name.
func TestASecretDoesNotPrint(t *testing.T) {
	t.Parallel()
	s := labmesh.Secret{Name: "TOKEN", Value: "hidden"}
	for _, format := range []string{"%v", "%+v", "%#v", "%s", "%q"} {
		for _, v := range []any{s, &s, labmesh.PutSecret{Secret: s}, []labmesh.Command{labmesh.PutSecret{Secret: s}}} {
			if got := fmt.Sprintf(format, v); strings.Contains(got, "hidden") {
				t.Errorf("%s of %T: %s", format, v, got)
			}
		}
	}
}

// TestWhatIsSealedAnewUndoesNothing: it replaces the value that it was made of, and no other.
func TestWhatIsSealedAnewUndoesNothing(t *testing.T) {
	t.Parallel()
	c, at := New(), time.Unix(1000, 0).UTC()
	put := func(s labmesh.Secret) *labmesh.Error {
		at = at.Add(time.Second)
		_, answers := c.Apply(c.View().Index()+1, labmesh.Entry{At: at, Commands: []labmesh.Command{labmesh.PutSecret{Secret: s}}})
		return answers[0].Refused
	}
	sealed := func(data string) *labmesh.Sealed { return &labmesh.Sealed{Key: data, Data: []byte(data)} }
	if r := put(labmesh.Secret{Name: "A", Value: "plain", By: "ada"}); r != nil {
		t.Fatal(r)
	}
	old, _ := c.View().Secret("A")
	if r := put(labmesh.Secret{Name: "A", Put: old.Put, Sealed: sealed("old")}); r != nil {
		t.Fatal(r)
	}
	if s, _ := c.View().Secret("A"); s.Value != "" || s.Sealed.Key != "old" || s.By != "ada" || !s.Put.Equal(old.Put) {
		t.Errorf("sealed anew it is %+v", *s)
	}
	if r := put(labmesh.Secret{Name: "A", Sealed: sealed("new")}); r != nil {
		t.Fatal(r)
	}
	if r := put(labmesh.Secret{Name: "A", Put: old.Put, Sealed: sealed("old2")}); r == nil || r.Reason != labmesh.Conflict {
		t.Errorf("over a newer value: %v", r)
	}
	if r := put(labmesh.Secret{Name: "B", Put: old.Put, Sealed: sealed("old")}); r == nil || r.Reason != labmesh.Conflict {
		t.Errorf("of what was dropped: %v", r)
	}
	if s, _ := c.View().Secret("A"); s.Sealed.Key != "new" {
		t.Errorf("the newer value is gone: %+v", *s)
	}
}
