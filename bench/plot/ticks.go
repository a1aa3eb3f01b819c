package plot

import (
	"math"
	"slices"
	"strconv"
	"time"

	"gonum.org/v1/plot"
)

// labelsMax is how many labels an axis of sizes has room for.
const labelsMax = 14

// sizes are ticks at the batch sizes that were measured, on an axis that is
// logarithmic. Where they are many, only some have labels.
type sizes []int

// Ticks is what the library asks of an axis.
func (s sizes) Ticks(_, _ float64) []plot.Tick {
	sorted := slices.Compact(slices.Sorted(slices.Values(s)))
	ticks := make([]plot.Tick, len(sorted))
	last := math.Inf(-1)
	room := math.Log(float64(sorted[len(sorted)-1])/float64(sorted[0])) / labelsMax
	for i, n := range sorted {
		ticks[i].Value = float64(n)
		if at := math.Log(float64(n)); at-last >= room {
			ticks[i].Label, last = strconv.Itoa(n), at
		}
	}
	return ticks
}

// decades are ticks at 1, 2 and 5 times the powers of ten; where the axis spans
// less than two of them, at even steps.
type decades struct{}

// Ticks is what the library asks of an axis.
func (decades) Ticks(low, high float64) []plot.Tick {
	var ticks []plot.Tick
	steps := []float64{1, 2, 5}
	if high/low > 1e4 {
		steps = []float64{1}
	}
	for e := math.Floor(math.Log10(low)); e <= math.Ceil(math.Log10(high)); e++ {
		for _, s := range steps {
			if v := s * math.Pow(10, e); v >= low && v <= high {
				ticks = append(ticks, plot.Tick{Value: v, Label: strconv.FormatFloat(v, 'g', 4, 64)})
			}
		}
	}
	if len(ticks) < 3 {
		return plot.DefaultTicks{}.Ticks(low, high)
	}
	return ticks
}

// dates are ticks at round times, in UTC.
type dates struct{}

// dateSteps are the distances of ticks, with how each is written.
var dateSteps = []struct {
	step   time.Duration
	layout string
}{
	{time.Second, "15:04:05"}, {10 * time.Second, "15:04:05"}, {time.Minute, "15:04"}, {5 * time.Minute, "15:04"}, {15 * time.Minute, "15:04"}, {time.Hour, "Jan 2 15:04"}, {3 * time.Hour, "Jan 2 15:04"},
	{6 * time.Hour, "Jan 2 15:04"}, {12 * time.Hour, "Jan 2 15:04"}, {24 * time.Hour, "2006-01-02"}, {2 * 24 * time.Hour, "2006-01-02"},
	{7 * 24 * time.Hour, "2006-01-02"}, {14 * 24 * time.Hour, "2006-01-02"}, {28 * 24 * time.Hour, "2006-01-02"}, {91 * 24 * time.Hour, "2006-01-02"},
	{365 * 24 * time.Hour, "2006"}, {3650 * 24 * time.Hour, "2006"},
}

// datesMax is how many labels an axis of dates has room for.
const datesMax = 7

// Ticks is what the library asks of an axis.
func (dates) Ticks(low, high float64) (ticks []plot.Tick) {
	span := time.Duration((high - low) * float64(time.Second))
	s := dateSteps[len(dateSteps)-1]
	for _, candidate := range dateSteps {
		if span/candidate.step < datesMax {
			s = candidate
			break
		}
	}
	for at := time.Unix(int64(low), 0).UTC().Truncate(s.step); float64(at.Unix()) <= high && len(ticks) < 2*datesMax; at = at.Add(s.step) {
		if float64(at.Unix()) >= low {
			ticks = append(ticks, plot.Tick{Value: float64(at.Unix()), Label: at.Format(s.layout)})
		}
	}
	return ticks
}
