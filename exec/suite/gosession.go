package suite

import (
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"labmesh"
	"labmesh/exec/output"
	"labmesh/exec/process"
)

// goTimeout is the action of the supervisor's own event: a test is to be killed.
const goTimeout = "labmesh-timeout"

// goTest is a test at the top of a package that has begun.
type goTest struct {
	since  time.Time // when it was seen to run; zero while it is paused
	paused bool
	from   int64 // where its output begins in the log
	texts  map[string]*keepEnds
	failed string    // the test or subtest whose failure was said last
	panics bool      // its program panicked in it
	subs   []verdict // of its subtests
}

// goSession is what is known of one run of `go test`.
type goSession struct {
	c      *chunk
	log    *goLog
	dirOf  string // the package it runs
	events string

	dirs     map[string]string // of packages, when they are listed
	packages []string
	listed   map[string][]string
	failed   map[string]string // packages: why
	builds   map[string]*keepEnds
	text     keepEnds // what belongs to no test

	want  map[string]string // ids, by the name of the test
	tests map[string]*goTest
	order []string // of tests
	clean bool     // all tests ran to their end
	panic bool     // a test is known to have ended the program
	late  string
	told  string
	ended int
}

func newGoSession(c *chunk, log *goLog, dir string, cases []string) *goSession {
	s := &goSession{c: c, log: log, dirOf: dir, listed: map[string][]string{}, failed: map[string]string{}, builds: map[string]*keepEnds{},
		want: map[string]string{}, tests: map[string]*goTest{}}
	for _, id := range cases {
		_, name, _ := strings.Cut(id, "::")
		s.want[name] = id
	}
	return s
}

// dir is where a package is.
func (s *goSession) dir(pkg string) string {
	if dir, ok := s.dirs[pkg]; ok {
		return dir
	}
	return pkg
}

func (s *goSession) line(line []byte) {
	e := parseGoEvent(line)
	if e.Output != "" {
		s.log.write(e.Output)
	}
	if e.Action == "build-output" {
		k := s.builds[e.ImportPath]
		if k == nil {
			k = &keepEnds{}
			s.builds[e.ImportPath] = k
		}
		k.add(e.Output)
		return
	}
	top, _, _ := strings.Cut(e.Test, "/")
	switch {
	case e.Action == goTimeout:
		s.timeout(e.Test)
	case e.Test == "":
		s.ofPackage(e)
	case e.Action == "run" && e.Test == top:
		s.tests[top] = &goTest{from: s.log.at, texts: map[string]*keepEnds{}}
		s.order = append(s.order, top)
	default:
		if t := s.tests[top]; t != nil && s.late == "" {
			s.ofTest(t, top, e)
		}
	}
}

// ofPackage takes an event that belongs to no test.
func (s *goSession) ofPackage(e goEvent) {
	switch e.Action {
	case "start":
		s.packages = append(s.packages, e.Package)
	case "output":
		s.text.add(e.Output)
		if name := strings.TrimSuffix(e.Output, "\n"); goTestName.MatchString(name) {
			s.listed[e.Package] = append(s.listed[e.Package], name)
		}
		s.clean = s.clean || e.Output == "PASS\n" || e.Output == "FAIL\n"
	case "fail":
		why := s.text.String()
		if b := s.builds[e.FailedBuild]; b != nil {
			why = b.String()
		}
		s.failed[e.Package] = why
		s.text = keepEnds{}
	case "pass", "skip":
		s.text = keepEnds{}
	}
}

// ofTest takes an event of a test or of a subtest of it.
func (s *goSession) ofTest(t *goTest, top string, e goEvent) {
	switch e.Action {
	case "pause":
		if e.Test == top {
			t.paused = true
		}
	case "cont":
		if e.Test == top {
			t.paused, t.since = false, time.Time{}
		}
	case "output":
		text := strings.TrimLeft(e.Output, " ")
		switch {
		case strings.HasPrefix(text, "=== "):
			return
		case strings.HasPrefix(text, "--- "):
			t.failed = e.Test
		case strings.HasPrefix(e.Output, "panic: ") && t.failed == e.Test:
			t.panics = true
		}
		k := t.texts[e.Test]
		if k == nil {
			k = &keepEnds{}
			t.texts[e.Test] = k
		}
		k.add(e.Output)
	case "pass", "fail", "skip":
		s.end(t, top, e)
	}
}

// end takes the end of a test or a subtest.
func (s *goSession) end(t *goTest, top string, e goEvent) {
	v := verdict{file: s.dirOf, name: e.Test, seconds: e.Elapsed, log: span(output.Stdout, t.from, s.log.at)}
	v.verdict = map[string]labmesh.TestVerdict{"pass": labmesh.TestPassed, "fail": labmesh.TestFailed, "skip": labmesh.TestSkipped}[e.Action]
	if k := t.texts[e.Test]; k != nil && e.Action != "pass" {
		v.message = strings.TrimSpace(k.String())
	}
	if e.Action == "fail" && t.panics && e.Test == top {
		s.panic, v.verdict = true, labmesh.TestCrashed
		v.message = fmt.Sprintf("crashed while running %s: %s\n%s", top, goEnding(process.Exit{}, nil, v.message), v.message)
	}
	delete(t.texts, e.Test)
	if e.Test != top {
		if id, ok := s.want[e.Test]; ok { // a subtest that was asked for by itself
			v.id = id
			s.say(v)
		} else if len(t.subs) < casesMax {
			t.subs = append(t.subs, v)
		}
		return
	}
	s.finish(t, top, v)
}

// finish gives the verdict on a test at the top, after those on its subtests.
func (s *goSession) finish(t *goTest, top string, v verdict) {
	delete(s.tests, top)
	id, wanted := s.want[top]
	if !wanted {
		return // only one of its subtests was asked for
	}
	if s.c.ended[id] {
		return
	}
	for _, sub := range t.subs {
		s.c.record(sub)
	}
	v.id = id
	s.say(v)
}

func (s *goSession) say(v verdict) {
	s.ended++
	s.c.record(v)
}

// timeout takes the word that a test ran past its timeout.
func (s *goSession) timeout(top string) {
	t := s.tests[top]
	if t == nil || t.paused || s.late != "" {
		return // it ended just in time
	}
	s.late = top
	text := ""
	for _, k := range t.texts {
		text += k.String()
	}
	v := verdict{file: s.dirOf, name: top, verdict: labmesh.TestTimeout, seconds: s.c.conf.CaseTimeout, log: span(output.Stdout, t.from, s.log.at),
		message: fmt.Sprintf("it ran past its timeout of %g s\n%s", s.c.conf.CaseTimeout, text)}
	if _, ok := s.want[top]; !ok { // it holds the one that was asked for
		for name, id := range s.want {
			v.id, v.name = id, name
			s.say(v)
		}
		delete(s.tests, top)
		return
	}
	s.finish(t, top, v)
}

// look has a test killed that runs for too long.
func (s *goSession) look(now time.Time) (kill bool) {
	if s.late != "" {
		return true
	}
	if s.c.conf.CaseTimeout == 0 || len(s.want) == 0 {
		return false
	}
	for name, t := range s.tests {
		switch {
		case t.paused || s.told == name:
		case t.since.IsZero():
			t.since = now
		case now.Sub(t.since) > s.c.conf.caseTimeout():
			data, err := json.Marshal(goEvent{Action: goTimeout, Test: name})
			if err == nil && appendLine(s.events, data) == nil {
				s.told = name
			}
			return false
		}
	}
	return false
}

// conclude gives verdicts to the cases that the end of the program decides. It
// returns those of which it cannot tell which ended it: they are to run alone.
func (s *goSession) conclude(exit process.Exit, err error) (alone []string) {
	var under []string // way
	for _, name := range s.order {
		_, wanted := s.want[name]
		if t := s.tests[name]; t != nil && !t.paused && (wanted || len(s.want) == 1) {
			under = append(under, name)
		}
	}
	switch {
	case s.late != "" || s.panic || s.c.halted:
		return nil // what was under way besides is to run again
	case len(under) == 1 || len(under) > 0 && len(s.want) == 1:
		s.crashed(under[0], exit, err)
		return nil
	case len(under) > 1:
		for _, name := range under {
			alone = append(alone, s.want[name])
		}
		return alone
	}
	why := s.text.String()
	for _, text := range s.failed {
		why = text
	}
	for _, id := range s.c.open() {
		_, name, _ := strings.Cut(id, "::")
		switch {
		case s.want[name] != id || !s.clean && s.ended > 0:
			continue // of another package, or the program died and it is still to run
		case s.clean:
			why = "there is no such test now, or the arguments leave it out"
		case strings.TrimSpace(why) == "":
			why = fmt.Sprintf("go test ended without running it: %s\n%s", ending(exit, err), s.c.lastWords())
		}
		s.say(verdict{id: id, file: s.dirOf, name: name, verdict: labmesh.TestError, message: why})
	}
	return nil
}

// crashed names the test that ended its program.
func (s *goSession) crashed(top string, exit process.Exit, err error) {
	t := s.tests[top]
	text := ""
	for _, k := range t.texts {
		text += k.String()
	}
	rest := s.text.String()
	for _, why := range s.failed {
		rest += why
	}
	v := verdict{file: s.dirOf, name: top, verdict: labmesh.TestCrashed, log: span(output.Stdout, t.from, s.log.at),
		message: fmt.Sprintf("crashed while running %s: %s\n%s", top, goEnding(exit, err, text+"\n"+rest), text+rest)}
	if strings.Contains(text, "panic: test timed out after ") {
		v.verdict = labmesh.TestTimeout
	}
	if _, ok := s.want[top]; ok {
		s.finish(t, top, v)
		return
	}
	for name, id := range s.want {
		v.id, v.name = id, name
		s.say(v)
	}
}
