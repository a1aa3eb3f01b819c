package main

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	"labmesh"
	"labmesh/suite"
	"labmesh/suite/junit"
	suiterun "labmesh/suite/run"
)

// Limits on what is printed of a suite.
const (
	failuresPrinted = 50
	namesPrinted    = 50
)

// reportSuite prints what came of a suite: on stdout, as text or as JSON.
func (a *app) reportSuite(rep *suiterun.Report, p testPlan, slowest int) error {
	if a.json {
		return a.printJSON(suiteJSON(rep))
	}
	var b strings.Builder
	a.writeFailures(&b, rep)
	a.writeErrors(&b, rep, p)
	a.writeNames(&b, rep, "flaky: it passed after it had failed", func(r *suite.Result) bool { return r.Flaky })
	a.writeNames(&b, rep, "in quarantine, not counted", func(r *suite.Result) bool { return r.Verdict.Bad() && r.Case.Quarantined })
	if slowest > 0 {
		writeSlowest(&b, rep, slowest)
	}
	b.WriteString(a.suiteSummary(rep))
	b.WriteByte('\n')
	_, err := fmt.Fprint(a.out, b.String())
	return err
}

func (a *app) writeFailures(b *strings.Builder, rep *suiterun.Report) {
	shown, more := 0, 0
	for i := range rep.Results {
		r := &rep.Results[i]
		if !r.Bad() {
			continue
		}
		if shown == failuresPrinted {
			more++
			continue
		}
		shown++
		last := r.Last()
		where := orElse(rep.Workers[last.Worker].Hostname, string(last.Worker))
		tries := ""
		if len(r.Runs) > 1 {
			tries = fmt.Sprintf(", %d tries", len(r.Runs))
		}
		fmt.Fprintln(b, a.paint(a.out, bold, fmt.Sprintf("--- %s: %s (%.2fs on %s%s; labmesh logs %s)", printable(r.Case.ID), r.Verdict, last.Seconds, printable(where), tries, last.Task)))
		if text := strings.TrimSpace(last.Message); text != "" {
			fmt.Fprintln(b, excerpt(harmless(text), last.Verdict))
		}
	}
	if more > 0 {
		fmt.Fprintf(b, "… and %d more failures: --junit or --json has them all\n", more)
	}
}

// stackLines of a crash or a timeout are shown: where it was is at the top.
const stackLines = 16

// excerpt is the part of a failure's message that says most.
func excerpt(text string, v labmesh.TestVerdict) string {
	if v != labmesh.TestCrashed && v != labmesh.TestTimeout {
		return lastLines(text, failureLines)
	}
	lines := strings.Split(text, "\n")
	if len(lines) <= stackLines {
		return text
	}
	return fmt.Sprintf("%s\n… %d lines more", strings.Join(lines[:stackLines], "\n"), len(lines)-stackLines)
}

// harmless is text of several lines without what would move a terminal's cursor.
func harmless(text string) string {
	lines := strings.Split(junit.Text(text).Plain(), "\n")
	for i := range lines {
		lines[i] = printable(strings.TrimRight(lines[i], "\r"))
	}
	return strings.Join(lines, "\n")
}

func (a *app) writeErrors(b *strings.Builder, rep *suiterun.Report, p testPlan) {
	imports := false
	for i, e := range rep.Errors {
		if i == failuresPrinted {
			fmt.Fprintf(b, "… and %d more that could not be collected\n", len(rep.Errors)-i)
			break
		}
		fmt.Fprintln(b, a.paint(a.out, bold, fmt.Sprintf("--- %s: its tests could not be collected", printable(orElse(e.File, "the suite")))))
		fmt.Fprintln(b, lastLines(harmless(strings.TrimSpace(e.Message)), failureLines))
		imports = imports || strings.Contains(e.Message, "ModuleNotFoundError") || strings.Contains(e.Message, "ImportError")
	}
	if imports && len(p.ship) > 0 {
		fmt.Fprintf(b, "Only %s went to the workers, as this is no git work tree: `--bundle .` takes all of this directory along.\n", shorten(strings.Join(p.ship, ", "), 3*cellCharsMax))
	}
}

func (a *app) writeNames(b *strings.Builder, rep *suiterun.Report, title string, which func(*suite.Result) bool) {
	n := 0
	for i := range rep.Results {
		r := &rep.Results[i]
		if !which(r) {
			continue
		}
		if n++; n == 1 {
			fmt.Fprintln(b, a.paint(a.out, yellow, title))
		}
		if n > namesPrinted {
			continue
		}
		var verdicts []string
		for _, run := range r.Runs {
			verdicts = append(verdicts, string(run.Verdict))
		}
		fmt.Fprintf(b, "  %s (%s)\n", printable(r.Case.ID), strings.Join(verdicts, ", "))
	}
	if n > namesPrinted {
		fmt.Fprintf(b, "  … and %d more\n", n-namesPrinted)
	}
}

func writeSlowest(b *strings.Builder, rep *suiterun.Report, n int) {
	ran := slices.DeleteFunc(slices.Clone(rep.Results), func(r suite.Result) bool { return r.Verdict == "" })
	slices.SortStableFunc(ran, func(x, y suite.Result) int { return cmp.Compare(y.Last().Seconds, x.Last().Seconds) })
	if n = min(n, len(ran)); n == 0 {
		return
	}
	fmt.Fprintf(b, "the slowest %d\n", n)
	for _, r := range ran[:n] {
		fmt.Fprintf(b, "  %8.2fs %s\n", r.Last().Seconds, printable(r.Case.ID))
	}
}

// suiteSummary is the last line.
func (a *app) suiteSummary(rep *suiterun.Report) string {
	c := rep.Counts
	var parts []string
	for _, part := range []struct {
		n    int
		what string
	}{
		{c.Passed, "passed"}, {c.Failed, "failed"}, {c.Errors, "with errors"}, {c.Crashed, "crashed"}, {c.Timeouts, "timed out"},
		{c.Skipped, "skipped"}, {c.XFailed, "xfailed"}, {c.XPassed, "xpassed"}, {c.NotRun, "not run"},
		{c.Flaky, "flaky"}, {c.Quarantined, "in quarantine"}, {len(rep.Errors), "not collected"},
	} {
		if part.n > 0 {
			parts = append(parts, fmt.Sprintf("%d %s", part.n, part.what))
		}
	}
	workers := 0
	for _, s := range rep.Workers {
		if s.Chunks > 0 {
			workers++
		}
	}
	text := orElse(strings.Join(parts, ", "), "nothing ran") + " in " + short(rep.Took.Round(10*time.Millisecond))
	switch {
	case workers == 1:
		text += " on 1 worker"
	case workers > 1:
		text += fmt.Sprintf(" on %d workers", workers)
	}
	text += " (suite " + rep.ID + ")"
	if rep.Stopped != "" && !rep.Interrupted {
		text += "; stopped: " + printable(rep.Stopped)
	}
	colour := green
	if !rep.OK() {
		colour = red
	} else if c.Flaky+c.Quarantined > 0 {
		colour = yellow
	}
	return a.paint(a.out, colour, text)
}

// The report of a suite as JSON.
type (
	suiteReport struct {
		Suite     string                              `json:"suite"`
		Name      string                              `json:"name"`
		Framework suiterun.Framework                  `json:"framework"`
		OK        bool                                `json:"ok"`
		Began     time.Time                           `json:"began"`
		Seconds   float64                             `json:"seconds"`
		Stopped   string                              `json:"stopped,omitempty"`
		Counts    suite.Counts                        `json:"counts"`
		Chunks    int                                 `json:"chunks"`
		Known     int                                 `json:"known_times"` // cases whose time was known before
		Workers   map[labmesh.WorkerID]suiterun.Share `json:"workers"`
		Errors    []suite.CollectError                `json:"collection_errors"`
		Cases     []suiteCase                         `json:"cases"`
	}
	suiteCase struct {
		ID          string              `json:"id"`
		File        string              `json:"file"`
		Name        string              `json:"name"`
		Params      string              `json:"parameters,omitempty"`
		Verdict     labmesh.TestVerdict `json:"verdict"` // "" when it did not run
		Flaky       bool                `json:"flaky,omitempty"`
		Quarantined bool                `json:"quarantined,omitempty"`
		Seconds     float64             `json:"seconds"`
		Runs        []suiteRun          `json:"runs"`
	}
	suiteRun struct {
		Try     int                 `json:"try"`
		Verdict labmesh.TestVerdict `json:"verdict"`
		Seconds float64             `json:"seconds"`
		Message string              `json:"message,omitempty"`
		Log     string              `json:"log_ref,omitempty"`
		suite.Source
	}
)

func suiteJSON(rep *suiterun.Report) suiteReport {
	out := suiteReport{
		Suite: rep.ID, Name: rep.Name, Framework: rep.Framework, OK: rep.OK(), Began: rep.Began.UTC(), Seconds: rep.Took.Seconds(), Stopped: rep.Stopped,
		Counts: rep.Counts, Chunks: rep.Chunks, Known: rep.History, Workers: rep.Workers, Errors: rep.Errors, Cases: make([]suiteCase, 0, len(rep.Results)),
	}
	if out.Errors == nil {
		out.Errors = []suite.CollectError{}
	}
	for _, r := range rep.Results {
		c := suiteCase{
			ID: r.Case.ID, File: r.Case.File, Name: r.Case.Name, Params: r.Case.Params, Verdict: r.Verdict, Flaky: r.Flaky,
			Quarantined: r.Case.Quarantined, Seconds: r.Last().Seconds, Runs: make([]suiteRun, 0, len(r.Runs)),
		}
		for _, one := range r.Runs {
			c.Runs = append(c.Runs, suiteRun{one.Try, one.Verdict, one.Seconds, one.Message, one.Log, one.Source})
		}
		out.Cases = append(out.Cases, c)
	}
	return out
}

// writeSuiteJUnit writes the whole suite as one JUnit file.
func writeSuiteJUnit(file string, rep *suiterun.Report) error {
	r := suite.Report{
		Name: rep.Name, ID: rep.ID, Started: rep.Began, Results: rep.Results, Errors: rep.Errors,
		Host: func(id labmesh.WorkerID) string { return orElse(rep.Workers[id].Hostname, string(id)) },
	}
	return saveJUnit(file, r.WriteJUnit)
}
