package main

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"time"

	"labmesh"
	"labmesh/api"
	"labmesh/suite/junit"
)

// writeJUnit writes a report with one test case for each task.
func writeJUnit(file string, tests []api.TaskDetail) error {
	return saveJUnit(file, junitReport(tests).Write)
}

// saveJUnit writes a report to a file.
func saveJUnit(file string, report func(w io.Writer) error) error {
	var b bytes.Buffer
	if err := report(&b); err != nil {
		return fmt.Errorf("encode %s: %w", file, err)
	}
	if err := os.WriteFile(file, b.Bytes(), 0o644); err != nil {
		return fmt.Errorf("write the JUnit report: %w", err)
	}
	return nil
}

func junitReport(tests []api.TaskDetail) *junit.Report {
	s := junit.Suite{Name: "labmesh"}
	var first time.Time
	for _, t := range tests {
		if !t.Started.IsZero() && (first.IsZero() || t.Started.Before(first)) {
			first = t.Started.Time
		}
		s.Cases = append(s.Cases, junitTest(t))
	}
	s.Timestamp = junit.Timestamp(first)
	return &junit.Report{Name: s.Name, Suites: []junit.Suite{s}}
}

// junitTest is one test as a case: a test that said no is a failure, one that
// could not say anything an error.
func junitTest(t api.TaskDetail) junit.Case {
	r := resultOf(t)
	c := junit.Case{
		Name: junit.Text(t.Name), Class: junit.Text(orElse(r.Runner, "labmesh")),
		Stdout: junit.Text(r.Stdout), Stderr: junit.Text(r.Stderr),
	}
	if !t.Started.IsZero() && !t.Ended.IsZero() {
		c.Time = junit.Seconds(t.Ended.Sub(t.Started.Time).Seconds())
	}
	problem := junit.NewProblem(string(t.Cause), orElse(string(t.Error), string(t.Status)))
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
