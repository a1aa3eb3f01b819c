package chaos

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"os"
)

// tearMost is how many bytes a torn file loses at most.
const tearMost = 4096

// Flip turns over one bit in each of n bytes of a file, at places that chance
// chooses among those that are in use, as a bad disk does.
func Flip(path string, chance *rand.Rand, n int) error {
	return rewrite(path, func(data []byte) []byte {
		for range n {
			data[chance.IntN(len(data))] ^= 1 << chance.IntN(8)
		}
		return data
	})
}

// Tear clears the end of what is in use of a file, as a power cut does to what was
// being written: the file keeps its length where it was laid out ahead.
func Tear(path string, chance *rand.Rand) error {
	return rewrite(path, func(data []byte) []byte {
		clear(data[len(data)-min(len(data), 1+chance.IntN(tearMost)):])
		return data
	})
}

// rewrite changes a file in place, up to its last byte that is not zero.
func rewrite(path string, change func([]byte) []byte) error {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return fmt.Errorf("damage: %w", err)
	}
	defer f.Close()
	data, err := os.ReadFile(path)
	if err != nil {
		return fmt.Errorf("damage: %w", err)
	}
	used := bytes.TrimRight(data, "\x00")
	if len(used) == 0 {
		return fmt.Errorf("damage %s: there is nothing in it", path)
	}
	if _, err := f.WriteAt(change(used), 0); err != nil {
		return fmt.Errorf("damage: %w", err)
	}
	return f.Close()
}
