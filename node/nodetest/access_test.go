package nodetest_test

import (
	"bufio"
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"labmesh"
	"labmesh/node/httpapi"
	"labmesh/node/nodetest"
	"labmesh/security"
)

// printedRoutes is the table of who may call what as docs/security.md has it: the
// words for each role, by method and path; "" stands for who has no key.
func printedRoutes(t *testing.T) map[string]map[labmesh.Role]string {
	t.Helper()
	f, err := os.Open("../../docs/security.md")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	out := map[string]map[labmesh.Role]string{}
	roles := append(labmesh.KeyRoles(), "")
	for lines := bufio.NewScanner(f); lines.Scan(); {
		cells := strings.Split(lines.Text(), "|")
		if len(cells) != len(roles)+3 || !strings.HasPrefix(cells[1], " `") {
			continue
		}
		may := map[labmesh.Role]string{}
		for i, r := range roles {
			may[r] = strings.TrimSpace(cells[i+2])
		}
		out[strings.Trim(cells[1], " `")] = may
	}
	if len(out) < 30 {
		t.Fatalf("only %d routes are printed", len(out))
	}
	return out
}

// request sends a node one request.
func request(n *nodetest.Node, route, credential, body string) *httptest.ResponseRecorder {
	method, path, _ := strings.Cut(route, " ")
	path = strings.NewReplacer("{id}", "no-such", "{name}", "NONE", "{path...}", "a").Replace(path)
	r := httptest.NewRequest(method, path, strings.NewReader(body))
	r.RemoteAddr = method + " " + path // strangers from one address are held back
	r.Host = "localhost"
	if credential != "" {
		r.Header.Set("Authorization", "Bearer "+credential)
	}
	w := httptest.NewRecorder()
	ctx, cancel := context.WithTimeout(r.Context(), 500*time.Millisecond) // streams end
	defer cancel()
	n.Handler().ServeHTTP(w, r.WithContext(ctx))
	return w
}

// TestEveryRouteForEveryCaller asks a real node for every route that is printed in
// docs/security.md, as every kind of caller.
func TestEveryRouteForEveryCaller(t *testing.T) {
	t.Parallel()
	routes := printedRoutes(t)
	synctest.Test(t, func(t *testing.T) {
		m := nodetest.Start(t, 1, nil)
		other := nodetest.Start(t, 1, nil)
		n, svc := m.Nodes[0], m.Nodes[0].Service()
		create := func(r httpapi.KeyRequest) string {
			t.Helper()
			if r.Role == labmesh.RoleSubmitter {
				r.Project = "vision"
			}
			key, _, err := svc.CreateKey(t.Context(), httpapi.Caller{}, r)
			if err != nil {
				t.Fatal(err)
			}
			return key
		}
		good, bad := map[string]labmesh.Role{}, map[string]string{"": "no key", "nonsense": "nonsense", "a.b.c": "dots"}
		for _, role := range labmesh.KeyRoles() {
			key := create(httpapi.KeyRequest{Role: role})
			good[key] = role
			bad[key[:len(key)-1]] = "a cut key"
			expired := create(httpapi.KeyRequest{Role: role, TTL: time.Second})
			bad[expired] = "an expired key"
			revoked := create(httpapi.KeyRequest{Role: role})
			bad[revoked] = "a revoked key"
			if err := svc.RevokeKey(t.Context(), strings.Split(revoked, "_")[1], "test"); err != nil {
				t.Fatal(err)
			}
			theirs, _, err := other.Nodes[0].Service().CreateKey(t.Context(), httpapi.Caller{}, httpapi.KeyRequest{Role: role, Project: "vision"})
			if err != nil {
				t.Fatal(err)
			}
			bad[theirs] = "a key of another mesh"
			bad[key[:13]+theirs[13:]] = "a key with the id of a good one"
		}
		addTokens(t, m, other, good, bad)
		leaf := m.JoinLeaf(t)
		check := func(n *nodetest.Node, route string, may map[labmesh.Role]string) {
			t.Helper()
			for credential, role := range good {
				w := request(n, route, credential, "")
				able := may[role] != "" && (may[role] != "key" || strings.HasPrefix(credential, "lmk_"))
				if able == (w.Code == http.StatusForbidden) || w.Code == http.StatusUnauthorized || w.Code == http.StatusInternalServerError {
					t.Errorf("%s as %s: %d %s", route, role, w.Code, w.Body)
				}
			}
			for credential, what := range bad {
				w := request(n, route, credential, "")
				if (may[""] != "") == (w.Code == http.StatusUnauthorized) {
					t.Errorf("%s with %s: %d %s", route, what, w.Code, w.Body)
				}
				if len(credential) > 20 && strings.Contains(w.Body.String(), credential[13:]) {
					t.Errorf("%s with %s: the answer repeats it: %s", route, what, w.Body)
				}
			}
		}
		for route, may := range routes {
			check(n, route, may)
		}
		for _, route := range []string{"GET /metrics", "GET /status", "POST /api/keys", "GET /api/tasks", "GET /healthz"} {
			check(leaf, route, routes[route])
		}
		// What is not printed does not exist.
		var doc struct {
			Paths map[string]map[string]any `json:"paths"`
		}
		for credential := range good {
			if err := json.Unmarshal(request(n, "GET /openapi.json", credential, "").Body.Bytes(), &doc); err != nil {
				t.Fatal(err)
			}
		}
		operations := 0
		for _, methods := range doc.Paths {
			operations += len(methods)
		}
		if operations != len(routes) {
			t.Errorf("%d routes are printed, the node describes %d", len(routes), operations)
		}
	})
}

// addTokens makes tokens of every kind. When it returns, those that end have ended.
func addTokens(t *testing.T, m, other *nodetest.Mesh, good map[string]labmesh.Role, bad map[string]string) {
	t.Helper()
	mint := func(m *nodetest.Mesh, key string, worker labmesh.WorkerID) string {
		t.Helper()
		var token httpapi.Token
		m.Wait(t, time.Minute, "a token", func() bool {
			c, err := m.Nodes[0].Service().Authenticate(key)
			if err == nil {
				token, err = m.Nodes[0].Service().MintToken(t.Context(), c, worker)
			}
			if err != nil && labmesh.ReasonOf(err) != labmesh.Unavailable {
				t.Fatal(err)
			}
			return err == nil
		})
		return token.Text
	}
	create := func(m *nodetest.Mesh, r httpapi.KeyRequest) string {
		t.Helper()
		key, _, err := m.Nodes[0].Service().CreateKey(t.Context(), httpapi.Caller{}, r)
		if err != nil {
			t.Fatal(err)
		}
		return key
	}
	keys := maps.Clone(good)
	for key, role := range keys {
		bad[mint(m, key, "")] = "a token that ended"
		bad[mint(other, create(other, httpapi.KeyRequest{Role: role, Project: "vision"}), "")] = "a token of another mesh"
	}
	time.Sleep(security.TokenTTL + time.Minute)
	for key, role := range keys {
		token := mint(m, key, "")
		good[token] = role
		head, rest, _ := strings.Cut(token, ".")
		body, mac, _ := strings.Cut(rest, ".")
		bad[head+"."+body+"."+strings.Repeat("A", len(mac))] = "a token with another signature"
		better := base64.RawURLEncoding.EncodeToString([]byte(strings.Replace(decoded(t, body), string(role), "admin ", 1)))
		bad[head+"."+better+"."+mac] = "a token with another role"
		bad[base64.RawURLEncoding.EncodeToString([]byte(`{"alg":"none"}`))+"."+body+"."] = "a token without a signature"
		gone := create(m, httpapi.KeyRequest{Role: role, Project: "vision"})
		bad[mint(m, gone, "")] = "a token of a key that was revoked"
		if err := m.Nodes[0].Service().RevokeKey(t.Context(), strings.Split(gone, "_")[1], "test"); err != nil {
			t.Fatal(err)
		}
		if role == labmesh.RoleAdmin {
			good[mint(m, key, "rig-1")] = labmesh.RoleWorker
		}
	}
}

func decoded(t *testing.T, s string) string {
	t.Helper()
	data, err := base64.RawURLEncoding.DecodeString(s)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

// TestAKeyThatDemandsSignatures opens nothing to a request that it has not signed, nor twice to one that it has.
func TestAKeyThatDemandsSignatures(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		m := nodetest.Start(t, 1, nil)
		n := m.Nodes[0]
		time.Sleep(time.Second)
		key, _, err := n.Service().CreateKey(t.Context(), httpapi.Caller{ID: "ada", Role: labmesh.RoleAdmin},
			httpapi.KeyRequest{Name: "hook", Role: labmesh.RoleSubmitter, Project: "vision", RequireSigned: true})
		if err != nil {
			t.Fatal(err)
		}
		const body = `{"type":"custom","config":{"name":"/bin/true"}}`
		ask := func(signature, sent string) int {
			r := httptest.NewRequest("POST", "/api/tasks?x=1", strings.NewReader(sent))
			r.Host = "localhost"
			r.Header.Set("X-API-Key", key)
			if signature != "" {
				r.Header.Set(security.SignatureHeader, signature)
			}
			w := httptest.NewRecorder()
			n.Handler().ServeHTTP(w, r)
			return w.Code
		}
		sign := func(secret, sent, nonce string) string {
			return security.SignRequest(secret, "POST", "/api/tasks?x=1", sha256.Sum256([]byte(sent)), time.Now(), nonce)
		}
		good := sign(key, body, "nonce-number-one")
		for _, c := range []struct {
			what, signature, sent string
			code                  int
		}{
			{"not signed", "", body, 403},
			{"signed by another", sign("another", body, "nonce-number-two"), body, 403},
			{"another body", sign(key, "{}", "nonce-number-three"), body, 403},
			{"good", good, body, 200},
			{"sent again", good, body, 403},
		} {
			if got := ask(c.signature, c.sent); got != c.code {
				t.Errorf("%s: %d, want %d", c.what, got, c.code)
			}
		}
	})
}
