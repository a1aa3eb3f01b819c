package quiet

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"labmesh"
	"labmesh/bench"
)

// What is still quiet. They are shares of the time between two snapshots.
const (
	// othersShare is how much of all processors others may use, with bounds in
	// processors: the least lets an idle system with its node be quiet, also one of
	// two processors (1 to 3 % of one), the most is half of what one busy thread takes.
	othersShare = 0.05
	othersLeast = 0.1
	othersMost  = 0.5
	// stealShare is how much time the hypervisor may give to others: below, it is
	// lost in the spread of any run.
	stealShare = 0.02
	// stalledShare is for how long somebody may wait for a processor while nothing
	// is measured: an idle machine stays below 1 %.
	stalledShare = 0.10
	// starvedShare is for how long somebody may wait for memory: beyond, pages are
	// being fetched again all the time.
	starvedShare = 0.05
	// quotaShare is for how long a CPU quota may stop the node.
	quotaShare = 0.01
	// loadMost is the load for each processor that is quiet where CPU times are not shown.
	loadMost = 0.25
	// driftShare is by how much the clock may fall while measuring: half of the 5 %
	// that a regression has to exceed.
	driftShare = 0.05
	// gpuBusyMost is how busy a GPU may be before a measurement, in percent:
	// a desktop drawn by it takes 1 to 3.
	gpuBusyMost = 5
)

// leastWindow is the shortest time in which CPU times say anything: they are
// counted in hundredths of a second.
const leastWindow = 200 * time.Millisecond

// finding is something that is not quiet, for people.
type finding struct {
	flag labmesh.BenchFlag
	say  string
}

// unquiet says what was not quiet between two snapshots while nothing was
// measured. ours tells whether a process is one that this node runs.
func unquiet(a, b *snapshot, ours func(pid int) bool) (out []finding) {
	out = append(out, contention(a, b, ours)...)
	wall := b.at.Sub(a.at)
	if s := share(a.stalled, b.stalled, wall); wall >= leastWindow && s != nil && *s > stalledShare && len(out) == 0 {
		out = append(out, finding{labmesh.FlagContended, fmt.Sprintf("programs waited for a processor %.0f %% of the time", 100**s)})
	}
	if b.busy == nil && b.load != nil && *b.load > loadMost*float64(max(b.processors, 1)) {
		out = append(out, finding{labmesh.FlagContended, fmt.Sprintf("the load is %.1f", *b.load)})
	}
	out = append(out, slowed(a, b)...)
	switch {
	case b.gpu != nil:
		out = append(out, b.gpu.unquiet(ours)...)
	case a.gpu != nil:
		out = append(out, finding{labmesh.FlagContended, "the GPU's driver did not answer"})
	}
	return out
}

// disturbed says what makes doubtful what was measured between two snapshots.
func disturbed(a, b *snapshot, ours func(pid int) bool) []finding {
	return append(contention(a, b, ours), slowed(a, b)...)
}

// contention says who else used the processors.
func contention(a, b *snapshot, ours func(pid int) bool) (out []finding) {
	wall := b.at.Sub(a.at)
	if wall < leastWindow {
		return nil
	}
	if n := others(a, b); n != nil && *n > othersLimit(b.processors) {
		out = append(out, finding{labmesh.FlagContended, fmt.Sprintf("other processes used %.2f of %s%s", *n, processors(b.processors), most(a, b, ours))})
	}
	if s := share(a.steal, b.steal, wall*time.Duration(max(b.processors, 1))); s != nil && *s > stealShare {
		out = append(out, finding{labmesh.FlagContended, fmt.Sprintf("the hypervisor gave %.1f %% of the processors' time to others", 100**s)})
	}
	if s := share(a.starved, b.starved, wall); s != nil && *s > starvedShare {
		out = append(out, finding{labmesh.FlagContended, fmt.Sprintf("programs waited for memory %.0f %% of the time", 100**s)})
	}
	return out
}

// slowed says what slowed the processors down.
func slowed(a, b *snapshot) (out []finding) {
	if a.hot != nil && b.hot != nil && *b.hot > *a.hot {
		out = append(out, finding{labmesh.FlagThrottled, fmt.Sprintf("processors were slowed down %d times because they were hot", *b.hot-*a.hot)})
	}
	if s := share(a.quota, b.quota, b.at.Sub(a.at)); s != nil && *s > quotaShare {
		out = append(out, finding{labmesh.FlagThrottled, fmt.Sprintf("the CPU quota of this node's cgroup stopped it for %v", (*b.quota - *a.quota).Round(time.Millisecond))})
	}
	return out
}

func processors(n int) string {
	if n == 1 {
		return "the one processor"
	}
	return fmt.Sprintf("%d processors", n)
}

// othersLimit is how many of n processors others may use.
func othersLimit(n int) float64 {
	return min(max(othersShare*float64(n), othersLeast), othersMost)
}

// others is how many processors were used, on average, by all but what this node
// runs for tasks; nil where it is not known. The node itself is one of the others.
func others(a, b *snapshot) *float64 {
	wall := b.at.Sub(a.at)
	if wall < leastWindow || a.busy == nil || b.busy == nil || a.own == nil || b.own == nil {
		return nil
	}
	used := (*b.busy - *a.busy) - max(*b.own-*a.own, 0)
	n := max(used.Seconds(), 0) / wall.Seconds()
	return &n
}

// share is what a counter of time gained, as a share of wall.
func share(a, b *time.Duration, wall time.Duration) *float64 {
	if a == nil || b == nil || wall <= 0 {
		return nil
	}
	s := float64(max(*b-*a, 0)) / float64(wall)
	return &s
}

// named is from how many processors on a process is worth naming.
const named = 0.05

// most names the process that used the most CPU time of those that are not ours.
func most(a, b *snapshot, ours func(pid int) bool) string {
	type user struct {
		pid  int
		name string
		n    float64
	}
	var users []user
	wall := b.at.Sub(a.at).Seconds()
	if a.processes == nil || wall <= 0 {
		return ""
	}
	for pid, p := range b.processes {
		used := p.used
		if before, ok := a.processes[pid]; ok && before.began == p.began {
			used -= before.used
		}
		if n := used.Seconds() / wall; n >= named {
			users = append(users, user{pid, p.name, n})
		}
	}
	slices.SortFunc(users, func(a, b user) int {
		switch {
		case a.n > b.n:
			return -1
		case a.n < b.n:
			return 1
		}
		return a.pid - b.pid
	})
	for _, u := range users {
		if ours == nil || !ours(u.pid) {
			return fmt.Sprintf(", %s (pid %d) %.2f", clean(u.name), u.pid, u.n)
		}
	}
	return ""
}

// clean makes a name that others chose fit for a sentence.
func clean(name string) string {
	name = strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f {
			return -1
		}
		return r
	}, strings.ToValidUTF8(name, "\uFFFD"))
	if name == "" {
		return "a process without a name"
	}
	return name
}

// drift says when a clock fell while it was measured.
func drift(what string, mhz []float64) (out []finding) {
	if len(mhz) < 3 {
		return nil // no more than chance
	}
	third := max(len(mhz)/3, 1)
	first, last := median(mhz[:third]), median(mhz[len(mhz)-third:])
	if change := (last - first) / first; first > 0 && (change < -driftShare || change > driftShare) {
		out = append(out, finding{labmesh.FlagClockDrift, fmt.Sprintf("the clock of the %s went from %.0f to %.0f MHz", what, first, last)})
	}
	return out
}

func median(x []float64) float64 {
	x = slices.Sorted(slices.Values(x))
	return (x[(len(x)-1)/2] + x[len(x)/2]) / 2
}

// observed gathers findings: each flag once, with one sentence.
func observed(all []finding) (o bench.Observed) {
	for _, f := range all {
		if i := slices.Index(o.Flags, f.flag); i >= 0 {
			o.Reasons[i] += "; " + f.say
			continue
		}
		o.Flags, o.Reasons = append(o.Flags, f.flag), append(o.Reasons, f.say)
	}
	return o
}
