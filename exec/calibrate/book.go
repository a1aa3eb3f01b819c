package calibrate

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"
	"time"
)

// When a machine is slower than itself: by more than that part of the median of
// what was measured before, if that was often enough. Disks vary more.
const (
	slowerCompute = 0.20
	slowerMemory  = 0.25
	slowerDisk    = 0.50
	slowerLeast   = 3  // measurements before this one
	bookMax       = 64 // measurements that are remembered
	bookBytesMax  = 1 << 20
)

// Book remembers what was measured on this machine, in a file.
type Book struct {
	path    string
	entries []Result
}

// OpenBook reads the book at path. One that is not there, or cannot be read as
// one, is empty: the past is no reason not to start.
func OpenBook(path string) (*Book, error) {
	b := &Book{path: path}
	st, err := os.Stat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return b, nil
	case err != nil:
		return b, fmt.Errorf("read earlier measurements: %w", err)
	case st.Size() > bookBytesMax:
		return b, fmt.Errorf("read earlier measurements: %s has %d bytes, which it never should: it begins anew", path, st.Size())
	}
	data, err := os.ReadFile(path)
	if err == nil {
		err = json.Unmarshal(data, &b.entries)
	}
	if err != nil {
		b.entries = nil
		return b, fmt.Errorf("read earlier measurements: %w", err)
	}
	return b, nil
}

// Last is the newest measurement, if there is any.
func (b *Book) Last() (Result, bool) {
	if len(b.entries) == 0 {
		return Result{}, false
	}
	return b.entries[len(b.entries)-1], true
}

// Due is when to measure again: a day after the last time, or at once.
func (b *Book) Due(now time.Time, every time.Duration) time.Time {
	last, ok := b.Last()
	if !ok || last.At.After(now) { // the clock was set back
		return now
	}
	return last.At.Add(every)
}

// Slower says in a sentence in which way r is slower than the machine was before;
// "" when it is not, or nobody can tell.
func (b *Book) Slower(r Result) string {
	var ways []string
	for _, m := range []struct {
		what, unit string
		of         func(*Result) float64
		share      float64
	}{
		{"one processor", "× the reference", func(r *Result) float64 { return r.Speed }, slowerCompute},
		{"one processor at matrices", "GFLOPS", func(r *Result) float64 { return r.GFLOPSOne }, slowerCompute},
		{"all processors together", "GFLOPS", func(r *Result) float64 { return r.GFLOPS }, slowerCompute},
		{"memory", "GB/s", func(r *Result) float64 { return r.MemoryGBs }, slowerMemory},
		{"the disk", "MB/s", func(r *Result) float64 { return r.DiskMBs }, slowerDisk},
	} {
		var before []float64
		for i := range b.entries {
			if e := &b.entries[i]; e.Kernel == r.Kernel && e.Busy == "" && m.of(e) > 0 {
				before = append(before, m.of(e))
			}
		}
		now, usual := m.of(&r), median(before)
		if len(before) >= slowerLeast && now > 0 && now < (1-m.share)*usual {
			ways = append(ways, fmt.Sprintf("%s by %.0f %% (%.3g, usually %.3g %s)", m.what, 100*(1-now/usual), now, usual, m.unit))
		}
	}
	if len(ways) == 0 {
		return ""
	}
	return "it is slower than it usually is: " + strings.Join(ways, "; ")
}

// Add enters a measurement and writes the book.
func (b *Book) Add(r Result) error {
	b.entries = append(b.entries, r)
	b.entries = b.entries[max(0, len(b.entries)-bookMax):]
	data, err := json.Marshal(b.entries)
	if err == nil {
		err = os.WriteFile(b.path+".new", data, 0o600)
	}
	if err == nil {
		err = os.Rename(b.path+".new", b.path)
	}
	if err != nil {
		return fmt.Errorf("remember a measurement: %w", err)
	}
	return nil
}
