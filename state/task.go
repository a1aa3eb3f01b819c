package state

import (
	"bytes"
	"time"

	"labmesh"
)

// The statuses of attempts that ended otherwise than their task.
const (
	attemptLost       = "lost"       // the mesh's own fault
	attemptSuperseded = "superseded" // word that came too late
)

// backoffInfra is the wait after the second attempt in a row that the mesh
// itself lost; it grows with their number.
const (
	backoffInfra    = time.Second
	backoffInfraMax = 30 * time.Second
)

// step moves a task along s. It is the only place in which a phase is set.
func step(t *labmesh.Task, s labmesh.Signal) *labmesh.Error {
	to, ok := t.Phase.Next(s)
	if !ok {
		return labmesh.Refuse(labmesh.Conflict, "%s %s: it is %s", s, t.ID, t.Phase)
	}
	t.Phase = to
	return nil
}

func (x *change) submit(cmd labmesh.SubmitTask) labmesh.Answer {
	if _, ok := x.v.ids.Get(cmd.ID); ok {
		if !x.v.inReach(cmd.Project, cmd.ID) {
			return labmesh.Answer{Task: cmd.ID, Refused: TaskTaken(cmd.ID)}
		}
		return labmesh.Answer{Task: cmd.ID, Existed: true} // sent twice: already done
	}
	if refused := x.checkDependencies(&cmd); refused != nil {
		return labmesh.Answer{Task: cmd.ID, Refused: refused}
	}
	if key := taskKey(cmd.Project, cmd.Spec.IdempotencyKey); key != "" {
		if id, ok := x.v.keys.Get(key); ok {
			return labmesh.Answer{Task: id, Existed: true}
		}
		x.v.keys.Set(key, cmd.ID)
	}
	x.v.seq++
	x.share(&cmd)
	t := &labmesh.Task{
		ID: cmd.ID, Seq: x.v.seq, Spec: cmd.Spec, By: cmd.By, Project: cmd.Project,
		Phase: labmesh.Pending, Class: x.classOf(&cmd.Spec), Created: x.at,
	}
	if c, ok := x.v.classes.Get(t.Class); ok {
		t.Class, t.Spec.Kind, t.Spec.Requirements = c.ID, c.Kind, c.Needs // equal, and in memory once
	}
	x.v.ids.Set(t.ID, t.Seq)
	failed := x.countDependencies(t)
	x.put(nil, t)
	x.tell(labmesh.Event{Type: labmesh.TaskSubmitted, Task: t, Actor: t.By})
	if failed != "" {
		x.doom(t, failed)
	}
	return labmesh.Answer{Task: t.ID}
}

// share has a task use the memory of the one before it for what is the same: a
// long queue is mostly of tasks that somebody submitted together.
func (x *change) share(cmd *labmesh.SubmitTask) {
	if cmd.By == x.last.By {
		cmd.By = x.last.By
	}
	if bytes.Equal(cmd.Spec.Config, x.last.Spec.Config) {
		cmd.Spec.Config = x.last.Spec.Config
	}
	if cmd.Project == x.last.Project {
		cmd.Project = x.last.Project
	}
	*x.last = labmesh.SubmitTask{By: cmd.By, Project: cmd.Project, Spec: labmesh.Spec{Config: cmd.Spec.Config}}
}

// place re-checks everything the scheduler believed: a plan made on an old
// view is refused, task by task, where it no longer holds.
func (x *change) place(cmd labmesh.PlaceTask) *labmesh.Error {
	old, refused := x.live(cmd.ID)
	if refused != nil {
		return refused
	}
	w, ok := x.v.workers.Get(cmd.Worker)
	t := *old
	if refused := step(&t, labmesh.Place); refused != nil {
		return refused
	}
	u, _ := x.v.used.Get(cmd.Worker)
	needs := &t.Spec.Requirements
	switch {
	case cmd.Attempt != old.Attempt+1:
		return labmesh.Refuse(labmesh.Conflict, "place %s: attempt %d is not the next after %d", t.ID, cmd.Attempt, old.Attempt)
	case old.Waits > 0:
		return labmesh.Refuse(labmesh.Conflict, "place %s: it depends on %d tasks that have not ended", t.ID, old.Waits)
	case !old.NotBefore.IsZero():
		return labmesh.Refuse(labmesh.Conflict, "place %s: not before %s", t.ID, old.NotBefore.Format(time.RFC3339))
	case !ok || w.Status != labmesh.WorkerActive:
		return labmesh.Refuse(labmesh.Conflict, "place %s: worker %s is not active", t.ID, cmd.Worker)
	case w.Light && ofNodes(t.Class):
		return labmesh.Refuse(labmesh.Conflict, "place %s: worker %s is a light one, and the task needs %s", t.ID, w.ID, t.Spec.NeedsNode())
	case !needs.Fits(t.Spec.Kind, w):
		return labmesh.Refuse(labmesh.Conflict, "place %s: worker %s does not fit: %s", t.ID, w.ID, needs.Misfits(t.Spec.Kind, w)[0])
	case cmd.Ahead && !x.takesAhead(&t, w.ID):
		return labmesh.Refuse(labmesh.Conflict, "place %s: worker %s takes nothing ahead", t.ID, w.ID)
	case !cmd.Ahead && (u.Slots+u.Ahead+needs.Slots(w.Slots) > w.Slots || u.GPUs+needs.GPUs > w.Capabilities.GPUCount()):
		return labmesh.Refuse(labmesh.Conflict, "place %s: worker %s is full", t.ID, w.ID)
	}
	t.Attempt, t.Worker, t.Slots, t.Ahead = cmd.Attempt, w.ID, needs.Slots(w.Slots), cmd.Ahead
	t.Assigned, t.Cases = x.at, 0
	x.put(old, &t)
	x.tell(labmesh.Event{Type: labmesh.TaskPlaced, Task: &t})
	return nil
}

func (x *change) takesAhead(t *labmesh.Task, id labmesh.WorkerID) bool {
	_, quick := x.v.quick.Get(id)
	return quick && MayGoAhead(t)
}

func (x *change) start(cmd labmesh.StartTask) *labmesh.Error {
	old, refused := x.holds(cmd.ID, cmd.Attempt, cmd.Worker)
	if refused != nil {
		return refused
	}
	switch old.Phase {
	case labmesh.Running:
		return nil // sent twice
	case labmesh.Cancelling:
		return labmesh.Refuse(labmesh.Conflict, "start %s: it is being cancelled", old.ID)
	}
	if w, ok := x.v.workers.Get(cmd.Worker); ok && old.Ahead {
		if u, _ := x.v.used.Get(cmd.Worker); u.Slots+old.Slots > w.Slots {
			return labmesh.Refuse(labmesh.Conflict, "start %s: worker %s has no slot free for it", old.ID, cmd.Worker)
		}
	}
	t := *old
	if refused := step(&t, labmesh.Start); refused != nil {
		return refused
	}
	t.Started, t.Ahead = x.at, false
	x.put(old, &t)
	x.tell(labmesh.Event{Type: labmesh.TaskStarted, Task: &t})
	return nil
}

func (x *change) finish(cmd labmesh.FinishTask) *labmesh.Error {
	old, refused := x.holds(cmd.ID, cmd.Attempt, cmd.Worker)
	if refused != nil {
		if x.reported(cmd) {
			return nil // sent twice: already done
		}
		x.late(cmd)
		return refused
	}
	o := cmd.Outcome
	if old.Phase == labmesh.Assigned && o.OK {
		// Its word that it started was overtaken: an attempt that ended well did start.
		if refused := x.start(labmesh.StartTask{ID: cmd.ID, Attempt: cmd.Attempt, Worker: cmd.Worker}); refused != nil {
			return refused
		}
		old, _ = x.v.Task(cmd.ID)
	}
	x.witness(cmd.Worker, old, o)
	t := *old
	signal := labmesh.Complete
	if !o.OK {
		o = x.acquit(cmd.Worker, o)
		signal = x.blame(&t, o.Cause)
	}
	if refused := step(&t, signal); refused != nil {
		return refused
	}
	if t.Phase == labmesh.Completed {
		o.Cause, o.Error = "", ""
	}
	t.Error, t.Cause, t.Result, t.Outputs = o.Error, o.Cause, o.Result, o.Outputs
	if !onlyWaited(old, o.Cause) {
		x.endAttempt(&t, attemptStatus(&t, o.Cause), o)
	}
	x.settle(old, &t)
	if w, ok := x.v.workers.Get(cmd.Worker); ok && w.Light {
		return nil // it is given one task at a time, and nothing ahead
	}
	if !o.Cause.Infra() && (o.OK || !x.burnt(cmd.Worker)) {
		x.timed(cmd.Worker, max(time.Duration(o.Seconds*float64(time.Second)), 1))
	}
	return nil
}

// acquit turns a failure at once into one of the worker, where that fails what others do not.
func (x *change) acquit(id labmesh.WorkerID, o labmesh.Outcome) labmesh.Outcome {
	if o.Seconds > burnWithin || o.Cause.Infra() || !burns(o.Cause) || x.v.Level() < bearingLevel {
		return o
	}
	w, ok := x.v.workers.Get(id)
	quarantined := ok && w.Hold == labmesh.WorkerQuarantined
	if n, _ := x.v.Burns(id); n < BurnsMax && !quarantined {
		return o
	}
	o.Error = "worker " + string(id) + " fails what others do not (" + string(o.Cause) + ": " + o.Error + ")"
	o.Cause = labmesh.CauseWorker
	return o
}

// onlyWaited reports whether an attempt that was given up was never started: it
// waited on a worker for a slot. That is no attempt that anyone should hear of,
// and counts as nothing.
func onlyWaited(t *labmesh.Task, cause labmesh.Cause) bool {
	return t.Ahead && t.Phase == labmesh.Assigned && (cause == labmesh.CauseOffer || cause == labmesh.CauseWorkerLost)
}

// blame counts a bad outcome where it belongs and says what follows from it.
func (x *change) blame(t *labmesh.Task, cause labmesh.Cause) labmesh.Signal {
	if t.Phase == labmesh.Cancelling {
		return labmesh.Fail // which ends in cancelled
	}
	if onlyWaited(t, cause) {
		return labmesh.Retry
	}
	if cause.Infra() {
		t.Lost++
	} else {
		t.Failed++
	}
	switch {
	case t.MayRetry(cause):
		return labmesh.Retry
	case cause == labmesh.CauseTimeout:
		return labmesh.Expire
	}
	return labmesh.Fail
}

func attemptStatus(t *labmesh.Task, cause labmesh.Cause) string {
	switch {
	case t.Phase == labmesh.Completed || t.Phase == labmesh.Cancelled:
		return string(t.Phase)
	case cause.Infra():
		return attemptLost
	case cause == labmesh.CauseTimeout:
		return string(labmesh.TimedOut)
	}
	return string(labmesh.Failed)
}

// endAttempt puts the newest attempt of t on record.
func (x *change) endAttempt(t *labmesh.Task, status string, o labmesh.Outcome) {
	x.v.attempts++
	a := labmesh.Attempt{
		ID: x.v.attempts, Task: t.ID, Number: t.Attempt, Worker: t.Worker, Status: status,
		Cause: o.Cause, Error: o.Error, Started: t.Started, Ended: x.at, Seconds: o.Seconds, Metrics: o.Metrics, Outputs: o.Outputs,
	}
	if a.Started.Before(t.Assigned) {
		a.Started = time.Time{} // that start was an earlier attempt's
	}
	t.History = append(t.History[:len(t.History):len(t.History)], a)
	x.tell(labmesh.Event{Type: labmesh.AttemptEnded, Attempt: &a, Task: t})
}

// settle publishes a task whose attempt ended, in its final phase or back in the queue.
func (x *change) settle(old, t *labmesh.Task) {
	t.Unknown = time.Time{}
	if t.Phase.Final() {
		t.Ended, t.Ahead, t.Waits = x.at, false, 0
		x.put(old, t)
		x.tell(labmesh.Event{Type: labmesh.TaskEnded, Task: t})
		return
	}
	wait := t.Spec.Backoff(t.Failed)
	if t.Cause.Infra() {
		wait = min(time.Duration(max(t.Lost-1, 0))*backoffInfra, backoffInfraMax)
	}
	t.NotBefore = time.Time{}
	if wait > 0 {
		t.NotBefore = x.at.Add(wait)
	}
	t.Result, t.Outputs = nil, nil
	t.Slots, t.Ahead = 0, false
	x.put(old, t)
	x.tell(labmesh.Event{Type: labmesh.TaskRetried, Task: t, Detail: string(t.Cause)})
}

func (x *change) cancel(cmd labmesh.CancelTask) *labmesh.Error {
	old, ok := x.v.Task(cmd.ID)
	switch {
	case !ok && x.v.Known(cmd.ID):
		return labmesh.Refuse(labmesh.Conflict, "cancel %s: it has ended", cmd.ID)
	case !ok:
		return labmesh.Refuse(labmesh.NotFound, "cancel %s: no such task", cmd.ID)
	case old.Phase == labmesh.Cancelling, old.Phase == labmesh.Cancelled:
		return nil // sent twice
	}
	t := *old
	if refused := step(&t, labmesh.Cancel); refused != nil {
		return refused
	}
	t.Cancelled, t.Cause, t.Error = x.at, labmesh.CauseCancelled, "cancelled by "+or(cmd.By, "a user")
	if cmd.Reason != "" {
		t.Error += ": " + cmd.Reason
	}
	if t.Phase.Final() {
		x.settle(old, &t)
		return nil
	}
	x.put(old, &t)
	x.tell(labmesh.Event{Type: labmesh.TaskCancelling, Task: &t, Actor: cmd.By, Detail: cmd.Reason})
	if w, ok := x.v.workers.Get(t.Worker); ok && w.Light {
		x.endCancelled(&t)
	}
	return nil
}

// endCancelled ends a cancelled task whose worker will not say that it stopped: light ones do not.
func (x *change) endCancelled(old *labmesh.Task) {
	t := *old
	if refused := step(&t, labmesh.Fail); refused != nil {
		return // cannot be: what is being cancelled can end
	}
	if !onlyWaited(old, t.Cause) {
		x.endAttempt(&t, string(labmesh.Cancelled), labmesh.Outcome{Cause: t.Cause, Error: t.Error})
	}
	x.settle(old, &t)
}

// expire re-checks that the deadline the leader saw has passed.
func (x *change) expire(cmd labmesh.ExpireTask) *labmesh.Error {
	old, refused := x.live(cmd.ID)
	if refused != nil {
		return refused
	}
	d := deadline(old)
	if old.Attempt != cmd.Attempt || cmd.Cause != Overdue(old) || d.IsZero() || d.After(x.at) {
		return labmesh.Refuse(labmesh.Conflict, "expire %s: its deadline has not passed", cmd.ID)
	}
	t, signal := *old, labmesh.Expire
	o := labmesh.Outcome{Cause: cmd.Cause, Error: expiry(old)}
	if old.Phase.Held() && old.Phase != labmesh.Cancelling {
		signal = x.blame(&t, cmd.Cause)
	}
	if refused := step(&t, signal); refused != nil {
		return refused
	}
	t.Cause, t.Error = o.Cause, o.Error
	if t.Phase == labmesh.Cancelled {
		t.Cause = labmesh.CauseCancelled
	}
	if old.Phase.Held() && !onlyWaited(old, o.Cause) {
		x.endAttempt(&t, attemptStatus(&t, o.Cause), o)
	}
	x.settle(old, &t)
	return nil
}

func expiry(t *labmesh.Task) string {
	if Overdue(t) == labmesh.CauseWorkerLost {
		return "worker " + string(t.Worker) + " was not heard of for longer than the " + t.Spec.OnDisconnect + " of the task's on_disconnect"
	}
	switch t.Phase {
	case labmesh.Pending:
		return "it was not started within its queue timeout of " + t.Spec.QueueTimeout().String()
	case labmesh.Assigned:
		return "worker " + string(t.Worker) + " did not start it within " + deadline(t).Sub(t.Assigned).String()
	case labmesh.Running:
		return "it ran past its timeout of " + t.Spec.Timeout().String() + " and worker " + string(t.Worker) + " did not say that it ended"
	}
	return "cancelled; worker " + string(t.Worker) + " did not say that it stopped"
}

// live is a task that has no verdict yet.
func (x *change) live(id labmesh.TaskID) (*labmesh.Task, *labmesh.Error) {
	t, ok := x.v.Task(id)
	switch {
	case ok && !t.Phase.Final():
		return t, nil
	case ok || x.v.Known(id):
		return nil, labmesh.Refuse(labmesh.Conflict, "task %s has ended", id)
	}
	return nil, labmesh.Refuse(labmesh.NotFound, "no task %s", id)
}

// holds is the fence: word of an attempt counts only from the worker that
// holds it, and only of the newest attempt.
func (x *change) holds(id labmesh.TaskID, attempt int, w labmesh.WorkerID) (*labmesh.Task, *labmesh.Error) {
	t, refused := x.live(id)
	switch {
	case refused != nil:
		return nil, refused
	case t.Attempt != attempt || t.Worker != w || !t.Phase.Held():
		return nil, labmesh.Refuse(labmesh.Conflict, "attempt %d of %s by %s counts no more", attempt, id, w)
	}
	return t, nil
}

// reported tells whether just this word was taken before.
func (x *change) reported(cmd labmesh.FinishTask) bool {
	t, ok := x.v.Task(cmd.ID)
	if !ok {
		return false
	}
	for i := range t.History {
		a := &t.History[i]
		if a.Number == cmd.Attempt && a.Worker == cmd.Worker {
			return a.Seconds == cmd.Outcome.Seconds && a.Cause == cmd.Outcome.Cause
		}
	}
	return false
}

// late puts word that counts no more on record.
func (x *change) late(cmd labmesh.FinishTask) {
	if !x.v.Known(cmd.ID) {
		return
	}
	x.v.attempts++
	x.tell(labmesh.Event{Type: labmesh.AttemptLate, Actor: string(cmd.Worker), Attempt: &labmesh.Attempt{
		ID: x.v.attempts, Task: cmd.ID, Number: cmd.Attempt, Worker: cmd.Worker, Status: attemptSuperseded,
		Cause: cmd.Outcome.Cause, Error: cmd.Outcome.Error, Ended: x.at, Seconds: cmd.Outcome.Seconds, Metrics: cmd.Outcome.Metrics,
	}})
}

// wake puts the tasks whose wait before a retry is over into their queues.
func (x *change) wake() {
	for {
		d, ok := x.v.delayed.Min()
		if !ok || d.at.After(x.at) {
			return
		}
		old, _ := x.v.tasks.Get(d.seq)
		t := *old
		t.NotBefore = time.Time{}
		index := old.Index
		x.put(old, &t)
		t.Index = index // waiting longer is no change that anyone sees
	}
}

// How much of what ended is remembered in RAM. The ledger has all of it.
const (
	keptMax      = 1024    // tasks that ended, whole
	keptBytesMax = 8 << 20 // of their results
	rememberMax  = 16_384  // ids and idempotency keys of tasks that ended
)

// ending is a task that ended.
type ending struct {
	ID  labmesh.TaskID `json:"id"`
	Seq uint64         `json:"seq"`
	Key string         `json:"key,omitempty"`
	Bad bool           `json:"bad,omitempty"` // it did not complete

	Project string `json:"project,omitempty"`
}

func (x *change) end(t *labmesh.Task) {
	x.v.ended.Set(x.v.ends, ending{t.ID, t.Seq, t.Spec.IdempotencyKey, t.Phase != labmesh.Completed, t.Project})
	x.over = append(x.over, t)
	x.v.ends++
	x.v.keptSize += weight(t)
}

// forget drops what ended long ago. The ledger has it: events are handed to it
// before the entry counts as applied.
func (x *change) forget() {
	for x.v.kept < x.v.ends && (x.v.ends-x.v.kept > keptMax || x.v.keptSize > keptBytesMax) {
		e, _ := x.v.ended.Get(x.v.kept)
		if t, ok := x.v.tasks.Delete(e.Seq); ok {
			x.v.keptSize -= weight(t)
		}
		x.v.kept++
	}
	for x.v.ended.Len() > rememberMax {
		_, e, _ := x.v.ended.PopMin()
		x.v.ids.Delete(e.ID)
		if e.Key != "" {
			x.v.keys.Delete(taskKey(e.Project, e.Key))
		}
	}
}

func weight(t *labmesh.Task) int {
	return len(t.Result) + len(t.Spec.Config) + len(t.Error)
}

func or(s, otherwise string) string {
	if s == "" {
		return otherwise
	}
	return s
}
