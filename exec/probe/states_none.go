//go:build !cgo || !(linux || darwin)

package probe

import (
	"errors"

	"labmesh/bench"
)

// openStates says that this build cannot ask the NVIDIA driver; nvidia-smi can.
func openStates() (ask func() []bench.GPUState, done func(), err error) {
	return nil, nil, errors.New(libraryMissing)
}
