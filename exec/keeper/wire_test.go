package keeper

import (
	"bytes"
	"errors"
	"reflect"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"
)

func messages() []message {
	x := Exit{ID: 7, Errno: 2, Status: 1 << 8, User: time.Second, System: time.Millisecond, MaxRSS: 123, Asked: true, Cut: true}
	p := Program{ID: 7, Attempt: "t/1", Ordinal: 3, Sum: 1 << 63, Meta: "a\x00b", Age: time.Hour, Ended: true, Exit: x, Spools: []string{"/a", "/b"}, NoPipes: true}
	return []message{
		{kind: kindHello, version: version},
		{kind: kindQuit},
		{kind: kindBuffers},
		{kind: kindLease},
		{kind: kindSpawn, tidy: tidy{drained: []uint64{1, 1 << 60}, forget: []string{"t/1", ""}}, spawn: Spawn{
			ID: 1, Attempt: "t/2", Ordinal: -1, Sum: 5, Meta: "m", Path: "/bin/true", Args: []string{"true", ""}, Env: []string{"A=b"}, Dir: "/", Nice: 5, Umask: -1,
			Rlimits: []Rlimit{{7, 1, 2}}, Outlasts: 6 * time.Second, V1Base: []string{"/w"}, V1Tasks: []string{"/x"}, V1Back: []string{"/y"}, Cgroup: true, Stdin: true,
		}},
		{kind: kindSignal, id: 9, signal: 15},
		{kind: kindClaim, id: 9},
		{kind: kindTidy, tidy: tidy{forget: []string{"t/1"}}},
		{kind: kindKnown, version: version, last: true, renewed: time.Hour, programs: []Program{p, {}}},
		{kind: kindExits, exits: []Exit{x, {}}},
		{kind: kindClaimed, programs: []Program{p}},
	}
}

func TestMessagesArriveAsTheyWereSent(t *testing.T) {
	t.Parallel()
	for _, m := range messages() {
		b := m.appendTo(nil)
		got, err := decode(b)
		if err != nil || !reflect.DeepEqual(got, m) {
			t.Errorf("%+v arrived as %+v, %v", m, got, err)
		}
		if m.kind == kindQuit || m.kind == kindHello {
			continue // what another version says behind it does not matter
		}
		for n := range b {
			if _, err := decode(b[:n]); !errors.Is(err, errMessage) {
				t.Errorf("kind %d cut off after %d of %d bytes: %v", m.kind, n, len(b), err)
			}
		}
		if _, err := decode(append(b, 0)); !errors.Is(err, errMessage) {
			t.Errorf("kind %d with something behind it: %v", m.kind, err)
		}
	}
}

func TestAnySpawnArrives(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		texts := rapid.SliceOfN(rapid.String(), 1, 5)
		m := message{kind: kindSpawn, spawn: Spawn{
			ID: rapid.Uint64().Draw(t, "id"), Attempt: rapid.String().Draw(t, "attempt"), Ordinal: rapid.Int().Draw(t, "ordinal"), Sum: rapid.Uint64().Draw(t, "sum"),
			Path: rapid.String().Draw(t, "path"), Args: texts.Draw(t, "args"), Env: texts.Draw(t, "env"), Umask: rapid.IntRange(-1, 0o777).Draw(t, "umask"), Stdin: rapid.Bool().Draw(t, "stdin"),
		}}
		if got, err := decode(m.appendTo(nil)); err != nil || !reflect.DeepEqual(got, m) {
			t.Errorf("%+v arrived as %+v, %v", m, got, err)
		}
	})
}

func FuzzDecode(f *testing.F) {
	for _, m := range messages() {
		f.Add(m.appendTo(nil))
	}
	f.Add([]byte{byte(kindExits), 0xff, 0xff, 0xff, 0xff, 0x0f})
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := decode(b)
		if err != nil {
			return
		}
		again, err := decode(m.appendTo(nil))
		if m.kind == kindKnown && m.version != version {
			return // of which nothing but the version is known
		}
		if err != nil || !reflect.DeepEqual(m, again) {
			t.Errorf("%x is %+v, which arrives as %+v, %v", b, m, again, err)
		}
	})
}

func TestALongMessageIsNoLongerThanItHasToBe(t *testing.T) {
	t.Parallel()
	m := message{kind: kindSpawn, spawn: Spawn{Args: []string{strings.Repeat("x", 1<<20)}}}
	if b := m.appendTo(nil); len(b) > 1<<20+64 || !bytes.Contains(b, []byte("xxx")) {
		t.Errorf("%d bytes", len(b))
	}
}
