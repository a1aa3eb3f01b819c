package stats

import (
	"math"
	"math/rand/v2"
)

// TrendOptions say what counts as a change of a series. Zero fields stand for the defaults.
type TrendOptions struct {
	Alpha   float64 // of the permutation test; 0.01
	Effect  float64 // the smallest change of the median; 0.03 is 3 %
	Segment int     // points between two changes at least; SegmentDefault
}

// SegmentDefault is how many points lie between two changes, and before the first, at the least.
const SegmentDefault = 5

func (o TrendOptions) withDefaults() TrendOptions {
	if o.Alpha <= 0 {
		o.Alpha = 0.01
	}
	if o.Effect <= 0 {
		o.Effect = 0.03
	}
	if o.Segment < 2 {
		o.Segment = SegmentDefault
	}
	return o
}

// ChangePoint is where a series changed for good.
type ChangePoint struct {
	At     int     `json:"at"`     // index of the first point after the change
	Before float64 `json:"before"` // median of the segment before
	After  float64 `json:"after"`  // and of the one after
	P      float64 `json:"p"`
}

// Change is the change as a share of what was before.
func (c ChangePoint) Change() float64 { return c.After/c.Before - 1 }

// ChangePoints finds where y changed, in order: the split that tells its two
// sides apart best by the energy statistic, kept if hardly any shuffle of the
// points has one as good, and so on within the sides (E-divisive: Matteson and
// James 2014, with α = 1).
func ChangePoints(y []float64, opt TrendOptions) []ChangePoint {
	opt = opt.withDefaults()
	cuts := split(y, 0, opt, nil)
	var out []ChangePoint
	for i, c := range cuts {
		lo, hi := 0, len(y)
		if i > 0 {
			lo = cuts[i-1].At
		}
		if i+1 < len(cuts) {
			hi = cuts[i+1].At
		}
		c.Before, c.After = Median(y[lo:c.At]), Median(y[c.At:hi])
		if c.Before > 0 && math.Abs(c.Change()) >= opt.Effect {
			out = append(out, c)
		}
	}
	return out
}

// split finds the cuts in y, which begins at index base of the series, in order.
func split(y []float64, base int, opt TrendOptions, out []ChangePoint) []ChangePoint {
	at, best := bestSplit(y, opt.Segment)
	if at == 0 {
		return out
	}
	p := shuffles(y, best, opt)
	before, after := Median(y[:at]), Median(y[at:])
	if p > opt.Alpha || before <= 0 || math.Abs(after/before-1) < opt.Effect {
		return out
	}
	out = split(y[:at], base, opt, out)
	out = append(out, ChangePoint{At: base + at, P: p})
	return split(y[at:], base+at, opt, out)
}

// bestSplit is where the two sides of y differ most, each of at least segment
// points, and by how much; 0 where y is too short. It takes the distances
// between all points once: moving the split by a point changes three sums.
func bestSplit(y []float64, segment int) (at int, best float64) {
	n := len(y)
	if n < 2*segment {
		return 0, 0
	}
	var left, right, across float64 // sums of distances within and between the sides
	for i := range n {
		for j := range i {
			right += math.Abs(y[i] - y[j])
		}
	}
	best = -1
	for k := 1; k < n; k++ { // y[k-1] moves to the left
		var toLeft, toRight float64
		for j := range k - 1 {
			toLeft += math.Abs(y[k-1] - y[j])
		}
		for j := k; j < n; j++ {
			toRight += math.Abs(y[k-1] - y[j])
		}
		left, right, across = left+toLeft, right-toRight, across-toLeft+toRight
		if k < segment || n-k < segment {
			continue
		}
		a, b := float64(k), float64(n-k)
		energy := 2*across/(a*b) - 2*left/(a*(a-1)) - 2*right/(b*(b-1))
		if q := energy * a * b / (a + b); q > best {
			at, best = k, q
		}
	}
	return at, best
}

// shufflesMax bounds how often a series is shuffled to see what chance does.
const shufflesMax = 499

// shuffles is the share of shuffles of y whose best split is as good as best. It
// gives up as soon as it is plain that there are too many.
func shuffles(y []float64, best float64, opt TrendOptions) float64 {
	rnd := rand.New(rand.NewPCG(7, uint64(len(y))))
	z := append([]float64(nil), y...)
	hits, allowed := 0, int(opt.Alpha*(shufflesMax+1))
	for i := range shufflesMax {
		rnd.Shuffle(len(z), func(i, j int) { z[i], z[j] = z[j], z[i] })
		if _, q := bestSplit(z, opt.Segment); q >= best {
			if hits++; hits >= allowed {
				return float64(hits+1) / float64(i+2)
			}
		}
	}
	return float64(hits+1) / float64(shufflesMax+1)
}
