package main

import (
	"context"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"labmesh/api"
	"labmesh/bench/plot"
	"labmesh/bench/report"
	"labmesh/client"
	"labmesh/stats"
	"labmesh/suite/junit"
)

// leftoversPrinted bounds what is printed of what only one side measured.
const leftoversPrinted = 10

// compareFlags is how a comparison is wanted.
type compareFlags struct {
	model, since string
	batch        int
	alpha        float64
	effect       share
	gate, strict bool
	junit, plot  string
}

func newCompareCommand(a *app) *cobra.Command {
	var f compareFlags
	cmd := &cobra.Command{
		Use:   "compare A [B]",
		Short: "Say whether benchmark results B are slower than A",
		Long: `Compare two sides of the benchmark results in the ledger. A and B are each ` + report.SelectorHelp + `.
A alone, or twice, is a task that ran two configs in turns: its two arms are compared.

Runs of the same model, batch size and precision are compared: by the same engine on the same kind
of device and the same worker, or, where A and B have none of these in common, across them.
The unit is the process run, never the iteration: a Mann-Whitney test on the medians of runs (for
arms a test on pairs), an effect that matters, and a correction for the number of comparisons.
Where no number of milliseconds could have been significant it says "insufficient runs".

With --gate the exit code is 1 when a regression is confirmed, or when B failed at what A could do.`,
		Example: `  labmesh compare git_sha=4f2a91c git_sha=77b01de --model bert-base-uncased --gate
  labmesh compare branch=main 77b01de          # a commit against its branch
  labmesh compare worker:box1 worker:box2      # one machine against another
  labmesh compare engine:torch engine:onnxruntime,device:cpu --plot engines.svg
  labmesh compare 01JABCDEF                    # the arms of one bench --ab`,
		Args: args(cobra.RangeArgs(1, 2), "it takes what to compare, A and B"),
		RunE: func(cmd *cobra.Command, sides []string) error { return a.compare(cmd.Context(), f, sides) },
	}
	flags := cmd.Flags()
	flags.StringVar(&f.model, "model", "", "only results of this `model`")
	flags.IntVar(&f.batch, "batch", 0, "only this batch `size`")
	flags.StringVar(&f.since, "since", "", "only what began since then: a `time` like 2026-03-04, or how long ago, like 36h or 14d")
	flags.Float64Var(&f.alpha, "alpha", 0, "chance of calling equal things different, over all comparisons (default 0.01)")
	flags.Var(&f.effect, "effect", "the smallest change of the median that matters, as a `share` like 5% or 0.05 (default 5%, for arms 3%)")
	flags.BoolVar(&f.gate, "gate", false, "exit with 1 when a regression is confirmed")
	flags.BoolVar(&f.strict, "strict", false, "with --gate: exit with 1 also when there are too few runs to tell")
	flags.StringVar(&f.junit, "junit", "", "write a JUnit report to this `FILE`, a test case for each comparison")
	flags.StringVar(&f.plot, "plot", "", "draw latency and throughput of both sides to this `FILE`, .svg or .png")
	return cmd
}

func (a *app) compare(ctx context.Context, f compareFlags, sides []string) error {
	first, err := report.ParseSelector(sides[0])
	if err != nil {
		return err
	}
	var second report.Selector
	if len(sides) > 1 {
		if second, err = report.ParseSelector(sides[1]); err != nil {
			return err
		}
	}
	filter := report.Filter{Model: f.model, Batch: f.batch}
	switch {
	case f.strict && !f.gate:
		return usagef("--strict is for --gate")
	case f.batch < 0:
		return usagef("--batch %d: it is a batch size", f.batch)
	}
	if filter.Since, err = a.since(f.since); err != nil {
		return err
	}
	if err := checkPlot(f.plot); err != nil {
		return err
	}
	c, err := a.client()
	if err != nil {
		return err
	}
	defer c.Close()
	rep, err := report.CompareIn(askLedger(ctx, c), filter, first, second, stats.Options{Alpha: f.alpha, Effect: float64(f.effect)})
	if err != nil {
		return err
	}
	a.noteTruncated(rep.Truncated)
	if err := a.printComparisons(rep); err != nil {
		return err
	}
	if f.junit != "" {
		if err := saveJUnit(f.junit, compareJUnit(rep).Write); err != nil {
			return err
		}
	}
	if f.plot != "" {
		title := orElse(report.Canonical(f.model), "benchmarks") + ": " + rep.A + " and " + rep.B
		if err := drawTo(f.plot, func(w io.Writer, form plot.Format) error { return plot.Curves(w, title, rep.Curves(), form) }); err != nil {
			return err
		}
	}
	return f.verdict(rep)
}

// verdict is the exit code that the gate gives.
func (f compareFlags) verdict(rep *report.Comparisons) error {
	var why []string
	if rep.Regressions > 0 {
		why = append(why, plural(rep.Regressions, "regression", "regressions"))
	}
	if rep.Broken > 0 {
		why = append(why, plural(rep.Broken, "benchmark that A measured failed in B", "benchmarks that A measured failed in B"))
	}
	if f.strict && rep.Insufficient > 0 {
		why = append(why, plural(rep.Insufficient, "comparison has too few runs", "comparisons have too few runs"))
	}
	if !f.gate || len(why) == 0 {
		return nil
	}
	return exitError{exitFailed, "gate: " + strings.Join(why, ", ")}
}

// askLedger asks the node's ledger for a report.
func askLedger(ctx context.Context, c *client.Client) report.Ask {
	return func(sql string) ([]string, error) {
		reply, err := c.Query(ctx, api.QueryRequest{SQL: sql, MaxRows: report.RowsMax + 1})
		if err != nil {
			return nil, err
		}
		out := make([]string, len(reply.Rows))
		for i, row := range reply.Rows {
			if len(row) == 1 {
				out[i], _ = row[0].(string) // else it is "", which is no row: that is said
			}
		}
		return out, nil
	}
}

func (a *app) noteTruncated(truncated bool) {
	if truncated {
		a.note("Only the newest results are looked at: there are more. --since, --model and --batch choose fewer.")
	}
}

func (a *app) printComparisons(rep *report.Comparisons) error {
	if a.json {
		return a.printJSON(rep)
	}
	var b strings.Builder
	fmt.Fprintf(&b, "A  %s\nB  %s\n\n", printable(rep.A), printable(rep.B))
	t := newTable(&b, "MODEL", "BATCH", "PRECISION", "BY", "A", "B", "B/A", "95 %", "P", "RUNS", "VERDICT")
	for i := range rep.Comparisons {
		x := &rep.Comparisons[i]
		by := x.A.Variant.String()
		if other := x.B.Variant.String(); other != by {
			by += " → " + other
		}
		t.line([]string{
			cell(x.Model), strconv.Itoa(x.Batch), cell(x.Precision), printable(by), latency(x.A.MedianMS), latency(x.B.MedianMS),
			ratio(x.Ratio), interval(x.CI95), chance(x.P), fmt.Sprintf("%d:%d", x.RunsA, x.RunsB),
			a.paint(a.out, outcomeColour(x.Outcome), string(x.Outcome)) + ": " + printable(x.Why),
		})
	}
	if err := t.flush(); err != nil {
		return err
	}
	fmt.Fprintf(&b, "\n%s: %d slower, %d faster, %d no different, %d with too few runs\n",
		plural(len(rep.Comparisons), "comparison", "comparisons"), rep.Regressions, rep.Improvements, rep.Same, rep.Insufficient)
	writeLeftovers(&b, rep.Leftovers)
	_, err := io.WriteString(a.out, b.String())
	return err
}

func writeLeftovers(b *strings.Builder, left []report.Leftover) {
	for i, l := range left {
		if i == leftoversPrinted {
			fmt.Fprintf(b, "… and %d more; --json has them all\n", len(left)-i)
			return
		}
		fmt.Fprintf(b, "not compared: %s: %s, %s: %s\n", strings.ToUpper(l.Side), printable(l.What), plural(l.Runs, "run", "runs"), printable(l.Why))
	}
}

func plural(n int, one, many string) string {
	if n == 1 {
		return "1 " + one
	}
	return fmt.Sprintf("%d %s", n, many)
}

func outcomeColour(o stats.Outcome) string {
	switch o {
	case stats.Regression:
		return red
	case stats.Improvement:
		return green
	case stats.Insufficient:
		return yellow
	}
	return ""
}

// latency is a time with four digits, "-" where it is not known.
func latency(ms *float64) string {
	if ms == nil {
		return "-"
	}
	return digits(*ms) + " ms"
}

// digits is v with about four digits and no exponent.
func digits(v float64) string {
	decimals := 4
	for limit := 1.0; limit <= 1000 && v >= limit; limit *= 10 {
		decimals--
	}
	return strconv.FormatFloat(v, 'f', decimals, 64)
}

func ratio(r *float64) string {
	if r == nil {
		return "-"
	}
	return fmt.Sprintf("%.3f", *r)
}

func interval(ci *[2]float64) string {
	if ci == nil {
		return "-"
	}
	return fmt.Sprintf("%.3f to %.3f", ci[0], ci[1])
}

func chance(p *float64) string {
	if p == nil {
		return "-"
	}
	return fmt.Sprintf("%.2g", *p)
}

// since is the time that the flag of that name means.
func (a *app) since(text string) (time.Time, error) {
	t, err := report.ParseSince(text, a.now())
	if err != nil {
		return t, usagef("--%w", err)
	}
	return t, nil
}

// share is a flag that takes a part of a whole: 0.05 or 5%.
type share float64

func (s *share) String() string {
	if *s == 0 {
		return ""
	}
	return strconv.FormatFloat(float64(*s), 'g', -1, 64)
}

// Set reads the flag.
func (s *share) Set(text string) error {
	number, percent := strings.CutSuffix(strings.TrimSpace(text), "%")
	v, err := strconv.ParseFloat(strings.TrimSpace(number), 64)
	if percent {
		v /= 100
	}
	if err != nil || !(v > 0 && v <= 10) {
		return fmt.Errorf("it is a share, like 5%% or 0.05")
	}
	*s = share(v)
	return nil
}

// Type is what the help calls the value.
func (*share) Type() string { return "share" }

// checkPlot refuses a file that cannot be drawn to, before anything is asked.
func checkPlot(file string) error {
	if file == "" {
		return nil
	}
	if _, err := plot.FormatOf(file); err != nil {
		return usagef("--plot %w", err)
	}
	return nil
}

// drawTo has draw fill a file in the form that its name asks for.
func drawTo(file string, draw func(io.Writer, plot.Format) error) error {
	form, err := plot.FormatOf(file)
	if err != nil {
		return err
	}
	return sqlFlags{file: file}.write(nil, func(w io.Writer) error { return draw(w, form) })
}

// compareJUnit has a test case for each comparison: a regression fails, what
// cannot be told is skipped.
func compareJUnit(rep *report.Comparisons) *junit.Report {
	class := junit.Text(rep.A + " → " + rep.B)
	suite := junit.Suite{Name: "labmesh compare"}
	for i := range rep.Comparisons {
		x := &rep.Comparisons[i]
		c := junit.Case{Name: junit.Text(fmt.Sprintf("%s %s batch %d, %s", x.Model, x.Precision, x.Batch, x.B.Variant)), Class: class}
		problem := junit.NewProblem(string(x.Outcome), x.Why)
		switch x.Outcome {
		case stats.Regression:
			c.Failure = problem
		case stats.Insufficient:
			c.Skipped = problem
		default:
			c.Stdout = junit.Text(string(x.Outcome) + ": " + x.Why)
		}
		suite.Cases = append(suite.Cases, c)
	}
	for _, l := range rep.Leftovers {
		if l.Failed && l.Side == "b" {
			suite.Cases = append(suite.Cases, junit.Case{Name: junit.Text(l.What), Class: class, Error: junit.NewProblem("no times", l.Why)})
		}
	}
	return &junit.Report{Name: suite.Name, Suites: []junit.Suite{suite}}
}
