//go:build !linux

package keeper

import (
	"errors"
	"time"
)

// Main says that there is no keeper here.
func Main(string, time.Duration) error { return errors.ErrUnsupported }
