package light

import (
	"fmt"
	"time"

	"labmesh"
)

// The times that a session goes by.
const (
	SocketAge   = 500 * time.Millisecond // a socket that lives so long is meant to stay
	Grace       = 30 * time.Second       // a worker may be without a socket, and keep what it runs
	SettleWait  = time.Second            // a result may be on its way by another socket
	OfferWait   = 15 * time.Second       // a task may wait for a socket, before it goes elsewhere
	UsedWait    = time.Second            // a worker may take to leave a used socket, while a task waits for it
	StrayWait   = 2 * time.Second        // a worker may take to stop what it is told to stop
	ReclaimWait = 5 * time.Second        // a worker counts as attached elsewhere, while it speaks here
	TimeoutWait = 2 * time.Second        // past a task's timeout, for a worker that keeps it itself
	retryWait   = 250 * time.Millisecond // before the mesh is told again what it did not take
)

// Deed is what a session wants done.
type Deed string

// The deeds. Those that tell the mesh something are answered with [Session.Answered].
const (
	Claim    Deed = "claim"   // tell the mesh that the worker is attached here
	Start    Deed = "start"   // tell the mesh that the attempt starts
	GiveUp   Deed = "give_up" // tell the mesh that the attempt ended, for Cause and Why
	Lose     Deed = "lose"    // tell the mesh that the worker is gone, and Why
	SendTask Deed = "execute" // send the task on Socket
	SendStop Deed = "cancel"  // tell the worker on Socket to stop the task, for Reason
	HangUp   Deed = "hang_up" // close Socket: the worker is to come by another

)

// Why a worker is told to stop a task.
const (
	ReasonUser      = "user_request"
	ReasonMigration = "migration"
)

// Step is one thing to be done.
type Step struct {
	Do      Deed
	Socket  uint64
	Task    labmesh.TaskID
	Attempt int
	Cause   labmesh.Cause
	Why     string
	Reason  string
}

// Facts are what the mesh says of a worker, as this node sees it.
type Facts struct {
	Known   bool // the mesh has it
	Offline bool // and counts it as gone
	Mine    bool // and as attached to this node
	// Held is the attempt that the worker holds; nil for none.
	Held *labmesh.Task
	// Cancelled reports whether somebody wanted a task cancelled. It may be nil.
	Cancelled func(labmesh.TaskID) bool
}

// Session is one light worker as a node knows it to which it is, or was last,
// attached. Its methods take in what happens; [Session.Next] says what is to be done. Sockets are named
// by numbers that count up. It is not safe for concurrent use.
type Session struct {
	sockets  []socket // open ones by which it spoke, oldest first
	gone     time.Time
	claim    bool // the mesh is to be told that it is attached here
	claiming bool
	claimed  time.Time // when the mesh last took that
	beat     time.Time // the last heartbeat
	losing   bool
	retry    time.Time // nothing is told the mesh before
	flight   *flight
	stray    stray
}

// socket is an open socket of the worker.
type socket struct {
	n          uint64
	opened     time.Time
	registered bool
	used       bool // a task was sent on it
	idle       time.Time
}

// flight is the attempt that the worker holds.
type flight struct {
	task      labmesh.TaskID
	attempt   int
	seen      time.Time // when this session first saw it
	telling   bool      // the mesh is being told of its start, or that it is given up
	started   bool      // the mesh knows that it starts: it may have been sent
	fresh     bool      // it started by this session and was not sent yet
	socket    uint64    // on which it was sent; 0 for another node's, or none
	known     uint64    // the newest socket on which it was sent, or the worker said that it runs it
	sent      time.Time
	timeout   time.Duration
	unheard   time.Time // when a heartbeat first said nothing of it, after the worker had come back
	reporting bool      // its result is being handed in
}

// stray is a task that the worker says it runs, and does not hold.
type stray struct {
	task  labmesh.TaskID
	told  time.Time // when it was told to stop it
	by    uint64    // and on which socket
	heard time.Time // when it last said so
	stuck bool      // it does not stop: the worker takes no work
}

// NewSession is the session of a worker that has no socket here.
func NewSession(now time.Time) *Session { return &Session{gone: now} }

// Register takes in that the worker registered on a socket that was opened then.
func (s *Session) Register(n uint64, opened, now time.Time) {
	s.attach(n, opened).registered = true
	s.claim = true
}

// Attach takes in that the worker spoke on a socket without having registered there.
func (s *Session) Attach(n uint64, opened time.Time) {
	if s.find(n) == nil {
		s.attach(n, opened)
		s.claim = true
	}
}

func (s *Session) attach(n uint64, opened time.Time) *socket {
	s.gone = time.Time{}
	at := 0
	for at < len(s.sockets) && s.sockets[at].n < n {
		at++
	}
	if at == len(s.sockets) || s.sockets[at].n != n {
		s.sockets = append(s.sockets, socket{})
		copy(s.sockets[at+1:], s.sockets[at:])
		s.sockets[at] = socket{n: n, opened: opened}
	}
	return &s.sockets[at]
}

// Close takes in that a socket is closed.
func (s *Session) Close(n uint64, now time.Time) {
	for i := range s.sockets {
		if s.sockets[i].n == n {
			s.sockets = append(s.sockets[:i], s.sockets[i+1:]...)
			if len(s.sockets) == 0 {
				s.gone = now
			}
			return
		}
	}
}

// Has reports whether the worker spoke on a socket that is open.
func (s *Session) Has(n uint64) bool { return s.find(n) != nil }

// Open is how many sockets it has open.
func (s *Session) Open() int { return len(s.sockets) }

func (s *Session) find(n uint64) *socket {
	for i := range s.sockets {
		if s.sockets[i].n == n {
			return &s.sockets[i]
		}
	}
	return nil
}

// current is the newest open socket, nil for none.
func (s *Session) current() *socket {
	if len(s.sockets) == 0 {
		return nil
	}
	return &s.sockets[len(s.sockets)-1]
}

// Heartbeat takes in one, with the task that it says the worker runs, if it says so.
func (s *Session) Heartbeat(n uint64, running labmesh.TaskID, now time.Time) {
	f := s.flight
	s.beat = now
	if f != nil && running == f.task && s.stray.task != running {
		f.unheard, f.known = time.Time{}, max(f.known, n)
		if !f.started || f.fresh { // it runs it since an attempt that was given up
			f.fresh, f.socket, f.sent = false, n, now
		}
		return
	}
	if running != "" {
		if s.stray.task != running {
			s.stray = stray{task: running, stuck: s.stray.stuck}
		}
		s.stray.heard = now
	} else if s.stray.task != "" {
		s.claim = s.claim || s.stray.stuck
		s.stray = stray{}
	}
	at := s.find(n)
	back := at != nil && at.registered && f != nil && f.started && !f.fresh && at.n > f.known
	if back && f.unheard.IsZero() {
		f.unheard = now
	}
}

// Result takes in that the worker handed in the result of a task: until [Session.Reported] the attempt is not given up.
func (s *Session) Result(task labmesh.TaskID) {
	if f := s.flight; f != nil && f.task == task {
		f.reporting = true
	}
}

// Reported takes in that the mesh took, or declined, a result.
func (s *Session) Reported(task labmesh.TaskID, taken bool) {
	if f := s.flight; f != nil && f.task == task {
		f.reporting = taken // until the view shows it
	}
}

// Answered takes in what came of telling the mesh of step: whether it was understood, or is to be repeated.
func (s *Session) Answered(step Step, ok bool, now time.Time) {
	if !ok {
		s.retry = now.Add(retryWait)
	}
	switch step.Do {
	case Claim:
		s.claiming = false
		if s.claimed = now; !ok {
			s.claim = true
		}
		return
	case Lose:
		s.losing = false
		return
	}
	f := s.flight
	if f == nil || f.task != step.Task || f.attempt != step.Attempt {
		return
	}
	f.telling = false
	if step.Do == Start && ok {
		f.started = true
		f.fresh = f.socket == 0
	}
}

// Over reports whether nothing is left of the session: its worker has no socket here, and the mesh does not count on one.
func (s *Session) Over(f Facts) bool {
	busy := s.claiming || s.losing || s.flight != nil && (s.flight.telling || s.flight.reporting)
	return len(s.sockets) == 0 && !busy && (!f.Known || f.Offline || !f.Mine)
}

// Next says what is to be done now, and when to ask again at the latest if nothing happens; zero for never.
func (s *Session) Next(facts Facts, now time.Time) (steps []Step, wake time.Time) {
	n := next{s: s, facts: facts, now: now}
	n.follow()
	n.belong()
	n.stop()
	if facts.Known && facts.Mine && !facts.Offline && !s.losing {
		n.offer()
		n.giveUp()
		n.miss()
	}
	return n.steps, n.wake
}

// next is one look at a session.
type next struct {
	s     *Session
	facts Facts
	now   time.Time
	steps []Step
	wake  time.Time
}

func (n *next) do(step Step) { n.steps = append(n.steps, step) }

// due reports whether a time has come, and sees to it that it is looked again when it does.
func (n *next) due(at time.Time) bool {
	if !n.now.Before(at) {
		return true
	}
	if n.wake.IsZero() || at.Before(n.wake) {
		n.wake = at
	}
	return false
}

// tells reports whether the mesh may be told something: not right after it did not take something.
func (n *next) tells() bool { return n.due(n.s.retry) }

// follow has the flight be what the mesh says that the worker holds.
func (n *next) follow() {
	s, held := n.s, n.facts.Held
	if f := s.flight; f != nil && (held == nil || held.ID != f.task || held.Attempt != f.attempt) {
		if at := s.find(f.socket); at != nil {
			at.idle = n.now
		}
		if cur := s.current(); cur != nil && f.known != 0 && f.unheard.IsZero() && !f.reporting {
			n.sendStop(cur.n, f.task)
		}
		s.flight = nil
	}
	if held != nil && s.flight == nil {
		s.flight = &flight{task: held.ID, attempt: held.Attempt, seen: n.now, started: held.Phase != labmesh.Assigned, timeout: held.Spec.Timeout()}
	}
}

// belong has the mesh know where the worker is.
func (n *next) belong() {
	s := n.s
	if s.current() == nil {
		s.claim = false
		return
	}
	if s.stray.stuck {
		return // it takes no work
	}
	lost := n.facts.Mine && n.facts.Offline
	if lost || !n.facts.Mine && s.beat.Sub(s.claimed) >= ReclaimWait {
		s.claim = true // the mesh lost it, or has it elsewhere, and here it is
	}
	if s.claim && !s.claiming && n.tells() {
		s.claim, s.claiming = false, true
		n.do(Step{Do: Claim})
	}
}

// stop has the worker stop what it runs and does not hold.
func (n *next) stop() {
	st, cur := &n.s.stray, n.s.current()
	if st.task == "" || cur == nil {
		return
	}
	if st.by != cur.n {
		st.by = cur.n
		if st.told.IsZero() {
			st.told = n.now
		}
		n.sendStop(cur.n, st.task)
	}
	if st.stuck = st.stuck || st.heard.Sub(st.told) >= StrayWait; st.stuck && n.facts.Mine && !n.facts.Offline && !n.s.losing && n.tells() {
		n.s.losing = true
		n.do(Step{Do: Lose, Why: "it still runs " + string(st.task) + ", which it was told to stop"})
	}
}

func (n *next) sendStop(socket uint64, task labmesh.TaskID) {
	reason := ReasonMigration
	if n.facts.Cancelled != nil && n.facts.Cancelled(task) {
		reason = ReasonUser
	}
	n.do(Step{Do: SendStop, Socket: socket, Task: task, Reason: reason})
}

// offer sends the task that the worker holds, when it can be sent. The mesh hears of it before: what
// it knows only as assigned was surely never sent.
func (n *next) offer() {
	f := n.s.flight
	if f == nil || f.telling || f.reporting {
		return
	}
	if !f.started && f.socket != 0 && n.tells() { // it says that it runs it
		n.tell(Start, "", "")
		return
	}
	if f.started && !f.fresh || !n.ready() {
		return
	}
	if !f.started {
		if n.tells() {
			n.tell(Start, "", "")
		}
		return
	}
	cur := n.s.current()
	cur.used, cur.idle = true, time.Time{}
	f.fresh, f.socket, f.known, f.sent = false, cur.n, cur.n, n.now
	n.do(Step{Do: SendTask, Socket: cur.n, Task: f.task, Attempt: f.attempt})
}

// ready reports whether a task may be sent now.
func (n *next) ready() bool {
	s, cur := n.s, n.s.current()
	switch {
	case cur == nil || s.stray.task != "":
		return false
	case cur.used:
		if !cur.idle.IsZero() && n.due(cur.idle.Add(UsedWait)) {
			cur.idle = time.Time{} // once
			n.do(Step{Do: HangUp, Socket: cur.n})
		}
		return false
	}
	return n.due(cur.opened.Add(SocketAge))
}

func (n *next) tell(do Deed, cause labmesh.Cause, why string) {
	f := n.s.flight
	f.telling = true
	n.do(Step{Do: do, Task: f.task, Attempt: f.attempt, Cause: cause, Why: why})
}

// giveUp ends an attempt that the worker will not end.
func (n *next) giveUp() {
	f := n.s.flight
	if f == nil || f.telling || f.reporting || !n.tells() {
		return
	}
	switch {
	case !f.started:
		if n.due(f.seen.Add(OfferWait)) {
			n.tell(GiveUp, labmesh.CauseOffer, fmt.Sprintf("the worker had no socket to send it by for %s", OfferWait))
		}
	case !f.unheard.IsZero():
		if n.due(f.unheard.Add(SettleWait)) {
			n.tell(GiveUp, labmesh.CauseWorkerLost, "the worker came back and does not run it")
		}
	case f.timeout > 0 && !f.sent.IsZero():
		if n.due(f.sent.Add(f.timeout + TimeoutWait)) {
			n.tell(GiveUp, labmesh.CauseTimeout, "the attempt ran past its timeout")
		}
	}
}

// miss gives up a worker that has been without a socket for too long.
func (n *next) miss() {
	s := n.s
	if s.current() != nil || s.losing || s.gone.IsZero() || !n.tells() {
		return
	}
	if n.due(s.gone.Add(Grace)) {
		s.losing = true
		n.do(Step{Do: Lose, Why: fmt.Sprintf("it had no socket open for %s", Grace)})
	}
}
