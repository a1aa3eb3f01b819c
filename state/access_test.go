package state

import (
	"bytes"
	"fmt"
	"testing"
	"time"

	"labmesh"
)

// accessMesh is a mesh at the feature level from which on keys end.
func accessMesh(t *testing.T) *mesh {
	t.Helper()
	m := newMesh()
	admin := labmesh.Key{ID: "root", Hash: []byte("h"), Role: labmesh.RoleAdmin}
	_, a := m.apply(labmesh.FoundMesh{Mesh: "m", Founder: labmesh.Member{Node: "n-w1"}, Key: admin, Level: accessLevel})
	if a[0].Refused != nil {
		t.Fatal(a[0].Refused)
	}
	return m
}

// do applies one command and returns why it was refused.
func (m *mesh) do(cmd labmesh.Command) *labmesh.Error {
	_, a := m.apply(cmd)
	return a[0].Refused
}

func reason(e *labmesh.Error) labmesh.Reason {
	if e == nil {
		return ""
	}
	return e.Reason
}

func key(id string, role labmesh.Role) labmesh.Key {
	k := labmesh.Key{ID: id, Hash: []byte("h-" + id), Role: role}
	if role == labmesh.RoleSubmitter {
		k.Project = "vision"
	}
	return k
}

func TestKeysArePutOnceAndRevokedForEver(t *testing.T) {
	t.Parallel()
	m := accessMesh(t)
	m.at = epoch.Add(time.Hour)
	for _, role := range labmesh.KeyRoles() {
		if err := m.do(labmesh.PutKey{Key: key(string(role), role)}); err != nil {
			t.Errorf("%s: %v", role, err)
		}
	}
	k, _ := m.c.v.Key("submitter")
	if !k.Created.Equal(m.at) || k.Project != "vision" || !k.Valid(m.at) {
		t.Errorf("kept %+v", k)
	}
	for name, bad := range map[string]labmesh.Key{
		"no id": {Hash: []byte("h"), Role: labmesh.RoleAdmin}, "no hash": {ID: "x", Role: labmesh.RoleAdmin},
		"no role": {ID: "x", Hash: []byte("h")}, "a node's role": key("x", labmesh.RoleNode), "no such role": key("x", "king"),
		"a submitter of nothing": {ID: "x", Hash: []byte("h"), Role: labmesh.RoleSubmitter},
		"a long project":         {ID: "x", Hash: []byte("h"), Role: labmesh.RoleObserver, Project: fmt.Sprint(make([]byte, 40))},
	} {
		if err := m.do(labmesh.PutKey{Key: bad}); reason(err) != labmesh.Invalid {
			t.Errorf("%s: %v", name, err)
		}
	}
	before := m.c.View()
	for _, events := range []int{1, 0} { // revoked twice is revoked once
		got, a := m.apply(labmesh.RevokeKey{ID: "submitter", By: "root"})
		if len(got) != events || a[0].Refused != nil {
			t.Errorf("revoke: %v %v", got, a)
		}
	}
	if k, _ := m.c.v.Key("submitter"); k.Valid(m.at) || !k.Revoked.Equal(m.at) {
		t.Errorf("revoked, and it is %+v", k)
	}
	if k, _ := before.Key("submitter"); !k.Valid(m.at) {
		t.Error("a view changed after it was taken")
	}
	if err := m.do(labmesh.PutKey{Key: key("submitter", labmesh.RoleAdmin)}); err != nil {
		t.Error(err)
	}
	if k, _ := m.c.v.Key("submitter"); k.Role != labmesh.RoleSubmitter || k.Valid(m.at) {
		t.Errorf("a key that was put again is %+v", k)
	}
	if err := m.do(labmesh.RevokeKey{ID: "nobody's"}); reason(err) != labmesh.NotFound {
		t.Error(err)
	}
}

func TestTheLastAdminKeyStays(t *testing.T) {
	t.Parallel()
	m := accessMesh(t)
	past := key("past", labmesh.RoleAdmin)
	past.Expires = m.at.Add(time.Minute)
	m.do(labmesh.PutKey{Key: past})
	m.do(labmesh.PutKey{Key: key("op", labmesh.RoleOperator)})
	m.at = m.at.Add(time.Hour)
	if err := m.do(labmesh.RevokeKey{ID: "root"}); reason(err) != labmesh.Conflict {
		t.Errorf("nobody could administer the mesh any more: %v", err)
	}
	m.do(labmesh.PutKey{Key: key("second", labmesh.RoleAdmin)})
	if err := m.do(labmesh.RevokeKey{ID: "root"}); err != nil {
		t.Error(err)
	}
	if err := m.do(labmesh.RevokeKey{ID: "second"}); reason(err) != labmesh.Conflict {
		t.Errorf("nobody could administer the mesh any more: %v", err)
	}
}

func TestKeysThatOpenNothingMakeRoom(t *testing.T) {
	t.Parallel()
	m := accessMesh(t)
	for i := range labmesh.KeysMax - 1 {
		k := key(fmt.Sprint("k", i), labmesh.RoleObserver)
		m.c.v.apiKeys.Set(k.ID, &k) // putting each looks at all before it
	}
	extra := labmesh.PutKey{Key: key("extra", labmesh.RoleObserver)}
	if err := m.do(extra); reason(err) != labmesh.Exhausted {
		t.Errorf("over the limit: %v", err)
	}
	m.do(labmesh.RevokeKey{ID: "k7"})
	if err := m.do(extra); err != nil {
		t.Error(err)
	}
	if _, ok := m.c.v.Key("k7"); ok {
		t.Error("the revoked key is still there, and the mesh was full")
	}
	m.do(labmesh.RevokeKey{ID: "k8"})
	m.at = m.at.Add(keyKeep + time.Second)
	m.do(labmesh.PutKey{Key: key("late", labmesh.RoleObserver)})
	if _, ok := m.c.v.Key("k8"); ok {
		t.Error("a key that opened nothing for so long is still there")
	}
}

func TestLastUseOnlyGoesForward(t *testing.T) {
	t.Parallel()
	m := accessMesh(t)
	at := epoch.Add(time.Hour)
	m.do(labmesh.UseKeys{Used: []labmesh.KeyUse{{ID: "root", At: at}, {ID: "nobody's", At: at}}})
	m.do(labmesh.UseKeys{Used: []labmesh.KeyUse{{ID: "root", At: at.Add(-time.Minute)}}})
	if k, _ := m.c.v.Key("root"); !k.LastUsed.Equal(at) {
		t.Errorf("last used %s", k.LastUsed)
	}
	if _, ok := m.c.v.Key("nobody's"); ok {
		t.Error("a key came to be by being used")
	}
}

func TestTokenKeysEnd(t *testing.T) {
	t.Parallel()
	m := accessMesh(t)
	tk := func(id, seal string, from time.Duration) labmesh.PutTokenKey {
		return labmesh.PutTokenKey{Key: labmesh.TokenKey{ID: id, Secret: labmesh.Sealed{Key: seal, Data: []byte(seal + id)}, From: epoch.Add(from), Until: epoch.Add(from + 48*time.Hour)}}
	}
	for _, cmd := range []labmesh.Command{tk("a", "s1", 0), tk("b", "s1", 24*time.Hour)} {
		if err := m.do(cmd); err != nil {
			t.Fatal(err)
		}
	}
	if err := m.do(tk("a", "s2", 90*time.Hour)); err != nil { // sealed anew, and nothing else
		t.Fatal(err)
	}
	if a, _ := m.c.v.tokenKeys.Get("a"); a.Secret.Key != "s2" || !a.From.Equal(epoch) {
		t.Errorf("sealed anew it is %+v", a)
	}
	for name, bad := range map[string]labmesh.TokenKey{"no id": {Secret: labmesh.Sealed{Data: []byte("x")}, Until: epoch}, "no secret": {ID: "x", Until: epoch},
		"no time": {ID: "x", Secret: labmesh.Sealed{Data: []byte("x")}, From: epoch, Until: epoch}} {
		if err := m.do(labmesh.PutTokenKey{Key: bad}); reason(err) != labmesh.Invalid {
			t.Errorf("%s: %v", name, err)
		}
	}
	m.at = epoch.Add(49 * time.Hour)
	m.do(tk("c", "s2", 50*time.Hour))
	var left string
	for k := range m.c.v.TokenKeys() {
		left += k.ID
	}
	if left != "bc" {
		t.Errorf("left are %s", left)
	}
}

func TestInvitesAreDropped(t *testing.T) {
	t.Parallel()
	m := accessMesh(t)
	m.do(labmesh.PutInvite{Invite: labmesh.Invite{ID: "i", Role: labmesh.RoleNode, Uses: 3, Key: []byte("k"), Expires: m.at.Add(time.Hour)}})
	for _, want := range []int{1, 0} {
		events, a := m.apply(labmesh.DropInvite{ID: "i", By: "root"})
		if len(events) != want || a[0].Refused != nil {
			t.Errorf("drop: %v %v", events, a)
		}
	}
	if err := m.do(labmesh.PutMember{Member: labmesh.Member{Node: "n9"}, Invite: "i"}); reason(err) != labmesh.Denied {
		t.Errorf("in by a dropped invite: %v", err)
	}
	if err := m.do(labmesh.DropInvite{ID: "other"}); reason(err) != labmesh.NotFound {
		t.Error(err)
	}
}

func TestProjectsDoNotSeeEachOther(t *testing.T) {
	t.Parallel()
	m := accessMesh(t)
	submit := func(project, id, key string, on ...labmesh.TaskID) labmesh.Answer {
		_, a := m.apply(labmesh.SubmitTask{ID: labmesh.TaskID(id), Project: project, Spec: labmesh.Spec{Kind: labmesh.Custom, IdempotencyKey: key, DependsOn: on}})
		return a[0]
	}
	check := func(what string) {
		t.Helper()
		for _, c := range []struct {
			project, id, key string
			on               []labmesh.TaskID
			reason           labmesh.Reason
			task             labmesh.TaskID
		}{
			{"vision", "v9", "k", nil, "", "v1"}, // its own key again
			{"audio", "a9", "k", nil, "", "a1"},  // the same word, another project
			{"", "x9", "k", nil, "", "x1"},       // and none
			{"vision", "v1", "", nil, "", "v1"},  // its own id again
			{"audio", "v1", "", nil, labmesh.Conflict, "v1"},
			{"audio", "x1", "", nil, labmesh.Conflict, "x1"},
			{"", "v1", "", nil, "", "v1"},
			{"audio", "a9", "", []labmesh.TaskID{"v1"}, labmesh.Invalid, "a9"},
			{"audio", "a9", "", []labmesh.TaskID{"none"}, labmesh.Invalid, "a9"},
		} {
			a := submit(c.project, c.id, c.key, c.on...)
			if reason(a.Refused) != c.reason || a.Task != c.task {
				t.Errorf("%s: %q submits %s with key %q after %v: %+v", what, c.project, c.id, c.key, c.on, a)
			}
		}
		seen, none := submit("audio", "a9", "", "v1").Refused, submit("audio", "a9", "", "none").Refused
		if seen == nil || none == nil || len(seen.Message)-len("v1") != len(none.Message)-len("none") {
			t.Errorf("%s: one can tell %v from %v", what, seen, none)
		}
		for key, want := range map[string]labmesh.TaskID{"vision": "v1", "audio": "a1", "": "x1"} {
			if id, _ := m.c.v.TaskByKey(key, "k"); id != want {
				t.Errorf("%s: in %q the key is %s", what, key, id)
			}
		}
	}
	for project, id := range map[string]string{"vision": "v1", "audio": "a1", "": "x1"} {
		if a := submit(project, id, "k"); a.Existed || a.Refused != nil {
			t.Fatal(project, a)
		}
	}
	check("live")
	for _, id := range []labmesh.TaskID{"v1", "a1", "x1"} {
		m.do(labmesh.CancelTask{ID: id})
	}
	for i := range keptMax {
		submit("bulk", fmt.Sprint("b", i), "")
		m.do(labmesh.CancelTask{ID: labmesh.TaskID(fmt.Sprint("b", i))})
	}
	if _, ok := m.c.v.Task("v1"); ok {
		t.Fatal("still kept whole")
	}
	check("ended")
	m.c = restored(t, m.c)
	check("from a snapshot")
	for i := range rememberMax {
		submit("bulk", fmt.Sprint("c", i), fmt.Sprint("key", i))
		m.do(labmesh.CancelTask{ID: labmesh.TaskID(fmt.Sprint("c", i))})
	}
	if v := m.c.View(); v.keys.Len() > rememberMax || v.Known("v1") {
		t.Errorf("%d keys are remembered", v.keys.Len())
	}
}

// restored is c after a snapshot.
func restored(t *testing.T, c *Cluster) *Cluster {
	t.Helper()
	var buf bytes.Buffer
	if err := c.View().Encode(&buf); err != nil {
		t.Fatal(err)
	}
	out, err := Decode(&buf)
	if err != nil {
		t.Fatal(err)
	}
	return out
}
