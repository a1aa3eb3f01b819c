//go:build !linux

package process

import "time"

// CPUTime is the CPU time of all that this host has run, and false where that is
// not known, as it is not here.
func (h *Host) CPUTime() (time.Duration, bool) { return 0, false }

// Owns reports whether a process is one that this host runs; here that is not known.
func (h *Host) Owns(int) bool { return false }
