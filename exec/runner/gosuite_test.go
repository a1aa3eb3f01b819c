package runner_test

import (
	"strings"
	"testing"

	"labmesh"
	"labmesh/exec/suite"
)

var goTree = map[string]string{
	"go.mod": "module example.com/x\n\ngo 1.21\n",
	"x_test.go": `package x

import (
	"fmt"
	"os"
	"testing"
	"time"
)

func TestOK(t *testing.T)   { fmt.Println("said", "so") }
func TestFail(t *testing.T) { fmt.Println("before"); t.Error("as asked") }
func TestSkip(t *testing.T) { t.Skip("not here") }
func TestSubs(t *testing.T) {
	t.Run("a b", func(t *testing.T) {})
	t.Run("bad", func(t *testing.T) { t.Error("in the subtest") })
}
func TestPanics(t *testing.T)   { panic("boom") }
func TestExits(t *testing.T)    { os.Exit(3) }
func TestGoroutine(t *testing.T) {
	go func() { panic("elsewhere") }()
	time.Sleep(time.Minute)
}
func TestP1(t *testing.T)  { t.Parallel(); time.Sleep(300 * time.Millisecond); os.Exit(4) }
func TestP2(t *testing.T)  { t.Parallel(); time.Sleep(500 * time.Millisecond) }
func TestQ(t *testing.T)  { t.Parallel(); time.Sleep(100 * time.Millisecond); panic("in parallel") }
func TestSlow(t *testing.T) { fmt.Println("slow indeed"); time.Sleep(time.Minute) }
func TestZ(t *testing.T)    {}
func Example_two()          { fmt.Println(2) // Output: 2
}
func FuzzX(f *testing.F)          { f.Add("x"); f.Fuzz(func(*testing.T, string) {}) }
func BenchmarkX(b *testing.B)     {}
`,
	"sub/s_test.go": "package sub\n\nimport \"testing\"\n\nfunc TestS(t *testing.T) {}\n",
	"bad/b_test.go": "package bad\n\nimport \"testing\"\n\nfunc TestB(t *testing.T) { nothing() }\n",
	"none/n.go":     "package none\n",
}

func TestGoSuite(t *testing.T) {
	t.Parallel()
	needProgram(t, "go")
	b := newBed(t)
	c := b.run(t, b.attempt(t, goTree, suite.Config{Framework: suite.Go, Collect: true}))
	if !c.outcome.OK || c.result.Cases != 15 || c.result.Errors != 1 {
		t.Fatalf("%+v %+v\n%v", c.outcome, c.result, c.collected)
	}
	var all []string
	for _, l := range c.collected {
		switch {
		case l.Error == "":
			all = append(all, l.ID)
		case l.ID != "./bad" || !strings.Contains(l.Error, "undefined: nothing"):
			t.Errorf("%+v", l)
		}
	}
	c = b.run(t, b.attempt(t, goTree, suite.Config{Framework: suite.Go, CaseTimeout: 4, Cases: append(all, "./bad::TestB", ".::TestGone", "./nowhere::TestN")}))
	for id, says := range map[string]string{
		".::TestOK": "passed", ".::TestFail": "failed as asked", ".::TestSkip": "skipped not here", ".::TestSubs": "failed", ".::TestSubs/a_b": "passed", ".::TestSubs/bad": "failed in the subtest",
		".::TestPanics": "crashed crashed while running TestPanics: panic: boom", ".::TestExits": "crashed crashed while running TestExits: ", ".::TestGoroutine": "crashed panic: elsewhere",
		".::TestP1": "crashed", ".::TestP2": "passed", ".::TestQ": "crashed panic: in parallel", ".::TestSlow": "timeout slow indeed", ".::TestZ": "passed", ".::Example_two": "passed", ".::FuzzX": "passed", ".::FuzzX/seed#0": "passed",
		"./sub::TestS": "passed", "./bad::TestB": "error undefined: nothing", ".::TestGone": "error no such test", "./nowhere::TestN": "error",
	} {
		v, text, _ := strings.Cut(says, " ")
		c.want(t, id, labmesh.TestVerdict(v), text)
	}
	if len(c.order) != 21 || len(c.result.NotRun) > 0 || c.outcome.OK {
		t.Errorf("%s%+v", c.verdicts(), c.result)
	}
	if log := c.logOf(t, ".::TestFail"); !strings.Contains(log, "before") || !strings.Contains(log, "as asked") || strings.Contains(log, "said so") {
		t.Errorf("%q", log)
	}
}

func TestGoSuiteArguments(t *testing.T) {
	t.Parallel()
	needProgram(t, "go")
	b := newBed(t)
	c := b.run(t, b.attempt(t, goTree, suite.Config{Framework: suite.Go, Collect: true, Paths: []string{"./...", "nowhere"}, Args: []string{"-run", "^TestS", "-skip=Skip", "-v"}}))
	var got []string
	for _, l := range c.collected {
		got = append(got, l.ID)
	}
	if strings.Join(got, " ") != "nowhere .::TestSubs .::TestSlow ./bad ./sub::TestS" {
		t.Error(got)
	}
	c = b.run(t, b.attempt(t, goTree, suite.Config{Framework: suite.Go, Collect: true, Paths: []string{".::TestOK", "sub/s_test.go"}}))
	if c.result.Cases != 2 || c.collected[0].ID != ".::TestOK" || c.collected[1].ID != "./sub::TestS" {
		t.Errorf("%+v", c.collected)
	}
	c = b.run(t, b.attempt(t, goTree, suite.Config{Framework: suite.Go, Cases: []string{".::TestSubs/bad"}, Args: []string{"-run=TestSubs", "-args", "x"}}))
	if c.verdicts() != ".::TestSubs/bad failed\n" {
		t.Error(c.verdicts())
	}
	c = b.run(t, b.attempt(t, goTree, suite.Config{Framework: suite.Go, FailFast: true, Cases: []string{".::TestFail", ".::TestZ", "./sub::TestS"}}))
	if c.verdicts() != ".::TestFail failed\n" || len(c.result.NotRun) != 2 {
		t.Errorf("%s%+v", c.verdicts(), c.result)
	}
	c = b.run(t, b.attempt(t, map[string]string{"x_test.go": goTree["x_test.go"]}, suite.Config{Framework: suite.Go, Collect: true}))
	if c.result.Errors != 1 || !strings.Contains(c.collected[0].Error, "main module") {
		t.Errorf("%+v", c.collected)
	}
}
