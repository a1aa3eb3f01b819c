package main

import "testing"

func TestGarbageIsBoundedBySizeAndByShare(t *testing.T) {
	t.Parallel()
	for live, want := range map[uint64]int{0: 400, 1 << 20: 400, 10 << 20: 300, 20 << 20: 150, 50 << 20: 60, 1 << 30: 25} {
		if got := gcPercent(live); got != want {
			t.Errorf("%d MiB live: %d %%, want %d %%", live>>20, got, want)
		}
	}
}
