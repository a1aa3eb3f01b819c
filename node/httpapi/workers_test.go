package httpapi

import (
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"labmesh"
	"labmesh/api"
)

func TestStatus(t *testing.T) {
	t.Parallel()
	a, _ := newAPI(t, newFake())
	const want = `{"workers":{"total":2,"active":1,"idle":1,"held":0,"offline":1},"tasks":{"assigned":0,"cancelled":0,"cancelling":0,"completed":0,"failed":0,` +
		`"pending":4,"running":0,"timed_out":0,"total":4},"uptime":90,"version":"v1","node_id":"n1","mesh_id":"m","role":"leader","leader":"n1","term":3,` +
		`"voters":["n1"],"replicas":[],"leaves":[],"voters_alive":0,"quorum":1,"applied_index":9,"ledger_index":8,"stale_seconds":0,"warnings":[]}`
	if got := strings.TrimSpace(do(a, "GET", "/status", "").Body.String()); got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
}

func TestWorkers(t *testing.T) {
	t.Parallel()
	f := newFake()
	f.tasks = []labmesh.Task{{ID: "t1", Phase: labmesh.Running}}
	a, _ := newAPI(t, f)
	const want = `{"workers":[{"worker_id":"w1","node_id":"","hostname":"h1","status":"busy","reason":null,"last_heartbeat":"2026-05-06T11:00:00.123456Z",` +
		`"slots":2,"slots_used":2,"capabilities_summary":{"hardware":["cpu","cuda"],"platform":null,"cpus":8,"memory_gb":0,"gpus":1,"gpu":"A100"}},` +
		`{"worker_id":"w2","node_id":"","hostname":"h2","status":"offline","reason":null,"last_heartbeat":null,"slots":0,"slots_used":0,` +
		`"capabilities_summary":{"hardware":[],"platform":null,"cpus":0,"memory_gb":0,"gpus":0,"gpu":null}}]}`
	if got := strings.TrimSpace(do(a, "GET", "/api/workers", "").Body.String()); got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	m := object(t, do(a, "GET", "/api/workers/w1", ""))
	tasks, _ := m["tasks"].([]any)
	if len(tasks) != 1 || tasks[0].(map[string]any)["task_id"] != "t1" {
		t.Errorf("tasks: %v", m["tasks"])
	}
	for _, k := range []string{"worker_id", "status", "capabilities", "hardware_metrics", "tags", "capabilities_summary"} {
		if _, ok := m[k]; !ok {
			t.Errorf("%s is not there", k)
		}
	}
}

func TestRegister(t *testing.T) {
	t.Parallel()
	f := newFake()
	a, _ := newAPI(t, f)
	w := do(a, "POST", "/api/workers/register", `{"worker_id":"worker-1","capabilities":{"hostname":"h","hardware":["cpu"],"cpu":{"cores":null},"webnn":{"available":false}},"x":1}`)
	if m := object(t, w); w.Code != 200 || m["worker_id"] != "worker-1" || m["registered"] != true || m["message"] == "" {
		t.Errorf("%d %s", w.Code, w.Body)
	}
	if f.reg.Hostname != "h" || len(f.reg.Capabilities.Hardware) != 1 {
		t.Errorf("registered %+v", f.reg)
	}
	if m := object(t, do(a, "POST", "/api/workers/register", `{}`)); m["worker_id"] != "w-new" {
		t.Errorf("without an id: %v", m)
	}
	for body, field := range map[string]string{
		``: "", `{`: "", `[]`: "", `{"worker_id":"a b"}`: "worker_id", `{"worker_id":7}`: "worker_id", `{"hostname":"\u0000"}`: "hostname",
		`{"capabilities":{"hardware":"cpu"}}`: "capabilities.hardware",
	} {
		w := do(a, "POST", "/api/workers/register", body)
		if got, _ := object(t, w)["field"].(string); w.Code != 400 || got != field {
			t.Errorf("%s: %d %s", body, w.Code, w.Body)
		}
	}
}

func TestInvite(t *testing.T) {
	t.Parallel()
	f := newFake()
	a, _ := newAPI(t, f)
	w := do(a, "POST", "/api/invites", "")
	if m := object(t, w); w.Code != 200 || m["invite"] != "labmesh1invite" {
		t.Errorf("%d %s", w.Code, w.Body)
	}
	if want := (InviteRequest{Role: labmesh.RoleNode, TTL: 24 * time.Hour, Uses: 1, By: adminKey}); f.inv != want {
		t.Errorf("asked for %+v", f.inv)
	}
	do(a, "POST", "/api/invites", `{"role":"worker","ttl_seconds":90.5,"uses":3}`)
	if want := (InviteRequest{Role: labmesh.RoleWorker, TTL: 90500 * time.Millisecond, Uses: 3, By: adminKey}); f.inv != want {
		t.Errorf("asked for %+v", f.inv)
	}
	for body, field := range map[string]string{
		`{"role":"admin"}`: "role", `{"ttl_seconds":-1}`: "ttl_seconds", `{"ttl_seconds":1e300}`: "ttl_seconds", `{"uses":-1}`: "uses", `{"uses":1000000}`: "uses", `{"who":1}`: "who",
	} {
		if w := do(a, "POST", "/api/invites", body); w.Code != 400 || object(t, w)["field"] != field {
			t.Errorf("%s: %d %s", body, w.Code, w.Body)
		}
	}
}

func TestHealth(t *testing.T) {
	t.Parallel()
	f := newFake()
	a, _ := newAPI(t, f)
	for _, path := range []string{"/healthz", "/readyz"} {
		if w := do(a, "GET", path, "", "X-API-Key", ""); w.Code != 200 || object(t, w)["ok"] != true {
			t.Errorf("%s: %d %s", path, w.Code, w.Body)
		}
	}
	f.down = errors.New("no leader is known")
	if w := do(a, "GET", "/healthz", "", "X-API-Key", ""); w.Code != 200 {
		t.Errorf("alive without a leader: %d", w.Code)
	}
	w := do(a, "GET", "/readyz", "", "X-API-Key", "")
	if m := object(t, w); w.Code != 503 || m["ok"] != false || m["reason"] != "no leader is known" {
		t.Errorf("not ready: %d %s", w.Code, w.Body)
	}
}

func TestQuery(t *testing.T) {
	t.Parallel()
	f := newFake()
	a, _ := newAPI(t, f)
	w := do(a, "POST", "/api/query", `{"sql":"SELECT 1","timeout_seconds":1.5,"max_rows":10}`)
	if got := strings.TrimSpace(w.Body.String()); w.Code != 200 || got != `{"columns":["n"],"types":["INTEGER"],"rows":[[1]],"truncated":false,"log_index":7}` {
		t.Errorf("%d %s", w.Code, got)
	}
	if want := (Query{"SELECT 1", 1500 * time.Millisecond, 10}); f.asked != want {
		t.Errorf("asked %+v", f.asked)
	}
	for body, status := range map[string]int{
		`{}`: 400, `{"sql":" "}`: 400, `{"sql":1}`: 400, `{"sql":"SELECT 1","timeout_seconds":-1}`: 400, `{"sql":"SELECT 1","timeout_seconds":601}`: 400,
		`{"sql":"SELECT 1","max_rows":-1}`: 400, `{"sql":"SELECT 1","max_rows":1000001}`: 400, `{"sql":"SELECT 1","params":[]}`: 400,
		`{"sql":"` + strings.Repeat("x", api.SQLBytesMax+1) + `"}`: 413,
	} {
		if w := do(a, "POST", "/api/query", body); w.Code != status {
			t.Errorf("%.60s: %d %s", body, w.Code, w.Body)
		}
	}
	if w := do(a, "POST", "/api/query?format=csv", `{"sql":"SELECT 1"}`); w.Code != 400 || object(t, w)["field"] != "format" {
		t.Errorf("an unknown format: %d %s", w.Code, w.Body)
	}
}

func TestQueryParquet(t *testing.T) {
	t.Parallel()
	f := newFake()
	a, logs := newAPI(t, f)
	for _, w := range []struct{ target, accept string }{{"/api/query?format=parquet", "*/*"}, {"/api/query", api.ParquetType}} {
		got := do(a, "POST", w.target, `{"sql":"SELECT 1"}`, "Accept", w.accept)
		if got.Code != 200 || got.Header().Get("Content-Type") != api.ParquetType || got.Body.String() != "PAR1" {
			t.Errorf("%s: %d %v %q", w.target, got.Code, got.Header(), got.Body)
		}
	}
	f.file = func(io.Writer) error { return labmesh.Refuse(labmesh.Invalid, "no such table") }
	if w := do(a, "POST", "/api/query?format=parquet", `{"sql":"SELECT 1"}`); w.Code != 400 || object(t, w)["error"] != "no such table" {
		t.Errorf("refused before the first byte: %d %s", w.Code, w.Body)
	}
	f.file = func(w io.Writer) error {
		_, _ = io.WriteString(w, "PAR1")
		return errors.New("disk is gone")
	}
	defer func() {
		if p := recover(); p != http.ErrAbortHandler || !strings.Contains(logs.String(), "disk is gone") {
			t.Errorf("half a file looks whole: %v, %s", p, logs)
		}
	}()
	do(a, "POST", "/api/query?format=parquet", `{"sql":"SELECT 1"}`)
}

func TestAPanicCostsOneRequest(t *testing.T) {
	t.Parallel()
	f := newFake()
	f.submit = func([]labmesh.Spec) { panic("boom in " + "secret place") }
	a, logs := newAPI(t, f)
	w := do(a, "POST", "/api/tasks", custom)
	id, _ := object(t, w)["request_id"].(string)
	if w.Code != 500 || strings.Contains(w.Body.String(), "secret") || id == "" {
		t.Errorf("%d %s", w.Code, w.Body)
	}
	if l := logs.String(); !strings.Contains(l, id) || !strings.Contains(l, "boom") || !strings.Contains(l, "fake_test.go") {
		t.Errorf("the log does not say where: %s", l)
	}
	f.submit = nil
	if w := do(a, "POST", "/api/tasks", custom); w.Code != 200 {
		t.Errorf("the next request: %d %s", w.Code, w.Body)
	}
}

func TestMetrics(t *testing.T) {
	t.Parallel()
	a, _ := newAPI(t, newFake())
	do(a, "POST", "/api/tasks", custom)
	do(a, "POST", "/api/tasks", "{")
	do(a, "GET", "/api/tasks/t1", "")
	do(a, "BREW", "/api/tasks/t1", "")
	do(a, "GET", "/no/such/path", "")
	got := do(a, "GET", "/metrics", "").Body.String()
	for _, line := range []string{
		`labmesh_http_requests_total{code="200",method="POST",route="/api/tasks"} 1`,
		`labmesh_http_requests_total{code="400",method="POST",route="/api/tasks"} 1`,
		`labmesh_http_requests_total{code="200",method="GET",route="/api/tasks/{id}"} 1`,
		`labmesh_http_requests_total{code="405",method="other",route="/api/tasks/{id}"} 1`,
		`labmesh_http_requests_total{code="404",method="GET",route="other"} 1`,
		`labmesh_http_request_seconds_count{route="/api/tasks"} 2`,
		`labmesh_tasks{status="pending"} 4`, `labmesh_workers{state="offline"} 1`, `labmesh_is_leader 1`, `labmesh_applied_index 9`, `labmesh_build_info{version="v1"} 1`,
		"go_goroutines ", "process_resident_memory_bytes ",
	} {
		if !strings.Contains(got, "\n"+line) {
			t.Errorf("no line %s", line)
		}
	}
	if strings.Contains(got, "no/such") {
		t.Error("callers can make series")
	}
}
