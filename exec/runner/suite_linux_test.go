package runner_test

import (
	"testing"

	"labmesh"
	"labmesh/exec/runner"
	"labmesh/exec/suite"
)

func TestPytestInSandboxes(t *testing.T) {
	t.Parallel()
	needPytest(t)
	_, absent := box(t).Probe(t.Context())
	for _, level := range labmesh.Sandboxes() {
		if absent[level] != "" {
			t.Logf("no sandbox %s here: %s", level, absent[level])
			continue
		}
		b := newBed(t, runner.In(box(t)))
		a := b.attempt(t, map[string]string{"test_a.py": "import os\ndef test_1(tmp_path): (tmp_path / 'x').write_text('y')\ndef test_dies(): os.kill(os.getpid(), 11)\ndef test_2(): open('made', 'w').close()\n"},
			suite.Config{Framework: suite.Pytest, CaseTimeout: 20, Cases: ids("test_a.py::test_1 test_a.py::test_dies test_a.py::test_2")})
		a.Task.Spec.Requirements.Sandbox = level
		if c := b.run(t, a); c.verdicts() != "test_a.py::test_1 passed\ntest_a.py::test_dies crashed\ntest_a.py::test_2 passed\n" {
			t.Errorf("%s: %+v\n%s%+v", level, c.outcome, c.verdicts(), c.cases)
		} else {
			c.want(t, "test_a.py::test_dies", labmesh.TestCrashed, "SIGSEGV")
		}
	}
}
