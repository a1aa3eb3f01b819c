package suite

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"pgregory.net/rapid"

	"labmesh"
	"labmesh/exec"
	"labmesh/exec/output"
	"labmesh/exec/process"
)

func TestClippedTextIsValidAndShort(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		text := string(rapid.SliceOfN(rapid.Byte(), 0, 400).Draw(t, "text")) + strings.Repeat("ä", rapid.IntRange(0, 200).Draw(t, "more"))
		most := rapid.IntRange(100, 600).Draw(t, "most")
		got := clip(text, most)
		if len(got) > most || !utf8.ValidString(got) {
			t.Fatalf("%d bytes of %d, %q", len(got), most, got)
		}
		if valid := strings.ToValidUTF8(text, "\uFFFD"); len(valid) <= most && got != valid {
			t.Fatalf("%q became %q", valid, got)
		}
	})
}

func TestLongNamesStayApart(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("ö", labmesh.CaseNameBytesMax)
	a, b := clipName(long+"a"), clipName(long+"b")
	if a == b || len(a) > labmesh.CaseNameBytesMax || !utf8.ValidString(a) {
		t.Errorf("%q and %q", a, b)
	}
	if got := clipName("short"); got != "short" {
		t.Error(got)
	}
}

func TestPartsOfAnID(t *testing.T) {
	t.Parallel()
	for id, want := range map[string][3]string{
		"a/test_b.py::T::test_c[1-x]": {"a/test_b.py", "T::test_c", "1-x"},
		"a.py::test[a::b[c]]":         {"a.py", "test", "a::b[c]"},
		"a.py::test":                  {"a.py", "test", ""},
		"a.py":                        {"a.py", "", ""},
		"a[1].py::test[":              {"a[1].py", "test[", ""},
	} {
		if file, name, params := parts(id); [3]string{file, name, params} != want {
			t.Errorf("%s: %q %q %q", id, file, name, params)
		}
	}
}

func TestKeepEndsKeepsBoth(t *testing.T) {
	t.Parallel()
	var k keepEnds
	for i := range 100_000 {
		k.add(fmt.Sprintln(i))
	}
	got := k.String()
	if !strings.HasPrefix(got, "0\n1\n") || !strings.HasSuffix(got, "99998\n99999\n") || !strings.Contains(got, "left out here") || len(got) > 5*endsBytesMax {
		t.Errorf("%d bytes: %.40q … %q", len(got), got, got[len(got)-40:])
	}
	k = keepEnds{}
	k.add("whole")
	if k.String() != "whole" {
		t.Error(k.String())
	}
}

func TestTailerSeesEachLineOnce(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	rapid.Check(t, func(rt *rapid.T) {
		path := filepath.Join(dir, fmt.Sprint(time.Now().UnixNano()))
		tl := &tailer{path: path, most: 100}
		defer tl.close()
		var want, got []string
		take := func(line []byte) { got = append(got, string(line)) }
		if err := tl.next(take); err != nil {
			rt.Fatal(err)
		}
		whole := ""
		for _, n := range rapid.SliceOfN(rapid.SampledFrom([]int{1, 10, 99, 100, 101, 300}), 1, 8).Draw(rt, "lines") {
			line := strings.Repeat(string(rune('a'+len(want))), n)
			whole += line + "\n"
			if n <= 100 {
				want = append(want, line)
			}
		}
		f, err := os.Create(path)
		if err != nil {
			rt.Fatal(err)
		}
		defer f.Close()
		for whole != "" {
			n := min(len(whole), rapid.IntRange(1, 120).Draw(rt, "piece"))
			if _, err := f.WriteString(whole[:n]); err != nil {
				rt.Fatal(err)
			}
			whole = whole[n:]
			if err := tl.next(take); err != nil {
				rt.Fatal(err)
			}
		}
		if strings.Join(got, "\n") != strings.Join(want, "\n") {
			rt.Fatalf("%d lines, want %d", len(got), len(want))
		}
	})
}

func TestGoArguments(t *testing.T) {
	t.Parallel()
	f, after := splitArgs([]string{"-race", "-run", "A/b", "--skip=C", "-tags", "x", "-args", "-run", "y"})
	if f.run != "A/b" || f.skip != "C" || strings.Join(f.rest, " ") != "-race -skip=C -tags x" || strings.Join(after, " ") != "-args -run y" {
		t.Errorf("%+v %v", f, after)
	}
	if !f.chosen("TestA") || f.chosen("TestB") || f.chosen("TestAC") {
		t.Error("chosen")
	}
	if got := runPattern([]string{".::TestA", ".::TestB"}, "x/sub$"); got != "^(TestA|TestB)$/sub$" {
		t.Error(got)
	}
	if got := runPattern([]string{".::TestA/b.c/d"}, ""); got != `^TestA$/^b\.c$/^d$` {
		t.Error(got)
	}
	dir, cases := nextGroup([]string{"./a::T1", "./b::T2", "./a::T3", "./a::T4/sub", "./a::T5"}, map[string]bool{"./a::T5": true})
	if dir != "./a" || strings.Join(cases, " ") != "./a::T1 ./a::T3" {
		t.Error(dir, cases)
	}
	if _, cases := nextGroup([]string{"./a::T4/sub", "./a::T1"}, nil); len(cases) != 1 {
		t.Error(cases)
	}
}

func TestCommandTemplate(t *testing.T) {
	t.Parallel()
	got := expand([]string{"tool", "{files}", "--out={junit}", "sh -c 'x {files}'"}, []string{"a b", "c'd", "-e"}, "/r/j.xml")
	if strings.Join(got, "|") != `tool|a b|c'd|-e|--out=/r/j.xml|sh -c 'x 'a b' 'c'\''d' -e'` {
		t.Errorf("%q", got)
	}
}

// quiet is a chunk whose cases go nowhere.
func quiet(t testing.TB, conf Config) (*chunk, *[]labmesh.TestCase) {
	t.Helper()
	dir := t.TempDir()
	var cases []labmesh.TestCase
	a := exec.Attempt{Dir: dir, Output: output.New(dir), Record: func(more []labmesh.TestCase) { cases = append(cases, more...) }}
	t.Cleanup(a.Output.Close)
	return &chunk{a: a, conf: conf, quarantine: map[string]bool{}, ended: map[string]bool{}, counts: map[labmesh.TestVerdict]int{}}, &cases
}

// FuzzEvents has what programs wrote read as events: whatever it is, a case gets
// one verdict at most, and only one that was asked for.
func FuzzEvents(f *testing.F) {
	f.Add([]byte(`{"e":"start","id":"a::b"}` + "\n" + `{"e":"end","id":"a::b","verdict":"passed","seconds":1}` + "\n" + `{"e":"done"}`))
	f.Add([]byte(`{"e":"importing","id":"a"}` + "\n" + `{"e":"start","id":"a::c"}` + "\n" + `{"e":"timeout","id":"a::c"}` + "\n" + `{"e":"start","id":"a::b"}`))
	f.Add([]byte(`{"Action":"run","Test":"b"}` + "\n" + `{"Action":"output","Test":"b","Output":"panic: x\n"}` + "\n" + `{"Action":"fail","Test":"b/c"}` + "\n" + `{"Action":"fail","Test":"b","Elapsed":-1}`))
	f.Add([]byte(`{"e":"missing","id":"a::b"}` + "\n" + `{"e":"error","id":"a","text":"x"}` + "\n" + `{"Action":"pause","Test":"c"}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		for _, framework := range []Framework{Pytest, Go} {
			c, cases := quiet(t, Config{Framework: framework, Cases: []string{"a::b", "a::c"}, CaseTimeout: 1})
			var w interface {
				line([]byte)
				look(time.Time) bool
			}
			py, g := newSession(c, c.conf.Cases), newGoSession(c, &goLog{out: c.a.Output}, "a", c.conf.Cases)
			py.events, g.events = filepath.Join(c.a.Dir, "e"), filepath.Join(c.a.Dir, "e")
			if w = py; framework == Go {
				w = g
			}
			now := time.Time{}
			for line := range strings.SplitSeq(string(data), "\n") {
				w.line([]byte(line))
				now = now.Add(time.Second)
				w.look(now)
			}
			if framework == Go {
				g.conclude(process.Exit{Code: 1}, nil)
			} else {
				py.conclude(process.Exit{Code: 1}, nil)
			}
			seen := map[string]bool{}
			for _, tc := range *cases {
				if id := tc.File + "::" + tc.Name; framework == Pytest || !strings.Contains(tc.Name, "/") {
					if seen[id] || id != "a::b" && id != "a::c" {
						t.Errorf("%s: a verdict on %q", framework, id)
					}
					seen[id] = true
				}
				if _, err := json.Marshal(tc); err != nil || len(tc.Message) > labmesh.CaseMessageBytesMax || tc.Seconds < 0 || !utf8.ValidString(tc.Message) {
					t.Errorf("%+v: %v", tc, err)
				}
			}
		}
	})
}
