package suite

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"labmesh"
	"labmesh/exec"
	"labmesh/exec/process"
)

// event is a line that the Python side writes.
type event struct {
	Kind    string              `json:"e"`
	ID      string              `json:"id"`
	Text    string              `json:"text"`
	Verdict labmesh.TestVerdict `json:"verdict"`
	Seconds float64             `json:"seconds"`
	Code    int                 `json:"code"`
}

// Kinds of event.
const (
	// "waiting", for a slot, decides nothing.
	kindItem        = "item"        // collected
	kindError       = "error"       // a file that could not be collected
	kindSkipped     = "skipped"     // a file that skipped itself
	kindImporting   = "importing"   // a file is about to be imported
	kindCollected   = "collected"   // tests are about to run
	kindMissing     = "missing"     // a case that was asked for and is not there
	kindStart       = "start"       // of a test
	kindEnd         = "end"         // of a test
	kindInterrupted = "interrupted" // a test ended the session
	kindTimeout     = "timeout"     // the supervisor's: the test is to be killed
	kindDone        = "done"
)

// session is what is known of one interpreter.
type session struct {
	c             *chunk
	cases         map[string]bool // that it was to run
	events, stack string          // its files

	items     []string
	broken    map[string]string // by file: why it could not be collected
	order     []string          // of broken
	skipped   map[string]string // by file: why it skipped itself
	missing   []string
	importing string
	running   string
	since     time.Time // when running was seen
	from      int64     // where its output begins in the log
	seen      int64     // how much was in the log at the last look
	late      string    // ran past its timeout
	interrupt string
	done      bool
	doneAt    time.Time
	ended     int // verdicts
	told      bool
}

func newSession(c *chunk, cases []string) *session {
	s := &session{c: c, cases: make(map[string]bool, len(cases)), broken: map[string]string{}, skipped: map[string]string{}, seen: c.printed()}
	for _, id := range cases {
		s.cases[id] = true
	}
	return s
}

// line takes the next event of the interpreter.
func (s *session) line(line []byte) {
	var e event
	if json.Unmarshal(line, &e) != nil {
		return // not ours
	}
	switch e.Kind {
	case kindItem:
		s.items = append(s.items, e.ID)
	case kindError:
		if _, ok := s.broken[e.ID]; !ok {
			s.order = append(s.order, e.ID)
		}
		s.broken[e.ID] = e.Text
	case kindSkipped:
		s.skipped[e.ID] = e.Text
	case kindMissing:
		s.missing = append(s.missing, e.ID)
	case kindImporting:
		s.importing = e.ID
	case kindCollected:
		s.importing = ""
	case kindStart:
		s.running, s.since, s.from, s.told = e.ID, time.Time{}, s.seen, false
	case kindEnd:
		s.end(e)
	case kindTimeout:
		if s.running == e.ID && s.cases[e.ID] {
			s.late, s.running = e.ID, ""
			s.say(e.ID, labmesh.TestTimeout, s.c.conf.CaseTimeout, fmt.Sprintf("it ran past its timeout of %g s\n%s", s.c.conf.CaseTimeout, s.stackText()))
		}
	case kindInterrupted:
		s.interrupt = e.Text
	case kindDone:
		s.done, s.importing = true, ""
	}
}

func (s *session) end(e event) {
	if s.running == e.ID {
		s.running = ""
	}
	if s.late != "" {
		return
	}
	switch e.Verdict {
	case labmesh.TestPassed, labmesh.TestFailed, labmesh.TestError, labmesh.TestSkipped, labmesh.TestXFailed, labmesh.TestXPassed:
		s.say(e.ID, e.Verdict, e.Seconds, e.Text)
	}
}

// say records the verdict on a case.
func (s *session) say(id string, v labmesh.TestVerdict, seconds float64, message string) {
	if !s.cases[id] || s.c.ended[id] {
		return // nobody asked, or it is known
	}
	s.ended++
	file, name, params := parts(id)
	log := ""
	if s.from >= 0 {
		log = span(s.c.stream(), s.from, s.c.printed())
	}
	s.c.record(verdict{id: id, file: file, name: name, params: params, verdict: v, seconds: seconds, message: message, log: log})
}

// look kills an interpreter whose test has run for too long, or that does not
// end although it is done.
func (s *session) look(now time.Time) (kill bool) {
	s.seen = s.c.printed()
	switch {
	case s.late != "":
		return true
	case s.done && s.doneAt.IsZero():
		s.doneAt = now
	case s.done:
		return now.Sub(s.doneAt) > endMax
	case s.running == "" || s.c.conf.CaseTimeout == 0:
	case s.since.IsZero():
		s.since = now
	case !s.told && s.overdue(now):
		data, err := json.Marshal(map[string]string{"e": kindTimeout, "id": s.running})
		s.told = err == nil && appendLine(s.events, data) == nil // its turn comes with the next look
	}
	return false
}

// overdue reports whether the test at hand is to be ended. It gives the
// interpreter a moment to write where the test is.
func (s *session) overdue(now time.Time) bool {
	over := now.Sub(s.since) - s.c.conf.caseTimeout()
	if over < stackDelay {
		return false
	}
	info, err := os.Stat(s.stack)
	return over > stackDelayMax || err == nil && info.Size() > 0
}

// stackText is what faulthandler wrote, without the frames of the framework.
func (s *session) stackText() string {
	data, err := os.ReadFile(s.stack)
	if err != nil {
		return ""
	}
	var b strings.Builder
	for line := range strings.Lines(string(data)) {
		if !strings.Contains(line, "/_pytest/") && !strings.Contains(line, "/pluggy/") && !strings.Contains(line, "/"+ownDir+"/") {
			b.WriteString(line)
		}
	}
	return tail(strings.TrimSpace(b.String()), 3000)
}

// diskFull is why an interpreter that did not come to its end could not say so:
// that is no crash of a test.
func (s *session) diskFull() error {
	if s.done {
		return nil
	}
	if err := appendLine(s.events, []byte("{}")); exec.DiskFull(err) {
		return fmt.Errorf("record what the tests did: %w", err)
	}
	return nil
}

// conclude gives verdicts to the cases that the end of the interpreter decides.
// It reports whether the chunk goes on in another.
func (s *session) conclude(exit process.Exit, err error) (more bool) {
	how := s.how(exit, err)
	crashed := s.cases[s.running] && !s.c.ended[s.running] && s.late == ""
	if crashed {
		s.say(s.running, labmesh.TestCrashed, 0, fmt.Sprintf("crashed while running %s: %s\n%s", s.running, how, s.stackText()))
	}
	s.from = -1 // what follows has no output of its own
	if s.importing != "" && !s.done {
		s.file(s.importing, labmesh.TestCrashed, fmt.Sprintf("crashed while importing %s: %s\n%s", s.importing, how, s.stackText()))
	}
	for _, id := range s.missing {
		s.explainMissing(id)
	}
	switch {
	case s.c.halted:
		return false
	case crashed || s.late != "" || !s.done && s.ended > 0:
		return true
	case s.ended > 0:
		return false // it ended early because it was told to, as by -x
	}
	for _, id := range s.c.open() {
		s.say(id, labmesh.TestError, 0, fmt.Sprintf("%s ended without running it: %s\n%s", s.c.conf.Framework, how, s.c.lastWords()))
	}
	return false
}

// file gives a verdict to all cases of a file.
func (s *session) file(file string, v labmesh.TestVerdict, message string) {
	for _, id := range s.c.open() {
		if of, _, _ := strings.Cut(id, "::"); of == file {
			s.say(id, v, 0, message)
		}
	}
}

// explainMissing gives a verdict to a case that was not found.
func (s *session) explainMissing(id string) {
	file, _, _ := strings.Cut(id, "::")
	if why, ok := s.skipped[file]; ok {
		s.say(id, labmesh.TestSkipped, 0, why)
		return
	}
	for at, why := range s.broken { // a file, or a class in it
		if at == file || strings.HasPrefix(id, at+"::") {
			s.say(id, labmesh.TestError, 0, "it could not be collected: "+why)
			return
		}
	}
	s.say(id, labmesh.TestError, 0, "there is no such test here now: it was collected, but is not found any more: are its parameters the same on every machine and in every run?")
}

// how says in words how the interpreter ended.
func (s *session) how(exit process.Exit, err error) string {
	if s.interrupt != "" {
		return "the session was ended by " + s.interrupt
	}
	return ending(exit, err)
}

func ending(exit process.Exit, err error) string {
	switch {
	case errors.Is(err, errTooMuch):
		return err.Error()
	case exit.OOM:
		return "it was killed because memory ran out"
	case exit.Signal == unix.SIGKILL:
		return "SIGKILL (by itself, or for want of memory)"
	case exit.Signal != 0:
		return unix.SignalName(exit.Signal)
	}
	return fmt.Sprintf("exit code %d", exit.Code)
}
