package junit_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"strings"
	"testing"
	"unicode/utf8"

	"labmesh"
	"labmesh/exec/junit"
)

func read(t *testing.T, r io.Reader) (string, error) {
	t.Helper()
	var b strings.Builder
	err := junit.Read(r, func(c junit.Case) {
		fmt.Fprintf(&b, "%s|%s|%s|%s|%g|%s\n", c.File, c.Class, c.Name, c.Verdict, c.Seconds, c.Message)
	})
	return b.String(), err
}

func TestReadsWhatToolsWrite(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct{ xml, want, err string }{
		"pytest": {`<?xml version="1.0" encoding="utf-8"?><testsuites><testsuite name="pytest" errors="1" tests="4">
<testcase classname="tests.test_a.TestX" name="test_ok[1]" time="0.5" />
<testcase classname="tests.test_a" name="test_bad" time="0.001"><failure message="assert 1 == 2">def test_bad():
&gt; assert 1 == 2</failure></testcase>
<testcase classname="tests.test_a" name="test_setup" time="0"><error message="failed on setup">E   boom</error></testcase>
<testcase classname="tests.test_a" name="test_x"><skipped type="pytest.xfail" message="known" /></testcase>
<testcase classname="tests.test_a" name="test_s"><skipped type="pytest.skip" message="not here">/a.py:1: not here</skipped></testcase>
</testsuite></testsuites>`, `|tests.test_a.TestX|test_ok[1]|passed|0.5|
|tests.test_a|test_bad|failed|0.001|assert 1 == 2
def test_bad():
> assert 1 == 2
|tests.test_a|test_setup|error|0|failed on setup
E   boom
|tests.test_a|test_x|xfailed|0|known
|tests.test_a|test_s|skipped|0|not here
/a.py:1: not here
`, ""},
		"node: cases directly under testsuites": {`<testsuites><testcase name="a" time="1,000.5" classname="test"/><testcase name="b" classname="test" file="/b.js"><failure type="testCodeFailure" message="no">x</failure></testcase></testsuites>`,
			"|test|a|passed|1000.5|\n/b.js|test|b|failed|0|no\nx\n", ""},
		"nested suites with files": {`<testsuite file="a"><testsuite><testcase name="1"/></testsuite><testsuite file="b"><testcase name="2"/></testsuite><testcase name="3"/></testsuite>`,
			"a||1|passed|0|\nb||2|passed|0|\na||3|passed|0|\n", ""},
		"a rerun that passed":            {`<testsuite><testcase name="f"><flakyFailure message="first">x</flakyFailure><system-out>out</system-out></testcase></testsuite>`, "||f|passed|0|\n", ""},
		"output within a failure's case": {`<testsuite><testcase name="f"><system-out><![CDATA[<failure>]]></system-out><error/><failure>f</failure></testcase></testsuite>`, "||f|failed|0|f\n", ""},
		"gtest":                          {`<testsuites><testsuite><testcase name="d" status="notrun" result="suppressed" time="0."/></testsuite></testsuites>`, "||d|skipped|0|\n", ""},
		"control characters":             {"<testsuite><testcase name=\"a\x1bb\"><failure message=\"&#27;[31m&#x1;\">\x00\x1b[0m &#xFFFF; & &nosuch; a&b</failure></testcase></testsuite>", "||a\uFFFDb|failed|0|\uFFFD[31m\uFFFD\n\uFFFD\uFFFD[0m \uFFFD & &nosuch; a&b\n", ""},
		"not UTF-8":                      {"<testsuite><testcase name=\"a\xff\"/></testsuite>", "||a\uFFFD|passed|0|\n", ""},
		"Latin-1":                        {"<?xml version='1.0' encoding='ISO-8859-1'?><testsuite><testcase name=\"\xe4\"/></testsuite>", "||ä|passed|0|\n", ""},
		"an encoding nobody knows":       {"<?xml version='1.0' encoding='x-klingon'?><testsuite><testcase name=\"a\"/></testsuite>", "||a|passed|0|\n", ""},
		"UTF-16":                         {"\xff\xfe" + wide(`<?xml version="1.0" encoding="UTF-16"?><testsuite><testcase name="ä"/></testsuite>`), "||ä|passed|0|\n", ""},
		"truncated in a case":            {`<testsuite><testcase name="a"/><testcase name="b"><failure mess`, "||a|passed|0|\n", "cut off or damaged after"},
		"truncated between cases":        {`<testsuites><testsuite><testcase name="a"/>`, "||a|passed|0|\n", "cut off or damaged after 1"},
		"a wrong end tag":                {`<testsuite><testcase name="a"/></b><testcase name="b"/></testsuite>`, "||a|passed|0|\n", "after 1 test cases"},
		"HTML":                           {`<!DOCTYPE html><html><body>404</body></html>`, "", "no JUnit XML: it begins with <html>"},
		"empty":                          {``, "", "no JUnit XML"},
		"JSON":                           {`{"tests":1}`, "", "no JUnit XML"},
		"no cases":                       {`<testsuites/>`, "", ""},
		"too deep":                       {"<testsuite>" + strings.Repeat("<a>", 1000), "", "deep"},
		"entities of its own":            {`<!DOCTYPE x [<!ENTITY a "aaaa"><!ENTITY b "&a;&a;">]><testsuite><testcase name="&b;"/></testsuite>`, "||&b;|passed|0|\n", ""},
	} {
		got, err := read(t, strings.NewReader(c.xml))
		if got != c.want {
			t.Errorf("%s:\n%s\nwant\n%s", name, got, c.want)
		}
		if (err == nil) != (c.err == "") || err != nil && !strings.Contains(err.Error(), c.err) {
			t.Errorf("%s: %v; want %q", name, err, c.err)
		}
	}
}

// wide is ASCII and Latin-1 text as UTF-16, little end first.
func wide(s string) string {
	var b []byte
	for _, r := range s {
		b = append(b, byte(r), byte(r>>8))
	}
	return string(b)
}

// endless is a report that goes on and on, in pieces.
type endless struct {
	pieces []string // the last of them again and again
	n      int64    // bytes until it is cut off
	at     int
	left   string
}

func (e *endless) Read(p []byte) (int, error) {
	if e.n <= 0 {
		return 0, io.EOF
	}
	if e.left == "" {
		e.left = e.pieces[min(e.at, len(e.pieces)-1)]
		e.at++
	}
	n := copy(p, e.left)
	e.left, e.n = e.left[n:], e.n-int64(n)
	return n, nil
}

func TestMemoryIsBounded(t *testing.T) {
	filler := strings.Repeat("x", 1<<16)
	for name, open := range map[string]string{
		"a text": `<testsuite><testcase name="a"/><testcase name="b"><system-out>`, "CDATA": `<testsuite><testcase name="a"/><testcase name="b"><system-out><![CDATA[`,
		"a comment": `<testsuite><testcase name="a"/><!--`, "an attribute": `<testsuite><testcase name="a"/><testcase name="`,
		"a name": `<testsuite><testcase name="a"/><`, "an instruction": `<testsuite><testcase name="a"/><?`, "a doctype": `<testsuite><testcase name="a"/><!DOCTYPE `,
	} {
		var before, after runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&before)
		got, err := read(t, &endless{pieces: []string{open, filler}, n: 2 << 20})
		runtime.ReadMemStats(&after)
		if got != "||a|passed|0|\n" || err == nil {
			t.Errorf("%s: %q, %v", name, got, err)
		}
		if used := after.TotalAlloc - before.TotalAlloc; used > 1<<20 {
			t.Errorf("%s of 2 MiB took %d KiB", name, used>>10)
		}
	}
}

func TestLongTextIsCutAndTheRestIsRead(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("y", 1<<20)
	for _, xml := range []string{
		`<testsuite><testcase name="a"><failure>` + long + `</failure></testcase><testcase name="b"/></testsuite>`,
		`<testsuite><testcase name="a"><failure><![CDATA[` + long + `]]></failure></testcase><testcase name="b"/></testsuite>`,
		`<testsuite><testcase name="a"><failure message="` + long + `"/></testcase><testcase name="b"/></testsuite>`,
		`<testsuite><!--` + long + `--><testcase name="a"><failure/></testcase><testcase name="b"/></testsuite>`,
	} {
		var names []string
		err := junit.Read(strings.NewReader(xml), func(c junit.Case) {
			names = append(names, c.Name)
			if len(c.Message) > 70<<10 {
				t.Errorf("a message of %d bytes", len(c.Message))
			}
		})
		if err != nil || strings.Join(names, "") != "ab" {
			t.Errorf("%.60s: %q, %v", xml, names, err)
		}
	}
}

type broken struct{}

func (broken) Read([]byte) (int, error) { return 0, os.ErrDeadlineExceeded }

func TestReadErrorIsReturned(t *testing.T) {
	t.Parallel()
	if _, err := read(t, broken{}); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Error(err)
	}
	if _, err := read(t, io.MultiReader(strings.NewReader(`<testsuite>`+strings.Repeat(" ", 5000)), broken{})); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Error(err)
	}
}

func FuzzJUnit(f *testing.F) {
	f.Add([]byte(`<testsuites><testsuite file="a"><testcase name="x" classname="y" time="1"><failure message="m">t&#27;</failure></testcase></testsuite></testsuites>`))
	f.Add([]byte("<testsuite><testcase name=\"a\x1b\"><skipped/><![CDATA[x]]><!-- c --></testcase>"))
	f.Add([]byte("\xff\xfe<\x00a\x00>\x00"))
	f.Add([]byte("<?xml version='1.0' encoding='latin1'?><testcase/>"))
	f.Fuzz(func(t *testing.T, data []byte) {
		n := 0
		err := junit.Read(bytes.NewReader(data), func(c junit.Case) {
			n++
			for _, s := range []string{c.Class, c.Name, c.File, c.Message} {
				if !utf8.ValidString(s) || len(s) > 5*len(data)+1<<10 {
					t.Errorf("%q", s)
				}
			}
			if c.Verdict == "" || c.Verdict == labmesh.TestTimeout || c.Seconds < 0 {
				t.Errorf("%+v", c)
			}
		})
		if errors.Is(err, junit.ErrNotJUnit) && n > 0 {
			t.Errorf("%d cases, and %v", n, err)
		}
	})
}

func BenchmarkRead(b *testing.B) {
	var doc bytes.Buffer
	doc.WriteString("<testsuites><testsuite>")
	for i := range 10_000 {
		fmt.Fprintf(&doc, `<testcase classname="tests.test_a" name="test_%d" time="0.01"><failure message="assert">%s</failure></testcase>`, i, strings.Repeat("line\n", 20))
	}
	doc.WriteString("</testsuite></testsuites>")
	b.SetBytes(int64(doc.Len()))
	for b.Loop() {
		if err := junit.Read(bytes.NewReader(doc.Bytes()), func(junit.Case) {}); err != nil {
			b.Fatal(err)
		}
	}
}
