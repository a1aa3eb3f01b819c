package runner_test

import (
	"strings"
	"testing"

	"labmesh"
	"labmesh/exec/suite"
)

const unit = `
import os, sys, time, unittest
class A(unittest.TestCase):
    def test_ok(self): print("printed")
    def test_fail(self): self.assertEqual(1, 2, "as asked")
    def test_raises(self): raise RuntimeError("boom")
    @unittest.skip("not here")
    def test_skip(self): pass
    @unittest.expectedFailure
    def test_xfail(self): self.fail()
    @unittest.expectedFailure
    def test_xpass(self): pass
    def test_subs(self):
        for i in range(3):
            with self.subTest(i=i): self.assertNotEqual(i, 1)
    def test_dies(self): os._exit(0)
    def test_z(self): pass
class SetUp(unittest.TestCase):
    @classmethod
    def setUpClass(cls): raise RuntimeError("no class")
    def test_1(self): pass
    def test_2(self): pass
class TearDown(unittest.TestCase):
    @classmethod
    def tearDownClass(cls): raise RuntimeError("untidy")
    def test_1(self): pass
    def test_2(self): pass
@unittest.skip("none of these")
class Skipped(unittest.TestCase):
    def test_1(self): pass
class Slow(unittest.TestCase):
    def test_1(self): time.sleep(60)
    def test_2(self): pass
class DiesInSetUp(unittest.TestCase):
    @classmethod
    def setUpClass(cls): os.kill(os.getpid(), 9)
    def test_1(self): pass
`

func TestUnittestVerdicts(t *testing.T) {
	t.Parallel()
	needProgram(t, "python3")
	b := newBed(t)
	tree := map[string]string{
		"tests/test_a.py": unit, "tests/pkg/__init__.py": "", "tests/pkg/test_b.py": "import unittest\nfrom . import test_c\nclass B(unittest.TestCase):\n    def test_b(self): pass\n", "tests/pkg/test_c.py": "",
		"tests/test_bad.py": "import unittest\nimport nowhere\n", "other/test_a.py": "import unittest\nclass A(unittest.TestCase):\n    def test_other(self): pass\n", "tests/helper.py": "raise SystemExit\n",
	}
	c := b.run(t, b.attempt(t, tree, suite.Config{Framework: suite.Unittest, Collect: true, Paths: []string{"tests", "other", "none.py"}}))
	if !c.outcome.OK || c.result.Cases != 19 || c.result.Errors != 2 {
		t.Fatalf("%+v %+v\n%v", c.outcome, c.result, c.collected)
	}
	var all []string
	for _, l := range c.collected {
		if l.Error == "" {
			all = append(all, l.ID)
		}
	}
	if e := c.collected[len(c.collected)-1]; e.File != "tests/test_bad.py" || !strings.Contains(e.Error, "nowhere") {
		t.Errorf("%+v", e)
	}
	c = b.run(t, b.attempt(t, tree, suite.Config{Framework: suite.Unittest, CaseTimeout: 2, Cases: append(all, "tests/test_bad.py::X::test_x")}))
	for id, says := range map[string]string{
		"A::test_ok": "passed", "A::test_fail": "failed as asked", "A::test_raises": "error boom", "A::test_skip": "skipped not here", "A::test_xfail": "xfailed", "A::test_xpass": "failed unexpected success",
		"A::test_subs": "failed (i=1)", "A::test_dies": "crashed exit code 0", "A::test_z": "passed", "SetUp::test_1": "error no class", "SetUp::test_2": "error no class",
		"TearDown::test_1": "passed", "TearDown::test_2": "error untidy", "Skipped::test_1": "skipped none of these", "Slow::test_1": "timeout in test_1", "Slow::test_2": "passed", "DiesInSetUp::test_1": "crashed SIGKILL",
	} {
		v, text, _ := strings.Cut(says, " ")
		c.want(t, "tests/test_a.py::"+id, labmesh.TestVerdict(v), text)
	}
	c.want(t, "tests/pkg/test_b.py::B::test_b", labmesh.TestPassed, "")
	c.want(t, "other/test_a.py::A::test_other", labmesh.TestPassed, "")
	c.want(t, "tests/test_bad.py::X::test_x", labmesh.TestError, "nowhere")
	if len(c.order) != 20 || len(c.result.NotRun) > 0 {
		t.Errorf("%s%+v", c.verdicts(), c.result)
	}
	if log := c.logOf(t, "tests/test_a.py::A::test_fail"); !strings.Contains(log, "as asked") {
		t.Errorf("%q", log)
	}
}

func TestUnittestArguments(t *testing.T) {
	t.Parallel()
	needProgram(t, "python3")
	b := newBed(t)
	tree := map[string]string{"test_a.py": unit}
	c := b.run(t, b.attempt(t, tree, suite.Config{Framework: suite.Unittest, Collect: true, Args: []string{"-k", "test_ok"}}))
	if c.result.Cases != 1 || c.collected[0].ID != "test_a.py::A::test_ok" {
		t.Errorf("%+v %v", c.result, c.collected)
	}
	c = b.run(t, b.attempt(t, tree, suite.Config{Framework: suite.Unittest, Collect: true, Paths: []string{"test_a.py::A::test_ok", "test_a.py::Slow"}}))
	if c.result.Cases != 3 || c.collected[0].ID != "test_a.py::A::test_ok" || c.collected[2].ID != "test_a.py::Slow::test_2" {
		t.Errorf("%+v %v", c.result, c.collected)
	}
	c = b.run(t, b.attempt(t, tree, suite.Config{Framework: suite.Unittest, Collect: true, Args: []string{"--nonsense"}}))
	if c.result.Errors != 1 || !strings.Contains(c.collected[0].Error, "--nonsense") {
		t.Errorf("%+v %v", c.result, c.collected)
	}
	c = b.run(t, b.attempt(t, tree, suite.Config{Framework: suite.Unittest, FailFast: true, Cases: ids("test_a.py::A::test_fail test_a.py::A::test_ok")}))
	if c.verdicts() != "test_a.py::A::test_fail failed\n" || len(c.result.NotRun) != 1 {
		t.Errorf("%s%+v", c.verdicts(), c.result)
	}
}
