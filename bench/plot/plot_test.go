package plot_test

import (
	"bytes"
	"encoding/xml"
	"errors"
	"flag"
	"fmt"
	"image/png"
	"io"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"labmesh/bench/plot"
	"labmesh/bench/report"
	"labmesh/stats"
)

var show = flag.String("show", "", "write the drawings to this directory, to be looked at")

// keep writes a drawing where somebody asked to see it.
func keep(t *testing.T, file string, data []byte) {
	t.Helper()
	if *show == "" {
		return
	}
	if err := os.WriteFile(filepath.Join(*show, file), data, 0o644); err != nil {
		t.Fatal(err)
	}
}

// texts are the words of an SVG that is well-formed.
func texts(t *testing.T, svg []byte) (out []string) {
	t.Helper()
	d := xml.NewDecoder(bytes.NewReader(svg))
	inText := false
	for {
		token, err := d.Token()
		if errors.Is(err, io.EOF) {
			return out
		}
		if err != nil {
			t.Fatalf("it is no XML: %v", err)
		}
		switch x := token.(type) {
		case xml.StartElement:
			inText = x.Name.Local == "text"
		case xml.CharData:
			if inText && strings.TrimSpace(string(x)) != "" {
				out = append(out, strings.TrimSpace(string(x)))
			}
		}
	}
}

func wants(t *testing.T, got []string, want ...string) {
	t.Helper()
	all := strings.Join(got, "\n")
	for _, w := range want {
		if !strings.Contains(all, w) {
			t.Errorf("%q is not written anywhere in:\n%s", w, all)
		}
	}
}

// image decodes a PNG and reports how much of it is not blank.
func image(t *testing.T, data []byte) (ink float64) {
	t.Helper()
	img, err := png.Decode(bytes.NewReader(data))
	if err != nil {
		t.Fatal(err)
	}
	b := img.Bounds()
	if b.Dx() < 800 || b.Dy() < 250 || b.Dy() > 4000 {
		t.Errorf("it has %s", b)
	}
	dark := 0
	const every = 3 // pixels: enough to see whether there is anything
	for y := b.Min.Y; y < b.Max.Y; y += every {
		for x := b.Min.X; x < b.Max.X; x += every {
			if r, g, bl, _ := img.At(x, y).RGBA(); r+g+bl < 3*0xc000 {
				dark++
			}
		}
	}
	return float64(dark*every*every) / float64(b.Dx()*b.Dy())
}

func curve(name string, factor float64, batches ...int) report.Curve {
	c := report.Curve{Name: name}
	for _, b := range batches {
		ms := factor * (2 + float64(b))
		c.Points = append(c.Points, report.Size{Batch: b, Runs: 5, MedianMS: ms, LowMS: ms * 0.95, HighMS: ms * 1.2, Throughput: new(1000 * float64(b) / ms)})
	}
	return c
}

func TestCurves(t *testing.T) {
	t.Parallel()
	evil := "torch <script> & \"co\", NVIDIA H100 80GB HBM3"
	set := &report.CurveSet{Curves: []report.Curve{
		curve("labmesh-go, Intel(R) Xeon(R) CPU @ 2.20GHz", 30, 1, 2, 4, 8, 16, 32),
		curve(evil, 0.5, 1, 2, 4, 8, 16, 32, 64, 128), curve("onnxruntime, Intel(R) Xeon(R) CPU @ 2.20GHz", 17, 1, 2, 4, 8, 16),
	}}
	var svg, img bytes.Buffer
	if err := plot.Curves(&svg, "bert-base-uncased, fp32", set, plot.SVG); err != nil {
		t.Fatal(err)
	}
	if err := plot.Curves(&img, "bert-base-uncased, fp32", set, plot.PNG); err != nil {
		t.Fatal(err)
	}
	keep(t, "curves.svg", svg.Bytes())
	keep(t, "curves.png", img.Bytes())
	wants(t, texts(t, svg.Bytes()), "bert-base-uncased, fp32", "latency, median of runs (ms)", "throughput (items/s)", "batch size (items)", evil, "128", "1000")
	if ink := image(t, img.Bytes()); ink < 0.01 {
		t.Errorf("there is next to nothing on it: %g", ink)
	}
}

// TestOddCurves: nothing that a ledger may hold makes it panic.
func TestOddCurves(t *testing.T) {
	t.Parallel()
	many := make([]int, 64)
	for i := range many {
		many[i] = i*7 + 1
	}
	crowd := &report.CurveSet{}
	for i := range 40 {
		crowd.Curves = append(crowd.Curves, curve(fmt.Sprint("engine ", i), float64(i+1), 1, 2))
	}
	silent := curve("no throughput", 1, 4)
	silent.Points[0].Throughput = nil
	broken := curve("broken", 1, 1, 2, 3)
	broken.Points[0].MedianMS, broken.Points[1].LowMS, broken.Points[2].HighMS = math.NaN(), 0, math.Inf(1)
	for name, set := range map[string]*report.CurveSet{
		"none": {}, "one point": {Curves: []report.Curve{curve("x", 1, 4)}}, "many sizes": {Curves: []report.Curve{curve("x", 1, many...)}},
		"crowd": crowd, "silent": {Curves: []report.Curve{silent}}, "broken": {Curves: []report.Curve{broken}},
		"far apart": {Curves: []report.Curve{curve("x", 1e-6, 1), curve("y", 1e9, 1_000_000)}},
		"long name": {Curves: []report.Curve{curve(strings.Repeat("a name ", 99), 1, 1, 2)}},
	} {
		var svg, img bytes.Buffer
		if err := plot.Curves(&svg, name, set, plot.SVG); err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		words := texts(t, svg.Bytes())
		if name == "crowd" {
			wants(t, words, "26 more are not drawn", "engine 13")
		}
		if *show == "" && name != "broken" {
			continue // the canvas is all that differs, and a PNG takes its time
		}
		if err := plot.Curves(&img, name, set, plot.PNG); err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		image(t, img.Bytes())
		keep(t, strings.ReplaceAll(name, " ", "-")+".png", img.Bytes())
	}
	if err := plot.Curves(io.Discard, "", &report.CurveSet{}, "pdf"); err == nil {
		t.Error("a PDF was drawn")
	}
}

// trend is a series that steps by factors, thirty days each.
func trend(batch int, steps ...float64) report.Trend {
	rnd := rand.New(rand.NewPCG(1, uint64(batch)))
	t := report.Trend{Model: "mlp", Batch: batch, Precision: "fp32", Variant: report.Variant{Engine: "labmesh-go", Device: "cpu", DeviceName: "Example CPU", Worker: "w1"}}
	at := time.Date(2026, 1, 2, 3, 0, 0, 0, time.UTC)
	for i, f := range steps {
		if i > 0 {
			c := report.Change{At: len(t.Points), Share: f/steps[i-1] - 1, Outcome: stats.Regression, FirstCommit: fmt.Sprintf("%d0ffee5afe0bad", i)}
			if c.Share < 0 {
				c.Outcome = stats.Improvement
			}
			t.Changes = append(t.Changes, c)
		}
		for range 30 {
			t.Points = append(t.Points, report.Point{Time: at, MedianMS: float64(batch) * f * math.Exp(0.01*rnd.NormFloat64())})
			at = at.Add(24 * time.Hour)
		}
	}
	return t
}

func TestTrends(t *testing.T) {
	t.Parallel()
	set := &report.Trends{Series: []report.Trend{trend(1, 10, 11.2, 9), trend(8, 10), trend(32, 10, 10.8)}}
	var svg, img bytes.Buffer
	if err := plot.Trends(&svg, "mlp over time", set, plot.SVG); err != nil {
		t.Fatal(err)
	}
	if err := plot.Trends(&img, "mlp over time", set, plot.PNG); err != nil {
		t.Fatal(err)
	}
	keep(t, "trend.svg", svg.Bytes())
	keep(t, "trend.png", img.Bytes())
	wants(t, texts(t, svg.Bytes()), "mlp over time", "median latency (ms)", "time (UTC)", "batch 8: labmesh-go on Example CPU of w1", "+12.0 % 10ffee5afe", "-19.6 % 20ffee5afe", "2026-01-0")
	if ink := image(t, img.Bytes()); ink < 0.005 {
		t.Errorf("there is next to nothing on it: %g", ink)
	}
	one := trend(1, 10)
	one.Points = one.Points[:1]
	var crowd []report.Trend
	for i := range 12 {
		crowd = append(crowd, trend(i+1, 10))
	}
	for name, series := range map[string][]report.Trend{"none": nil, "one point": {one}, "crowd": crowd} {
		svg.Reset()
		if err := plot.Trends(&svg, name, &report.Trends{Series: series}, plot.SVG); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		words := texts(t, svg.Bytes())
		if name == "crowd" {
			wants(t, words, "4 more series are not drawn")
		}
	}
}

func TestFormatOf(t *testing.T) {
	t.Parallel()
	for file, want := range map[string]plot.Format{"a.svg": plot.SVG, "b/c.PNG": plot.PNG} {
		if got, err := plot.FormatOf(file); got != want || err != nil {
			t.Errorf("%s: %s, %v", file, got, err)
		}
	}
	for _, file := range []string{"", "x", "x.pdf", "svg"} {
		if _, err := plot.FormatOf(file); err == nil {
			t.Errorf("%q has a format", file)
		}
	}
}
