package main

import (
	"encoding/json"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"labmesh/api"
)

func TestKeyCommands(t *testing.T) {
	t.Parallel()
	n := newFakeNode(t)
	var asked api.KeyRequest
	var worker string
	past := api.Time{Time: time.Date(2026, 1, 1, 1, 0, 0, 0, time.UTC)} // the day before that of the test
	n.override = func(w http.ResponseWriter, r *http.Request) bool {
		body, _ := io.ReadAll(r.Body)
		switch r.Method + " " + r.URL.Path {
		case "POST /api/keys":
			asked = api.KeyRequest{}
			if err := json.Unmarshal(body, &asked); err != nil {
				t.Error(err)
			}
			answer(w, 200, api.KeyReply{APIKey: "lmk_k1_secret", Key: api.Key{ID: "k1", Role: asked.Role}})
		case "GET /api/keys":
			answer(w, 200, api.KeyList{Keys: []api.Key{{ID: "k1", Role: "submitter", Project: "vision"}, {ID: "k2", Role: "admin", Revoked: past}, {ID: "k3", Role: "worker", Expires: past, RequireSigned: true}}})
		case "DELETE /api/keys/k1", "DELETE /api/invites/i1":
			answer(w, 200, api.RevokeReply{ID: "k1"})
		case "DELETE /api/keys/last":
			answer(w, 409, api.Error{Message: "key last is the last admin key", Reason: "conflict"})
		case "POST /api/tokens":
			worker = string(body)
			answer(w, 200, api.TokenReply{Token: "a.b.c", Role: "admin"})
		case "GET /api/invites":
			answer(w, 200, api.InviteList{Invites: []api.Invite{{ID: "i1", Role: "node", Uses: 2, Expires: past}}})
		default:
			answer(w, 404, api.Error{Message: "Key not found", Reason: "not_found"})
		}
		return true
	}
	for _, c := range []struct {
		args string
		code int
		out  string // all of stdout, or a part where it begins with …
		says string // part of stderr
	}{
		{"key create --role submitter --project vision --name ci --expires 90d", 0, "lmk_k1_secret\n", "this once"},
		{"key create --role admin --require-signed", 0, "lmk_k1_secret\n", "k1"},
		{"--json key create --role observer", 0, `…"api_key": "lmk_k1_secret"`, ""},
		{"key create", 2, "", "role"},
		{"key create --role king", 2, "", "not one of"},
		{"key create --role submitter", 2, "", "project"},
		{"key create --role admin --expires never", 2, "", "90d"},
		{"key create --role admin --expires -1h", 2, "", "90d"},
		{"key create --role admin --expires 1e99d", 2, "", "90d"},
		{"key create --role admin extra", 2, "", "no arguments"},
		{"key list", 0, "…vision", ""},
		{"key list", 0, "…revoked 26h", ""},
		{"key list", 0, "…expired 26h", ""},
		{"--json key list", 0, `…"project": "vision"`, ""},
		{"key revoke k1", 0, "", "is revoked"},
		{"key revoke none", 2, "", "Key not found"},
		{"key revoke last", 2, "", "last admin key"},
		{"key revoke lmk_k1_secret", 2, "", "for all on this machine to see"},
		{"key revoke", 2, "", "ids"},
		{"key make", 2, "", "no command"},
		{"token", 0, "a.b.c\n", ""},
		{"token --worker rig-1", 0, "a.b.c\n", ""},
		{"token --worker a/b", 2, "", "--worker"},
		{"invite list", 0, "…i1", ""},
		{"invite revoke i1", 0, "", "is revoked"},
		{"invite lits", 2, "", "no command"},
	} {
		r := n.with(t, t.Context(), "", nil, strings.Fields(c.args)...)
		part, some := strings.CutPrefix(c.out, "…")
		if r.code != c.code || !some && r.stdout != c.out || !strings.Contains(r.stdout, part) || !strings.Contains(r.err, c.says) || strings.Contains(r.err, "secret") {
			t.Errorf("%q: %+v", c.args, r)
		}
		if strings.Contains(c.args, "90d") && c.code == 0 && (asked.TTLSeconds != 90*24*3600 || asked.Project != "vision" || asked.Name != "ci") {
			t.Errorf("%q asked for %+v", c.args, asked)
		}
	}
	if worker != `{"worker_id":"rig-1"}` {
		t.Errorf("the token was for %s", worker)
	}
}

func TestABanNamesTheKeyThatIsLeft(t *testing.T) {
	t.Parallel()
	n := newFakeNode(t)
	n.override = func(w http.ResponseWriter, r *http.Request) bool {
		switch r.Method + " " + r.URL.Path {
		case "POST /api/nodes/w-rig/ban":
			answer(w, 200, api.BanReply{Node: "n-rig", Message: "Node banned"})
		case "GET /api/workers":
			answer(w, 200, api.WorkerList{Workers: []api.WorkerSummary{{ID: "w-1", Node: "n-1", Hostname: "one"}, {ID: "w-rig", Node: "n-rig", Hostname: "rig"}}})
		case "GET /api/keys":
			answer(w, 200, api.KeyList{Keys: []api.Key{{ID: "k1", Name: "admin@one"}, {ID: "k2", Name: "admin@rig"}, {ID: "k3", Name: "admin@rig", Revoked: api.Time{Time: time.Unix(1, 0)}}}})
		default:
			return false
		}
		return true
	}
	r := n.with(t, t.Context(), "", nil, "ban", "w-rig")
	if r.code != 0 || !strings.Contains(r.stdout, "key revoke k2") || strings.Contains(r.stdout, "k1") || strings.Contains(r.stdout, "k3") {
		t.Errorf("%+v", r)
	}
}
