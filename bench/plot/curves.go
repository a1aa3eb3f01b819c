package plot

import (
	"fmt"
	"io"
	"math"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"

	"labmesh/bench/report"
)

// linesMax bounds the curves of one drawing: more cannot be told apart.
const linesMax = 14

// Curves draws latency and throughput over the batch size, a line for each curve.
func Curves(w io.Writer, title string, set *report.CurveSet, f Format) error {
	curves := drawable(set.Curves)
	if more := len(curves) - linesMax; more > 0 {
		title, curves = fmt.Sprintf("%s (%d more are not drawn)", title, more), curves[:linesMax]
	}
	legend := lineHeight*vg.Length(len(curves)) + margin
	s, err := newSheet(f, 2*panel+legend)
	if err != nil {
		return err
	}
	latency, throughput := logPlot(curves), logPlot(curves)
	latency.Title.Text = short(title)
	throughput.X.Label.Text = "batch size (items)"
	names := plot.NewLegend()
	names.TextStyle, names.ThumbnailWidth, names.Padding = style(9), 8*vg.Millimeter, vg.Points(2)
	names.Left, names.XOffs, names.Top = true, 12*vg.Millimeter, true
	for i, c := range curves {
		thumb, err := addCurve(latency, i, latencies(c.Points))
		if err == nil {
			_, err = addCurve(throughput, i, throughputs(c.Points))
		}
		if err != nil {
			return fmt.Errorf("draw %s: %w", c.Name, err)
		}
		names.Add(short(c.Name), thumb...)
	}
	fit(latency)
	fit(throughput)
	area := draw.Crop(s.Canvas, 0, -3*vg.Millimeter, legend, 0)
	cells := plot.Align([][]*plot.Plot{{latency}, {throughput}}, draw.Tiles{Rows: 2, Cols: 1, PadY: 3 * vg.Millimeter, PadTop: 2 * vg.Millimeter, PadLeft: margin}, area)
	latency.Draw(cells[0][0])
	throughput.Draw(cells[1][0])
	s.upright("latency, median of runs (ms)", cells[0][0])
	s.upright("throughput (items/s)", cells[1][0])
	names.Draw(draw.Crop(s.Canvas, 0, 0, 0, legend-(s.Max.Y-s.Min.Y)))
	return s.write(w)
}

// upright names the vertical axis of a plot. The library would take the label for
// one in the middle of an even axis, and leave room for that.
func (s sheet) upright(label string, cell draw.Canvas) {
	look := style(9)
	look.Rotation, look.XAlign, look.YAlign = math.Pi/2, draw.XCenter, draw.YTop
	s.FillText(look, vg.Point{X: s.Min.X + vg.Millimeter, Y: cell.Center().Y}, label)
}

// drawable are the curves that have points, without points that a logarithmic
// axis has no place for.
func drawable(curves []report.Curve) (out []report.Curve) {
	for _, c := range curves {
		var points []report.Size
		for _, p := range c.Points {
			if p.Batch > 0 && good(p.LowMS) && good(p.MedianMS) && good(p.HighMS) {
				points = append(points, p)
			}
		}
		if c.Points = points; len(points) > 0 {
			out = append(out, c)
		}
	}
	return out
}

// good reports whether v has a place on a logarithmic axis.
func good(v float64) bool { return v > 0 && !math.IsInf(v, 0) }

// logPlot is a plot with two logarithmic axes and ticks at the batch sizes of curves.
func logPlot(curves []report.Curve) *plot.Plot {
	p := newPlot()
	grid := plotter.NewGrid()
	p.Add(grid)
	p.X.Scale, p.Y.Scale = plot.LogScale{}, plot.LogScale{}
	marks := sizes{}
	for _, c := range curves {
		for _, at := range c.Points {
			marks = append(marks, at.Batch)
		}
	}
	if len(marks) == 0 {
		marks = sizes{1}
	}
	p.X.Tick.Marker, p.Y.Tick.Marker = marks, decades{}
	return p
}

// fit gives the axes room around what they show, so that no point lies on the
// frame and no axis has length zero.
func fit(p *plot.Plot) {
	for _, a := range []*plot.Axis{&p.X, &p.Y} {
		if a.Min > a.Max { // nothing was drawn
			a.Min, a.Max = 1, 1
		}
		room := max(1.15, math.Pow(a.Max/a.Min, 0.05))
		a.Min, a.Max = a.Min/room, a.Max*room
	}
}

// range of a curve at one batch size.
type spot struct{ x, y, low, high float64 }

func latencies(points []report.Size) (out []spot) {
	for _, p := range points {
		out = append(out, spot{float64(p.Batch), p.MedianMS, p.LowMS, p.HighMS})
	}
	return out
}

func throughputs(points []report.Size) (out []spot) {
	for _, p := range points {
		if p.Throughput != nil && good(*p.Throughput) {
			out = append(out, spot{float64(p.Batch), *p.Throughput, *p.Throughput, *p.Throughput})
		}
	}
	return out
}

// spots are points with their spread, as the library wants them.
type spots struct {
	plotter.XYs
	plotter.YErrors
}

// addCurve draws a line through spots, with a bar from low to high at each.
func addCurve(p *plot.Plot, i int, at []spot) ([]plot.Thumbnailer, error) {
	if len(at) == 0 {
		return nil, nil
	}
	data := spots{make(plotter.XYs, len(at)), make(plotter.YErrors, len(at))}
	for j, s := range at {
		data.XYs[j].X, data.XYs[j].Y = s.x, s.y
		data.YErrors[j].Low, data.YErrors[j].High = s.y-s.low, s.high-s.y
	}
	line, dots, err := plotter.NewLinePoints(data.XYs)
	if err != nil {
		return nil, err
	}
	bars, err := plotter.NewYErrorBars(data)
	if err != nil {
		return nil, err
	}
	line.LineStyle, dots.GlyphStyle = pen(i)
	bars.LineStyle = draw.LineStyle{Color: line.Color, Width: vg.Points(0.8)}
	p.Add(bars, line, dots)
	return []plot.Thumbnailer{line, dots}, nil
}
