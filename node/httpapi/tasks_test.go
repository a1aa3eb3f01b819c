package httpapi

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"labmesh"
	"labmesh/api"
)

func TestSubmit(t *testing.T) {
	t.Parallel()
	f := newFake()
	a, _ := newAPI(t, f)
	w := do(a, "POST", "/api/tasks", `{"type":"custom","config":{"name":"x"},"idempotency_key":"k"}`)
	m := object(t, w)
	if w.Code != 200 || m["task_id"] != "t1" || m["created"] != true || m["message"] == "" {
		t.Errorf("submit: %d %s", w.Code, w.Body)
	}
	w = do(a, "POST", "/api/tasks", `{"type":"custom","config":{"name":"x"},"idempotency_key":"k"}`)
	if m = object(t, w); w.Code != 200 || m["task_id"] != "t1" || m["created"] != false {
		t.Errorf("the same again: %d %s", w.Code, w.Body)
	}
	if f.tasks[0].By != adminKey {
		t.Errorf("submitted by %q", f.tasks[0].By)
	}
	w = do(a, "POST", "/api/tasks", `{}`)
	if m = object(t, w); w.Code != 400 || m["error"] != "Missing required field: type" || m["field"] != "type" {
		t.Errorf("no type: %d %s", w.Code, w.Body)
	}
}

func TestSubmitBatch(t *testing.T) {
	t.Parallel()
	f := newFake()
	a, _ := newAPI(t, f, func(c *Config) { c.Limits.BatchTasks = 3 })
	body := `{"tasks":[{"type":"custom","config":{"name":"x"},"idempotency_key":"k"},` + custom + `,{"type":"custom","config":{"name":"x"},"idempotency_key":"k"}]}`
	w := do(a, "POST", "/api/tasks/batch", body)
	if got := strings.TrimSpace(w.Body.String()); w.Code != 200 || got != `{"task_ids":["t1","t2","t1"],"created":2}` {
		t.Errorf("%d %s", w.Code, got)
	}
	w = do(a, "POST", "/api/tasks/batch", `{"tasks":[`+custom+`,{"type":"custom","priority":"x"}]}`)
	if m := object(t, w); w.Code != 400 || m["field"] != "tasks[1].priority" || !strings.HasPrefix(m["error"].(string), "tasks[1].priority: ") {
		t.Errorf("%d %s", w.Code, w.Body)
	}
	w = do(a, "POST", "/api/tasks/batch", `{"tasks":[`+strings.Repeat(custom+",", 3)+custom+`]}`)
	if w.Code != 413 {
		t.Errorf("too many tasks: %d %s", w.Code, w.Body)
	}
	f.refuse["bad"] = labmesh.RefuseField("task_id", "it is taken")
	w = do(a, "POST", "/api/tasks/batch", `{"tasks":[`+custom+`,{"type":"custom","config":{"name":"x"},"task_id":"bad"}]}`)
	if m := object(t, w); w.Code != 400 || m["field"] != "tasks[1].task_id" {
		t.Errorf("a task that the mesh refuses: %d %s", w.Code, w.Body)
	}
	if len(f.tasks) != 3 { // t1, t2 and the good one beside the bad: the fake is not all or nothing
		t.Errorf("%d tasks came in", len(f.tasks))
	}
}

// TestReasonsBecomeStatuses holds for every route that asks the service.
func TestReasonsBecomeStatuses(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		err    error
		status int
		retry  bool
	}{
		{labmesh.Refuse(labmesh.Invalid, "no"), 400, false},
		{labmesh.Refuse(labmesh.NotFound, "no"), 404, false},
		{labmesh.Refuse(labmesh.Conflict, "no"), 409, false},
		{labmesh.Refuse(labmesh.Denied, "no"), 403, false},
		{labmesh.Refuse(labmesh.TooLarge, "no"), 413, false},
		{labmesh.Refuse(labmesh.Exhausted, "no"), 429, true},
		{fmt.Errorf("propose: %w", labmesh.Refuse(labmesh.Unavailable, "no")), 503, true},
		{labmesh.Refuse(labmesh.Internal, "secret"), 500, false},
		{errors.New("disk /dev/secret is gone"), 500, false},
	} {
		f := newFake()
		f.down = c.err
		a, logs := newAPI(t, f)
		for _, req := range [][3]string{
			{"POST", "/api/tasks", custom}, {"POST", "/api/tasks/batch", `{"tasks":[` + custom + `]}`}, {"GET", "/api/tasks", ""}, {"GET", "/api/workers", ""},
			{"POST", "/api/workers/register", "{}"}, {"POST", "/api/query", `{"sql":"SELECT 1"}`}, {"POST", "/api/invites", ""},
		} {
			w := do(a, req[0], req[1], req[2])
			m := object(t, w)
			if w.Code != c.status || (w.Header().Get("Retry-After") != "") != c.retry || m["reason"] != string(labmesh.ReasonOf(c.err)) {
				t.Errorf("%v at %s: %d %v %s", c.err, req[1], w.Code, w.Header(), w.Body)
			}
			if c.status != 500 {
				continue
			}
			id, _ := m["request_id"].(string)
			if strings.Contains(w.Body.String(), "secret") || id == "" || !strings.Contains(logs.String(), "request_id="+id) || !strings.Contains(logs.String(), "secret") {
				t.Errorf("an internal fault: told %s, logged %s", w.Body, logs)
			}
		}
	}
}

func TestBodiesAreBounded(t *testing.T) {
	t.Parallel()
	f := newFake()
	a, _ := newAPI(t, f, func(c *Config) { c.Limits.BodyBytes, c.Limits.BatchBytes = 1000, 2000 })
	for _, rt := range a.routes() {
		if rt.method != http.MethodPost || rt.inMedia != "" { // see TestUploadRefusesWhatIsNone
			continue
		}
		for _, length := range []int64{2512, -1} { // said before, and found out while reading
			r := httptest.NewRequest("POST", target(rt.path), strings.NewReader(`{"type":"`+strings.Repeat("x", 2500)+`"}`))
			r.ContentLength = length
			r.Header.Set("X-API-Key", adminKey)
			w := httptest.NewRecorder()
			a.ServeHTTP(w, r)
			if w.Code != 413 || object(t, w)["reason"] != "too_large" {
				t.Errorf("%s: %d %s", rt.path, w.Code, w.Body)
			}
		}
	}
	if w := do(a, "POST", "/api/tasks/batch", `{"tasks":[`+custom+`],"x":"`+strings.Repeat("x", 1200)+`"}`); w.Code != 400 {
		t.Errorf("a batch has its own limit: %d", w.Code)
	}
	if w := do(a, "POST", "/api/tasks", "{\"type\":\"\xff\"}"); w.Code != 400 || !strings.Contains(w.Body.String(), "UTF-8") {
		t.Errorf("not UTF-8: %d %s", w.Code, w.Body)
	}
	if len(f.tasks) > 0 {
		t.Error("something came in")
	}
}

func TestListTasks(t *testing.T) {
	t.Parallel()
	f := newFake()
	a, _ := newAPI(t, f)
	for range 5 {
		do(a, "POST", "/api/tasks", custom)
	}
	f.tasks[1].Phase, f.tasks[1].Worker = labmesh.Running, "w1"
	w := do(a, "GET", "/api/tasks?limit=1", "")
	const first = `{"tasks":[{"task_id":"t1","type":"custom","name":null,"status":"pending","priority":1,"worker_id":null,"attempts":0,` +
		`"created":"2026-05-06T11:00:00.123456Z","started":null,"ended":null}],"next_cursor":"c2VxOjE"}`
	if got := strings.TrimSpace(w.Body.String()); got != first {
		t.Errorf("got  %s\nwant %s", got, first)
	}
	var seen []string
	for cur := ""; ; {
		var page api.TaskList
		w := do(a, "GET", "/api/tasks?limit=2&cursor="+cur, "")
		if err := json.Unmarshal(w.Body.Bytes(), &page); err != nil {
			t.Fatal(err)
		}
		for _, task := range page.Tasks {
			seen = append(seen, string(task.ID))
		}
		if cur = page.NextCursor; cur == "" {
			break
		}
	}
	if got := strings.Join(seen, " "); got != "t1 t2 t3 t4 t5" {
		t.Errorf("pages hold %s", got)
	}
	for query, want := range map[string]string{
		"?status=running": "t2", "?worker_id=w1": "t2", "?type=custom&limit=1000": "t1 t2 t3 t4 t5", "?type=test": "", "?status=pending&limit=2": "t1 t3",
	} {
		var page api.TaskList
		w := do(a, "GET", "/api/tasks"+query, "")
		if err := json.Unmarshal(w.Body.Bytes(), &page); err != nil || page.Tasks == nil {
			t.Fatalf("%s: %v %s", query, err, w.Body)
		}
		var ids []string
		for _, task := range page.Tasks {
			ids = append(ids, string(task.ID))
		}
		if got := strings.Join(ids, " "); got != want {
			t.Errorf("%s: %s, not %s", query, got, want)
		}
	}
	for query, field := range map[string]string{
		"limit=0": "limit", "limit=1001": "limit", "limit=x": "limit", "limit=": "limit", "limit=-1": "limit", "status=done": "status", "type=dance": "type",
		"cursor=!": "cursor", "cursor=7": "cursor", "cursor=c2VxOg": "cursor", "cursor=MTIz": "cursor",
	} {
		if w := do(a, "GET", "/api/tasks?"+query, ""); w.Code != 400 || object(t, w)["field"] != field {
			t.Errorf("%s: %d %s", query, w.Code, w.Body)
		}
	}
}

func TestTaskDetail(t *testing.T) {
	t.Parallel()
	f := newFake()
	a, _ := newAPI(t, f)
	do(a, "POST", "/api/tasks", `{"type":"custom","config":{"name":"x"},"requirements":{"gpus":1}}`)
	task := &f.tasks[0]
	task.Phase, task.Attempt, task.Worker, task.Started, task.Ended = labmesh.Failed, 1, "w1", noon, noon
	task.Error, task.Cause, task.Result = "exit code 3", labmesh.CauseExit, json.RawMessage(`{"exit_code":3}`)
	task.History = []labmesh.Attempt{{Number: 1, Worker: "w1", Status: "failed", Cause: labmesh.CauseExit, Error: "exit code 3", Started: noon, Ended: noon, Seconds: 1.5}}
	want := map[string]string{
		"task_id": `"t1"`, "status": `"failed"`, "worker_id": `"w1"`, "priority": "1", "attempts": "1", "started": `"2026-05-06T11:00:00.123456Z"`,
		"config": `{"name":"x"}`, "requirements": `{"gpus":1}`, "result": `{"exit_code":3}`, "error": `"exit code 3"`, "cause": `"exit"`,
		"history": `[{"attempt":1,"worker_id":"w1","status":"failed","start_time":"2026-05-06T11:00:00.123456Z","end_time":"2026-05-06T11:00:00.123456Z",` +
			`"execution_time_seconds":1.5,"error_message":"exit code 3","cause":"exit"}]`,
	}
	check := func() {
		t.Helper()
		var got map[string]json.RawMessage
		w := do(a, "GET", "/api/tasks/t1", "")
		if err := json.Unmarshal(w.Body.Bytes(), &got); err != nil {
			t.Fatal(err)
		}
		for k, v := range want {
			if string(got[k]) != v {
				t.Errorf("%s is %s, not %s", k, got[k], v)
			}
		}
	}
	check()
	*task = labmesh.Task{ID: "t1", Phase: labmesh.Pending}
	want = map[string]string{
		"worker_id": "null", "created": "null", "started": "null", "ended": "null", "result": "null", "error": "null", "cause": "null", "config": "null",
		"history": "[]", "attempts": "0", "requirements": "{}", "labels": "{}",
	}
	check()
}

func TestWhatIsNotThereHasTheWordsOfTheContract(t *testing.T) {
	t.Parallel()
	a, _ := newAPI(t, newFake())
	for _, req := range [][3]string{
		{"GET", "/api/tasks/nope", "Task not found"}, {"POST", "/api/tasks/nope/cancel", "Task not found"}, {"GET", "/api/tasks/nope/why", "Task not found"},
		{"GET", "/api/tasks/nope/logs", "Task not found"}, {"GET", "/api/tasks/" + strings.Repeat("x", 200), "Task not found"},
		{"GET", "/api/tasks/a%2Fb", "Task not found"}, {"GET", "/api/workers/nope", "Worker not found"},
	} {
		if w := do(a, req[0], req[1], ""); w.Code != 404 || object(t, w)["error"] != req[2] {
			t.Errorf("%s %s: %d %s", req[0], req[1], w.Code, w.Body)
		}
	}
}

func TestCancel(t *testing.T) {
	t.Parallel()
	f := newFake()
	a, _ := newAPI(t, f)
	for _, p := range labmesh.Phases() {
		f.tasks = []labmesh.Task{{ID: "t1", Phase: p}}
		w := do(a, "POST", "/api/tasks/t1/cancel", "")
		m := object(t, w)
		if p.Final() {
			if w.Code != 400 || m["error"] != "Cannot cancel task in "+string(p)+" state" {
				t.Errorf("%s: %d %s", p, w.Code, w.Body)
			}
			continue
		}
		if w.Code != 200 || m["task_id"] != "t1" || m["cancelled"] != true || m["message"] == "" || f.reason != "user_request" {
			t.Errorf("%s: %d %s (reason %q)", p, w.Code, w.Body, f.reason)
		}
	}
	f.tasks = []labmesh.Task{{ID: "t1", Phase: labmesh.Running}}
	if w := do(a, "POST", "/api/tasks/t1/cancel", `{"reason":"lab closes"}`); w.Code != 200 || f.reason != "lab closes" {
		t.Errorf("with a reason: %d, %q", w.Code, f.reason)
	}
	if w := do(a, "POST", "/api/tasks/t1/cancel", `{"why":1}`); w.Code != 400 || object(t, w)["field"] != "why" {
		t.Errorf("with an unknown field: %d %s", w.Code, w.Body)
	}
	f.late = true
	f.tasks = []labmesh.Task{{ID: "t1", Phase: labmesh.Running}}
	if w := do(a, "POST", "/api/tasks/t1/cancel", ""); w.Code != 400 || object(t, w)["error"] != "Cannot cancel task in completed state" {
		t.Errorf("a task that ends meanwhile: %d %s", w.Code, w.Body)
	}
}

func TestWhy(t *testing.T) {
	t.Parallel()
	f := newFake()
	f.tasks = []labmesh.Task{{ID: "t1", Phase: labmesh.Pending}}
	a, _ := newAPI(t, f)
	w := do(a, "GET", "/api/tasks/t1/why", "")
	const want = `{"task_id":"t1","status":"pending","summary":"No worker fits.","ahead":0,"workers":[{"worker_id":"w1","fits":false,"reasons":[]}]}`
	if got := strings.TrimSpace(w.Body.String()); got != want {
		t.Errorf("got %s", got)
	}
}

func TestRowsOfABenchmarkComeInPages(t *testing.T) {
	t.Parallel()
	f := newFake()
	f.tasks = []labmesh.Task{{ID: "t1", Seq: 1, Phase: labmesh.Running}, {ID: "t2", Seq: 2, Phase: labmesh.Pending}}
	for i := range 4 {
		b := labmesh.Bench{Task: "t1", Attempt: 1, Worker: "w1", From: 3 * i, ID: int64(i+1) << 20}
		for k := range 3 {
			b.Rows = append(b.Rows, labmesh.BenchRow{Run: "r", Repeat: 3*i + k, Work: labmesh.BenchWork{Model: "mlp", Batch: k + 1}})
		}
		f.bench = append(f.bench, b, labmesh.Bench{Task: "other", ID: b.ID + 3, Rows: b.Rows})
	}
	a, _ := newAPI(t, f)
	var got []api.BenchTaskRow
	pages := 0
	for path := "/api/tasks/t1/benchmarks?limit=5"; ; pages++ {
		w := do(a, "GET", path, "")
		var page api.BenchList
		if err := json.Unmarshal(w.Body.Bytes(), &page); err != nil || w.Code != 200 {
			t.Fatalf("%d %s: %v", w.Code, w.Body, err)
		}
		got = append(got, page.Rows...)
		if page.NextCursor == "" {
			break
		}
		path = "/api/tasks/t1/benchmarks?limit=5&cursor=" + page.NextCursor
	}
	if len(got) != 12 || pages != 2 {
		t.Fatalf("%d rows in %d pages", len(got), pages+1)
	}
	for i, r := range got {
		if r.Place != i || r.Repeat != i || r.ID != int64(i/3+1)<<20+int64(i%3) || r.Task != "t1" || r.Worker != "w1" || r.Attempt != 1 {
			t.Errorf("row %d: %+v", i, r)
		}
	}
	for path, want := range map[string]string{
		"/api/tasks/t2/benchmarks":                `200 {"rows":[]}`,
		"/api/tasks/t3/benchmarks":                "404",
		"/api/tasks/t1/benchmarks?limit=0":        "400",
		"/api/tasks/t1/benchmarks?limit=1001":     "400",
		"/api/tasks/t1/benchmarks?cursor=c2VxOjE": "400", // of the list of tasks
	} {
		w := do(a, "GET", path, "")
		if got := fmt.Sprint(w.Code, " ", strings.TrimSpace(w.Body.String())); !strings.HasPrefix(got, want) {
			t.Errorf("%s: %s, want %s", path, got, want)
		}
	}
}
