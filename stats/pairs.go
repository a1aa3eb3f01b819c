package stats

import (
	"fmt"
	"math"
	"math/bits"
	"math/rand/v2"
	"slices"
)

// Pair is a run of the baseline and a run of the candidate, next to each other
// in time on one machine: A before B in one pair, B before A in the next, so
// that a slow drift of the machine favours neither.
type Pair struct{ A, B Run }

// pairEffect is the smallest change that matters between pairs on one machine:
// what the machine does to one half of a pair it mostly does to the other.
const pairEffect = 0.03

// pairAlpha is the chance of a false alarm between pairs of equal things. They
// are cheap to tell apart: it can be half of what sets of runs allow.
const pairAlpha = 0.005

// signsExact is up to how many pairs all ways of swapping them are tried.
const signsExact = 14

// ComparePairs compares candidate and baseline within pairs: a test on the mean
// logarithm of their ratios that swaps the halves of pairs in all ways (Fisher's
// randomisation test), and a smallest effect.
func ComparePairs(pairs []Pair, opt Options) Verdict {
	if opt.Effect <= 0 {
		opt.Effect = pairEffect
	}
	if opt.Alpha <= 0 {
		opt.Alpha = pairAlpha
	}
	opt = opt.withDefaults()
	var logs, throughput []float64
	for _, p := range pairs {
		if p.A.Comparable && p.B.Comparable && p.A.Median > 0 && p.B.Median > 0 {
			logs = append(logs, math.Log(p.B.Median/p.A.Median))
			if p.A.Throughput > 0 && p.B.Throughput > 0 {
				throughput = append(throughput, math.Log(p.B.Throughput/p.A.Throughput))
			}
		}
	}
	v := Verdict{Outcome: Same, RunsA: len(logs), RunsB: len(logs), Needed: opt.Effect}
	if len(logs) > 0 {
		v.Ratio, v.CI95 = new(math.Exp(Median(logs))), new(logsCI(logs))
	}
	v.least, v.sides = math.Pow(2, 1-float64(len(logs))), enoughPairs
	if v.least > opt.Alpha {
		v.Outcome = Insufficient
		v.Why = fmt.Sprintf("%d comparable pairs: no difference could be significant at %g; %d could", len(logs), opt.Alpha, enoughPairs(opt.Alpha))
		return v
	}
	v.P = new(signFlip(logs))
	more := Median(throughput) // within pairs too: what disturbs one half of a pair mostly disturbs the other
	v.judge(*v.P, opt.Alpha, math.IsNaN(more) || *v.Ratio > 1 == (more < 0))
	return v
}

// enoughPairs is how many pairs can come to a p-value below alpha.
func enoughPairs(alpha float64) int { return int(math.Ceil(1 - math.Log2(alpha))) }

// signFlip is the two-sided p-value of the mean of logs under all changes of sign.
func signFlip(logs []float64) float64 {
	sum := 0.0
	for _, l := range logs {
		sum += l
	}
	extreme := math.Abs(sum) * (1 - 1e-12)
	flipped := func(signs uint64) float64 {
		s := sum
		for ; signs != 0; signs &= signs - 1 {
			s -= 2 * logs[bits.TrailingZeros64(signs)]
		}
		return math.Abs(s)
	}
	hits := 0
	if len(logs) <= signsExact {
		for signs := range uint64(1) << len(logs) {
			if flipped(signs) >= extreme {
				hits++
			}
		}
		return float64(hits) / float64(uint64(1)<<len(logs))
	}
	const tries = 20_000
	rnd := rand.New(rand.NewPCG(3, 4))
	for range tries {
		s := 0.0
		for _, l := range logs {
			if rnd.Uint64()&1 == 0 {
				s += l
			} else {
				s -= l
			}
		}
		if math.Abs(s) >= extreme {
			hits++
		}
	}
	return float64(hits+1) / float64(tries+1)
}

// logsCI is the 95 % interval of the median ratio of pairs, by a bootstrap.
func logsCI(logs []float64) [2]float64 {
	rnd := rand.New(rand.NewPCG(5, 6))
	medians, sample := make([]float64, resamples), make([]float64, len(logs))
	for i := range medians {
		draw(rnd, logs, sample)
		medians[i] = math.Exp(Median(sample))
	}
	slices.Sort(medians)
	return [2]float64{quantile(medians, 0.025), quantile(medians, 0.975)}
}
