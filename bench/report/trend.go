package report

import (
	"cmp"
	"slices"
	"time"

	"labmesh"
	"labmesh/stats"
)

// Limits on a report of trends. Finding changes takes time that grows with the
// square of the points.
const (
	seriesMax = 100
	pointsMax = 200 // the newest of a series
)

// Trends is the report on series of results over time.
type Trends struct {
	Series    []Trend `json:"series"`
	Truncated bool    `json:"truncated"`
}

// Trend is one series over time, on one worker.
type Trend struct {
	Model     string `json:"model"`
	Batch     int    `json:"batch"`
	Precision string `json:"precision"`
	Variant
	Points  []Point  `json:"points"`  // the oldest first
	Changes []Change `json:"changes"` // the oldest first
	LeftOut int      `json:"left_out"`
}

// Point is one measurement of a series: the runs of one task. They share the
// machine's mood of that hour, so they are one point and not many.
type Point struct {
	Time       time.Time         `json:"time"` // of the first run
	Task       labmesh.TaskID    `json:"task_id"`
	Commit     string            `json:"commit,omitempty"`
	Labels     map[string]string `json:"labels,omitempty"`
	Runs       int               `json:"runs"`
	MedianMS   float64           `json:"median_ms"` // of the runs' medians
	Throughput *float64          `json:"throughput,omitempty"`
}

// Change is where a series changed for good.
type Change struct {
	At           int           `json:"at"` // index of the first point after it
	Outcome      stats.Outcome `json:"outcome"`
	BeforeMS     float64       `json:"before_ms"` // median of the points since the change before
	AfterMS      float64       `json:"after_ms"`  // and until the next
	Share        float64       `json:"change"`    // of what was before; 0.1 is 10 % slower
	P            float64       `json:"p"`
	First        Point         `json:"first"`                  // after it
	LastCommit   string        `json:"last_commit,omitempty"`  // before it
	FirstCommit  string        `json:"first_commit,omitempty"` // after it
	PointsAfter  int           `json:"points_after"`
	PointsBefore int           `json:"points_before"`
}

// FindChanges finds the changes of every series among rows.
func FindChanges(rows []Row, opt stats.TrendOptions) (*Trends, error) {
	if err := asked(opt.Alpha, opt.Effect); err != nil {
		return nil, err
	}
	measured := slices.DeleteFunc(slices.Clone(rows), func(r Row) bool { return !r.timed() || r.Arm == "b" })
	name := func(r *Row) string { return r.Series + "\x00" + string(r.Worker) }
	groups, out := grouped(measured, name), &Trends{Series: []Trend{}}
	for _, k := range sortedKeys(measured, name) {
		out.Series = append(out.Series, trendOf(groups[k]))
	}
	slices.SortStableFunc(out.Series, func(x, y Trend) int {
		return cmp.Or(cmp.Compare(x.Model, y.Model), cmp.Compare(x.Precision, y.Precision), cmp.Compare(x.Variant.String(), y.Variant.String()), cmp.Compare(x.Batch, y.Batch))
	})
	if len(out.Series) > seriesMax {
		out.Series, out.Truncated = out.Series[:seriesMax], true
	}
	for i := range out.Series {
		out.Series[i].find(opt)
	}
	return out, nil
}

// trendOf is the series that rows make, in order of time.
func trendOf(rows []Row) Trend {
	last := &rows[len(rows)-1]
	t := Trend{Model: last.Work.Model, Batch: last.Work.Batch, Precision: last.precision(), Variant: variantOf(last), Points: []Point{}, Changes: []Change{}}
	task := func(r *Row) string { return string(r.Task) }
	tasks := grouped(rows, task)
	for _, id := range sortedKeys(rows, task) {
		p := Point{Task: labmesh.TaskID(id)}
		var ms, throughput []float64
		for _, r := range tasks[id] {
			if !r.usable() {
				t.LeftOut++
				continue
			}
			if p.Time.IsZero() || r.Started.Before(p.Time) {
				p.Time = r.Started
			}
			p.Labels, p.Commit = r.Labels, r.Commit()
			ms = append(ms, r.Wall.P50)
			if r.Throughput != nil {
				throughput = append(throughput, *r.Throughput)
			}
		}
		if len(ms) > 0 {
			p.Runs, p.MedianMS, p.Throughput = len(ms), stats.Median(ms), median(throughput)
			t.Points = append(t.Points, p)
		}
	}
	slices.SortStableFunc(t.Points, func(a, b Point) int { return a.Time.Compare(b.Time) })
	t.Points = t.Points[max(0, len(t.Points)-pointsMax):]
	return t
}

func (t *Trend) find(opt stats.TrendOptions) {
	ms := make([]float64, len(t.Points))
	for i, p := range t.Points {
		ms[i] = p.MedianMS
	}
	cuts := stats.ChangePoints(ms, opt)
	for i, c := range cuts {
		lo, hi := 0, len(ms)
		if i > 0 {
			lo = cuts[i-1].At
		}
		if i+1 < len(cuts) {
			hi = cuts[i+1].At
		}
		x := Change{
			At: c.At, Outcome: stats.Improvement, BeforeMS: c.Before, AfterMS: c.After, Share: c.Change(), P: c.P,
			First: t.Points[c.At], FirstCommit: t.Points[c.At].Commit, LastCommit: t.Points[c.At-1].Commit,
			PointsBefore: c.At - lo, PointsAfter: hi - c.At,
		}
		if c.After > c.Before {
			x.Outcome = stats.Regression
		}
		t.Changes = append(t.Changes, x)
	}
}

// Newest is the last change of t, nil for none.
func (t *Trend) Newest() *Change {
	if len(t.Changes) == 0 {
		return nil
	}
	return &t.Changes[len(t.Changes)-1]
}

// Regressed counts the series whose newest change made them slower.
func (t *Trends) Regressed() (n int) {
	for i := range t.Series {
		if c := t.Series[i].Newest(); c != nil && c.Outcome == stats.Regression {
			n++
		}
	}
	return n
}
