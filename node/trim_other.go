//go:build !linux

package node

import "runtime/debug"

// trim gives back memory that only the start needed.
func trim() error {
	debug.FreeOSMemory()
	return nil
}
