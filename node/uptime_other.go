//go:build !linux

package node

import "time"

// uptime is how long this program has run. Whether that counts the time that the machine slept is
// the system's choice; where it does not, a sleep is found out by the mesh alone.
func uptime() time.Duration { return time.Since(began) }

var began = time.Now()
