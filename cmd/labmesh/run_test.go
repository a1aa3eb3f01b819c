package main

import (
	"context"
	"encoding/json"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"labmesh"
	"labmesh/api"
)

func TestRunIsLikeRunningItHere(t *testing.T) {
	t.Parallel()
	n := newFakeNode(t)
	n.logs = map[string]string{"stdout": "out\n", "stderr": "err\n"}
	n.labmesh(t, "run", "--", "echo", "out").want(t, 0, "out\n", "err\n")
	if s := n.specs[0]; s.Kind != labmesh.Custom || string(s.Config) != `{"name":"echo","args":["out"]}` || s.Priority != 1 || s.IdempotencyKey == "" {
		t.Errorf("submitted %+v with config %s", s, s.Config)
	}
}

func TestRunPassesTheFlagsOn(t *testing.T) {
	t.Parallel()
	n := newFakeNode(t)
	r := n.with(t, t.Context(), "", map[string]string{"SECRET": "s", "LABMESH_PRIORITY": "7", "LABMESH_TAG": "site=a,rack=2"},
		"run", "--name", "job", "--timeout", "90s", "--queue-timeout", "1h", "--hardware", "cuda,cpu", "--min-memory-gb", "8", "--min-cuda-compute", "7.5",
		"--cpus", "2", "--gpus", "1", "--worker", "w1", "--retries", "2", "--backoff", "3s", "--env", "A=b=c", "--env", "SECRET", "--label", "k=v", "--shell", "--detach", "--", "exit $1", "--json")
	r.want(t, 0, "t1\n", "")
	got, err := json.Marshal(n.specs[0])
	if err != nil {
		t.Fatal(err)
	}
	want := `{"type":"custom","priority":7,"config":{"name":"exit $1","args":["--json"],"shell":true},` +
		`"requirements":{"hardware":["cuda","cpu"],"min_memory_gb":8,"min_cuda_compute":7.5,"cpus":2,"gpus":1,"tags":{"rack":"2","site":"a"},"worker_id":"w1"},` +
		`"idempotency_key":"` + n.specs[0].IdempotencyKey + `","name":"job","labels":{"k":"v"},"env":{"A":"b=c","SECRET":"s"},` +
		`"timeout_seconds":90,"queue_timeout_seconds":3600,"retry_policy":{"max_retries":2,"backoff_seconds":3}}`
	if string(got) != want {
		t.Errorf("submitted\n%s, want\n%s", got, want)
	}
}

func TestRunExitsAsTheProgramDid(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		end   api.TaskDetail
		code  int
		inErr string
	}{
		"its exit code":     {api.TaskDetail{Task: api.Task{Status: labmesh.Failed}, Cause: "exit", Error: "exit code 42", Result: json.RawMessage(`{"exit_code":42}`)}, 42, ""},
		"no such program":   {api.TaskDetail{Task: api.Task{Status: labmesh.Failed}, Cause: "program", Error: "no program \"x\" on the PATH"}, 1, "no program \"x\" on the PATH"},
		"killed":            {api.TaskDetail{Task: api.Task{Status: labmesh.Failed}, Cause: "signal", Error: "killed by SIGSEGV", Result: json.RawMessage(`{"exit_code":139}`)}, 139, "killed by SIGSEGV"},
		"timed out":         {api.TaskDetail{Task: api.Task{Status: labmesh.TimedOut}, Cause: "timeout", Error: "ran past its timeout of 1s"}, 124, "ran past its timeout"},
		"cancelled by them": {api.TaskDetail{Task: api.Task{Status: labmesh.Cancelled}, Cause: "cancelled"}, 1, "somebody cancelled the task"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			n := newFakeNode(t)
			n.fate = func(_ labmesh.Spec, task *api.TaskDetail) {
				task.Status, task.Cause, task.Error, task.Result = c.end.Status, c.end.Cause, c.end.Error, c.end.Result
			}
			n.labmesh(t, "run", "--", "x").want(t, c.code, "", c.inErr)
		})
	}
}

func TestCtrlCCancelsTheTask(t *testing.T) {
	t.Parallel()
	n := newFakeNode(t)
	n.fate = func(_ labmesh.Spec, task *api.TaskDetail) { task.Status = labmesh.Running }
	n.logs = map[string]string{"stdout": "", "stderr": ""}
	ctx, interrupt := context.WithCancel(t.Context())
	go func() { <-n.submitted; interrupt() }()
	n.with(t, ctx, "", nil, "run", "--", "sleep", "inf").want(t, exitInterrupted, "", "cancelling t1")
	if got := n.tasks["t1"].Status; got != labmesh.Cancelled {
		t.Errorf("the task is %s", got)
	}
}

func TestCtrlCCancelsTheTests(t *testing.T) {
	t.Parallel()
	n := newFakeNode(t)
	n.fate = func(_ labmesh.Spec, task *api.TaskDetail) { task.Status = labmesh.Running }
	file := filepath.Join(t.TempDir(), "check.sh")
	if err := os.WriteFile(file, nil, 0o700); err != nil {
		t.Fatal(err)
	}
	ctx, interrupt := context.WithCancel(t.Context())
	go func() { <-n.submitted; interrupt() }()
	r := n.with(t, ctx, "", nil, "test", file)
	if r.code != exitInterrupted {
		t.Errorf("exit code %d: %s", r.code, r.err)
	}
	if task := n.tasks["t1"]; task != nil && task.Status != labmesh.Cancelled {
		t.Errorf("the task is %s", task.Status)
	}
}

func TestTestReportsWhatFailed(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	var files []string
	for _, name := range []string{"good.sh", "bad.sh", "lost.sh"} {
		files = append(files, filepath.Join(dir, name))
		if err := os.WriteFile(files[len(files)-1], nil, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	n := newFakeNode(t)
	n.fate = func(s labmesh.Spec, task *api.TaskDetail) {
		switch {
		case strings.Contains(s.Name, "bad"):
			task.Status, task.Cause, task.Error = labmesh.Failed, "exit", "tests failed (exit code 1)"
			task.Result = json.RawMessage(`{"runner":"pytest","exit_code":1,"summary":"1 failed","stdout":"\u001b[31massert 1 == 2\u001b[0m \u0000 <&>"}`)
		case strings.Contains(s.Name, "lost"):
			task.Status, task.Cause, task.Error = labmesh.TimedOut, "timeout", "too long"
		default:
			task.Status = labmesh.Completed
			task.Result = json.RawMessage(`{"runner":"pytest","exit_code":0,"summary":"3 passed"}`)
		}
	}
	report := filepath.Join(dir, "report.xml")
	r := n.labmesh(t, append(append([]string{"test", "--junit", report}, files...), "--", "-k", "fast")...)
	if r.code != 1 || r.err != "" {
		t.Errorf("exit code %d, stderr %q", r.code, r.err)
	}
	for _, want := range []string{"assert 1 == 2", "--- " + files[1], "3 passed", "1 passed, 2 failed", "timed_out", "1.5s"} {
		if !strings.Contains(r.stdout, want) {
			t.Errorf("no %q in\n%s", want, r.stdout)
		}
	}
	if want := `{"test_file":"` + files[0] + `","test_args":["-k","fast"]}`; string(n.specs[0].Config) != want || n.batches != 1 {
		t.Errorf("config %s, want %s; %d batches", n.specs[0].Config, want, n.batches)
	}
	got, err := os.ReadFile(report)
	if err != nil {
		t.Fatal(err)
	}
	golden(t, "junit.xml", strings.ReplaceAll(string(got), dir, "DIR"))
}

func TestTestWithoutSuchAFile(t *testing.T) {
	t.Parallel()
	n := newFakeNode(t)
	n.labmesh(t, "test", "no/such/test.py").want(t, 2, "", "there is no test file no/such/test.py")
	n.labmesh(t, "test", "--", "-x").want(t, 2, "", "before --")
	n.labmesh(t, "test", "run_test.go", "--junit", "no/such/dir/x.xml").want(t, 2, "", "there is no directory no/such/dir")
	if len(n.specs) > 0 {
		t.Errorf("submitted %v", n.specs)
	}
}

func TestRunSaysWhenItCannotSubmit(t *testing.T) {
	t.Parallel()
	n := newFakeNode(t)
	n.override = func(w http.ResponseWriter, r *http.Request) bool {
		if r.Method == http.MethodPost {
			answer(w, 400, api.Error{Message: "requirements.hardware: a word is wrong", Field: "requirements.hardware"})
			return true
		}
		return false
	}
	n.labmesh(t, "run", "--", "x").want(t, 2, "", "requirements.hardware: a word is wrong")
}
