package runner_test

import (
	"bytes"
	"context"
	"fmt"
	"os"
	osexec "os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"labmesh"
	"labmesh/exec"
	"labmesh/exec/output"
	"labmesh/exec/process"
	"labmesh/exec/suite"
)

func ids(s string) []string { return strings.Fields(s) }

const everyVerdict = `
import os, pytest, sys

class TestX:
    class TestInner:
        @pytest.mark.parametrize("v", ["a b", "x::y", "[z]", "ü\n/", "]"])
        def test_p(self, v): pass
    def test_ok(self): print("printed")

def test_bad():
    print("said before")
    print("to stderr", file=sys.stderr)
    assert 1 == 2, "as asked"

@pytest.fixture
def broken(): raise RuntimeError("no fixture")
def test_setup(broken): pass

@pytest.fixture
def untidy():
    yield
    raise RuntimeError("no teardown")
def test_teardown(untidy): pass

@pytest.mark.skip(reason="not here")
def test_skip(): pass
def test_skip_inside(): pytest.skip("from within")
@pytest.mark.xfail(reason="known")
def test_xfail(): assert 0
@pytest.mark.xfail(reason="known")
def test_xpass(): pass
@pytest.mark.xfail(strict=True, reason="known")
def test_strict(): pass
def test_bytes(): os.write(1, b"\xff\xfe"); assert False, "\udcff"
`

func TestPytestVerdicts(t *testing.T) {
	t.Parallel()
	needPytest(t)
	b := newBed(t)
	tree := map[string]string{"tests/test_a.py": everyVerdict, "tests/conftest.py": "", "pytest.ini": "[pytest]\naddopts = -ra\n"}
	c := b.run(t, b.attempt(t, tree, suite.Config{Framework: suite.Pytest, Collect: true, Paths: []string{"tests/"}}))
	if !c.outcome.OK || c.result.Cases != 15 || c.result.Errors != 0 || len(c.collected) != 15 {
		t.Fatalf("collected: %+v %+v\n%v", c.outcome, c.result, c.collected)
	}
	var all []string
	for _, l := range c.collected {
		all = append(all, l.ID)
		if l.File != "tests/test_a.py" || l.Error != "" || l.Name == "" {
			t.Errorf("%+v", l)
		}
	}
	if l := c.collected[0]; l.Name != "TestX::TestInner::test_p" || l.Parameters != "a b" {
		t.Errorf("%+v", l)
	}
	c = b.run(t, b.attempt(t, tree, suite.Config{Suite: "s1", Framework: suite.Pytest, Cases: all, Try: 2, Quarantine: []string{"tests/test_a.py::test_strict"}}))
	if got := strings.Join(c.order, "\n"); got != strings.Join(all, "\n") {
		t.Errorf("the order is\n%s\nwant\n%s", got, strings.Join(all, "\n"))
	}
	const f = "tests/test_a.py::"
	for _, id := range all[:6] {
		c.want(t, id, labmesh.TestPassed, "")
	}
	c.want(t, f+"test_bad", labmesh.TestFailed, "as asked")
	c.want(t, f+"test_bad", labmesh.TestFailed, "--- Captured stdout call ---\nsaid before")
	c.want(t, f+"test_bad", labmesh.TestFailed, "to stderr")
	c.want(t, f+"test_setup", labmesh.TestError, "no fixture")
	c.want(t, f+"test_teardown", labmesh.TestError, "no teardown")
	c.want(t, f+"test_skip", labmesh.TestSkipped, "not here")
	c.want(t, f+"test_skip_inside", labmesh.TestSkipped, "from within")
	c.want(t, f+"test_xfail", labmesh.TestXFailed, "known")
	c.want(t, f+"test_xpass", labmesh.TestXPassed, "known")
	c.want(t, f+"test_strict", labmesh.TestFailed, "XPASS(strict)")
	c.want(t, f+"test_bytes", labmesh.TestFailed, "")
	if log := c.logOf(t, f+"test_bad"); !strings.Contains(log, "as asked") || !strings.Contains(log, "said before") {
		t.Errorf("the log of test_bad: %q", log)
	}
	if tc := c.cases[f+"test_bad"]; tc.Suite != "s1" || tc.Try != 2 || tc.Framework != "pytest" || tc.Quarantined || tc.Seconds <= 0 {
		t.Errorf("%+v", tc)
	}
	if !c.cases[f+"test_strict"].Quarantined {
		t.Error("test_strict is in quarantine")
	}
	if r := c.result; c.outcome.OK || c.outcome.Cause != labmesh.CauseExit || r.Passed != 6 || r.Failed != 3 || r.Errors != 2 || r.Skipped != 2 || r.XFailed != 1 || r.XPassed != 1 || len(r.NotRun) != 0 {
		t.Errorf("%+v %+v", c.outcome, r)
	}
}

func TestPytestCollectionErrors(t *testing.T) {
	t.Parallel()
	needPytest(t)
	b := newBed(t)
	for name, c := range map[string]struct {
		tree  map[string]string
		conf  suite.Config
		cases int
		says  []string // one for each line that is an error
	}{
		"a syntax error":         {map[string]string{"test_a.py": "def test_a(:\n", "test_b.py": "def test_b(): pass\n"}, suite.Config{}, 1, []string{"SyntaxError"}},
		"a missing file":         {map[string]string{"test_b.py": "def test_b(): pass\n"}, suite.Config{Paths: []string{"test_none.py", "test_b.py"}}, 1, []string{"there is no test_none.py here"}},
		"only a missing file":    {map[string]string{}, suite.Config{Paths: []string{"test_none.py"}}, 0, []string{"there is no test_none.py here"}},
		"an import that crashes": {map[string]string{"test_a.py": "import os; os.kill(os.getpid(), 11)\n"}, suite.Config{}, 0, []string{"crashed while importing test_a.py: SIGSEGV"}},
		"a broken conftest":      {map[string]string{"conftest.py": "import nowhere\n", "test_a.py": "def test_a(): pass\n"}, suite.Config{}, 0, []string{"nowhere"}},
		"wrong arguments":        {map[string]string{"test_a.py": "def test_a(): pass\n"}, suite.Config{Args: []string{"--no-such-option"}}, 0, []string{"--no-such-option"}},
		"no tests":               {map[string]string{"test_a.py": "x = 1\n"}, suite.Config{}, 0, nil},
		"chosen by -k":           {map[string]string{"test_a.py": "def test_a(): pass\ndef test_b(): pass\n"}, suite.Config{Args: []string{"-k", "test_b"}}, 1, nil},
	} {
		c.conf.Framework, c.conf.Collect = suite.Pytest, true
		got := b.run(t, b.attempt(t, c.tree, c.conf))
		if !got.outcome.OK || got.result.Cases != c.cases || got.result.Errors != len(c.says) {
			t.Errorf("%s: %+v %+v", name, got.outcome, got.result)
		}
		n := 0
		for _, l := range got.collected {
			if l.Error == "" {
				continue
			}
			if n >= len(c.says) || !strings.Contains(l.Error, c.says[n]) {
				t.Errorf("%s: %+v; want %q", name, l, c.says)
			}
			n++
		}
	}
}

const crashes = `
import os, signal, time, pytest, ctypes
def test_1(): pass
def test_segv(): ctypes.string_at(0)
def test_2(): pass
def test_exit(): os._exit(0)
def test_kill(): os.kill(os.getpid(), 9)
def test_3(): assert 0, "plainly"
def test_session(): pytest.exit("that is it")
def test_fork():
    if os.fork() == 0:
        os.setsid()
        time.sleep(600)
def test_fork_returns():
    os.fork()
def test_4(): pass
def test_5(): pass
`

func TestPytestCrashesAreNamed(t *testing.T) {
	t.Parallel()
	needPytest(t)
	var all []string
	for _, n := range ids("test_1 test_segv test_2 test_exit test_kill test_3 test_session test_fork test_fork_returns test_4 test_5") {
		all = append(all, "test_a.py::"+n)
	}
	c := runChunk(t, map[string]string{"test_a.py": crashes}, suite.Config{Framework: suite.Pytest, Cases: all})
	for _, n := range ids("1 2 fork fork_returns 4 5") {
		c.want(t, "test_a.py::test_"+n, labmesh.TestPassed, "")
	}
	c.want(t, "test_a.py::test_segv", labmesh.TestCrashed, "crashed while running test_a.py::test_segv: SIGSEGV")
	c.want(t, "test_a.py::test_segv", labmesh.TestCrashed, "line 4 in test_segv")
	c.want(t, "test_a.py::test_exit", labmesh.TestCrashed, "exit code 0")
	c.want(t, "test_a.py::test_kill", labmesh.TestCrashed, "SIGKILL")
	c.want(t, "test_a.py::test_session", labmesh.TestCrashed, "that is it")
	c.want(t, "test_a.py::test_3", labmesh.TestFailed, "plainly")
	if c.result.Crashed != 4 || len(c.result.NotRun) != 0 || c.outcome.OK {
		t.Errorf("%+v %+v", c.outcome, c.result)
	}
}

func TestPytestTimeoutOfOneTest(t *testing.T) {
	t.Parallel()
	needPytest(t)
	c := runChunk(t, map[string]string{"test_a.py": `
import time, signal, pytest
def test_1(): pass
def test_slow(): time.sleep(60)
def test_deaf():
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    while True: pass
def test_2(): pass
`}, suite.Config{Framework: suite.Pytest, CaseTimeout: 1.5, Cases: ids("test_a.py::test_1 test_a.py::test_slow test_a.py::test_deaf test_a.py::test_2")})
	c.want(t, "test_a.py::test_1", labmesh.TestPassed, "")
	c.want(t, "test_a.py::test_slow", labmesh.TestTimeout, "line 4 in test_slow")
	c.want(t, "test_a.py::test_deaf", labmesh.TestTimeout, "its timeout of 1.5 s")
	c.want(t, "test_a.py::test_2", labmesh.TestPassed, "")
	if c.result.Timeouts != 2 || c.outcome.OK {
		t.Errorf("%+v %+v", c.outcome, c.result)
	}
}

func TestPytestCasesThatCannotRun(t *testing.T) {
	t.Parallel()
	needPytest(t)
	tree := map[string]string{
		"test_a.py": "def test_a(): pass\n", "test_bad.py": "import nowhere\ndef test_x(): pass\n", "test_skips.py": "import pytest\npytest.skip('no such device', allow_module_level=True)\ndef test_s(): pass\n",
		"test_dies.py": "import os\nos._exit(3)\ndef test_d(): pass\n",
	}
	c := runChunk(t, tree, suite.Config{Framework: suite.Pytest, Cases: ids("test_none.py::test_n test_a.py::test_a test_a.py::test_gone test_bad.py::test_x test_skips.py::test_s test_dies.py::test_d")})
	c.want(t, "test_a.py::test_a", labmesh.TestPassed, "")
	c.want(t, "test_a.py::test_gone", labmesh.TestError, "there is no such test here now")
	c.want(t, "test_none.py::test_n", labmesh.TestError, "there is no test_none.py here")
	c.want(t, "test_bad.py::test_x", labmesh.TestError, "No module named 'nowhere'")
	c.want(t, "test_skips.py::test_s", labmesh.TestSkipped, "no such device")
	c.want(t, "test_dies.py::test_d", labmesh.TestCrashed, "crashed while importing test_dies.py: exit code 3")
	if len(c.order) != 6 || len(c.result.NotRun) > 0 {
		t.Errorf("%s%+v", c.verdicts(), c.result)
	}
	c = runChunk(t, tree, suite.Config{Framework: suite.Pytest, Args: []string{"--no-such-option"}, Cases: ids("test_a.py::test_a")})
	c.want(t, "test_a.py::test_a", labmesh.TestError, "--no-such-option")
}

func TestPytestFailFast(t *testing.T) {
	t.Parallel()
	needPytest(t)
	tree := map[string]string{"test_a.py": "def test_1(): pass\ndef test_2(): assert 0\ndef test_3(): pass\n"}
	all := ids("test_a.py::test_1 test_a.py::test_2 test_a.py::test_3")
	for _, conf := range []suite.Config{{FailFast: true}, {Args: []string{"-x"}}} {
		conf.Framework, conf.Cases = suite.Pytest, all
		c := runChunk(t, tree, conf)
		if c.verdicts() != "test_a.py::test_1 passed\ntest_a.py::test_2 failed\n" || len(c.result.NotRun) != 1 || c.result.NotRun[0] != all[2] || c.outcome.OK {
			t.Errorf("%s%+v", c.verdicts(), c.result)
		}
	}
	c := runChunk(t, tree, suite.Config{Framework: suite.Pytest, Cases: all, FailFast: true, Quarantine: all[1:2]})
	if len(c.order) != 3 || !c.outcome.OK || c.result.Failed != 1 {
		t.Errorf("with the failure in quarantine: %s%+v", c.verdicts(), c.outcome)
	}
}

func TestPytestManyCases(t *testing.T) {
	t.Parallel()
	needPytest(t)
	const n = 3000
	tree := map[string]string{"test_a.py": fmt.Sprintf("import pytest\n@pytest.mark.parametrize('i', range(%d), ids=lambda i: '%s-%%d' %% i)\ndef test_i(i): assert i != 7\n", n, strings.Repeat("long", 30))}
	b := newBed(t)
	c := b.run(t, b.attempt(t, tree, suite.Config{Framework: suite.Pytest, Collect: true}))
	if c.result.Cases != n {
		t.Fatalf("%+v", c.result)
	}
	var some []string
	for _, l := range c.collected[:n/2] {
		some = append(some, l.ID)
	}
	c = b.run(t, b.attempt(t, tree, suite.Config{Framework: suite.Pytest, Cases: some}))
	if c.result.Passed != n/2-1 || c.result.Failed != 1 || len(c.order) != n/2 {
		t.Errorf("%+v, %d cases", c.result, len(c.order))
	}
}

func TestPytestIsNotSpreadOverProcessesHere(t *testing.T) {
	t.Parallel()
	needPytest(t)
	if osexec.Command("/usr/bin/python3", "-c", "import pytest, xdist").Run() != nil {
		t.Skip("no pytest-xdist: apt-get install python3-pytest-xdist")
	}
	c := runChunk(t, map[string]string{"test_a.py": "import os\ndef test_a(): assert 'PYTEST_XDIST_WORKER' not in os.environ\ndef test_b(): pass\n", "pytest.ini": "[pytest]\naddopts = -n 2\n"},
		suite.Config{Framework: suite.Pytest, Cases: ids("test_a.py::test_a test_a.py::test_b")})
	if c.verdicts() != "test_a.py::test_a passed\ntest_a.py::test_b passed\n" {
		t.Error(c.verdicts(), c.cases)
	}
}

// BenchmarkPytestChunk runs a chunk of 1,000 tests that do nothing, and for
// comparison has pytest alone run them.
func BenchmarkPytestChunk(b *testing.B) {
	const n = 1000
	var text strings.Builder
	var all []string
	for i := range n {
		fmt.Fprintf(&text, "def test_%d(): pass\n", i)
		all = append(all, fmt.Sprintf("test_a.py::test_%d", i))
	}
	if osexec.Command("/usr/bin/python3", "-c", "import pytest").Run() != nil {
		b.Skip("no pytest")
	}
	bd := newBed(b)
	conf := suite.Config{Framework: suite.Pytest, Cases: all, CaseTimeout: 60}
	b.Run("chunk", func(b *testing.B) {
		for b.Loop() {
			if c := bd.run(b, bd.attempt(b, map[string]string{"test_a.py": text.String()}, conf)); c.result.Passed != n {
				b.Fatalf("%+v", c.result)
			}
		}
		b.ReportMetric(b.Elapsed().Seconds()*1e6/float64(b.N)/n, "µs/test")
	})
	b.Run("pytest", func(b *testing.B) {
		a := bd.attempt(b, map[string]string{"test_a.py": text.String()}, conf)
		for b.Loop() {
			cmd := osexec.Command("/usr/bin/python3", "-m", "pytest", "-q", "-p", "no:cacheprovider", "test_a.py")
			cmd.Dir = a.Work()
			if out, err := cmd.CombinedOutput(); err != nil {
				b.Fatalf("%s: %v", out, err)
			}
		}
		b.ReportMetric(b.Elapsed().Seconds()*1e6/float64(b.N)/n, "µs/test")
	})
}

func TestPytestPrintsWithoutEnd(t *testing.T) {
	t.Parallel()
	needPytest(t)
	c := runChunk(t, map[string]string{"test_a.py": `
import resource, sys
def test_prints():
    for _ in range(100): sys.stdout.write("x" * (1 << 20))
    assert 0, "y" * (1 << 20)
def test_memory():
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss < 100 << 10
`}, suite.Config{Framework: suite.Pytest, Cases: ids("test_a.py::test_prints test_a.py::test_memory")})
	c.want(t, "test_a.py::test_prints", labmesh.TestFailed, "left out here")
	c.want(t, "test_a.py::test_memory", labmesh.TestPassed, "")
}

func TestChunkIsStoppedWithItsTask(t *testing.T) {
	t.Parallel()
	needPytest(t)
	b := newBed(t)
	ctx, cancel := context.WithCancelCause(t.Context())
	b.ctx = ctx
	a := b.attempt(t, map[string]string{"test_a.py": "import time\ndef test_1(): pass\ndef test_2():\n    open('running', 'w').close()\n    time.sleep(60)\ndef test_3(): pass\n"},
		suite.Config{Framework: suite.Pytest, Cases: ids("test_a.py::test_1 test_a.py::test_2 test_a.py::test_3")})
	go func() {
		for ctx.Err() == nil {
			if _, err := os.Stat(filepath.Join(a.Work(), "running")); err == nil {
				cancel(exec.ErrCancelled)
			}
			time.Sleep(10 * time.Millisecond)
		}
	}()
	c := b.run(t, a)
	if c.verdicts() != "test_a.py::test_1 passed\n" || c.outcome.Cause != labmesh.CauseCancelled || len(c.result.NotRun) != 2 {
		t.Errorf("%s%+v %+v", c.verdicts(), c.outcome, c.result)
	}
}

// replayed is a machine on which all programs have ended before, as after a
// restart of the worker.
type replayed struct {
	exits []process.Exit
	py    string
}

func (r *replayed) Launch(context.Context, exec.Attempt, suite.Program) (process.Exit, error) {
	e := r.exits[0]
	r.exits = r.exits[1:]
	return e, nil
}

func (r *replayed) Python(context.Context, bool) (string, error) { return r.py, nil }

func TestChunkIsTakenUpAgainFromItsFiles(t *testing.T) {
	t.Parallel()
	needPytest(t)
	b := newBed(t)
	conf := suite.Config{Framework: suite.Pytest, CaseTimeout: 1.5, Cases: ids("test_a.py::test_1 test_a.py::test_dies test_a.py::test_2 test_a.py::test_slow test_a.py::test_3")}
	a := b.attempt(t, map[string]string{"test_a.py": "import os, time\ndef test_1(): pass\ndef test_dies(): os.kill(os.getpid(), 11)\ndef test_2(): assert 0\ndef test_slow(): time.sleep(60)\ndef test_3(): pass\n"}, conf)
	before := b.run(t, a)
	var again []labmesh.TestCase
	a.Output = output.New(t.TempDir())
	a.Record = func(cases []labmesh.TestCase) { again = append(again, cases...) }
	o, err := suite.Run(t.Context(), &replayed{exits: []process.Exit{{Code: -1, Signal: 11}, {Code: -1, Signal: 15, Stopped: true}, {}}}, a, conf)
	if err != nil || !bytes.Equal(o.Result, before.outcome.Result) || o.Cause != before.outcome.Cause || len(again) != len(before.order) {
		t.Fatalf("%+v, %v\nwant %+v", o, err, before.outcome)
	}
	for i, c := range again {
		old := before.cases[before.order[i]]
		if old.Log = ""; idOf(c) != before.order[i] || c != old {
			t.Errorf("%+v\nwas %+v", c, old)
		}
	}
	if got := before.verdicts(); got != "test_a.py::test_1 passed\ntest_a.py::test_dies crashed\ntest_a.py::test_2 failed\ntest_a.py::test_slow timeout\ntest_a.py::test_3 passed\n" {
		t.Error(got)
	}
}
