package stats

import (
	"cmp"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"

	moremath "github.com/aclements/go-moremath/stats"
)

// Run is one process run of a benchmark at one batch size.
type Run struct {
	Median     float64 // ms an iteration
	Throughput float64 // items a second
	Comparable bool
}

// Options say what counts as a difference. Zero fields stand for the defaults.
type Options struct {
	Alpha  float64 // chance of calling equal things different, over all comparisons together; 0.01
	Effect float64 // the smallest change of the median that matters; 0.05 is 5 %
	MADs   float64 // and how many of the baseline's MADs it must be; 3
}

func (o Options) withDefaults() Options {
	if o.Alpha <= 0 {
		o.Alpha = 0.01
	}
	if o.Effect <= 0 {
		o.Effect = 0.05
	}
	if o.MADs <= 0 {
		o.MADs = 3
	}
	return o
}

// Outcome says what a comparison came to.
type Outcome string

// The outcomes.
const (
	Regression   Outcome = "regression"  // the second is slower
	Improvement  Outcome = "improvement" // the second is faster
	Same         Outcome = "no difference"
	Insufficient Outcome = "insufficient runs" // no result could have been significant
)

// Verdict is the outcome of a comparison and what it rests on.
type Verdict struct {
	Outcome Outcome     `json:"outcome"`
	Ratio   *float64    `json:"ratio,omitempty"` // median of the second ÷ median of the first
	CI95    *[2]float64 `json:"ci95,omitempty"`  // of Ratio
	P       *float64    `json:"p,omitempty"`
	Needed  float64     `json:"needed"` // the change, as a share, that would have mattered
	RunsA   int         `json:"runs_a"` // comparable ones
	RunsB   int         `json:"runs_b"`
	Why     string      `json:"why"` // for people

	least float64             // the smallest p that so many runs can come to
	sides func(p float64) int // how many runs on each side can come to p
}

// CompareRuns compares two sets of runs by their medians: Mann-Whitney U test,
// smallest effect that matters, and the throughput must have changed in the
// other direction. Of several comparisons [Correct] makes the verdicts final.
func CompareRuns(a, b []Run, opt Options) Verdict {
	opt = opt.withDefaults()
	ma, mb := medians(a), medians(b)
	v := Verdict{Outcome: Same, RunsA: len(ma), RunsB: len(mb), Needed: opt.Effect}
	if len(ma) > 0 && len(mb) > 0 && Median(ma) > 0 {
		v.Needed = max(opt.Effect, opt.MADs*MAD(ma)/Median(ma))
		v.Ratio, v.CI95 = new(Median(mb)/Median(ma)), new(ratioCI(ma, mb))
	}
	v.least, v.sides = smallestP(len(ma), len(mb)), enough
	if v.least > opt.Alpha {
		v.Outcome = Insufficient
		v.Why = fmt.Sprintf("%d against %d comparable runs: no difference could be significant at %g; %d against %d could", len(ma), len(mb), opt.Alpha, enough(opt.Alpha), enough(opt.Alpha))
		return v
	}
	v.P = new(mannWhitney(ma, mb))
	v.judge(*v.P, opt.Alpha, agree(a, b, *v.Ratio))
	return v
}

// judge decides by a p-value, which may have been corrected.
func (v *Verdict) judge(p, alpha float64, agreed bool) {
	change := *v.Ratio - 1
	switch {
	case p >= alpha:
		v.Outcome, v.Why = Same, fmt.Sprintf("chance would do as much with p = %.3g", p)
	case math.Abs(change) <= v.Needed:
		v.Outcome, v.Why = Same, fmt.Sprintf("it differs by %+.1f %%, less than the %.1f %% that matter here", 100*change, 100*v.Needed)
	case !agreed:
		v.Outcome, v.Why = Same, "the median and the throughput do not say the same"
	case change > 0:
		v.Outcome, v.Why = Regression, fmt.Sprintf("slower by %.1f %%, p = %.3g", 100*change, p)
	default:
		v.Outcome, v.Why = Improvement, fmt.Sprintf("faster by %.1f %%, p = %.3g", -100*change, p)
	}
}

// Correct makes verdicts that were reached side by side final: it holds the
// share of false alarms among all alarms to alpha (Benjamini and Hochberg 1995).
// Where too few runs were the reason that one did not count, it says so.
func Correct(verdicts []Verdict, opt Options) {
	opt = opt.withDefaults()
	tested := make([]*Verdict, 0, len(verdicts))
	for i := range verdicts {
		if verdicts[i].P != nil {
			tested = append(tested, &verdicts[i])
		}
	}
	slices.SortFunc(tested, func(a, b *Verdict) int { return cmp.Compare(*a.P, *b.P) })
	pass := -1
	for i, v := range tested {
		if *v.P <= opt.Alpha*float64(i+1)/float64(len(tested)) {
			pass = i
		}
	}
	for i, v := range tested {
		if i > pass && (v.Outcome == Regression || v.Outcome == Improvement) {
			v.Outcome = Same
			v.Why = fmt.Sprintf("p = %.3g is not enough among %d comparisons", *v.P, len(tested))
			if alone := opt.Alpha / float64(len(tested)); v.least > alone {
				v.Outcome = Insufficient
				v.Why += fmt.Sprintf("; %d runs a side could tell one alone", v.sides(alone))
			}
		}
	}
}

func medians(runs []Run) (out []float64) {
	for _, r := range runs {
		if r.Comparable {
			out = append(out, r.Median)
		}
	}
	return out
}

// agree reports whether the throughput changed the other way, where it is known.
func agree(a, b []Run, ratio float64) bool {
	throughput := func(runs []Run) float64 {
		var out []float64
		for _, r := range runs {
			if r.Comparable && r.Throughput > 0 {
				out = append(out, r.Throughput)
			}
		}
		return Median(out)
	}
	ta, tb := throughput(a), throughput(b)
	return math.IsNaN(ta) || math.IsNaN(tb) || ratio > 1 == (tb < ta)
}

// mannWhitney is the two-sided p-value of the U test, exact for small samples.
func mannWhitney(a, b []float64) float64 {
	r, err := moremath.MannWhitneyUTest(a, b, moremath.LocationDiffers)
	if errors.Is(err, moremath.ErrSamplesEqual) {
		return 1
	}
	if err != nil {
		return math.NaN() // a sample is empty, which the callers exclude
	}
	return r.P
}

// smallestP is the smallest two-sided p-value that so many runs can come to.
func smallestP(a, b int) float64 {
	ways := 1.0 // of choosing a among a+b
	for i := range a {
		ways *= float64(b+i+1) / float64(i+1)
	}
	return min(1, 2/ways)
}

// enough is how many runs on each side can come to a p-value below alpha.
func enough(alpha float64) int {
	n := 1
	for smallestP(n, n) > alpha {
		n++
	}
	return n
}

// resamples of a bootstrap.
const resamples = 2000

// ratioCI is the 95 % interval of the ratio of the medians, b to a, by a
// percentile bootstrap with a fixed seed.
func ratioCI(a, b []float64) [2]float64 {
	rnd := rand.New(rand.NewPCG(1, 2))
	ratios := make([]float64, resamples)
	ra, rb := make([]float64, len(a)), make([]float64, len(b))
	for i := range ratios {
		draw(rnd, a, ra)
		draw(rnd, b, rb)
		ratios[i] = Median(rb) / Median(ra)
	}
	slices.Sort(ratios)
	return [2]float64{quantile(ratios, 0.025), quantile(ratios, 0.975)}
}

func draw(rnd *rand.Rand, from, to []float64) {
	for i := range to {
		to[i] = from[rnd.IntN(len(from))]
	}
}
