package httpapi

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"labmesh"
)

// target is a path of the pattern p.
func target(p string) string {
	return strings.NewReplacer("{id}", "t1", "{path...}", "a/b", "{path}", "a/b").Replace(p)
}

// TestEveryRouteAsksWhoCalls sends each route of the table a request of every
// kind of caller.
func TestEveryRouteAsksWhoCalls(t *testing.T) {
	t.Parallel()
	f := newFake()
	close(f.more) // event streams end at once
	a, _ := newAPI(t, f)
	keys := []struct {
		name, header, value string
		role                labmesh.Role
	}{
		{"none", "X-API-Key", "", ""},
		{"bad", "X-API-Key", "nonsense", ""},
		{"bad bearer", "Authorization", "Bearer nonsense", ""},
		{"basic", "Authorization", "Basic " + adminKey, ""},
		{"long", "X-API-Key", strings.Repeat("k", credentialBytesMax+1), ""},
		{"worker", "X-API-Key", workerKey, labmesh.RoleWorker},
		{"operator", "X-API-Key", operatorKey, labmesh.RoleOperator},
		{"submitter", "X-API-Key", submitterKey, labmesh.RoleSubmitter},
		{"observer", "X-API-Key", observerKey, labmesh.RoleObserver},
		{"admin", "X-API-Key", adminKey, labmesh.RoleAdmin},
		{"bearer", "Authorization", "bearer " + adminKey, labmesh.RoleAdmin},
	}
	routes := a.routes()
	routes = append(routes, route{method: "GET", path: "/nowhere", may: admins}, route{method: "PUT", path: "/api/tasks", may: admins})
	for _, rt := range routes {
		for _, k := range keys {
			w := do(a, rt.method, target(rt.path), "", "X-API-Key", "", k.header, k.value)
			switch {
			case rt.may != open && k.role == "":
				if w.Code != 401 || object(t, w)["error"] != "Authentication required" || w.Header().Get("WWW-Authenticate") == "" {
					t.Errorf("%s %s with key %s: %d %s", rt.method, rt.path, k.name, w.Code, w.Body)
				}
			case rt.may == open || rt.may.has(k.role):
				if w.Code == 401 || w.Code == 403 {
					t.Errorf("%s %s with key %s: %d %s", rt.method, rt.path, k.name, w.Code, w.Body)
				}
			case rt.serve != nil && w.Code != 403:
				t.Errorf("%s %s with key %s: %d, not 403", rt.method, rt.path, k.name, w.Code)
			}
		}
	}
}

func TestOnlyHealthIsOpen(t *testing.T) {
	t.Parallel()
	a, _ := newAPI(t, newFake())
	var opened []string
	for _, rt := range a.routes() {
		if rt.may == open {
			opened = append(opened, rt.path)
		}
	}
	if got := strings.Join(opened, " "); got != "/healthz /readyz" {
		t.Errorf("open routes: %s", got)
	}
}

func TestWhoHasProvenToBeSomebodyIsToldWhy(t *testing.T) {
	t.Parallel()
	a, _ := newAPI(t, newFake())
	if w := do(a, "GET", "/status", "", "X-API-Key", "key-revoked"); w.Code != 401 || object(t, w)["hint"] != "the key was revoked" || object(t, w)["error"] != "Authentication required" {
		t.Errorf("%d %s", w.Code, w.Body)
	}
	if w := do(a, "GET", "/status", "", "X-API-Key", "nonsense"); w.Code != 401 || object(t, w)["hint"] != nil {
		t.Errorf("%d %s", w.Code, w.Body)
	}
}

func TestAKeyThatCannotBeCheckedIsNotABadKey(t *testing.T) {
	t.Parallel()
	a, _ := newAPI(t, newFake())
	if w := do(a, "GET", "/status", "", "X-API-Key", "key-unknowable"); w.Code != 503 || w.Header().Get("Retry-After") == "" {
		t.Errorf("%d %s", w.Code, w.Body)
	}
}

func TestHostGuard(t *testing.T) {
	t.Parallel()
	guarded, _ := newAPI(t, newFake(), func(c *Config) { c.LoopbackOnly, c.AllowedHosts = true, []string{"Lab.example"} })
	loose, _ := newAPI(t, newFake())
	for host, allowed := range map[string]bool{
		"localhost": true, "localhost:8080": true, "LOCALHOST.:1": true, "127.0.0.1:9": true, "[::1]:80": true, "[::1]": true,
		"lab.example:8080": true, "evil.example": false, "evil.example:8080": false, "localhost.evil.example": false,
		"10.0.0.1": false, "": false, "127.0.0.1.evil.example": false, "[fe80::1]:80": false, "0.0.0.0": false,
	} {
		for _, path := range []string{"/healthz", "/status"} {
			r := httptest.NewRequest("GET", path, nil)
			r.Host = host
			r.Header.Set("X-API-Key", adminKey)
			w := httptest.NewRecorder()
			guarded.ServeHTTP(w, r)
			if (w.Code == http.StatusOK) != allowed || !allowed && w.Code != http.StatusForbidden {
				t.Errorf("Host %q, %s: %d", host, path, w.Code)
			}
			w = httptest.NewRecorder()
			loose.ServeHTTP(w, r)
			if w.Code != http.StatusOK {
				t.Errorf("Host %q without the guard: %d", host, w.Code)
			}
		}
	}
}

func TestWhatIsNotHere(t *testing.T) {
	t.Parallel()
	a, _ := newAPI(t, newFake())
	for _, c := range []struct {
		method, path string
		status       int
		allow        string
	}{
		{"GET", "/", 404, ""},
		{"GET", "/api/nothing", 404, ""},
		{"GET", "/api/tasks/", 404, ""},
		{"GET", "//status", 404, ""},
		{"GET", "/api/../status", 404, ""},
		{"POST", "/status", 405, "GET"},
		{"DELETE", "/api/tasks", 405, "GET, POST"},
		{"GET", "/api/tasks/t1/cancel", 405, "POST"},
		{"BREW", "/healthz", 405, "GET"},
		{"HEAD", "/status", 200, ""},
		{"HEAD", "/api/events", 405, "GET"}, // it would never end
	} {
		w := do(a, c.method, c.path, "")
		if w.Code != c.status || w.Header().Get("Allow") != c.allow || w.Header().Get("Content-Type") != "application/json" {
			t.Errorf("%s %s: %d, Allow %q", c.method, c.path, w.Code, w.Header().Get("Allow"))
		}
		if c.method != "HEAD" && object(t, w)["error"] == "" {
			t.Errorf("%s %s: no error in %s", c.method, c.path, w.Body)
		}
	}
}

func TestExtraTakesWhatIsLeftOver(t *testing.T) {
	t.Parallel()
	extra := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(http.StatusTeapot) })
	a, _ := newAPI(t, newFake(), func(c *Config) { c.Extra = extra })
	for path, want := range map[string]int{
		"/": 418, "/ws": 418, "//ws": 418, "/assets/app.js": 418, "/status": 401, "/api/nothing": 401, "/api/tasks": 401, "/healthz": 200,
	} {
		if w := do(a, "GET", path, "", "X-API-Key", ""); w.Code != want {
			t.Errorf("%s: %d, not %d", path, w.Code, want)
		}
	}
}
