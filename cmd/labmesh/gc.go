package main

import (
	"context"
	"runtime"
	"runtime/debug"
	"runtime/metrics"
)

// How much garbage a node keeps beside what it needs. It shares its machine with
// the work it runs: a busy small node should not collect all the time, and a node
// with a long queue should not take twice its memory.
const (
	garbageMin   = 30 << 20 // bytes that are always allowed
	garbageShare = 25       // percent of what is needed that is allowed beyond that
	gcPercentMax = 400
)

// paceGC keeps the collector's pace fitting until ctx ends. It looks after each
// collection: a queue may grow tenfold in a second or two, and an idle node has
// no reason to wake up.
func paceGC(ctx context.Context) {
	live := []metrics.Sample{{Name: "/gc/heap/live:bytes"}}
	collected := make(chan struct{}, 1)
	for now := 100; ctx.Err() == nil; {
		metrics.Read(live)
		if want := gcPercent(live[0].Value.Uint64()); want > now*5/4 || want < now*4/5 {
			debug.SetGCPercent(want)
			now = want
		}
		awaitGC(collected)
		select {
		case <-collected:
		case <-ctx.Done():
		}
	}
}

// awaitGC has collected told when the collector has run once more.
func awaitGC(collected chan<- struct{}) {
	type canary struct{ _ *canary } // with a pointer, for those without share their memory
	runtime.AddCleanup(new(canary), func(collected chan<- struct{}) { collected <- struct{}{} }, collected)
}

// gcPercent is the collector's pace for so many bytes of live heap.
func gcPercent(live uint64) int {
	if live == 0 {
		return gcPercentMax // nothing has been collected yet
	}
	return int(min(max(garbageMin*100/live, garbageShare), gcPercentMax))
}
