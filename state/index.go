package state

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"strings"
	"time"

	"labmesh"
)

// How long the leader waits before it gives up on an attempt that says nothing.
// The worker keeps a task's timeout itself; these catch the worker that does not.
const (
	OfferTimeout = 60 * time.Second // from placing to starting
	TimeoutGrace = 30 * time.Second // past the task's own timeout
	CancelGrace  = 60 * time.Second // from cancelling to the end
	AheadTimeout = time.Second      // from placing ahead to starting, before it goes elsewhere
	UnknownGrace = 2 * time.Second  // past the time that a task may go on without the mesh
)

// Placing ahead of a free slot.
const (
	AheadMax  = 32                     // attempts that may wait on a worker
	quickMax  = 50 * time.Millisecond  // what its attempts may take lately for that
	aheadTime = 250 * time.Millisecond // what those that wait may take it together, by what they take lately
)

// aheadRoom is how many attempts may wait on a worker whose attempts take tempo lately.
func aheadRoom(w *labmesh.Worker, tempo time.Duration) int {
	if tempo <= 0 || tempo > quickMax {
		return 0
	}
	return int(min(AheadMax, time.Duration(w.Slots)*aheadTime/tempo))
}

// MayGoAhead reports whether tasks like t may wait on a worker for a slot: those
// that need one slot and nothing else, and that may be started again.
func MayGoAhead(t *labmesh.Task) bool {
	r := &t.Spec.Requirements
	return r.Slots(1) == 1 && r.GPUs == 0 && !r.Exclusive && t.Spec.MaxAttempts == 0 && t.Spec.OnDisconnect == ""
}

// waiting is the place of a pending task in the queue of its class.
type waiting struct {
	class    string
	first    bool // a pivot before all of the class
	priority int
	seq      uint64
}

func (a waiting) less(b waiting) bool {
	switch {
	case a.class != b.class:
		return a.class < b.class
	case a.first != b.first:
		return a.first
	case a.priority != b.priority:
		return a.priority > b.priority
	}
	return a.seq < b.seq
}

// timer is something to be done about a task at a time.
type timer struct {
	at  time.Time
	seq uint64
}

func (a timer) less(b timer) bool {
	if !a.at.Equal(b.at) {
		return a.at.Before(b.at)
	}
	return a.seq < b.seq
}

// holding is an attempt that a worker holds.
type holding struct {
	worker labmesh.WorkerID
	seq    uint64
}

func (a holding) less(b holding) bool {
	if a.worker != b.worker {
		return a.worker < b.worker
	}
	return a.seq < b.seq
}

// put replaces old by t in all that is kept about live tasks. old is nil for a
// new task. It is the only place that writes tasks, and so the only place that
// keeps the indexes.
func (x *change) put(old, t *labmesh.Task) {
	t.Index = x.v.index
	if old != nil {
		x.unindex(old)
		x.v.counts[old.Phase]--
	}
	x.v.counts[t.Phase]++
	x.v.tasks.Set(t.Seq, t)
	if t.Phase.Final() {
		x.end(t)
		return
	}
	x.index(t)
}

func (x *change) index(t *labmesh.Task) {
	if d := deadline(t); !d.IsZero() {
		x.v.deadlines.Set(timer{d, t.Seq})
	}
	switch {
	case t.Phase.Held():
		x.v.held.Set(holding{t.Worker, t.Seq})
		x.use(t, 1)
	case t.Waits > 0:
		x.await(t)
	case !t.NotBefore.IsZero():
		x.v.delayed.Set(timer{t.NotBefore, t.Seq})
	default:
		x.v.queue.Set(waiting{class: t.Class, priority: t.Spec.Priority, seq: t.Seq})
		x.queued(t, 1)
	}
}

func (x *change) unindex(t *labmesh.Task) {
	if d := deadline(t); !d.IsZero() {
		x.v.deadlines.Delete(timer{d, t.Seq})
	}
	switch {
	case t.Phase.Held():
		x.v.held.Delete(holding{t.Worker, t.Seq})
		x.use(t, -1)
	case t.Waits > 0:
		x.unawait(t)
	case !t.NotBefore.IsZero():
		x.v.delayed.Delete(timer{t.NotBefore, t.Seq})
	default:
		x.v.queue.Delete(waiting{class: t.Class, priority: t.Spec.Priority, seq: t.Seq})
		x.queued(t, -1)
	}
}

// queued counts a task into or out of its class.
func (x *change) queued(t *labmesh.Task, n int) {
	c, ok := x.v.classes.Get(t.Class)
	if !ok {
		c = &Class{ID: t.Class, Kind: t.Spec.Kind, Needs: t.Spec.Requirements, Node: ofNodes(t.Class)}
	}
	next := *c
	if next.Waiting += n; next.Waiting == 0 {
		x.v.classes.Delete(t.Class)
		return
	}
	x.v.classes.Set(t.Class, &next)
}

// use counts an attempt into or out of what its worker has free.
func (x *change) use(t *labmesh.Task, n int) {
	u, _ := x.v.used.Get(t.Worker)
	u.Tasks += n
	if t.Ahead {
		u.Ahead += n
	} else {
		u.Slots += n * t.Slots
	}
	u.GPUs += n * t.Spec.Requirements.GPUs
	if u == (Used{}) {
		x.v.used.Delete(t.Worker)
	} else {
		x.v.used.Set(t.Worker, u)
	}
	x.reckon(t.Worker)
}

// reckon decides again whether a worker has a slot to spare.
func (x *change) reckon(id labmesh.WorkerID) {
	w, ok := x.v.workers.Get(id)
	u, _ := x.v.used.Get(id)
	if ok && w.Status == labmesh.WorkerActive && u.Slots+u.Ahead < w.Slots { // what waits goes first
		x.v.free.Set(id, struct{}{})
	} else {
		x.v.free.Delete(id)
	}
	if ok && w.Status == labmesh.WorkerActive && x.v.AheadRoom(w) > 0 {
		x.v.quick.Set(id, struct{}{})
	} else {
		x.v.quick.Delete(id)
	}
}

// timed takes into account how long an attempt took on a worker: the average of
// all, each weighing less than the one after it.
func (x *change) timed(id labmesh.WorkerID, took time.Duration) {
	if old, ok := x.v.tempo.Get(id); ok {
		took = (7*old + 3*took) / 10
	}
	x.v.tempo.Set(id, took)
	x.reckon(id)
}

// deadline is when someone must give up on a task as it stands; zero for never.
func deadline(t *labmesh.Task) time.Time {
	at, _ := due(t)
	return at
}

// Overdue is the cause for which a task is given up when its deadline passes.
func Overdue(t *labmesh.Task) labmesh.Cause {
	_, cause := due(t)
	return cause
}

// due is when a task as it stands is given up, and for which cause.
func due(t *labmesh.Task) (at time.Time, cause labmesh.Cause) {
	switch t.Phase {
	case labmesh.Pending:
		if q := t.Spec.QueueTimeout(); q > 0 && t.Started.IsZero() {
			at = t.Created.Add(q)
		}
		return at, labmesh.CauseQueue
	case labmesh.Cancelling:
		return t.Cancelled.Add(CancelGrace), labmesh.CauseCancelled
	case labmesh.Assigned:
		cause = labmesh.CauseOffer
		switch {
		case !t.Unknown.IsZero(): // it may have been started all the same
		case t.Ahead:
			at = t.Assigned.Add(AheadTimeout)
		default:
			at = t.Assigned.Add(OfferTimeout)
		}
	case labmesh.Running:
		cause = labmesh.CauseTimeout
		if d := t.Spec.Timeout(); d > 0 {
			at = t.Started.Add(d + TimeoutGrace)
		}
	}
	if d := t.Spec.Outlasts(); d > 0 && !t.Unknown.IsZero() {
		if last := t.Unknown.Add(d + UnknownGrace); at.IsZero() || last.Before(at) {
			return last, labmesh.CauseWorkerLost
		}
	}
	return at, cause
}

// lightLevel is the feature level at which there are light workers.
const lightLevel = 4

// nodeMark ends the names of the classes whose tasks light workers cannot be given.
const nodeMark = "@node"

func ofNodes(class string) bool { return strings.HasSuffix(class, nodeMark) }

// classOf names the class of tasks that need the same as s.
func (x *change) classOf(s *labmesh.Spec) string {
	if x.v.Level() >= lightLevel && s.NeedsNode() != "" {
		return needsOf(s) + nodeMark
	}
	return needsOf(s)
}

func needsOf(s *labmesh.Spec) string {
	data, err := json.Marshal(s.Requirements) // maps are written in order of their keys
	if err != nil || string(data) == "{}" {
		return string(s.Kind)
	}
	sum := sha256.Sum256(data)
	return string(s.Kind) + "-" + hex.EncodeToString(sum[:8])
}
