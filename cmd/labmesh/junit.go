package main

import (
	"encoding/xml"
	"fmt"
	"os"
	"regexp"
	"strings"
	"time"

	"labmesh"
	"labmesh/api"
)

// The parts of a JUnit report, as build servers read it.
type (
	junitSuites struct {
		XMLName xml.Name     `xml:"testsuites"`
		Suites  []junitSuite `xml:"testsuite"`
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
	}
	junitCase struct {
		Name    string        `xml:"name,attr"`
		Class   string        `xml:"classname,attr"`
		Time    string        `xml:"time,attr"`
		Failure *junitProblem `xml:"failure,omitempty"`
		Error   *junitProblem `xml:"error,omitempty"`
		Skipped *junitProblem `xml:"skipped,omitempty"`
		Stdout  string        `xml:"system-out,omitempty"`
		Stderr  string        `xml:"system-err,omitempty"`
	}
	junitProblem struct {
		Message string `xml:"message,attr"`
		Type    string `xml:"type,attr,omitempty"`
	}
)

// writeJUnit writes a report with one test case for each task.
func writeJUnit(file string, tests []api.TaskDetail) error {
	data, err := junitReport(tests)
	if err != nil {
		return fmt.Errorf("encode %s: %w", file, err)
	}
	if err := os.WriteFile(file, data, 0o644); err != nil {
		return fmt.Errorf("write the JUnit report: %w", err)
	}
	return nil
}

func junitReport(tests []api.TaskDetail) ([]byte, error) {
	suite := junitSuite{Name: "labmesh", Tests: len(tests)}
	var total time.Duration
	var first time.Time
	for _, t := range tests {
		took := time.Duration(0)
		if !t.Started.IsZero() && !t.Ended.IsZero() {
			took = max(t.Ended.Sub(t.Started.Time), 0)
		}
		total += took
		if !t.Started.IsZero() && (first.IsZero() || t.Started.Before(first)) {
			first = t.Started.Time
		}
		c := junitTest(t, took)
		suite.Cases = append(suite.Cases, c)
		suite.Failures += count(c.Failure)
		suite.Errors += count(c.Error)
		suite.Skipped += count(c.Skipped)
	}
	suite.Time = junitSeconds(total)
	if !first.IsZero() {
		suite.Timestamp = first.UTC().Format("2006-01-02T15:04:05")
	}
	data, err := xml.MarshalIndent(junitSuites{Suites: []junitSuite{suite}}, "", "  ")
	if err != nil {
		return nil, err
	}
	return append([]byte(xml.Header), append(data, '\n')...), nil
}

// junitTest is one test as a case: a test that said no is a failure, one that
// could not say anything an error.
func junitTest(t api.TaskDetail, took time.Duration) junitCase {
	r := resultOf(t)
	c := junitCase{
		Name: xmlText(string(t.Name)), Class: xmlText(orElse(r.Runner, "labmesh")), Time: junitSeconds(took),
		Stdout: xmlText(r.Stdout), Stderr: xmlText(r.Stderr),
	}
	problem := &junitProblem{Message: xmlText(orElse(string(t.Error), string(t.Status))), Type: string(t.Cause)}
	switch {
	case t.Status == labmesh.Completed:
	case t.Status == labmesh.Cancelled:
		c.Skipped = problem
	case t.Status == labmesh.Failed && labmesh.Cause(t.Cause) == labmesh.CauseExit:
		c.Failure = problem
	default:
		c.Error = problem
	}
	return c
}

func count(p *junitProblem) int {
	if p == nil {
		return 0
	}
	return 1
}

// ansi is what colours text on a terminal and moves its cursor.
var ansi = regexp.MustCompile(`\x1b\[[0-9;?]*[ -/]*[@-~]`)

func junitSeconds(d time.Duration) string { return fmt.Sprintf("%.3f", d.Seconds()) }

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
