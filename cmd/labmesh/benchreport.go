package main

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/dustin/go-humanize"

	"labmesh"
	"labmesh/api"
	"labmesh/bench/report"
	"labmesh/each"
	"labmesh/stats"
)

// benchTask is one task of `labmesh bench` as it ended.
type benchTask struct {
	job    *benchJob
	detail api.TaskDetail
	rows   []api.BenchTaskRow
	lacks  error // why not all rows are here
}

// benchReport is what `labmesh bench` came to.
type benchReport struct {
	Tasks      []benchEnd          `json:"tasks"`
	Results    []benchResult       `json:"results"`
	Left       []each.Left         `json:"left_out"`
	Comparison *report.Comparisons `json:"comparison,omitempty"` // of --ab
	Why        string              `json:"no_comparison,omitempty"`

	rows []report.Row
}

// benchEnd is how one task ended.
type benchEnd struct {
	ID     labmesh.TaskID `json:"task_id"`
	Name   string         `json:"name"`
	Status labmesh.Phase  `json:"status"`
	Error  string         `json:"error,omitempty"`
	Rows   int            `json:"rows"`
	Lacks  string         `json:"rows_missing,omitempty"` // why not all rows are here
}

// benchResult is what the runs of a task came to at one batch size: the median of
// their medians, over the runs that are comparable, or over all where none is.
type benchResult struct {
	Task       labmesh.TaskID      `json:"task_id"`
	Worker     labmesh.WorkerID    `json:"worker_id"`
	Host       string              `json:"hostname"`
	Model      string              `json:"model"`
	Device     string              `json:"device_class"`
	DeviceName string              `json:"device_name,omitempty"`
	Engine     string              `json:"engine"`
	Version    string              `json:"engine_version,omitempty"`
	EngineWhy  string              `json:"engine_why,omitempty"`
	Requested  string              `json:"precision_requested"`
	Effective  string              `json:"precision_effective,omitempty"`
	Arm        string              `json:"arm,omitempty"`
	Batch      int                 `json:"batch"`
	Status     labmesh.BenchStatus `json:"status"`
	Reason     string              `json:"reason,omitempty"`
	Runs       int                 `json:"runs"`            // that measured it
	Comparable int                 `json:"comparable_runs"` // of these
	P50        *float64            `json:"p50_ms"`
	Low        *float64            `json:"p50_low_ms"` // see trust
	High       *float64            `json:"p50_high_ms"`
	P90        *float64            `json:"p90_ms"`
	DeviceP50  *float64            `json:"device_p50_ms"`
	Throughput *float64            `json:"throughput"`
	HostPeak   *int64              `json:"host_peak_bytes"`
	DevicePeak *int64              `json:"device_peak_bytes"`
	Flags      []labmesh.BenchFlag `json:"flags"`
	Doubts     []string            `json:"doubts"`
}

// newBenchReport sums up tasks; hosts are the names of workers.
func newBenchReport(tasks []benchTask, hosts map[labmesh.WorkerID]string) *benchReport {
	r := &benchReport{Tasks: []benchEnd{}, Results: []benchResult{}, Left: []each.Left{}}
	for _, t := range tasks {
		r.Tasks = append(r.Tasks, benchEnd{ID: t.job.id, Name: t.job.name, Status: t.detail.Status, Error: string(t.detail.Error), Rows: len(t.rows)})
		if t.lacks != nil {
			r.Tasks[len(r.Tasks)-1].Lacks = t.lacks.Error()
		}
		rows := ofLastAttempt(t.rows)
		for _, row := range rows {
			r.rows = append(r.rows, report.Row{Task: row.Task, Attempt: row.Attempt, Worker: row.Worker, Host: hosts[row.Worker], BenchRow: row.BenchRow})
		}
		r.Results = append(r.Results, sumRows(rows, hosts)...)
	}
	slices.SortStableFunc(r.Results, func(a, b benchResult) int {
		return cmp.Or(cmp.Compare(a.Host, b.Host), cmp.Compare(a.Device, b.Device), cmp.Compare(a.DeviceName, b.DeviceName), cmp.Compare(a.Task, b.Task))
	})
	return r
}

// ofLastAttempt leaves out what attempts measured that were lost and made again.
func ofLastAttempt(rows []api.BenchTaskRow) []api.BenchTaskRow {
	last := 0
	for i := range rows {
		last = max(last, rows[i].Attempt)
	}
	return slices.DeleteFunc(slices.Clone(rows), func(r api.BenchTaskRow) bool { return r.Attempt != last })
}

// sumRows sums up the rows of one attempt by arm and batch size, in the order in
// which they were first measured.
func sumRows(rows []api.BenchTaskRow, hosts map[labmesh.WorkerID]string) (out []benchResult) {
	type spot struct {
		arm   string
		batch int
	}
	var order []spot
	of := map[spot][]api.BenchTaskRow{}
	for _, r := range rows {
		s := spot{r.Arm, r.Work.Batch}
		if of[s] == nil {
			order = append(order, s)
		}
		of[s] = append(of[s], r)
	}
	slices.SortStableFunc(order, func(a, b spot) int { return cmp.Compare(a.arm, b.arm) })
	for _, s := range order {
		out = append(out, sumRuns(of[s], hosts))
	}
	return out
}

// sumRuns sums up the runs of one batch size.
func sumRuns(rows []api.BenchTaskRow, hosts map[labmesh.WorkerID]string) benchResult {
	last := rows[len(rows)-1]
	measured := slices.DeleteFunc(slices.Clone(rows), func(r api.BenchTaskRow) bool { return r.Wall == nil })
	used := slices.DeleteFunc(slices.Clone(measured), func(r api.BenchTaskRow) bool { return !r.Comparable })
	comparable := len(used)
	if len(measured) > 0 {
		last = measured[len(measured)-1]
	}
	if comparable == 0 {
		used = measured
	}
	w := &last.Work
	out := benchResult{
		Task: last.Task, Worker: last.Worker, Host: orElse(hosts[last.Worker], string(last.Worker)), Model: w.Model,
		Device: w.DeviceClass, DeviceName: w.DeviceName, Engine: w.Engine, Version: w.EngineVersion, EngineWhy: w.EngineWhy,
		Requested: w.Requested, Effective: w.Effective, Arm: last.Arm, Batch: w.Batch,
		Status: last.Status, Reason: last.Reason, Runs: len(measured), Comparable: comparable, Flags: []labmesh.BenchFlag{}, Doubts: []string{},
	}
	medianOf := func(f func(*labmesh.BenchRow) *float64) *float64 {
		var values []float64
		for i := range used {
			if v := f(&used[i].BenchRow); v != nil {
				values = append(values, *v)
			}
		}
		if len(values) == 0 {
			return nil
		}
		return new(stats.Median(values))
	}
	out.P90 = medianOf(func(r *labmesh.BenchRow) *float64 { return r.Wall.P90 })
	out.Throughput = medianOf(func(r *labmesh.BenchRow) *float64 { return r.Throughput })
	out.DeviceP50 = medianOf(func(r *labmesh.BenchRow) *float64 {
		if r.Device == nil {
			return nil
		}
		return &r.Device.P50
	})
	out.P50 = medianOf(func(r *labmesh.BenchRow) *float64 { return &r.Wall.P50 })
	out.Low, out.High = trust(used)
	for i := range rows {
		r := &rows[i]
		out.HostPeak, out.DevicePeak = larger(out.HostPeak, r.Resources.HostPeak), larger(out.DevicePeak, r.Resources.DevicePeak)
		for _, f := range r.Flags {
			if !slices.Contains(out.Flags, f) {
				out.Flags = append(out.Flags, f)
			}
		}
		for _, d := range r.Doubts {
			if !slices.Contains(out.Doubts, d) {
				out.Doubts = append(out.Doubts, d)
			}
		}
	}
	return out
}

// trust is how far the median may be trusted. Of enough runs it is the 95 %
// confidence interval over their medians, of few their least and greatest, and of a
// single one that of its own iterations.
func trust(runs []api.BenchTaskRow) (low, high *float64) {
	switch len(runs) {
	case 0:
		return nil, nil
	case 1:
		if ci := runs[0].Wall.CI95; ci != nil {
			return &ci[0], &ci[1]
		}
		return nil, nil
	}
	medians := make([]float64, len(runs))
	for i := range runs {
		medians[i] = runs[i].Wall.P50
	}
	t := stats.Timing(medians)
	if t.CI95 != nil {
		return &t.CI95[0], &t.CI95[1]
	}
	return &t.Min, &t.Max
}

func larger(a, b *int64) *int64 {
	if a == nil || b != nil && *b > *a {
		return b
	}
	return a
}

// compare compares the two arms of each task, all held to one standard; they are
// called base and cand.
func (r *benchReport) compare(base, cand string) error {
	a, err := report.ParseSelector("arm:a")
	if err != nil {
		return err
	}
	b, err := report.ParseSelector("arm:b")
	if err != nil {
		return err
	}
	r.Comparison, err = report.Compare(r.rows, a, b, stats.Options{})
	switch labmesh.ReasonOf(err) {
	case "":
		r.Comparison.A, r.Comparison.B = base, cand
	case labmesh.NotFound, labmesh.Invalid: // one arm has measured nothing
		r.Why = err.Error()
		return nil
	}
	return err
}

// failed counts the tasks that did not complete, or whose rows are not all here.
func (r *benchReport) failed() (n int) {
	for _, t := range r.Tasks {
		if t.Status != labmesh.Completed || t.Lacks != "" {
			n++
		}
	}
	return n
}

// measured reports whether there are times at all.
func (r *benchReport) measured() bool {
	return slices.ContainsFunc(r.Results, func(x benchResult) bool { return x.P50 != nil })
}

// flagWords are flags as people read them in the table.
var flagWords = map[labmesh.BenchFlag]string{
	labmesh.FlagContended: "others used the processor", labmesh.FlagThrottled: "throttled", labmesh.FlagUnstable: "unsteady times",
	labmesh.FlagFew: "few samples", labmesh.FlagForeignGPU: "others used the GPU", labmesh.FlagClockDrift: "the clock changed",
	labmesh.FlagProtocol: "runner broke the protocol", labmesh.FlagFallback: "other precision", labmesh.FlagTruncated: "stopped at its time limit",
	labmesh.FlagNoisy: "machine was not quiet",
}

func inWords(flags []labmesh.BenchFlag) string {
	out := make([]string, len(flags))
	for i, f := range flags {
		out[i] = orElse(flagWords[f], string(f))
	}
	return strings.Join(out, ", ")
}

// benchDoubtsMax bounds the doubts that are told under the table.
const benchDoubtsMax = 8

// printBench prints the table, what was doubtful, and the verdicts.
func (a *app) printBench(r *benchReport) error {
	if len(r.Results) > 0 {
		if err := a.printResults(r.Results); err != nil {
			return err
		}
	}
	for _, t := range r.Tasks {
		if t.Lacks != "" {
			a.note("labmesh: %s", printable(t.Lacks))
		}
		if t.Status != labmesh.Completed {
			a.note("%s %s (%s): %s", a.paint(a.err, phaseColour(t.Status), string(t.Status)), printable(t.Name), t.ID, printable(orElse(t.Error, "no reason was given")))
		}
	}
	a.noteDoubts(r)
	if r.Comparison != nil {
		fmt.Fprintln(a.out)
		return a.printComparisons(r.Comparison)
	}
	if r.Why != "" {
		a.note("labmesh: there is nothing to compare: %s", printable(r.Why))
	}
	return nil
}

func (a *app) printResults(results []benchResult) error {
	arms := slices.ContainsFunc(results, func(r benchResult) bool { return r.Arm != "" })
	models := slices.ContainsFunc(results, func(r benchResult) bool { return r.Model != results[0].Model })
	head := []string{"MACHINE", "DEVICE", "ENGINE", "PRECISION", "BATCH", "P50 MS", "RANGE", "P90 MS", "ITEMS/S", "RUNS", "MEMORY", "NOTES"}
	if arms {
		head = slices.Insert(head, 4, "ARM")
	}
	if models {
		head = slices.Insert(head, 0, "MODEL")
	}
	t := newTable(a.out, head...)
	for _, r := range results {
		cells := []any{r.Host, orElse(r.DeviceName, r.Device), r.Engine, precisionText(r), r.Batch, "-", "-", "-", "-", runsText(r), memoryText(r), notesText(r)}
		if r.P50 != nil {
			cells[5], cells[6], cells[7], cells[8] = figure(r.P50), rangeText(r.Low, r.High), figure(r.P90), figure(r.Throughput)
		} else {
			cells[5] = a.paint(a.out, yellow, string(r.Status))
		}
		if arms {
			cells = slices.Insert(cells, 4, any(r.Arm))
		}
		if models {
			cells = slices.Insert(cells, 0, any(r.Model))
		}
		t.row(cells...)
	}
	return t.flush()
}

// noteDoubts tells what lies behind the flags: on which machine, of how many
// runs, and in the words of one of them.
func (a *app) noteDoubts(r *benchReport) {
	type key struct {
		host string
		flag labmesh.BenchFlag
	}
	var order []key
	runs, said := map[key]int{}, map[key]string{}
	for i := range r.rows {
		row := &r.rows[i]
		for n, f := range row.Flags {
			k := key{orElse(row.Host, string(row.Worker)), f}
			if runs[k]++; runs[k] > 1 {
				continue
			}
			order = append(order, k)
			if said[k] = inWords([]labmesh.BenchFlag{f}); n < len(row.Doubts) {
				said[k] = row.Doubts[n]
			}
		}
	}
	for i, k := range order {
		if i == benchDoubtsMax {
			a.note("… and %d more: see the column doubts of benchmark_results", len(order)-i)
			break
		}
		more := ""
		if runs[k] > 1 {
			more = fmt.Sprintf(" (one of %d measurements with the flag %s)", runs[k], k.flag)
		}
		a.note("%s", printable(k.host+": "+said[k]+more))
	}
	weak := 0
	for _, x := range r.Results {
		if x.Runs > 0 && x.Comparable == 0 {
			weak++
		}
	}
	if weak > 0 {
		a.note("%s of %d without a run that is good enough to be compared with others", plural(weak, "line", "lines"), len(r.Results))
	}
}

func precisionText(r benchResult) string {
	if r.Effective != "" && r.Effective != r.Requested {
		return r.Requested + " (ran " + r.Effective + ")"
	}
	return r.Requested
}

func runsText(r benchResult) string {
	if r.Comparable == r.Runs {
		return strconv.Itoa(r.Runs)
	}
	return fmt.Sprintf("%d of %d good", r.Comparable, r.Runs)
}

// memoryText is the most memory it took: of the device where that is known.
func memoryText(r benchResult) string {
	switch {
	case r.DevicePeak != nil:
		return humanize.IBytes(uint64(max(*r.DevicePeak, 0)))
	case r.HostPeak != nil:
		return humanize.IBytes(uint64(max(*r.HostPeak, 0)))
	}
	return "-"
}

func notesText(r benchResult) string {
	if r.P50 == nil {
		return r.Reason
	}
	return inWords(r.Flags)
}

// figure is a number as the table shows it.
func figure(v *float64) string {
	if v == nil {
		return "-"
	}
	return digits(*v)
}

func rangeText(low, high *float64) string {
	if low == nil || high == nil {
		return "-"
	}
	return figure(low) + "–" + figure(high)
}
