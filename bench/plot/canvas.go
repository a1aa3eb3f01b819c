package plot

import (
	"bytes"
	"fmt"
	"image/color"
	"io"
	"path/filepath"
	"strings"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/font"
	"gonum.org/v1/plot/text"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"
	"gonum.org/v1/plot/vg/vgimg"
	"gonum.org/v1/plot/vg/vgsvg"

	"labmesh"
)

// Format is the form of a drawing.
type Format string

// The formats.
const (
	SVG Format = "svg"
	PNG Format = "png"
)

// MediaType is how HTTP calls f.
func (f Format) MediaType() string {
	if f == PNG {
		return "image/png"
	}
	return "image/svg+xml"
}

// FormatOf is the format that a file's name asks for.
func FormatOf(file string) (Format, error) {
	switch f := Format(strings.TrimPrefix(strings.ToLower(filepath.Ext(file)), ".")); f {
	case SVG, PNG:
		return f, nil
	default:
		return "", labmesh.Refuse(labmesh.Invalid, "%s: a plot is a file .svg or .png", file)
	}
}

// Sizes of what is drawn.
const (
	width      = 24 * vg.Centimeter
	panel      = 8 * vg.Centimeter // height of one plot
	low        = 5.5 * vg.Centimeter
	lineHeight = 3.6 * vg.Millimeter // of a legend
	heading    = 9 * vg.Millimeter
	margin     = 5 * vg.Millimeter
	dpi        = 120
	nameMax    = 110 // characters of a name
)

// sheet is a canvas of a format.
type sheet struct {
	draw.Canvas
	out io.WriterTo
}

func newSheet(f Format, height vg.Length) (sheet, error) {
	switch f {
	case SVG:
		c := vgsvg.New(width, height)
		return blank(sheet{draw.New(c), anyFont{c}}), nil
	case PNG:
		c := vgimg.PngCanvas{Canvas: vgimg.NewWith(vgimg.UseWH(width, height), vgimg.UseDPI(dpi))}
		return blank(sheet{draw.New(c), c}), nil
	}
	return sheet{}, labmesh.Refuse(labmesh.Invalid, "a plot is svg or png, not %.20q", f)
}

// blank paints s white: what a browser shows behind it may be dark.
func blank(s sheet) sheet {
	s.SetColor(color.White)
	s.Fill(s.Rectangle.Path())
	return s
}

// anyFont names, in an SVG, fonts for those who do not have the one that it was measured with.
type anyFont struct{ from io.WriterTo }

// WriteTo writes the SVG.
func (a anyFont) WriteTo(w io.Writer) (int64, error) {
	var b bytes.Buffer
	if _, err := a.from.WriteTo(&b); err != nil {
		return 0, err
	}
	ours := []byte(`style="font-family:Liberation Sans;`) // no text holds it: quotes are escaped there
	n, err := w.Write(bytes.ReplaceAll(b.Bytes(), ours, []byte(`style="font-family:Liberation Sans,Arial,Helvetica,sans-serif;`)))
	return int64(n), err
}

func (s sheet) write(w io.Writer) error {
	if _, err := s.out.WriteTo(w); err != nil {
		return fmt.Errorf("write a plot: %w", err)
	}
	return nil
}

// newPlot is an empty plot in the style of the house.
func newPlot() *plot.Plot {
	p := plot.New()
	for _, s := range []*text.Style{&p.Title.TextStyle, &p.X.Label.TextStyle, &p.Y.Label.TextStyle, &p.X.Tick.Label, &p.Y.Tick.Label, &p.Legend.TextStyle} {
		*s = style(9)
	}
	p.Title.TextStyle = style(10)
	p.X.Tick.Label.XAlign, p.X.Tick.Label.YAlign = draw.XCenter, draw.YTop
	p.Y.Tick.Label.XAlign, p.Y.Tick.Label.YAlign = draw.XRight, draw.YCenter
	p.X.Label.TextStyle.XAlign, p.Y.Label.TextStyle.XAlign = draw.XCenter, draw.XCenter
	p.Title.TextStyle.XAlign, p.Title.TextStyle.YAlign = draw.XCenter, draw.YTop
	p.Title.Padding = 2 * vg.Millimeter
	return p
}

func style(points vg.Length) text.Style {
	return text.Style{
		Color: color.Black, Font: font.Font{Typeface: "Liberation", Variant: "Sans", Size: points},
		Handler: text.Plain{Fonts: font.DefaultCache},
	}
}

// colours that people who see colours differently tell apart (Okabe and Ito 2008).
var colours = []color.RGBA{
	{0, 114, 178, 255}, {213, 94, 0, 255}, {0, 158, 115, 255}, {204, 121, 167, 255}, {86, 180, 233, 255}, {230, 159, 0, 255}, {0, 0, 0, 255},
}

// pen is the look of the curve number i: after the colours are used up, the dashes change.
func pen(i int) (draw.LineStyle, draw.GlyphStyle) {
	dashes := [][]vg.Length{nil, {vg.Points(5), vg.Points(3)}, {vg.Points(1.5), vg.Points(2.5)}}
	shapes := []draw.GlyphDrawer{draw.CircleGlyph{}, draw.SquareGlyph{}, draw.TriangleGlyph{}}
	c, round := colours[i%len(colours)], i/len(colours)%len(dashes)
	return draw.LineStyle{Color: c, Width: vg.Points(1.4), Dashes: dashes[round]},
		draw.GlyphStyle{Color: c, Radius: vg.Points(2.6), Shape: shapes[round]}
}

// short is s as a line that fits.
func short(s string) string {
	if runes := []rune(s); len(runes) > nameMax {
		return string(runes[:nameMax-1]) + "…"
	}
	return s
}
