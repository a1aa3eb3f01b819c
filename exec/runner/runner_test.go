package runner_test

import (
	"context"
	"encoding/json"
	"errors"
	"os"
	osexec "os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"go.uber.org/goleak"

	"labmesh"
	"labmesh/exec"
	"labmesh/exec/exectest"
	"labmesh/exec/keeper"
	"labmesh/exec/process"
	"labmesh/exec/runner"
	"labmesh/exec/sandbox"
)

// keeperArg makes the test binary play the keeper, of the directory and with the window that follow.
const keeperArg = "keeper"

func TestMain(m *testing.M) {
	if len(os.Args) == 4 && os.Args[1] == keeperArg {
		window, err := time.ParseDuration(os.Args[3])
		if err = errors.Join(err, keeper.Main(os.Args[2], window)); err != nil {
			panic(err)
		}
		return
	}
	if len(os.Args) > 2 && os.Args[1] == sandboxArg {
		os.Exit(sandbox.Main(os.Args[2:]))
	}
	goleak.VerifyTestMain(m)
}

// sandboxArg has the test's own program play the parts of a sandbox.
const sandboxArg = "labmesh-test-sandbox"

func box(t testing.TB) sandbox.Box {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	return sandbox.New([]string{exe, sandboxArg}, os.Environ())
}

// bench is a worker with real runners.
type bench struct {
	desk *exectest.Desk
	w    *exec.Worker
	n    int
}

func newBench(t *testing.T, environ ...string) *bench {
	t.Helper()
	dir := t.TempDir()
	host, err := process.Open(t.Context(), process.Config{Dir: filepath.Join(dir, "running"), Grace: 200 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	runners, err := runner.New(host, append(os.Environ(), environ...), runner.In(box(t)))
	if err != nil {
		t.Fatal(err)
	}
	b := &bench{desk: &exectest.Desk{}}
	b.w, err = exec.Open(t.Context(), exec.Config{Worker: "w1", Dir: filepath.Join(dir, "attempts"), Slots: 4, Desk: b.desk, Runners: runners, Files: tree{}, Floor: 1})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- b.w.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := errors.Join(<-done, b.w.Close(), host.Close()); err != nil {
			t.Error(err)
		}
	})
	return b
}

// tree is a bundle of two scripts.
type tree struct{}

func (tree) Unpack(_ context.Context, _, dir string) error {
	script := []byte("#!/bin/sh\necho $(basename \"$PWD\") $0\n")
	return errors.Join(os.Mkdir(filepath.Join(dir, "sub"), 0o700),
		os.WriteFile(filepath.Join(dir, "sub", "check.sh"), script, 0o700), os.WriteFile(filepath.Join(dir, "go.sh"), script, 0o700))
}

func (tree) Keep(context.Context, string, []string, string) (*labmesh.Outputs, error) {
	return nil, nil
}

func TestPathsAreFromTheRootOfTheBundle(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	for _, c := range []struct {
		kind   labmesh.Kind
		config string
		stdout string
		says   string
	}{
		{labmesh.Custom, `{"name":"./go.sh"}`, "work ", ""},
		{labmesh.Custom, `{"name":"sub/check.sh"}`, "work ", ""},
		{labmesh.Test, `{"test_file":"sub/check.sh"}`, "sub ", ""},
		{labmesh.Test, `{"test_file":"sub/none.py"}`, "", "there is no sub/none.py in the task's bundle"},
	} {
		o, r := b.run(t, labmesh.Spec{Kind: c.kind, Config: json.RawMessage(c.config), Bundle: strings.Repeat("0", 64)})
		if !strings.HasPrefix(r.Stdout, c.stdout) || !strings.Contains(o.Error, c.says) || o.OK != (c.says == "") {
			t.Errorf("%s: %+v, %q", c.config, o, r.Stdout)
		}
	}
}

// result is what results of both runners hold.
type result struct {
	Runner, Signal, Summary, Stdout, Stderr string
	ExitCode                                int  `json:"exit_code"`
	StdoutTruncated                         bool `json:"stdout_truncated"`
}

func (b *bench) run(t *testing.T, spec labmesh.Spec) (labmesh.Outcome, result) {
	t.Helper()
	b.n++
	id := labmesh.TaskID(t.Name() + string(rune('a'+b.n)))
	b.desk.Put(labmesh.Task{ID: id, Attempt: 1, Phase: labmesh.Assigned, Spec: spec})
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	o, err := b.desk.Await(ctx, id)
	if err != nil {
		t.Fatal(err)
	}
	var r result
	if o.Result != nil {
		if err := json.Unmarshal(o.Result, &r); err != nil {
			t.Errorf("result %s: %v", o.Result, err)
		}
	}
	if len(o.Result) > labmesh.ResultBytesMax || !utf8.Valid(o.Result) {
		t.Errorf("a result of %d bytes", len(o.Result))
	}
	return o, r
}

func custom(config string) labmesh.Spec {
	return labmesh.Spec{Kind: labmesh.Custom, Config: json.RawMessage(config)}
}

func TestCustom(t *testing.T) {
	t.Parallel()
	b := newBench(t, "SECRET_THING=x", "LABMESH_API_KEY=k")
	for name, c := range map[string]struct {
		config string
		cause  labmesh.Cause // "" for a good end
		says   string        // in the error
		out    string        // on stdout
	}{
		"a program on PATH":    {`{"name":"echo","args":["a b","$HOME"]}`, "", "", "a b $HOME\n"},
		"a script":             {`{"name":"echo $1-$2; pwd | grep -o 'work$'","args":["a","b"],"shell":true}`, "", "", "a-b\nwork\n"},
		"stdin":                {`{"name":"cat","stdin":"given"}`, "", "", "given"},
		"no stdin":             {`{"name":"cat"}`, "", "", ""},
		"a directory":          {`{"name":"pwd","dir":"/usr"}`, "", "", "/usr\n"},
		"secrets stay out":     {`{"name":"env | grep -c -e SECRET_THING -e API_KEY","shell":true}`, labmesh.CauseExit, "", "0\n"},
		"its own variables":    {`{"name":"echo $LABMESH_ATTEMPT $LABMESH_WORKER_ID; test -d $TMPDIR && test -w $TMPDIR","shell":true}`, "", "", "1 w1\n"},
		"exit code":            {`{"name":"exit 3","shell":true}`, labmesh.CauseExit, "exit code 3", ""},
		"signal":               {`{"name":"kill -SEGV $$","shell":true}`, labmesh.CauseSignal, "SIGSEGV", ""},
		"not UTF-8":            {`{"name":"printf '\\377\\000\\001'","shell":true}`, "", "", "\uFFFD\x00\x01"},
		"no such program":      {`{"name":"no-such-program"}`, labmesh.CauseProgram, "install it", ""},
		"no such path":         {`{"name":"/no/such"}`, labmesh.CauseProgram, "check the path", ""},
		"not executable":       {`{"name":"/etc/passwd"}`, labmesh.CauseProgram, "chmod +x", ""},
		"no such directory":    {`{"name":"true","dir":"/no/such"}`, labmesh.CauseConfig, "dir", ""},
		"no name":              {`{}`, labmesh.CauseConfig, "name", ""},
		"an unknown field":     {`{"name":"true","shel":true}`, labmesh.CauseConfig, "shel: there is no such field", ""},
		"a wrong type":         {`{"name":"true","args":"x"}`, labmesh.CauseConfig, "args: it must be a list of texts", ""},
		"a NUL":                {`{"name":"true","args":["\u0000"]}`, labmesh.CauseConfig, "NUL", ""},
		"no object":            {`[1]`, labmesh.CauseConfig, "config", ""},
		"an argument too long": {`{"name":"true","args":["` + strings.Repeat("x", 200<<10) + `"]}`, labmesh.CauseConfig, "args", ""},
	} {
		o, r := b.run(t, custom(c.config))
		if o.Cause != c.cause || o.OK != (c.cause == "") || !strings.Contains(o.Error, c.says) || r.Stdout != c.out {
			t.Errorf("%s: %+v, result %+v", name, o, r)
		}
	}
	spec := custom(`{"name":"echo $GREETING","shell":true}`)
	spec.Env = map[string]string{"GREETING": "hello"}
	if o, r := b.run(t, spec); !o.OK || r.Stdout != "hello\n" {
		t.Errorf("env: %+v %+v", o, r)
	}
	spec.Env = map[string]string{"LABMESH_TASK_ID": "x"}
	if o, _ := b.run(t, spec); o.Cause != labmesh.CauseConfig || !strings.Contains(o.Error, "LABMESH_") {
		t.Errorf("a reserved name: %+v", o)
	}
}

func TestResultIsBoundedWhateverIsPrinted(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	o, r := b.run(t, custom(`{"name":"head -c 100000 /dev/zero | tr '\\000' '\\001' | tee /dev/stderr","shell":true}`))
	if !o.OK || !r.StdoutTruncated {
		t.Errorf("%+v", o)
	}
	var m struct {
		CPU float64 `json:"cpu_seconds"`
	}
	if err := json.Unmarshal(o.Metrics, &m); err != nil || m.CPU <= 0 || o.Seconds <= 0 {
		t.Errorf("metrics %s, %v seconds: %v", o.Metrics, o.Seconds, err)
	}
}

func TestCancelAndTimeout(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	spec := custom(`{"name":"trap '' TERM; sleep 1000 & sleep 1000; wait","shell":true,"grace_seconds":0.1}`)
	spec.TimeoutSeconds = 0.2
	if o, _ := b.run(t, spec); o.OK || o.Cause != labmesh.CauseTimeout || o.Seconds > 20 {
		t.Errorf("timeout: %+v", o)
	}
	spec.TimeoutSeconds = 0
	b.desk.Put(labmesh.Task{ID: "c", Attempt: 1, Phase: labmesh.Assigned, Spec: spec})
	for changed := b.desk.Changed(); b.desk.Phase("c") != labmesh.Running; changed = b.desk.Changed() {
		if b.desk.Phase("c") != labmesh.Running {
			<-changed
		}
	}
	b.desk.Cancel("c")
	if o, err := b.desk.Await(t.Context(), "c"); err != nil || o.OK || o.Cause != labmesh.CauseCancelled {
		t.Errorf("cancel: %+v, %v", o, err)
	}
}

// files writes a tree and returns its directory.
func files(t *testing.T, tree map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for name, text := range tree {
		mode := os.FileMode(0o600)
		if strings.HasPrefix(text, "#!") {
			mode = 0o700
		}
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), mode); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func test(file string, args ...string) labmesh.Spec {
	config, _ := json.Marshal(runner.TestConfig{TestFile: file, TestArgs: args})
	return labmesh.Spec{Kind: labmesh.Test, Config: config}
}

func TestProgramsAndMissingFiles(t *testing.T) {
	t.Parallel()
	dir := files(t, map[string]string{"check": "#!/bin/sh\necho \"$1\"; exit \"$2\"\n", "notes.txt": "x"})
	b := newBench(t)
	if o, r := b.run(t, test(dir+"/check", "hi", "0")); !o.OK || r.Stdout != "hi\n" || r.Runner != "program" {
		t.Errorf("%+v %+v", o, r)
	}
	if o, r := b.run(t, test(dir+"/check", "hi", "4")); o.OK || o.Cause != labmesh.CauseExit || r.ExitCode != 4 {
		t.Errorf("%+v %+v", o, r)
	}
	for _, file := range []string{dir + "/none.py", dir + "/notes.txt", dir} {
		if o, _ := b.run(t, test(file)); o.Cause != labmesh.CauseProgram || !strings.Contains(o.Error, file) {
			t.Errorf("%s: %+v", file, o)
		}
	}
}

func TestGoTests(t *testing.T) {
	t.Parallel()
	if _, err := osexec.LookPath("go"); err != nil {
		t.Skip("no go on PATH")
	}
	dir := files(t, map[string]string{
		"go.mod":      "module x\n",
		"a_test.go":   "package x\n\nimport \"testing\"\n\nfunc TestA(t *testing.T) {}\n",
		"b_test.go":   "package x\n\nimport \"testing\"\n\nfunc TestB(t *testing.T) { t.Error(\"as asked\") }\n",
		"new_test.go": "package x\n",
	})
	b := newBench(t)
	if o, r := b.run(t, test(dir+"/a_test.go", "-v")); !o.OK || r.Runner != "go test" || !strings.Contains(r.Stdout, "--- PASS: TestA") {
		t.Errorf("%+v %+v", o, r)
	}
	if o, r := b.run(t, test(dir)); o.OK || o.Cause != labmesh.CauseExit || !strings.Contains(r.Stdout, "as asked") {
		t.Errorf("%+v %+v", o, r)
	}
	if o, _ := b.run(t, test(dir+"/new_test.go")); o.OK || !strings.Contains(o.Error, "no tests") {
		t.Errorf("%+v", o)
	}
}

func TestPythonWithoutPytest(t *testing.T) {
	t.Parallel()
	if _, err := osexec.LookPath("python3"); err != nil {
		t.Skip("no python3 on PATH")
	}
	dir := files(t, map[string]string{
		"plain.py":      "import sys\nprint('plain', sys.argv[1:])\n",
		"test_plain.py": "assert 1 + 1 == 2\n",
		"test_unit.py":  "import unittest\nclass T(unittest.TestCase):\n    def test_it(self): self.assertEqual(1, 1)\n",
		"test_none.py":  "import unittest\n",
		"test_bad.py":   "import unittest\nclass T(unittest.TestCase):\n    def test_it(self): self.fail('as asked')\n",
		"test_py.py":    "def test_it(): pass\n",
		"no-pytest":     "#!/bin/sh\n[ \"$1\" = -c ] && exit 1\n[ \"$2\" = pytest ] && exit 1\nexec python3 \"$@\"\n",
	})
	b := newBench(t, "LABMESH_PYTHON="+dir+"/no-pytest")
	if o, r := b.run(t, test(dir+"/plain.py", "x")); !o.OK || r.Runner != "python" || r.Stdout != "plain ['x']\n" {
		t.Errorf("%+v %+v", o, r)
	}
	if hasPytest() {
		t.Skip("this machine has pytest, so the rest cannot be seen")
	}
	for file, want := range map[string]struct {
		ok     bool
		cause  labmesh.Cause
		runner string
	}{
		"test_plain.py": {true, "", "python"}, "test_unit.py": {true, "", "unittest"}, "test_none.py": {false, labmesh.CauseExit, "unittest"},
		"test_bad.py": {false, labmesh.CauseExit, "unittest"}, "test_py.py": {false, labmesh.CauseProgram, ""},
	} {
		o, r := b.run(t, test(filepath.Join(dir, file)))
		if o.OK != want.ok || o.Cause != want.cause || r.Runner != want.runner {
			t.Errorf("%s: %+v %+v", file, o, r)
		}
		if want.runner == "" && !strings.Contains(o.Error, "LABMESH_PYTHON") {
			t.Errorf("%s: %s", file, o.Error)
		}
	}
}

func hasPytest() bool {
	for _, python := range []string{os.Getenv("LABMESH_PYTHON"), "python3", "/usr/bin/python3"} {
		if python != "" && osexec.Command(python, "-c", "import pytest").Run() == nil {
			return true
		}
	}
	return false
}

func TestPytest(t *testing.T) {
	t.Parallel()
	if !hasPytest() {
		t.Skip("no python3 with pytest on this machine: apt-get install python3-pytest, or set LABMESH_PYTHON")
	}
	dir := files(t, map[string]string{
		"test_a.py": "def test_good(): pass\ndef test_bad(): assert 1 == 2\n",
		"test_b.py": "x = 1\n",
	})
	b := newBench(t)
	if o, r := b.run(t, test(dir+"/test_a.py::test_good")); !o.OK || r.Runner != "pytest" || !strings.HasPrefix(r.Summary, "1 passed") {
		t.Errorf("%+v %+v", o, r)
	}
	if o, r := b.run(t, test(dir+"/test_a.py")); o.OK || o.Cause != labmesh.CauseExit || !strings.HasPrefix(r.Summary, "1 failed, 1 passed") {
		t.Errorf("%+v %+v", o, r)
	}
	if o, _ := b.run(t, test(dir+"/test_b.py")); o.OK || !strings.Contains(o.Error, "no tests were found") {
		t.Errorf("%+v", o)
	}
}
