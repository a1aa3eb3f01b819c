package exec

import (
	"context"
	"errors"
	"sync/atomic"
	"time"

	"labmesh"
	"labmesh/exec/output"
)

// Desk is where a worker finds its tasks and hands in its reports.
type Desk interface {
	// Assigned is the tasks whose attempt this worker holds, in the order in
	// which to start them: those assigned, running and cancelling. It is cheap,
	// and what it says never goes backward. A desk that has lost touch with the
	// mesh goes on saying what it knew last: to say nothing is to take the tasks away.
	// The tasks are the mesh's own: they are not to be changed.
	Assigned() []*labmesh.Task
	// Changed is closed at the next change. Take the channel, then read.
	Changed() <-chan struct{}
	// Report hands in cmds, in order, and returns one answer for each. An error
	// means that nothing is known of their fate: they are repeated. An answer
	// refused with Conflict or NotFound means that the mesh has moved on.
	Report(ctx context.Context, cmds []labmesh.Command) ([]labmesh.Answer, error)
}

// Attempt is one run of a task on this machine.
type Attempt struct {
	Task   labmesh.Task
	Number int
	Worker labmesh.WorkerID
	Dir    string         // its own directory: there, empty, and swept when it is old
	Output *output.Output // takes what the attempt prints; it never blocks and never refuses
	// Outlasts is how long it goes on after the worker's lease was renewed last; 0 where the worker has none.
	Outlasts time.Duration

	// Secrets are variables of its environment, by their names. Their values are in no log,
	// result, test case or row: what is handed in through Output, Record, RecordRows and the outcome is rid of them.
	Secrets map[string]string

	// Record hands in test cases that have ended, in order and each once. It
	// returns at once. An attempt that is taken up again after a restart of the
	// worker records from the first one on again: what is known is dropped.
	Record func([]labmesh.TestCase)
	// RecordRows hands in what a benchmark has measured, in the same way.
	RecordRows func([]labmesh.BenchRow)

	programs *atomic.Int64    // how many were named by Program
	hide     *output.Redactor // the values of Secrets
}

// Runner runs attempts of one kind of task.
type Runner interface {
	// Run runs a and returns how it ended. When ctx ends it stops what it
	// started and returns soon; [Stopped] tells why it had to. For an attempt
	// that went on while the worker was away it is called again: what it does
	// before, between and after programs must bear that (see [Attempt.Program]).
	Run(ctx context.Context, a Attempt) labmesh.Outcome
}

// Early is a Runner some of whose attempts can begin while they wait for a slot.
type Early interface {
	Runner
	// Early is how an attempt of t begins before it has a slot, or nil where it
	// does not. Begin starts what takes little of the machine and does nothing of
	// the task's own, and returns at once what takes the place of Run. That is
	// called once: when there is a slot, or with a context that has ended.
	Early(t *labmesh.Task) (begin func(ctx context.Context, a Attempt) (run func(ctx context.Context) labmesh.Outcome))
}

// Why the context of an attempt ended early, as [context.Cause] gives it.
var (
	ErrCancelled  = errors.New("the task was cancelled")
	ErrTimeout    = errors.New("the attempt ran past its timeout")
	ErrShutdown   = errors.New("the node is shutting down")
	ErrSuperseded = errors.New("the mesh has moved on from this attempt")
)

// Stopped says why the context of an attempt has ended: the cause and the
// message its outcome should carry. ok is false while the context goes on.
func Stopped(ctx context.Context) (cause labmesh.Cause, message string, ok bool) {
	err := context.Cause(ctx)
	var quota *quotaError
	switch {
	case err == nil:
		return "", "", false
	case errors.Is(err, ErrCancelled):
		return labmesh.CauseCancelled, err.Error(), true
	case errors.Is(err, ErrTimeout):
		return labmesh.CauseTimeout, err.Error(), true
	case errors.As(err, &quota):
		return labmesh.CauseQuota, err.Error(), true
	}
	return labmesh.CauseWorkerLost, err.Error(), true // shutdown, or the mesh moved on
}
