package node

import (
	"time"

	"golang.org/x/sys/unix"
)

// uptime is how long this machine has been up, with the time that it slept.
func uptime() time.Duration {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &ts); err != nil {
		return time.Since(began) // as every kernel since 2.6.39 has that clock this does not happen
	}
	return time.Duration(ts.Nano())
}

var began = time.Now()
