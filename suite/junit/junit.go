// Package junit writes test reports in JUnit XML, as build servers read them:
// valid whatever tests printed, with the counts and times that the format wants
// at every level. Reports of others are read by exec/junit.
package junit

import (
	"encoding/xml"
	"fmt"
	"io"
	"regexp"
	"strings"
	"time"
)

// messageFirstMax bounds the message attribute of a problem; the whole text is its body.
const messageFirstMax = 400

// Report is a whole report. What is not filled in by who makes one is by [Report.Write].
type Report struct {
	XMLName xml.Name `xml:"testsuites"`
	Name    Text     `xml:"name,attr,omitempty"`
	totals
	Suites []Suite `xml:"testsuite"`
}

// Suite is test cases that belong together, as those of a file.
type Suite struct {
	Name Text `xml:"name,attr"`
	totals
	Timestamp string `xml:"timestamp,attr,omitempty"` // see Timestamp
	Cases     []Case `xml:"testcase"`
}

// totals are the counts of a suite or of all, and the time that its cases took.
type totals struct {
	Tests    int     `xml:"tests,attr"`
	Failures int     `xml:"failures,attr"`
	Errors   int     `xml:"errors,attr"`
	Skipped  int     `xml:"skipped,attr"`
	Time     Seconds `xml:"time,attr"`
}

// Case is one test case. It passed unless it has a failure, an error or a skip.
type Case struct {
	Name       Text        `xml:"name,attr"`
	Class      Text        `xml:"classname,attr"`
	File       Text        `xml:"file,attr,omitempty"`
	Time       Seconds     `xml:"time,attr"`
	Properties *Properties `xml:"properties,omitempty"`
	Failure    *Problem    `xml:"failure,omitempty"` // it said no
	Error      *Problem    `xml:"error,omitempty"`   // it could not say anything
	Skipped    *Problem    `xml:"skipped,omitempty"`
	Flaky      []*Problem  `xml:"flakyFailure"` // of earlier runs of a case that passed, as Maven's surefire has them
	Rerun      []*Problem  `xml:"rerunFailure"` // of earlier runs of one that did not
	Stdout     Text        `xml:"system-out,omitempty"`
	Stderr     Text        `xml:"system-err,omitempty"`
}

// Properties are what else is known of a case.
type Properties struct {
	List []Property `xml:"property"`
}

// Property is one of them.
type Property struct {
	Name  Text `xml:"name,attr"`
	Value Text `xml:"value,attr"`
}

// Problem is why a case did not pass.
type Problem struct {
	Message Text `xml:"message,attr,omitempty"` // in one line
	Type    Text `xml:"type,attr,omitempty"`
	Text    Text `xml:",chardata"`
}

// Text is anything that somebody wrote. It is written as Plain has it.
type Text string

// Seconds is a time. It is written with three digits, and never below 0.
type Seconds float64

// MarshalText is t as XML may hold it.
func (t Text) MarshalText() ([]byte, error) { return []byte(t.Plain()), nil }

// MarshalText is s as JUnit has it.
func (s Seconds) MarshalText() ([]byte, error) { return fmt.Appendf(nil, "%.3f", max(s, 0)), nil }

// Timestamp is t as JUnit has it, "" where it is not known.
func Timestamp(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return t.UTC().Format("2006-01-02T15:04:05")
}

// Write counts and writes a report.
func (r *Report) Write(w io.Writer) error {
	r.totals = totals{}
	for i := range r.Suites {
		s := &r.Suites[i]
		s.totals = totals{}
		for j := range s.Cases {
			s.add(totals{1, present(s.Cases[j].Failure), present(s.Cases[j].Error), present(s.Cases[j].Skipped), max(s.Cases[j].Time, 0)})
		}
		r.add(s.totals)
	}
	if _, err := io.WriteString(w, xml.Header); err != nil {
		return err
	}
	enc := xml.NewEncoder(w)
	enc.Indent("", "  ")
	if err := enc.Encode(r); err != nil {
		return err
	}
	_, err := io.WriteString(w, "\n")
	return err
}

func (t *totals) add(more totals) {
	t.Tests, t.Failures, t.Errors = t.Tests+more.Tests, t.Failures+more.Failures, t.Errors+more.Errors
	t.Skipped, t.Time = t.Skipped+more.Skipped, t.Time+more.Time
}

func present(p *Problem) int {
	if p == nil {
		return 0
	}
	return 1
}

// pytestError is the line of a pytest failure that says what was wrong.
var pytestError = regexp.MustCompile(`(?m)^E +(\S.*)$`)

// NewProblem is a message as JUnit has it: the line that says what was wrong as
// an attribute, else the first, and all of it as text.
func NewProblem(kind, message string) *Problem {
	text := Text(message).Plain()
	first, _, _ := strings.Cut(strings.TrimSpace(text), "\n")
	if at := pytestError.FindStringSubmatch(text); at != nil {
		first = at[1]
	}
	if runes := []rune(first); len(runes) > messageFirstMax {
		first = string(runes[:messageFirstMax-1]) + "…"
	}
	return &Problem{Message: Text(strings.TrimRight(first, "\r")), Type: Text(kind), Text: Text(text)}
}

// ansi is what colours text on a terminal and moves its cursor.
var ansi = regexp.MustCompile(`\x1b\[[0-9;?]*[ -/]*[@-~]`)

// Plain is t without terminal colours and without the characters that XML cannot
// hold in any form, which are no text for people either.
func (t Text) Plain() string {
	return strings.Map(func(r rune) rune {
		switch {
		case r == '\t' || r == '\n' || r == '\r',
			r >= 0x20 && r <= 0xd7ff, r >= 0xe000 && r <= 0xfffd, r >= 0x10000 && r <= 0x10ffff:
			return r
		}
		return -1
	}, ansi.ReplaceAllString(strings.ToValidUTF8(string(t), "\ufffd"), ""))
}
