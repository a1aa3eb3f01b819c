package runner_test

import (
	"strings"
	"testing"

	"labmesh"
	"labmesh/exec/suite"
)

func TestCommandWithJUnit(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	for name, c := range map[string]struct {
		script string
		files  string
		want   string // the verdicts
		says   string // in the last message
		ok     bool
	}{
		"a report": {`echo "<testsuites><testsuite file='$2'><testcase name='ok'/></testsuite><testsuite file='$3'><testcase name='bad' classname='C'><failure message='as asked'/></testcase></testsuite></testsuites>" >$1; exit 1`,
			"a.x b.x", "a.x::ok passed\nb.x::C::bad failed\n", "as asked", false},
		"all good":                     {`echo "<testsuite><testcase name='ok'/></testsuite>" >$1`, "a.x", "a.x::ok passed\n", "", true},
		"no report":                    {`echo some words; echo more >&2; exit 3`, "a.x b.x", "a.x:: error\nb.x:: error\n", "exit code 3 and wrote no report to ", false},
		"no report, last words":        {`echo some words; echo more >&2`, "a.x", "a.x:: error\n", "some words\n\nmore", false},
		"killed":                       {`kill -SEGV $$`, "a.x", "a.x:: crashed\n", "SIGSEGV", false},
		"a report cut off":             {`echo "<testsuite><testcase name='ok' file='a.x'/><testcase" >$1`, "a.x b.x", "a.x::ok passed\nb.x:: error\n", "cut off or damaged after 1 test cases", false},
		"a bad end without a bad case": {`echo "<testsuite><testcase name='ok'/></testsuite>" >$1; exit 7`, "a.x", "a.x::ok passed\na.x::sh error\n", "exit code 7, but its report has no bad test case", false},
		"no XML":                       {`echo hello >$1`, "a.x", "a.x:: error\n", "no JUnit XML", false},
	} {
		got := b.run(t, b.attempt(t, nil, suite.Config{Framework: suite.Command, Command: []string{"sh", "-c", c.script, "sh", "{junit}", "{files}"}, Files: strings.Fields(c.files)}))
		last := ""
		if len(got.order) > 0 {
			last = got.cases[got.order[len(got.order)-1]].Message
		}
		if got.verdicts() != c.want || !strings.Contains(last, c.says) || got.outcome.OK != c.ok {
			t.Errorf("%s: %+v\n%s%s", name, got.outcome, got.verdicts(), last)
		}
		for _, tc := range got.cases {
			if tc.Framework != "junit" {
				t.Errorf("%+v", tc)
			}
		}
	}
}

func TestCommandInAShellAndMissing(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	got := b.run(t, b.attempt(t, nil, suite.Config{Framework: suite.Command, Command: []string{"sh", "-c", `for f in {files}; do echo "<testcase name=\"$f\" file=\"$f\"/>"; done | (echo "<testsuite>"; cat; echo "</testsuite>") >{junit}`}, Files: []string{"a b", "c'd", "$HOME"}}))
	if got.verdicts() != "a b::a b passed\nc'd::c'd passed\n$HOME::$HOME passed\n" {
		t.Errorf("%s%+v", got.verdicts(), got.outcome)
	}
	got = b.run(t, b.attempt(t, nil, suite.Config{Framework: suite.Command, Command: []string{"no-such-tool", "{junit}"}}))
	if got.outcome.Cause != labmesh.CauseProgram || !strings.Contains(got.outcome.Error, "no-such-tool") {
		t.Errorf("%+v", got.outcome)
	}
}

func TestChunkConfigsThatMakeNoSense(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	for field, c := range map[string]suite.Config{
		"framework": {Framework: "cargo", Collect: true}, "cases": {Framework: suite.Pytest}, "command": {Framework: suite.Command}, "collect": {Framework: suite.Command, Collect: true, Command: []string{"x"}},
		"paths": {Framework: suite.Pytest, Collect: true, Paths: []string{"../x"}}, "files": {Framework: suite.Command, Command: []string{"x"}, Files: []string{"/etc/passwd"}},
		"case_timeout_seconds": {Framework: suite.Pytest, Cases: []string{"a"}, CaseTimeout: -1}, "args": {Framework: suite.Pytest, Cases: []string{"a"}, Args: []string{"\x00"}},
	} {
		got := b.run(t, b.attempt(t, nil, c))
		if got.outcome.Cause != labmesh.CauseConfig || !strings.Contains(got.outcome.Error, "config: "+field) {
			t.Errorf("%s: %+v", field, got.outcome)
		}
	}
}
