package infer

import (
	"hash/fnv"
	"math"
)

// source is a tensor of random numbers of which each can be had by its index alone. Number
// i is made of the words 2i and 2i+1 of SplitMix64 (Steele, Lea, Flood 2014) with a state that follows from the
// seed and the tensor's name: the sum of their eight parts of 16 bits is close to normal
// (Irwin-Hall; it ends at ±4.9 standard deviations). All of it but the last multiplication is done in integers, and that one is exact IEEE:
// the numbers are the same on every machine, which logarithms and cosines would not promise.
type source struct {
	state    uint64
	mean, by float64
}

const (
	golden      = 0x9e3779b97f4a7c15 // the step of SplitMix64
	sumMean     = 8 * 65535 / 2      // of eight numbers of 16 bits
	sumVariance = 8 * (1<<32 - 1) / 12.0
)

// normal is the source of a tensor with mean and standard deviation sd.
func normal(seed int64, name string, mean, sd float64) source {
	h := fnv.New64a()
	_, _ = h.Write([]byte(name)) // it never errs
	return source{state: mix(uint64(seed)+golden) ^ h.Sum64(), mean: mean, by: sd / math.Sqrt(sumVariance)}
}

// word is word i of the stream.
func (s source) word(i int) uint64 { return mix(s.state + uint64(i+1)*golden) }

// at is number i of the tensor.
func (s source) at(i int) float32 {
	sum := quarters(s.word(2*i)) + quarters(s.word(2*i+1))
	return float32(s.mean + float64(float64(int64(sum)-sumMean)*s.by)) // rounded in between, on every machine
}

// quarters adds up the four 16-bit parts of w.
func quarters(w uint64) uint64 { return w&0xffff + w>>16&0xffff + w>>32&0xffff + w>>48 }

// mix is the finaliser of SplitMix64.
func mix(z uint64) uint64 {
	z = (z ^ z>>30) * 0xbf58476d1ce4e5b9
	z = (z ^ z>>27) * 0x94d049bb133111eb
	return z ^ z>>31
}

// fill puts the numbers from first on into to.
func (s source) fill(to []float32, first int) {
	for i := range to {
		to[i] = s.at(first + i)
	}
}
