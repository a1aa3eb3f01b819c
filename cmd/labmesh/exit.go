package main

import (
	"context"
	"errors"
	"fmt"

	"labmesh"
)

// The exit codes of labmesh. `labmesh run` exits with the program's own.
const (
	exitDone        = 0
	exitFailed      = 1   // the work failed: a test, a task, a regression gate
	exitUsage       = 2   // bad usage or input
	exitNoNode      = 3   // no node, or no leader
	exitDenied      = 4   // not permitted
	exitTimedOut    = 124 // timed out waiting, as timeout(1) does
	exitInterrupted = 130 // ended by Ctrl-C, as shells have it
)

// usageError is a command line or an input that makes no sense.
type usageError struct{ err error }

func (e usageError) Error() string { return e.err.Error() }
func (e usageError) Unwrap() error { return e.err }

func usagef(format string, args ...any) error { return usageError{fmt.Errorf(format, args...)} }

// exitError ends the process with a code of its own. Message may be empty:
// then all has been said.
type exitError struct {
	code    int
	message string
}

func (e exitError) Error() string { return e.message }

// exitCode is the one place where an error becomes an exit code.
func exitCode(err error) int {
	var exit exitError
	var usage usageError
	switch {
	case err == nil:
		return exitDone
	case errors.As(err, &exit):
		return exit.code
	case errors.As(err, &usage):
		return exitUsage
	}
	switch labmesh.ReasonOf(err) {
	case labmesh.Invalid, labmesh.NotFound, labmesh.TooLarge, labmesh.Conflict:
		return exitUsage
	case labmesh.Unavailable, labmesh.Exhausted:
		return exitNoNode
	case labmesh.Denied:
		return exitDenied
	}
	switch {
	case errors.Is(err, context.DeadlineExceeded):
		return exitTimedOut
	case errors.Is(err, context.Canceled):
		return exitInterrupted
	}
	return exitFailed
}
