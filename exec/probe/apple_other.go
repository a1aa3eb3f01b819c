//go:build !darwin

package probe

import (
	"runtime"

	"labmesh"
)

// apple says that this is no Apple machine.
func apple() (devices []labmesh.Device, why string) {
	return nil, "no Apple GPU: this is " + runtime.GOOS + ", not macOS"
}
