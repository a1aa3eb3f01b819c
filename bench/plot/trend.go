package plot

import (
	"cmp"
	"fmt"
	"image/color"
	"io"
	"slices"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"

	"labmesh/bench/report"
	"labmesh/stats"
)

// panelsMax bounds the series of one drawing.
const panelsMax = 8

// Trends draws series over time, each in a panel of its own: those that changed
// first. A change is a line with its size and its commit; levels are the medians between.
func Trends(w io.Writer, title string, t *report.Trends, f Format) error {
	series := slices.DeleteFunc(slices.Clone(t.Series), func(s report.Trend) bool { return len(s.Points) == 0 })
	if more := len(series) - panelsMax; more > 0 {
		slices.SortStableFunc(series, func(a, b report.Trend) int {
			return cmp.Or(cmp.Compare(len(b.Changes), len(a.Changes)), cmp.Compare(len(b.Points), len(a.Points)))
		})
		title, series = fmt.Sprintf("%s (%d more series are not drawn)", title, more), series[:panelsMax]
	}
	s, err := newSheet(f, low*vg.Length(max(1, len(series)))+heading)
	if err != nil {
		return err
	}
	rows := make([][]*plot.Plot, 0, len(series))
	for i := range series {
		p, err := trendPlot(&series[i])
		if err != nil {
			return fmt.Errorf("draw %s: %w", name(&series[i]), err)
		}
		rows = append(rows, []*plot.Plot{p})
	}
	large := style(11)
	large.XAlign, large.YAlign = draw.XCenter, draw.YTop
	s.FillText(large, vg.Point{X: s.Center().X, Y: s.Max.Y - 2*vg.Millimeter}, short(title))
	if len(rows) == 0 {
		s.FillText(large, s.Center(), "no results")
		return s.write(w)
	}
	area := draw.Crop(s.Canvas, 0, -4*vg.Millimeter, 0, -heading)
	for i, cells := range plot.Align(rows, draw.Tiles{Rows: len(rows), Cols: 1, PadY: 2 * vg.Millimeter}, area) {
		rows[i][0].Draw(cells[0])
	}
	return s.write(w)
}

func name(t *report.Trend) string {
	return fmt.Sprintf("%s %s, batch %d: %s", t.Model, t.Precision, t.Batch, t.Variant)
}

// trendPlot is one series.
func trendPlot(t *report.Trend) (*plot.Plot, error) {
	p := newPlot()
	p.Title.Text = short(name(t))
	p.Y.Label.Text, p.X.Label.Text = "median latency (ms)", "time (UTC)"
	p.X.Tick.Marker = dates{}
	p.Add(plotter.NewGrid())
	xy := make(plotter.XYs, len(t.Points))
	for i, at := range t.Points {
		xy[i].X, xy[i].Y = float64(at.Time.Unix()), at.MedianMS
	}
	line, dots, err := plotter.NewLinePoints(xy)
	if err != nil {
		return nil, err
	}
	line.LineStyle, dots.GlyphStyle = pen(0)
	line.Width, line.Color = vg.Points(0.6), color.RGBA{150, 180, 205, 255}
	p.Add(line, dots)
	stretch(&p.X, 1)
	stretch(&p.Y, p.Y.Max*0.01)
	p.Y.Max += (p.Y.Max - p.Y.Min) * 0.2 // room for what changes are called
	if err := addLevels(p, t, xy); err != nil {
		return nil, err
	}
	return p, addChanges(p, t, xy)
}

// stretch gives an axis room, and a length of at least least.
func stretch(a *plot.Axis, least float64) {
	room := max((a.Max-a.Min)*0.05, least/2)
	a.Min, a.Max = a.Min-room, a.Max+room
}

// addLevels draws the median of each stretch between changes.
func addLevels(p *plot.Plot, t *report.Trend, xy plotter.XYs) error {
	from := 0
	for i := 0; i <= len(t.Changes); i++ {
		upto := len(xy)
		if i < len(t.Changes) {
			upto = t.Changes[i].At
		}
		ms := make([]float64, 0, upto-from)
		for _, at := range xy[from:upto] {
			ms = append(ms, at.Y)
		}
		level, err := plotter.NewLine(plotter.XYs{{X: xy[from].X, Y: stats.Median(ms)}, {X: xy[upto-1].X, Y: stats.Median(ms)}})
		if err != nil {
			return err
		}
		level.LineStyle = draw.LineStyle{Color: color.Black, Width: vg.Points(1.2)}
		p.Add(level)
		from = upto
	}
	return nil
}

// addChanges draws a line where the series changed, red where it became slower,
// and says by how much and with which commit.
func addChanges(p *plot.Plot, t *report.Trend, xy plotter.XYs) error {
	for i, c := range t.Changes {
		x := (xy[c.At-1].X + xy[c.At].X) / 2
		mark, err := plotter.NewLine(plotter.XYs{{X: x, Y: p.Y.Min}, {X: x, Y: p.Y.Max}})
		if err != nil {
			return err
		}
		_, look := pen(2)
		if c.Outcome == stats.Regression {
			_, look = pen(1)
		}
		mark.LineStyle = draw.LineStyle{Color: look.Color, Width: vg.Points(1.2), Dashes: []vg.Length{vg.Points(4), vg.Points(2)}}
		words, err := plotter.NewLabels(plotter.XYLabels{XYs: plotter.XYs{{X: x, Y: p.Y.Max}}, Labels: []string{label(&c)}})
		if err != nil {
			return err
		}
		words.TextStyle[0] = style(9)
		words.TextStyle[0].Color = look.Color
		words.TextStyle[0].YAlign = draw.YTop
		words.Offset = vg.Point{X: vg.Points(4), Y: -vg.Points(3) - vg.Length(i%2)*vg.Points(11)}
		if x > (p.X.Min+p.X.Max)/2 {
			words.TextStyle[0].XAlign, words.Offset.X = draw.XRight, -vg.Points(4)
		}
		p.Add(mark, words)
	}
	return nil
}

// commitChars are shown of a commit.
const commitChars = 10

func label(c *report.Change) string {
	commit := c.FirstCommit
	if len(commit) > commitChars {
		commit = commit[:commitChars]
	}
	return fmt.Sprintf("%+.1f %% %s", 100*c.Share, commit)
}
