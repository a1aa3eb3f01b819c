package main

import (
	"context"
	"runtime/debug"
	"runtime/metrics"
	"time"
)

// How much garbage a node keeps beside what it needs. It shares its machine with
// the work it runs: a busy small node should not collect all the time, and a node
// with a long queue should not take twice its memory.
const (
	garbageMin   = 20 << 20 // bytes that are always allowed
	garbageShare = 30       // percent of what is needed that is allowed beyond that
	gcLookEvery  = 2 * time.Second
	gcPercentMax = 400
)

// paceGC keeps the collector's pace fitting until ctx ends.
func paceGC(ctx context.Context) {
	live := []metrics.Sample{{Name: "/gc/heap/live:bytes"}}
	tick := time.NewTicker(gcLookEvery)
	defer tick.Stop()
	for now := 100; ; {
		metrics.Read(live)
		if want := gcPercent(live[0].Value.Uint64()); want > now*5/4 || want < now*4/5 {
			debug.SetGCPercent(want)
			now = want
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}

// gcPercent is the collector's pace for so many bytes of live heap.
func gcPercent(live uint64) int {
	if live == 0 {
		return gcPercentMax // nothing has been collected yet
	}
	return int(min(max(garbageMin*100/live, garbageShare), gcPercentMax))
}
