package suite

import (
	"encoding/xml"
	"fmt"
	"io"
	"regexp"
	"strings"
	"time"

	"labmesh"
)

// messageFirstMax bounds the message attribute of a failure; the whole text is its body.
const messageFirstMax = 400

// Report is a suite that was run, for a JUnit file.
type Report struct {
	Name    string
	ID      string // labels of its tasks have it
	Started time.Time
	Results []Result
	Host    func(labmesh.WorkerID) string // a worker's name; nil for its id
	Errors  []CollectError                // what could not be collected
}

// CollectError is a file whose cases could not be collected.
type CollectError struct {
	File    string `json:"file"`
	Message string `json:"message"`
}

// The parts of a JUnit report, as build servers read it. Repeated runs are as Maven's surefire has them.
type (
	junitSuites struct {
		XMLName  xml.Name     `xml:"testsuites"`
		Name     string       `xml:"name,attr"`
		Tests    int          `xml:"tests,attr"`
		Failures int          `xml:"failures,attr"`
		Errors   int          `xml:"errors,attr"`
		Skipped  int          `xml:"skipped,attr"`
		Time     string       `xml:"time,attr"`
		Suites   []junitSuite `xml:"testsuite"`
	}
	junitSuite struct {
		Name      string      `xml:"name,attr"`
		Tests     int         `xml:"tests,attr"`
		Failures  int         `xml:"failures,attr"`
		Errors    int         `xml:"errors,attr"`
		Skipped   int         `xml:"skipped,attr"`
		Time      string      `xml:"time,attr"`
		Timestamp string      `xml:"timestamp,attr,omitempty"`
		Cases     []junitCase `xml:"testcase"`

		seconds float64
	}
	junitCase struct {
		Name       string          `xml:"name,attr"`
		Class      string          `xml:"classname,attr"`
		File       string          `xml:"file,attr,omitempty"`
		Time       string          `xml:"time,attr"`
		Properties *junitProps     `xml:"properties,omitempty"`
		Failure    *junitProblem   `xml:"failure,omitempty"`
		Error      *junitProblem   `xml:"error,omitempty"`
		Skipped    *junitProblem   `xml:"skipped,omitempty"`
		Flaky      []*junitProblem `xml:"flakyFailure"`
		Rerun      []*junitProblem `xml:"rerunFailure"`
		Stdout     string          `xml:"system-out,omitempty"`
	}
	junitProps struct {
		List []junitProp `xml:"property"`
	}
	junitProp struct {
		Name  string `xml:"name,attr"`
		Value string `xml:"value,attr"`
	}
	junitProblem struct {
		Message string `xml:"message,attr,omitempty"`
		Type    string `xml:"type,attr,omitempty"`
		Text    string `xml:",chardata"`
	}
)

// WriteJUnit writes one valid JUnit file of the whole suite, a testsuite for each file of it.
func (r Report) WriteJUnit(w io.Writer) error {
	doc := junitSuites{Name: xmlText(r.Name)}
	index := map[string]int{}
	suite := func(name string) *junitSuite {
		at, ok := index[name]
		if !ok {
			at = len(doc.Suites)
			index[name] = at
			s := junitSuite{Name: xmlText(name)}
			if !r.Started.IsZero() {
				s.Timestamp = r.Started.UTC().Format("2006-01-02T15:04:05")
			}
			doc.Suites = append(doc.Suites, s)
		}
		return &doc.Suites[at]
	}
	for i := range r.Results {
		res := &r.Results[i]
		s := suite(orElse(res.Case.File, r.Name))
		c := r.junitCase(res)
		s.seconds += max(res.Last().Seconds, 0)
		s.Cases = append(s.Cases, c)
	}
	for _, e := range r.Errors {
		s := suite(orElse(e.File, r.Name))
		s.Cases = append(s.Cases, junitCase{
			Name: "collection", Class: className(e.File), File: xmlText(e.File), Time: "0.000",
			Error: problem("error", e.Message),
		})
	}
	total := 0.0
	for i := range doc.Suites {
		s := &doc.Suites[i]
		for _, c := range s.Cases {
			s.Tests++
			s.Failures += present(c.Failure)
			s.Errors += present(c.Error)
			s.Skipped += present(c.Skipped)
		}
		s.Time = seconds(s.seconds)
		total += s.seconds
		doc.Tests, doc.Failures = doc.Tests+s.Tests, doc.Failures+s.Failures
		doc.Errors, doc.Skipped = doc.Errors+s.Errors, doc.Skipped+s.Skipped
	}
	doc.Time = seconds(total)
	if _, err := io.WriteString(w, xml.Header); err != nil {
		return err
	}
	enc := xml.NewEncoder(w)
	enc.Indent("", "  ")
	if err := enc.Encode(doc); err != nil {
		return err
	}
	_, err := io.WriteString(w, "\n")
	return err
}

func (r Report) junitCase(res *Result) junitCase {
	last := res.Last()
	name := res.Case.Name
	if i := strings.LastIndex(name, "::"); i >= 0 {
		name = name[i+2:]
	}
	if res.Case.Params != "" {
		name += "[" + res.Case.Params + "]"
	}
	class := className(res.Case.File)
	if i := strings.LastIndex(res.Case.Name, "::"); i >= 0 {
		class += "." + xmlText(strings.ReplaceAll(res.Case.Name[:i], "::", "."))
	}
	c := junitCase{Name: xmlText(orElse(name, res.Case.ID)), Class: class, File: xmlText(res.Case.File), Time: seconds(last.Seconds)}
	if len(res.Runs) > 0 {
		worker := string(last.Worker)
		if r.Host != nil {
			worker = r.Host(last.Worker)
		}
		c.Properties = &junitProps{[]junitProp{
			{"worker", xmlText(worker)}, {"worker_id", xmlText(string(last.Worker))}, {"task", xmlText(string(last.Task))},
			{"attempt", fmt.Sprint(last.Attempt)}, {"try", fmt.Sprint(last.Try)},
		}}
	}
	bad := res.Verdict.Bad()
	switch {
	case res.Verdict == "":
		c.Skipped = problem("not_run", "it was not run")
	case bad && res.Case.Quarantined:
		c.Skipped = problem("quarantined", "in quarantine; it "+string(res.Verdict)+": "+last.Message)
	case res.Verdict == labmesh.TestFailed:
		c.Failure = problem("failed", last.Message)
	case bad:
		c.Error = problem(string(res.Verdict), last.Message)
	case res.Verdict == labmesh.TestSkipped, res.Verdict == labmesh.TestXFailed:
		c.Skipped = problem(string(res.Verdict), last.Message)
	}
	for _, run := range res.Runs[:max(len(res.Runs)-1, 0)] {
		if p := problem(string(run.Verdict), run.Message); run.Verdict.Bad() && !bad {
			c.Flaky = append(c.Flaky, p)
		} else if run.Verdict.Bad() {
			c.Rerun = append(c.Rerun, p)
		}
	}
	return c
}

// pytestError is the line of a pytest failure that says what was wrong.
var pytestError = regexp.MustCompile(`(?m)^E +(\S.*)$`)

// problem is a message as JUnit has it: the line that says what was wrong as an
// attribute, else the first, and all of it as text.
func problem(kind, message string) *junitProblem {
	text := xmlText(message)
	first, _, _ := strings.Cut(strings.TrimSpace(text), "\n")
	if at := pytestError.FindStringSubmatch(text); at != nil {
		first = at[1]
	}
	if runes := []rune(first); len(runes) > messageFirstMax {
		first = string(runes[:messageFirstMax-1]) + "…"
	}
	return &junitProblem{Message: strings.TrimRight(first, "\r"), Type: kind, Text: text}
}

func className(file string) string {
	for _, ext := range []string{".py", ".go"} {
		file = strings.TrimSuffix(file, ext)
	}
	return xmlText(strings.ReplaceAll(strings.Trim(strings.TrimPrefix(file, "./"), "/"), "/", "."))
}

func present(p *junitProblem) int {
	if p == nil {
		return 0
	}
	return 1
}

func seconds(s float64) string { return fmt.Sprintf("%.3f", max(s, 0)) }

func orElse(s, other string) string {
	if s == "" {
		return other
	}
	return s
}

// ansi is what colours text on a terminal and moves its cursor.
var ansi = regexp.MustCompile(`\x1b\[[0-9;?]*[ -/]*[@-~]`)

// xmlText is s without terminal colours and without the characters that XML
// cannot hold in any form.
func xmlText(s string) string {
	return strings.Map(func(r rune) rune {
		switch {
		case r == '\t' || r == '\n' || r == '\r',
			r >= 0x20 && r <= 0xd7ff, r >= 0xe000 && r <= 0xfffd, r >= 0x10000 && r <= 0x10ffff:
			return r
		}
		return -1
	}, ansi.ReplaceAllString(strings.ToValidUTF8(s, "\ufffd"), ""))
}
