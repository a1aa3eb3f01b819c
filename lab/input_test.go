package lab_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os/exec"
	"strings"
	"testing"
	"time"

	"labmesh"
	"labmesh/api"
	"labmesh/lab"
)

// post sends a body to a node as it is, and returns the status and the error in the reply.
func post(t *testing.T, n *lab.Node, path, body string) (int, api.Error) {
	t.Helper()
	req, err := http.NewRequestWithContext(within(t, 20*time.Second), http.MethodPost, n.URL()+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("X-API-Key", n.Key())
	req.Header.Set("Content-Type", "application/json")
	req.Close = true
	if len(body) >= api.BodyBytesMax {
		req.Header.Set("Expect", "100-continue") // the refusal comes before the body goes
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	data, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	var e api.Error
	if resp.StatusCode != http.StatusOK && json.Unmarshal(data, &e) != nil {
		t.Errorf("%s %.60q: the error is no JSON: %.200s", path, body, data)
	}
	return resp.StatusCode, e
}

// labmeshCLI runs the command line at a node's machine.
func labmeshCLI(t *testing.T, n *lab.Node, stdin string, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	cmd := n.Command(within(t, 30*time.Second), args...)
	var out, errs bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = strings.NewReader(stdin), &out, &errs
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	return cmd.ProcessState.ExitCode(), out.String(), errs.String()
}

func TestBadInputIsRefusedAndSaysWhy(t *testing.T) {
	t.Parallel()
	m := start(t, lab.Config{Nodes: 1, Slots: 2})
	n := m.Nodes[0]
	for _, c := range []struct {
		name, path, body string
		status           int
		says             string
	}{
		{"malformed JSON", "/api/tasks", `{"type":"custom",`, 400, ""},
		{"two values", "/api/tasks", `{"type":"custom","config":{"name":"true"}} {}`, 400, ""},
		{"no body", "/api/tasks", ``, 400, ""},
		{"an unknown field", "/api/tasks", `{"type":"custom","config":{"name":"true"},"prioritty":3}`, 400, "prioritty"},
		{"an unknown field of the requirements", "/api/tasks", `{"type":"custom","config":{"name":"true"},"requirements":{"gpu":1}}`, 400, "gpu"},
		{"a wrong type", "/api/tasks", `{"type":"custom","config":{"name":"true"},"priority":"high"}`, 400, "priority"},
		{"a wrong type in the config", "/api/tasks", `{"type":"custom","config":{"name":7}}`, 400, "config.name"},
		{"an unknown type", "/api/tasks", `{"type":"dance","config":{}}`, 400, "benchmark, test, custom"},
		{"no program", "/api/tasks", `{"type":"custom","config":{}}`, 400, "config.name"},
		{"not UTF-8", "/api/tasks", "{\"type\":\"custom\",\"config\":{\"name\":\"\xff\xfe\"}}", 0, ""},
		{"an oversized body", "/api/tasks", `{"type":"custom","config":{"name":"` + strings.Repeat("a", api.BodyBytesMax) + `"}}`, 413, "1"},
		{"a batch with one bad task", "/api/tasks/batch", `{"tasks":[{"type":"custom","config":{"name":"true"}},{"type":"custom"}]}`, 400, "tasks[1]"},
		{"an empty batch", "/api/tasks/batch", `{"tasks":[]}`, 400, "tasks"},
		{"SQL that writes", "/api/query", `{"sql":"DELETE FROM distributed_tasks"}`, 400, ""},
		{"SQL that reads files", "/api/query", `{"sql":"SELECT * FROM read_text('/etc/passwd')"}`, 400, ""},
		{"two statements", "/api/query", `{"sql":"SELECT 1; SELECT 2"}`, 400, ""},
		{"a task that is not there", "/api/tasks/nothing/cancel", `{}`, 404, "not found"},
	} {
		status, e := post(t, n, c.path, c.body)
		if c.status != 0 && status != c.status || status >= 500 {
			t.Errorf("%s: %d (%s), want %d", c.name, status, e.Message, c.status)
		}
		if !strings.Contains(e.Field+" "+e.Message, c.says) {
			t.Errorf("%s: %q (field %q) does not say %q", c.name, e.Message, e.Field, c.says)
		}
	}
	for _, c := range []struct {
		name, stdin string
		args        []string
		code        int
		says        string
	}{
		{"malformed input", `{"type":`, []string{"submit"}, 2, ""},
		{"an unknown type", `{"type":"dance","config":{}}`, []string{"submit"}, 2, "dance"},
		{"an unknown field", `{"type":"custom","config":{"name":"true"},"prioritty":3}`, []string{"submit"}, 2, "prioritty"},
		{"an unknown flag", "", []string{"status", "--frob"}, 2, "--frob"},
		{"an unknown command", "", []string{"staus"}, 2, "status"},
		{"no file", "", []string{"submit", "-f", "/nonexistent.json"}, 2, "/nonexistent.json"},
		{"a task that is not there", "", []string{"task", "nothing"}, 2, "nothing"},
		{"bad SQL", "", []string{"sql", "SELEKT 1"}, 2, "SELECT"},
		{"nobody there", "", []string{"status", "--addr", "http://127.0.0.1:1"}, 3, "labmesh up"},
		{"a wrong key", "", []string{"status", "--api-key", "wrong"}, 4, "key"},
		{"a program that is not there", "", []string{"run", "--", "/nonexistent/program"}, 1, "/nonexistent/program"},
		{"a program's own code", "", []string{"run", "--", "sh", "-c", "exit 7"}, 7, ""},
	} {
		code, stdout, stderr := labmeshCLI(t, n, c.stdin, c.args...)
		if code != c.code && !(c.name == "a program that is not there" && code == 127) {
			t.Errorf("labmesh %s (%s): exit code %d, want %d: %s", c.args, c.name, code, c.code, stderr)
		}
		if !strings.Contains(stderr, c.says) {
			t.Errorf("labmesh %s (%s): %q does not say %q", c.args, c.name, stderr, c.says)
		}
		if strings.Contains(stdout+stderr, "goroutine ") {
			t.Errorf("labmesh %s: it panicked: %s", c.args, stderr)
		}
	}
	if st, err := n.Client().Status(t.Context()); err != nil || st.Tasks["total"] != 2 && st.Tasks["total"] != 3 { // the two that ran, and perhaps the name that was not UTF-8
		t.Errorf("after all that: %v, %v", st.Tasks, err)
	}
}

func TestOutputIsBoundedAndMissingProgramsAreNamed(t *testing.T) {
	t.Parallel()
	m := start(t, lab.Config{Nodes: 1, Slots: 2})
	n := m.Nodes[0]
	before, err := n.Usage()
	if err != nil {
		t.Fatal(err)
	}
	d := run(t, n, shell("echo first; head -c 200000000 /dev/zero | tr '\\0' x; echo; echo last"))
	if d.Status != labmesh.Completed {
		t.Fatalf("%s: %s", d.Status, d.Error)
	}
	if len(d.Result) > labmesh.ResultBytesMax {
		t.Errorf("the result has %d bytes", len(d.Result))
	}
	var result struct {
		Bytes int64 `json:"stdout_bytes"`
	}
	if err := json.Unmarshal(d.Result, &result); err != nil || result.Bytes != 200_000_012 {
		t.Errorf("the result says %d bytes, %v", result.Bytes, err)
	}
	code, out, errs := labmeshCLI(t, n, "", "logs", string(d.ID))
	if code != 0 || len(out) > 17<<20 || !strings.HasPrefix(out, "first\n") || !strings.HasSuffix(out, "last\n") {
		t.Errorf("logs: exit code %d, %d bytes from %.20q: %s", code, len(out), out, errs)
	}
	after, err := n.Usage()
	if err != nil {
		t.Fatal(err)
	}
	if grew := after.PeakBytes - before.PeakBytes; grew > 64<<20 {
		t.Errorf("the node grew by %d MiB", grew>>20)
	}

	d = run(t, n, program("no-such-program-here"))
	if d.Status != labmesh.Failed || labmesh.Cause(d.Cause) != labmesh.CauseProgram || !strings.Contains(string(d.Error), "no-such-program-here") {
		t.Errorf("%s, cause %s: %s", d.Status, d.Cause, d.Error)
	}
	s := program("true")
	s.Config = json.RawMessage(`{"name":"true","shel":true}`)
	if d := run(t, n, s); d.Status != labmesh.Failed || labmesh.Cause(d.Cause) != labmesh.CauseConfig || !strings.Contains(string(d.Error), "shel") {
		t.Errorf("%s, cause %s: %s", d.Status, d.Cause, d.Error)
	}
}

// seedTask is the benchmark that asks for a GPU, as it is in the documentation.
const seedTask = `{"type":"benchmark","config":{"model":"bert-base-uncased","batch_sizes":[1,2,4,8,16],"precision":"fp16","iterations":100},` +
	`"requirements":{"hardware":["cuda"],"min_memory_gb":8,"min_cuda_compute":7.5}}`

func TestABenchmarkWaitsForAGPUAndWhySaysSo(t *testing.T) {
	t.Parallel()
	m := start(t, lab.Config{Nodes: 1})
	n := m.Nodes[0]
	code, out, errs := labmeshCLI(t, n, seedTask, "submit")
	if code != 0 {
		t.Fatalf("exit code %d: %s%s", code, out, errs)
	}
	id := labmesh.TaskID(strings.TrimSpace(out))
	if d := run(t, n, program("true")); d.Status != labmesh.Completed {
		t.Errorf("behind it a task is %s", d.Status)
	}
	if d := task(t, n, id); d.Status != labmesh.Pending {
		t.Skipf("it is %s: there is a GPU here", d.Status)
	}
	code, out, errs = labmeshCLI(t, n, "", "why", string(id))
	if code != 0 || !strings.Contains(out, n.Name) || !strings.Contains(out, "cuda") {
		t.Errorf("exit code %d: %s%s", code, out, errs)
	}
	if _, err := n.Client().Cancel(t.Context(), id, ""); err != nil {
		t.Error(err)
	}
	if d := task(t, n, id); d.Status != labmesh.Cancelled {
		t.Errorf("after the cancel it is %s", d.Status)
	}
}

// sayer is a shell script that speaks as a runner does, of times that it makes up.
const sayer = `
s=0; say() { s=$((s+1)); echo "{\"v\":1,\"seq\":$s,\"t\":$s,$1}"; }
say '"event":"hello","runner":"sayer","runner_version":"1"'
say '"event":"model","source":"file","precision_effective":"fp16","device_class":"cpu","threads":1'
for b in 1 2 4 8 16; do
	say "\"event\":\"batch_start\",\"batch\":$b"
	say "\"event\":\"samples\",\"batch\":$b,\"i0\":0,\"ms\":[[$b],[$b.1],[$b.2],[$b.1],[$b]]"
	say "\"event\":\"batch_end\",\"batch\":$b,\"status\":\"ok\",\"n\":5"
done
say '"event":"done"'`

func TestTheBuiltInEngineMeasuresOnAnyMachine(t *testing.T) {
	t.Parallel()
	m := start(t, lab.Config{Nodes: 1})
	measure := func(config string) api.TaskDetail {
		t.Helper()
		return run(t, m.Nodes[0], labmesh.Spec{Kind: labmesh.Benchmark, Priority: 1, Config: json.RawMessage(config), Requirements: labmesh.Requirements{Hardware: []string{"cpu"}}})
	}
	const quick = `"engine":"labmesh-go","batch_sizes":[1,2],"iterations":10,"repeats":2,"min_seconds":0.1,"warmup_min_seconds":0.1,"max_seconds_per_batch":2,"quiet_seconds":-1}`
	d := measure(`{"model":"mlp",` + quick)
	if d.Status != labmesh.Completed || !strings.Contains(string(d.Result), `"engine":"labmesh-go`) {
		t.Errorf("%s: %s%s", d.Status, d.Error, d.Result)
	}
	d = measure(`{"model":"mlp","precision":"fp16",` + quick)
	if d.Status != labmesh.Failed || labmesh.Cause(d.Cause) != labmesh.CauseConfig || !strings.Contains(string(d.Error), "on_unsupported_precision") {
		t.Errorf("%s, cause %s: %s", d.Status, d.Cause, d.Error)
	}
}

func TestABenchmarkRunsAndItsRowsAreOnRecord(t *testing.T) {
	t.Parallel()
	m := start(t, lab.Config{Nodes: 2})
	var s map[string]any
	if err := json.Unmarshal([]byte(seedTask), &s); err != nil {
		t.Fatal(err)
	}
	c := s["config"].(map[string]any)
	c["runner"], c["quiet_seconds"], c["repeats"] = []string{"/bin/sh", "-c", sayer}, 0.1, 2
	s["requirements"] = map[string]any{"hardware": []string{"cpu"}}
	data, err := json.Marshal(s)
	if err != nil {
		t.Fatal(err)
	}
	code, out, errs := labmeshCLI(t, m.Nodes[0], string(data), "submit")
	if code != 0 {
		t.Fatalf("exit code %d: %s%s", code, out, errs)
	}
	id := strings.TrimSpace(out)
	if err := m.Nodes[1].Client().Wait(within(t, 30*time.Second), []labmesh.TaskID{labmesh.TaskID(id)}, nothing); err != nil {
		t.Fatal(err)
	}
	if d := task(t, m.Nodes[1], labmesh.TaskID(id)); d.Status != labmesh.Completed {
		t.Fatalf("%s: %s", d.Status, d.Error)
	}
	code, out, errs = labmeshCLI(t, m.Nodes[1], "", "sql", "--format", "csv", "SELECT repeat, batch, status, p50_ms, engine FROM benchmark_results WHERE task_id = '"+id+"' ORDER BY ALL")
	want := "repeat,batch,status,p50_ms,engine\n"
	for _, repeat := range []int{1, 2} {
		for _, b := range []int{1, 2, 4, 8, 16} {
			want += fmt.Sprintf("%d,%d,ok,%d.1,command:sayer\n", repeat, b, b)
		}
	}
	if code != 0 || strings.ReplaceAll(out, "\r", "") != want {
		t.Errorf("exit code %d: %s%s", code, out, errs)
	}
	code, out, _ = labmeshCLI(t, m.Nodes[1], "", "logs", id)
	if code != 0 || !strings.Contains(out, "run 2/2 batch 16: 5/100, p50 16.1 ms, ok") {
		t.Errorf("exit code %d: the log is %s", code, out)
	}
}
