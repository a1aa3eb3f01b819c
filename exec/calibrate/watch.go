package calibrate

import (
	"time"

	"golang.org/x/sys/unix"
)

// shareLeast bounds the part of a processor that is believed, so that nothing is divided by 0.
const shareLeast = 0.05

// watch begins to watch one thread's worth of work in this process, which must
// do nothing else; what it returns says which part of a processor the process had since.
func watch() (share func() float64) {
	cpu, wall := cpuTime(), time.Now()
	return func() float64 {
		return min(max((cpuTime()-cpu).Seconds()/time.Since(wall).Seconds(), shareLeast), 1)
	}
}

// cpuTime is what this process has used of the processors.
func cpuTime() time.Duration {
	var u unix.Rusage
	if unix.Getrusage(unix.RUSAGE_SELF, &u) != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
