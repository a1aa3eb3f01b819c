package bench

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/dustin/go-humanize"
	"golang.org/x/sys/unix"

	"labmesh"
	"labmesh/bench"
	"labmesh/exec/output"
	"labmesh/exec/process"
)

// Codes of fatal events that decide something.
const (
	codeDeviceLost  = "device_lost"
	codeOutOfMemory = "out_of_memory"
)

// exitKilled is how a shell ends whose child was killed by SIGKILL.
const exitKilled = 128 + int(unix.SIGKILL)

// stderrTailBytes is how much of what the runner printed last is in an error.
const stderrTailBytes = 1 << 10

// conclude gives a row to the batch size that was being measured when the process ended.
func (s *session) conclude(task context.Context, exit process.Exit, err, killed error) (ending, error) {
	if err != nil {
		if s.open != nil {
			s.close(task, labmesh.BenchError, err.Error())
		}
		return ending{}, err
	}
	if task.Err() != nil {
		killed = context.Cause(task)
	}
	e := ending{exit: exit, why: killed, fatal: s.fatal}
	if s.open != nil {
		status, reason := e.status(task.Err() != nil)
		if status == labmesh.BenchOOMKilled && exit.PeakMemory > 0 {
			s.record(task, status, reason, &bench.Event{HostPeak: &exit.PeakMemory})
		} else {
			s.close(task, status, reason)
		}
	}
	e.left, e.made = s.left, s.made
	return e, nil
}

// status is what the end of the process means for the batch size at hand.
func (e *ending) status(cancelled bool) (status labmesh.BenchStatus, reason string) {
	status = labmesh.BenchError
	switch {
	case cancelled:
		return labmesh.BenchCancelled, e.why.Error()
	case e.hung():
		status = labmesh.BenchSilent
	case e.oom():
		status = labmesh.BenchOOMKilled
	case e.fatal != nil && e.fatal.Code == codeOutOfMemory:
		status = labmesh.BenchOOM
	case e.fatal != nil:
	case e.exit.Signal != 0:
		status = labmesh.BenchCrashed
	}
	return status, e.how()
}

// hung reports whether the process was killed because it came to no end, and had
// not given up before.
func (e *ending) hung() bool {
	return e.fatal == nil && (errors.Is(e.why, errSilent) || errors.Is(e.why, errOver))
}

// oom reports whether the kernel killed the runner because memory ran out.
func (e *ending) oom() bool {
	return e.exit.OOM && (e.exit.Signal == unix.SIGKILL || e.exit.Code == exitKilled)
}

// how says in words how the process ended.
func (e *ending) how() string {
	switch {
	case e.why != nil && e.fatal == nil:
		return e.why.Error()
	case e.oom():
		peak := ""
		if e.exit.PeakMemory > 0 {
			peak = "; at its peak it took " + humanize.IBytes(uint64(e.exit.PeakMemory))
		}
		return "the kernel killed the runner because memory ran out" + peak
	case e.fatal != nil && e.fatal.Message != "":
		return fmt.Sprintf("%s: %s", e.fatal.Code, e.fatal.Message)
	case e.fatal != nil:
		return "the runner gave up: " + e.fatal.Code
	case e.exit.Signal != 0:
		return "the runner was killed by " + unix.SignalName(e.exit.Signal)
	}
	return fmt.Sprintf("the runner ended with exit code %d before it was done", e.exit.Code)
}

// cause is whose fault the end of a process is that measured nothing.
func (e *ending) cause() labmesh.Cause {
	switch {
	case e.hung():
		return labmesh.CauseTimeout
	case e.oom() || e.fatal != nil && e.fatal.Code == codeOutOfMemory:
		return labmesh.CauseOOM
	case e.fatal == nil && e.exit.Signal != 0:
		return labmesh.CauseSignal
	case e.fatal == nil:
		return labmesh.CauseExit
	}
	switch e.fatal.Code {
	case "unknown_model", "bad_spec", "no_model_file", "params":
		return labmesh.CauseConfig
	case "no_device":
		return labmesh.CauseProgram
	}
	return labmesh.CauseExit
}

// final reports whether another process would end in the same way.
func (e *ending) final() bool {
	return e.fatal != nil && e.fatal.Code != codeDeviceLost && e.fatal.Code != "internal" && e.made == 0
}

// lastWords is the end of what the runner printed to its standard error.
func (r *run) lastWords() string {
	text := strings.TrimSpace(r.a.Output.Excerpt(output.Stderr).Text)
	if len(text) > stderrTailBytes {
		text = "…" + strings.ToValidUTF8(text[len(text)-stderrTailBytes:], "")
	}
	if text == "" {
		return ""
	}
	return "; its last words:\n" + text
}
