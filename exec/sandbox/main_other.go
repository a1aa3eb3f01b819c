//go:build !linux

package sandbox

import (
	"fmt"
	"os"
)

// Main says that there are no sandboxes on this system.
func Main([]string) int {
	fmt.Fprintln(os.Stderr, "labmesh: there are no sandboxes on this system")
	return 2
}
