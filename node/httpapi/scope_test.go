package httpapi

import (
	"flag"
	"os"
	"slices"
	"strings"
	"testing"

	"labmesh"
)

var update = flag.Bool("update", false, "write the table of routes into docs/security.md")

// TestTheTableOfRoutesIsPrinted compares docs/security.md with the routes as they are.
func TestTheTableOfRoutesIsPrinted(t *testing.T) {
	t.Parallel()
	const path, begin, end = "../../docs/security.md", "<!-- routes: begin -->\n", "<!-- routes: end -->"
	a, _ := newAPI(t, newFake())
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	head, rest, ok := strings.Cut(string(data), begin)
	table, tail, ok2 := strings.Cut(rest, end)
	switch {
	case !ok || !ok2:
		t.Fatalf("%s lacks %q or %q", path, begin, end)
	case *update:
		if err := os.WriteFile(path, []byte(head+begin+a.routeTable()+end+tail), 0o644); err != nil {
			t.Fatal(err)
		}
	case table != a.routeTable():
		t.Errorf("%s does not say what is so: go test ./node/httpapi -run Printed -update", path)
	}
}

// routeTable is who may call which route, in Markdown.
func (a *API) routeTable() string {
	var b strings.Builder
	b.WriteString("| route |")
	for _, r := range labmesh.KeyRoles() {
		b.WriteString(" " + string(r) + " |")
	}
	b.WriteString(" without a key |\n|---|" + strings.Repeat("---|", len(labmesh.KeyRoles())+1) + "\n")
	routes := a.routes()
	slices.SortStableFunc(routes, func(x, y route) int { return strings.Compare(x.path, y.path) })
	for _, rt := range routes {
		b.WriteString("| `" + rt.method + " " + rt.path + "` |")
		for _, r := range labmesh.KeyRoles() {
			b.WriteString(" " + rt.access(r) + " |")
		}
		b.WriteString(" " + yes(rt.may == open) + " |\n")
	}
	return b.String()
}

// access is what a role may do by the route, in a word.
func (rt *route) access(r labmesh.Role) string {
	switch {
	case !rt.may.has(r):
		return ""
	case r == labmesh.RoleSubmitter && rt.own, r == labmesh.RoleWorker && rt.own:
		return "own"
	case rt.byKey:
		return "key"
	}
	return yes(true)
}

func yes(b bool) string {
	if b {
		return "yes"
	}
	return ""
}

// TestASubmitterSeesItsProjectAlone asks for a task of another project by every route.
func TestASubmitterSeesItsProjectAlone(t *testing.T) {
	t.Parallel()
	f := newFake()
	f.tasks = []labmesh.Task{
		{ID: "mine", Seq: 1, Project: "vision", Spec: labmesh.Spec{Kind: labmesh.Custom}, Phase: labmesh.Pending, Created: noon},
		{ID: "theirs", Seq: 2, Project: "audio", Spec: labmesh.Spec{Kind: labmesh.Custom}, Phase: labmesh.Pending, Created: noon},
		{ID: "nobodys", Seq: 3, Spec: labmesh.Spec{Kind: labmesh.Custom}, Phase: labmesh.Pending, Created: noon},
	}
	f.tree = map[string]string{"out.txt": "x"}
	a, _ := newAPI(t, f)
	for _, rt := range a.routes() {
		if !strings.Contains(rt.path, "/tasks/{id}") {
			continue
		}
		if !rt.own {
			t.Errorf("%s %s is not said to be about own tasks", rt.method, rt.path)
		}
		at := func(id string) string {
			return strings.NewReplacer("{id}", id, "{path...}", "out.txt").Replace(rt.path)
		}
		missing := do(a, rt.method, at("missing"), "", "X-API-Key", submitterKey)
		for _, id := range []string{"theirs", "nobodys"} {
			w := do(a, rt.method, at(id), "", "X-API-Key", submitterKey)
			if w.Code != 404 || w.Body.String() != missing.Body.String() {
				t.Errorf("%s %s: %d %s, and of one that is not there %s", rt.method, at(id), w.Code, w.Body, missing.Body)
			}
		}
		for _, key := range []string{submitterKey, adminKey} {
			if w := do(a, rt.method, at("mine"), "", "X-API-Key", key); w.Code != 200 && w.Code != 400 { // cancelled twice
				t.Errorf("%s %s with %s: %d %s", rt.method, at("mine"), key, w.Code, w.Body)
			}
		}
	}
	for key, want := range map[string]string{submitterKey: "mine", adminKey: "mine theirs nobodys", observerKey: "mine theirs nobodys"} {
		for _, path := range []string{"/api/tasks", "/api/workers/w1"} {
			list, _ := object(t, do(a, "GET", path, "", "X-API-Key", key))["tasks"].([]any)
			var ids []string
			for _, item := range list {
				ids = append(ids, item.(map[string]any)["task_id"].(string))
			}
			if got := strings.Join(ids, " "); got != want {
				t.Errorf("%s with %s: %s", path, key, got)
			}
		}
	}
	if w := do(a, "POST", "/api/tasks", `{"type":"custom","config":{"name":"true"}}`, "X-API-Key", submitterKey); w.Code != 200 || f.tasks[3].Project != "vision" {
		t.Errorf("submitted %d %s into %q", w.Code, w.Body, f.tasks[len(f.tasks)-1].Project)
	}
}

func TestASubmitterHearsOfItsProjectAlone(t *testing.T) {
	t.Parallel()
	f := newFake()
	mine := labmesh.Task{ID: "mine", Project: "vision", Spec: labmesh.Spec{Kind: labmesh.Custom}, Phase: labmesh.Pending}
	theirs := labmesh.Task{ID: "theirs", Project: "audio", Spec: labmesh.Spec{Kind: labmesh.Custom}, Phase: labmesh.Pending}
	f.tasks = []labmesh.Task{mine, theirs}
	f.events = []labmesh.Event{
		{Index: 6, Type: labmesh.TaskSubmitted, Task: &mine, Detail: "seen-1"},
		{Index: 7, Type: labmesh.TaskSubmitted, Task: &theirs, Detail: "hidden-1"},
		{Index: 8, Type: labmesh.KeyMade, Detail: "hidden-2"},
		{Index: 9, Type: labmesh.TaskPlaced, Task: &labmesh.Task{ID: "mine"}, Detail: "seen-2"}, // as the ledger has it
		{Index: 10, Type: labmesh.TaskPlaced, Task: &labmesh.Task{ID: "theirs"}, Detail: "hidden-3"},
		{Index: 11, Type: labmesh.TaskPlaced, Task: &labmesh.Task{ID: "gone"}, Detail: "hidden-4"},
		{Index: 12, Type: labmesh.WorkerJoined, Worker: &labmesh.Worker{ID: "w1"}, Detail: "hidden-5"},
		{Index: 13, Type: labmesh.TaskPlaced, Task: &labmesh.Task{ID: "mine"}, Detail: "seen-3"},
	}
	close(f.more)
	a, _ := newAPI(t, f)
	for key, want := range map[string][2]int{submitterKey: {3, 0}, observerKey: {3, 5}} {
		body := do(a, "GET", "/api/events", "", "X-API-Key", key, "Last-Event-ID", "5-0").Body.String()
		if got := [2]int{strings.Count(body, "seen-"), strings.Count(body, "hidden-")}; got != want {
			t.Errorf("%s heard %v: %s", key, got, body)
		}
	}
}

func TestAWorkerSpeaksForItself(t *testing.T) {
	t.Parallel()
	f := newFake()
	a, _ := newAPI(t, f)
	for _, c := range []struct {
		key, method, path, body string
		status                  int
	}{
		{tokenKey, "GET", "/api/workers/w1", "", 200},
		{tokenKey, "GET", "/api/workers/w2", "", 404},
		{workerKey, "GET", "/api/workers/w1", "", 200}, // a light worker
		{tokenKey, "POST", "/api/workers/register", `{"worker_id":"w1"}`, 200},
		{tokenKey, "POST", "/api/workers/register", `{}`, 200},
		{tokenKey, "POST", "/api/workers/register", `{"worker_id":"w2"}`, 403},
		{workerKey, "POST", "/api/workers/register", `{"worker_id":"w2"}`, 200},
		{submitterKey, "POST", "/api/workers/register", `{"worker_id":"w2"}`, 403},
	} {
		if w := do(a, c.method, c.path, c.body, "X-API-Key", c.key); w.Code != c.status {
			t.Errorf("%s %s %s with %s: %d %s", c.method, c.path, c.body, c.key, w.Code, w.Body)
		}
	}
	if f.reg.ID != "w2" {
		t.Errorf("registered %s", f.reg.ID)
	}
}
