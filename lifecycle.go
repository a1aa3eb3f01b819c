package labmesh

// Phase is where a task stands, in the words users see.
type Phase string

// The phases. The last four are final: nothing moves a task out of them.
const (
	Pending    Phase = "pending"
	Assigned   Phase = "assigned"
	Running    Phase = "running"
	Cancelling Phase = "cancelling"
	Completed  Phase = "completed"
	Failed     Phase = "failed"
	TimedOut   Phase = "timed_out"
	Cancelled  Phase = "cancelled"
)

// Signal is something that happens to a task.
type Signal string

// The signals.
const (
	Place    Signal = "place"    // the leader gives it to a worker
	Start    Signal = "start"    // the worker started it
	Complete Signal = "complete" // the attempt ended well
	Retry    Signal = "retry"    // the attempt ended badly, and there is another to come
	Fail     Signal = "fail"     // the attempt ended badly, and it was the last
	Expire   Signal = "expire"   // a deadline passed
	Cancel   Signal = "cancel"   // somebody wants it no more
)

// transitions is the whole life of a task. What is not here cannot happen.
var transitions = map[Phase]map[Signal]Phase{
	Pending:    {Place: Assigned, Expire: TimedOut, Cancel: Cancelled},
	Assigned:   {Start: Running, Retry: Pending, Fail: Failed, Expire: TimedOut, Cancel: Cancelling},
	Running:    {Complete: Completed, Retry: Pending, Fail: Failed, Expire: TimedOut, Cancel: Cancelling},
	Cancelling: {Complete: Completed, Retry: Cancelled, Fail: Cancelled, Expire: Cancelled, Cancel: Cancelling},
	Completed:  {},
	Failed:     {},
	TimedOut:   {},
	Cancelled:  {},
}

// Phases lists every phase in the order of a task's life.
func Phases() []Phase {
	return []Phase{Pending, Assigned, Running, Cancelling, Completed, Failed, TimedOut, Cancelled}
}

// Signals lists every signal.
func Signals() []Signal {
	return []Signal{Place, Start, Complete, Retry, Fail, Expire, Cancel}
}

// Next is the phase that follows p on s, and whether s may happen in p at all.
func (p Phase) Next(s Signal) (Phase, bool) {
	to, ok := transitions[p][s]
	return to, ok
}

// Final reports whether a task in p has its verdict.
func (p Phase) Final() bool {
	m, known := transitions[p]
	return known && len(m) == 0
}

// Held reports whether a worker holds the attempt of a task in p.
func (p Phase) Held() bool { return p == Assigned || p == Running || p == Cancelling }

// Known reports whether p is a phase at all.
func (p Phase) Known() bool { _, ok := transitions[p]; return ok }
