package main

import (
	"context"
	"fmt"
	"io"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"labmesh/bench/plot"
	"labmesh/bench/report"
	"labmesh/stats"
)

// trendFlags is how trends are wanted.
type trendFlags struct {
	filter       report.Filter
	where        []string
	since        string
	alpha        float64
	effect       share
	gate         bool
	format, plot string
}

func newTrendCommand(a *app) *cobra.Command {
	var f trendFlags
	cmd := &cobra.Command{
		Use:   "trend MODEL",
		Short: "Say when the benchmark results of a model changed, and with which commit",
		Long: `Find where the series of a model's benchmark results changed for good. A series is one batch size
and precision by one engine on one worker; a point of it is a task, the median of its runs: runs
of one task share the machine's mood of that hour. A change needs ten points at the least, five on
either side, and the labels git_sha or commit of the tasks say which commit came with it.

With --gate the exit code is 1 when the newest change of a series made it slower. To accept one,
pass a time after it with --since.`,
		Example: `  labmesh trend bert-base-uncased
  labmesh trend bert-base-uncased --where branch=main --since 90d --gate
  labmesh trend resnet50 --worker box1 --batch 8 --plot resnet50.svg
  labmesh trend resnet50 --worker box1 --batch 8 --format csv > resnet50.csv    # for Apache Otava`,
		Args: args(cobra.ExactArgs(1), "it takes a model"),
		RunE: func(cmd *cobra.Command, model []string) error {
			f.filter.Model = model[0]
			if a.json && !cmd.Flags().Changed("format") {
				f.format = "json"
			}
			return a.trend(cmd.Context(), f)
		},
	}
	flags := cmd.Flags()
	flags.IntVar(&f.filter.Batch, "batch", 0, "only this batch `size`")
	flags.StringVar(&f.filter.Worker, "worker", "", "only this `worker`, by id or hostname")
	flags.StringVar(&f.filter.Engine, "engine", "", "only this `engine`")
	flags.StringVar(&f.filter.Device, "device", "", "only this `device`: a class like cuda, or part of a name")
	flags.StringArrayVar(&f.where, "where", nil, "only tasks with this label, `KEY=VALUE` (repeatable)")
	flags.StringVar(&f.since, "since", "", "only what began since then: a `time` like 2026-03-04, or how long ago, like 36h or 14d")
	flags.Float64Var(&f.alpha, "alpha", 0, "chance of seeing a change in a series that has none (default 0.01)")
	flags.Var(&f.effect, "effect", "the smallest change that is reported, as a `share` like 5% or 0.05 (default 3%)")
	flags.BoolVar(&f.gate, "gate", false, "exit with 1 when the newest change of a series made it slower")
	flags.StringVar(&f.format, "format", "table", "how to print: `FORMAT` is table, json or csv (all points)")
	flags.StringVar(&f.plot, "plot", "", "draw the series and their changes to this `FILE`, .svg or .png")
	return cmd
}

func (a *app) trend(ctx context.Context, f trendFlags) error {
	switch {
	case f.format != "table" && f.format != "json" && f.format != "csv":
		return usagef("--format %s: it is table, json or csv", f.format)
	case f.filter.Batch < 0:
		return usagef("--batch %d: it is a batch size", f.filter.Batch)
	}
	var err error
	if f.filter.Where, err = pairs("where", f.where); err != nil {
		return err
	}
	if f.filter.Since, err = a.since(f.since); err != nil {
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
	rep, err := report.ChangesIn(askLedger(ctx, c), f.filter, stats.TrendOptions{Alpha: f.alpha, Effect: float64(f.effect)})
	if err != nil {
		return err
	}
	a.noteTruncated(rep.Truncated)
	if err := a.printTrends(rep, f.format); err != nil {
		return err
	}
	if f.plot != "" {
		title := report.Canonical(f.filter.Model) + " over time"
		if err := drawTo(f.plot, func(w io.Writer, form plot.Format) error { return plot.Trends(w, title, rep, form) }); err != nil {
			return err
		}
	}
	if n := rep.Regressed(); f.gate && n > 0 {
		return exitError{exitFailed, "gate: " + plural(n, "series became slower", "series became slower")}
	}
	return nil
}

func (a *app) printTrends(rep *report.Trends, format string) error {
	switch format {
	case "json":
		return a.printJSON(rep)
	case "csv":
		if len(rep.Series) > 1 {
			a.note("These are %d series, told apart by the column series. Apache Otava takes one a file: choose by --batch, --worker, --engine and --device.", len(rep.Series))
		}
		return rep.WriteCSV(a.out)
	}
	var b strings.Builder
	t := newTable(&b, "MODEL", "BATCH", "PRECISION", "BY", "POINTS", "WHEN", "BEFORE", "AFTER", "CHANGE", "P", "COMMIT", "TASK")
	few := false
	for i := range rep.Series {
		s := &rep.Series[i]
		head := []string{cell(s.Model), strconv.Itoa(s.Batch), cell(s.Precision), printable(s.Variant.String()), strconv.Itoa(len(s.Points))}
		few = few || len(s.Points) < 2*stats.SegmentDefault
		if len(s.Changes) == 0 {
			t.line(append(head, "-", "-", "-", "none", "-", "-", "-"))
		}
		for _, c := range s.Changes {
			colour := green
			if c.Outcome == stats.Regression {
				colour = red
			}
			t.line(append(head, c.First.Time.Local().Format("2006-01-02 15:04"), latency(&c.BeforeMS), latency(&c.AfterMS),
				fmt.Sprintf("%+.1f %%", 100*c.Share), chance(&c.P), commits(c), a.paint(a.out, colour, string(c.First.Task))))
		}
	}
	if err := t.flush(); err != nil {
		return err
	}
	if _, err := io.WriteString(a.out, b.String()); err != nil {
		return err
	}
	if few {
		a.note("A change can be told from %d points on; a point is a task with runs that are comparable.", 2*stats.SegmentDefault)
	}
	return nil
}

// commits are the last commit before a change and the first after it.
func commits(c report.Change) string {
	if c.FirstCommit == "" {
		return "-"
	}
	after := shorten(printable(c.FirstCommit), commitCharsPrinted)
	if c.LastCommit == "" {
		return after
	}
	return shorten(printable(c.LastCommit), commitCharsPrinted) + ".." + after
}

// commitCharsPrinted are shown of a commit.
const commitCharsPrinted = 13
