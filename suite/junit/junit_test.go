package junit_test

import (
	"strings"
	"testing"
	"time"

	"labmesh/suite/junit"
)

func TestWriteCountsAndCleans(t *testing.T) {
	t.Parallel()
	r := junit.Report{Name: "all", Suites: []junit.Suite{
		{Name: "a\x00.py", Timestamp: junit.Timestamp(time.Date(2026, 1, 2, 4, 4, 5, 9, time.FixedZone("", 3600))), Cases: []junit.Case{
			{Name: "red \x1b[31m]]>", Class: "a", Time: 1.25, Failure: junit.NewProblem("failed", "def test():\nE   assert 1 == 2")},
			{Name: "b", Class: "a", Time: -1, Skipped: junit.NewProblem("", "\xff")},
		}},
		{Name: "none"},
	}}
	for range 2 { // counted once, however often it is written
		var b strings.Builder
		if err := r.Write(&b); err != nil {
			t.Fatal(err)
		}
		if b.String() != want {
			t.Errorf("got:\n%s\nwant:\n%s", b.String(), want)
		}
	}
	if got := junit.Timestamp(time.Time{}); got != "" {
		t.Errorf("an unknown time is %q", got)
	}
}

const want = `<?xml version="1.0" encoding="UTF-8"?>
<testsuites name="all" tests="2" failures="1" errors="0" skipped="1" time="1.250">
  <testsuite name="a.py" tests="2" failures="1" errors="0" skipped="1" time="1.250" timestamp="2026-01-02T03:04:05">
    <testcase name="red ]]&gt;" classname="a" time="1.250">
      <failure message="assert 1 == 2" type="failed">def test():&#xA;E   assert 1 == 2</failure>
    </testcase>
    <testcase name="b" classname="a" time="0.000">
      <skipped message="�">�</skipped>
    </testcase>
  </testsuite>
  <testsuite name="none" tests="0" failures="0" errors="0" skipped="0" time="0.000"></testsuite>
</testsuites>
`

func TestTheMessageIsOneShortLine(t *testing.T) {
	t.Parallel()
	p := junit.NewProblem("error", "\n"+strings.Repeat("ä", 1000)+"\r\nmore")
	if n := len([]rune(string(p.Message))); n != 400 || !strings.HasSuffix(string(p.Message), "…") || !strings.HasSuffix(string(p.Text), "more") {
		t.Errorf("%d characters: %s", n, p.Message)
	}
}
