//go:build !linux

package process

import (
	"context"
	"errors"
	"os"
	"syscall"
	"time"

	"labmesh/exec/output"
)

// kept is of Linux: elsewhere programs are children of this process.
type kept struct{}

type keptProgram struct{}

func openKept(context.Context, Config) (*kept, error) { return nil, nil }

func (*kept) living() (records, groups []string) { return nil, nil }
func (*kept) detached() bool                     { return false }
func (*kept) close() error                       { return nil }

func (*Host) runKept(context.Context, Command) (Exit, error) { return Exit{}, errors.ErrUnsupported }

func (*program) signalKept(syscall.Signal) {}

func (*program) readSafely(*os.File, *output.Output, output.Stream) bool { return false }

// Attempts is nothing: nothing outlives this process.
func (*Host) Attempts() map[string]time.Duration { return nil }

// Knows is false: nothing outlives this process.
func (*Host) Knows(Command) bool { return false }

// Forget does nothing.
func (*Host) Forget(string) {}

// Drop does nothing.
func (*Host) Drop(string) {}

// Renewed does nothing.
func (*Host) Renewed(time.Duration) {}

// WasRenewed is nothing: nothing outlives this process.
func (*Host) WasRenewed() time.Duration { return 0 }

// Detach does nothing.
func (*Host) Detach() bool { return false }

// Keeps is false: nothing outlives this process.
func (*Host) Keeps() bool { return false }
