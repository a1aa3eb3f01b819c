package report

import (
	"encoding/json"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"labmesh"
	"labmesh/bench"
)

// RowsMax bounds the rows that one report is made of: the newest that qualify.
const RowsMax = 20_000

// Filter chooses the rows of a report. Zero fields choose all.
type Filter struct {
	Model  string
	Batch  int
	Worker string
	Engine string
	Device string
	Where  map[string]string // labels
	Since  time.Time
	Sides  []Selector // rows that one of them chooses
}

// Canonical is a model's name as rows have it.
func Canonical(model string) string {
	if m, ok := bench.FindModel(model); ok {
		return m.Name
	}
	return model
}

// SQL is a statement on the ledger that gives the rows as [Decode] reads them, the
// newest first. It may give rows that [Filter.Keep] leaves out.
func (f Filter) SQL() string {
	where := f.conditions()
	if len(f.Sides) > 0 {
		var sides []string
		for _, s := range f.Sides {
			sides = append(sides, s.sql())
		}
		where = append(where, "("+strings.Join(sides, " OR ")+")")
	}
	return rowsSQL + "\nWHERE " + strings.Join(where, "\n  AND ") + "\nORDER BY b.started_at DESC, b.id DESC LIMIT " + strconv.Itoa(RowsMax+1)
}

// rowsSQL makes of a row of the ledger the JSON of a [Row].
const rowsSQL = `SELECT to_json({
	'task_id': b.task_id, 'attempt': b.attempt, 'worker_id': b.worker_id, 'hostname': w.hostname, 'labels': b.labels,
	'run_id': b.run_id, 'repeat': b.repeat, 'arm': b.arm, 'series_key': b.series_key, 'compare_key': b.compare_key,
	'started_at': strftime(b.started_at, '%Y-%m-%dT%H:%M:%S.%fZ'), 'finished_at': strftime(coalesce(b.finished_at, b.started_at), '%Y-%m-%dT%H:%M:%S.%fZ'),
	'work': {'model': b.model, 'batch': b.batch, 'precision_requested': b.precision_requested, 'precision_effective': b.precision_effective,
		'threads': b.threads, 'engine': b.engine, 'engine_version': b.engine_version, 'kernel': b.kernel,
		'device_class': b.device_class, 'device_name': b.device_name, 'device_uuid': b.device_uuid},
	'status': b.status, 'reason': b.reason, 'n': b.iterations, 'comparable': b.comparable, 'flags': b.flags, 'throughput': b.throughput,
	'wall': CASE WHEN b.p50_ms IS NOT NULL THEN {'p50': b.p50_ms, 'min': b.min_ms, 'max': b.max_ms, 'mean': b.mean_ms, 'mad': b.mad_ms} END
})::VARCHAR AS result
FROM benchmark_results b LEFT JOIN worker_nodes w ON w.worker_id = b.worker_id`

// conditions are those on all rows.
func (f Filter) conditions() []string {
	where := []string{"b.started_at IS NOT NULL"}
	if f.Model != "" {
		where = append(where, "b.model = "+quote(Canonical(f.Model)))
	}
	if f.Batch > 0 {
		where = append(where, "b.batch = "+strconv.Itoa(f.Batch))
	}
	if !f.Since.IsZero() {
		where = append(where, "b.started_at >= TIMESTAMP "+quote(f.Since.UTC().Format("2006-01-02 15:04:05.999999")))
	}
	return append(where, all(f.terms())...)
}

// terms are the conditions of f that selectors know as well.
func (f Filter) terms() (out []term) {
	for _, t := range []term{{byWorker, f.Worker}, {byEngine, f.Engine}, {byDevice, f.Device}} {
		if t.value != "" {
			out = append(out, t)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(f.Where)) {
		out = append(out, term{byLabel + name, f.Where[name]})
	}
	return out
}

// Keep is the rows that f chooses among rows, whatever its sides say.
func (f Filter) Keep(rows []Row) []Row {
	var out []Row
	for i := range rows {
		r := &rows[i]
		keep := (f.Model == "" || r.Work.Model == Canonical(f.Model)) && (f.Batch == 0 || r.Work.Batch == f.Batch) && !r.Started.Before(f.Since)
		for _, t := range f.terms() {
			keep = keep && t.matches(r)
		}
		if keep {
			out = append(out, *r)
		}
	}
	return out
}

// describe says what f asks for, beginning with a space.
func (f Filter) describe() string {
	var b strings.Builder
	if f.Model != "" {
		fmt.Fprintf(&b, " model %s", f.Model)
	}
	if f.Batch > 0 {
		fmt.Fprintf(&b, " batch %d", f.Batch)
	}
	for _, t := range f.terms() {
		if name, ok := strings.CutPrefix(t.field, byLabel); ok {
			fmt.Fprintf(&b, " %s=%s", name, t.value)
		} else {
			fmt.Fprintf(&b, " %s %s", t.field, t.value)
		}
	}
	if !f.Since.IsZero() {
		fmt.Fprintf(&b, " since %s", f.Since.UTC().Format(time.RFC3339))
	}
	return b.String()
}

func (s Selector) sql() string { return "(" + strings.Join(all(s.terms), " AND ") + ")" }

func all(terms []term) (out []string) {
	for _, t := range terms {
		out = append(out, t.sql())
	}
	return out
}

// sql is a condition that every row which t matches meets.
func (t term) sql() string {
	is := func(column string) string { return column + " = " + quote(t.value) }
	folded := func(column string) string { return "lower(" + column + ") = lower(" + quote(t.value) + ")" }
	switch t.field {
	case byAny:
		return "(" + is("b.task_id") + " OR " + is("b.run_id") + " OR " + commitSQL(t.value) + ")"
	case byTask:
		return is("b.task_id")
	case byRun:
		return is("b.run_id")
	case byCommit:
		return commitSQL(t.value)
	case byWorker:
		return "(" + is("b.worker_id") + " OR " + folded("w.hostname") + ")"
	case byEngine:
		return folded("b.engine")
	case byDevice:
		return "(" + folded("b.device_class") + " OR " + is("b.device_uuid") + " OR contains(lower(b.device_name), lower(" + quote(t.value) + ")))"
	case byArm:
		return is("b.arm")
	}
	return labelSQL(strings.TrimPrefix(t.field, byLabel)) + " = " + quote(t.value)
}

func commitSQL(prefix string) string {
	var either []string
	for _, l := range commitLabels {
		either = append(either, "starts_with(lower("+labelSQL(l)+"), lower("+quote(prefix)+"))")
	}
	return "(" + strings.Join(either, " OR ") + ")"
}

// labelSQL is the value of a label. A name that would be read as a path into the
// JSON is looked up in the map of all.
func labelSQL(name string) string {
	if plainName.MatchString(name) {
		return "(b.labels->>" + quote("$."+name) + ")"
	}
	return "CAST(b.labels AS MAP(VARCHAR, VARCHAR))[" + quote(name) + "]"
}

var plainName = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]*$`)

// ParseSince reads a time, or how long it is before now: 2026-03-04, 36h or 14d. A
// time that names no zone is in that of now. Nothing means the beginning.
func ParseSince(text string, now time.Time) (time.Time, error) {
	if text == "" {
		return time.Time{}, nil
	}
	if days, ok := strings.CutSuffix(text, "d"); ok {
		if n, err := strconv.ParseFloat(days, 64); err == nil && n >= 0 && n <= daysMax {
			return now.Add(-time.Duration(n * 24 * float64(time.Hour))), nil
		}
	}
	if d, err := time.ParseDuration(text); err == nil && d >= 0 {
		return now.Add(-d), nil
	}
	for _, layout := range []string{time.RFC3339, "2006-01-02T15:04:05", time.DateTime, "2006-01-02 15:04", time.DateOnly} {
		if t, err := time.ParseInLocation(layout, text, now.Location()); err == nil {
			return t, nil
		}
	}
	return time.Time{}, labmesh.RefuseField("since", "since: %.40q is not a time, like 2026-03-04 or 2026-03-04T12:00:00Z, and not how long ago, like 36h or 14d", text)
}

// daysMax bounds how long ago something was: a duration holds 292 years.
const daysMax = 36_500

// quote is s as a text in SQL.
func quote(s string) string {
	return "'" + strings.ReplaceAll(strings.ReplaceAll(s, "\x00", ""), "'", "''") + "'"
}

// Decode reads the rows that [Filter.SQL] gave, each the JSON of one, and puts the
// oldest first. truncated says that there are more, older ones.
func Decode(results []string) (rows []Row, truncated bool, err error) {
	if len(results) > RowsMax {
		results, truncated = results[:RowsMax], true
	}
	rows = make([]Row, len(results))
	for i, text := range results {
		r := &rows[len(results)-1-i]
		if err := json.Unmarshal([]byte(text), r); err != nil {
			return nil, false, fmt.Errorf("read a benchmark result of the ledger: %w", err)
		}
		if !(r.Wall == nil || r.Wall.P50 >= 0) {
			r.Wall = nil
		}
	}
	return rows, truncated, nil
}

// asked refuses options that make no sense.
func asked(alpha, effect float64) error {
	switch {
	case !(alpha >= 0 && alpha <= 0.5):
		return labmesh.RefuseField("alpha", "alpha: %g is not in 0 to 0.5; 0.01 is usual", alpha)
	case !(effect >= 0 && effect <= 10):
		return labmesh.RefuseField("effect", "effect: %g is not in 0 to 10; 0.05 stands for 5 %%", effect)
	}
	return nil
}
