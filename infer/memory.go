package infer

import (
	"errors"
	"fmt"

	"github.com/dustin/go-humanize"
)

// ErrMemory is in the chain of errors that say there is not enough memory.
var ErrMemory = errors.New("not enough memory")

const (
	floatBytes = 4
	chunkBytes = 16 << 20 // what is asked of the system at least
	aligned    = 16       // floats between places that an allocation may begin at: a cache line
	spareBytes = 64 << 20 // left to everything else when something large is allocated
)

// arena is memory that is given back all at once. It lies outside the heap: the
// collector need not look at it, and that there is none is an error, not the end.
type arena struct {
	chunks [][]byte
	free   []float32
}

// floats are n zeros.
func (a *arena) floats(n int) ([]float32, error) {
	size := (n + aligned - 1) / aligned * aligned
	if size > len(a.free) {
		chunk, data, err := mapFloats(max(size*floatBytes, chunkBytes))
		if err != nil {
			return nil, fmt.Errorf("%w: %s: %w", ErrMemory, humanize.IBytes(uint64(size)*floatBytes), err)
		}
		a.chunks, a.free = append(a.chunks, chunk), data
	}
	out := a.free[:n:n]
	a.free = a.free[size:]
	return out, nil
}

// release gives everything back. Nothing of it may be used any more.
func (a *arena) release() {
	for _, c := range a.chunks {
		unmapFloats(c)
	}
	*a = arena{}
}

// checkMemory refuses what the machine, or the group of processes that this one is in, has
// no memory for. Where what is free cannot be known it is not refused.
func checkMemory(what string, bytes float64) error {
	free, known := freeMemory()
	if known && bytes+spareBytes > float64(free) {
		return fmt.Errorf("%w: %s needs %s and %s are free", ErrMemory, what, readable(bytes), readable(float64(free)))
	}
	return nil
}

func readable(bytes float64) string {
	return humanize.IBytes(uint64(min(max(bytes, 0), 1<<62)))
}
