package report

import (
	"cmp"
	"fmt"
	"slices"
	"time"

	"labmesh"
)

// curvesMax bounds a set of curves.
const curvesMax = 50

// CurveSet is how time and throughput grow with the batch size.
type CurveSet struct {
	Curves    []Curve `json:"curves"`
	Truncated bool    `json:"truncated"`
}

// Curve is one model by one engine on one device.
type Curve struct {
	Name      string `json:"name"` // for a legend: what tells it from the others of its set
	Model     string `json:"model"`
	Precision string `json:"precision"`
	Variant          // its series is that of the newest point
	Points    []Size `json:"points"` // by batch size
}

// Size is what the newest task that measured a batch size came to.
type Size struct {
	Batch      int            `json:"batch"`
	Task       labmesh.TaskID `json:"task_id"`
	Time       time.Time      `json:"time"`
	Runs       int            `json:"runs"`
	MedianMS   float64        `json:"median_ms"` // of the runs' medians
	LowMS      float64        `json:"low_ms"`    // the least of them
	HighMS     float64        `json:"high_ms"`   // and the most
	Throughput *float64       `json:"throughput,omitempty"`
}

// Curves are the curves that rows make: of each batch size the newest task counts.
// Runs that are not comparable count where there are no others.
func Curves(rows []Row) *CurveSet {
	measured := slices.DeleteFunc(slices.Clone(rows), func(r Row) bool { return !r.timed() || r.Arm == "b" })
	name := func(r *Row) string {
		return fmt.Sprintf("%s\x00%s\x00%s\x00%s\x00%s\x00%s\x00%d", r.Work.Model, r.precision(), r.Work.Engine, r.Work.DeviceClass, r.Work.DeviceName, r.Worker, r.Work.Threads)
	}
	groups, out := grouped(measured, name), &CurveSet{Curves: []Curve{}}
	for _, k := range sortedKeys(measured, name) {
		out.Curves = append(out.Curves, curveOf(groups[k]))
	}
	if len(out.Curves) > curvesMax {
		slices.SortStableFunc(out.Curves, func(a, b Curve) int { return b.newest().Compare(a.newest()) })
		out.Curves, out.Truncated = out.Curves[:curvesMax], true
	}
	nameCurves(out.Curves)
	return out
}

func (c *Curve) newest() (t time.Time) {
	for _, p := range c.Points {
		if p.Time.After(t) {
			t = p.Time
		}
	}
	return t
}

func curveOf(rows []Row) Curve {
	last := &rows[len(rows)-1]
	c := Curve{Model: last.Work.Model, Precision: last.precision(), Variant: variantOf(last), Points: []Size{}}
	byBatch := grouped(rows, func(r *Row) string { return fmt.Sprint(r.Work.Batch) })
	for _, same := range byBatch {
		newest := slices.MaxFunc(same, func(a, b Row) int { return a.Started.Compare(b.Started) })
		same = slices.DeleteFunc(same, func(r Row) bool { return r.Task != newest.Task })
		c.Points = append(c.Points, sizeOf(same))
	}
	slices.SortFunc(c.Points, func(a, b Size) int { return cmp.Compare(a.Batch, b.Batch) })
	return c
}

// sizeOf sums up the rows of one task at one batch size.
func sizeOf(rows []Row) Size {
	if slices.ContainsFunc(rows, func(r Row) bool { return r.Comparable }) {
		rows = slices.DeleteFunc(rows, func(r Row) bool { return !r.Comparable })
	}
	var ms, throughput []float64
	for i := range rows {
		ms = append(ms, rows[i].Wall.P50)
		if t := rows[i].Throughput; t != nil {
			throughput = append(throughput, *t)
		}
	}
	from, _ := span(rows)
	return Size{
		Batch: rows[0].Work.Batch, Task: rows[0].Task, Time: from, Runs: len(rows),
		MedianMS: *median(ms), LowMS: slices.Min(ms), HighMS: slices.Max(ms), Throughput: median(throughput),
	}
}

// nameCurves names each curve by what is not the same for all of them, and by its
// engine and device in any case.
func nameCurves(curves []Curve) {
	differs := func(of func(Curve) string) bool {
		return slices.ContainsFunc(curves, func(c Curve) bool { return of(c) != of(curves[0]) })
	}
	model, precision := differs(func(c Curve) string { return c.Model }), differs(func(c Curve) string { return c.Precision })
	worker, threads := differs(func(c Curve) string { return string(c.Worker) }), differs(func(c Curve) string { return fmt.Sprint(c.Threads) })
	for i := range curves {
		c := &curves[i]
		c.Name = c.Engine + ", " + deviceName(c.Device, c.DeviceName)
		if model {
			c.Name = c.Model + ", " + c.Name
		}
		if precision {
			c.Name += ", " + c.Precision
		}
		if threads && c.Threads > 0 {
			c.Name += fmt.Sprintf(", %d threads", c.Threads)
		}
		if worker {
			c.Name += ", " + c.Machine()
		}
	}
}

// Curves are the two sides of c, for a plot.
func (c *Comparisons) Curves() *CurveSet {
	type line struct {
		side, model, precision, variant string
	}
	lines, order := map[line]*Curve{}, []line(nil)
	add := func(side string, x *Comparison, s *Side) {
		if s.MedianMS == nil {
			return
		}
		l := line{side, x.Model, x.Precision, s.Variant.String()}
		if lines[l] == nil {
			lines[l] = &Curve{Model: x.Model, Precision: x.Precision, Variant: s.Variant}
			order = append(order, l)
		}
		lines[l].Points = append(lines[l].Points, Size{
			Batch: x.Batch, Time: s.From, Runs: len(s.MediansMS), MedianMS: *s.MedianMS,
			LowMS: slices.Min(s.MediansMS), HighMS: slices.Max(s.MediansMS), Throughput: s.Throughput,
		})
	}
	for i := range c.Comparisons {
		x := &c.Comparisons[i]
		add(c.A, x, &x.A)
		add(c.B, x, &x.B)
	}
	out := &CurveSet{Curves: []Curve{}, Truncated: len(order) > curvesMax}
	for _, l := range order[:min(len(order), curvesMax)] {
		slices.SortFunc(lines[l].Points, func(a, b Size) int { return cmp.Compare(a.Batch, b.Batch) })
		lines[l].Points = slices.CompactFunc(lines[l].Points, func(a, b Size) bool { return a.Batch == b.Batch })
		out.Curves = append(out.Curves, *lines[l])
	}
	nameCurves(out.Curves)
	for i, l := range order[:len(out.Curves)] {
		out.Curves[i].Name = l.side + ": " + out.Curves[i].Name
	}
	return out
}
