package light_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"labmesh"
	"labmesh/light"
)

// stage plays the mesh, the sockets and the clock around one session.
type stage struct {
	t         *testing.T
	s         *light.Session
	now       time.Time
	facts     light.Facts
	cancelled map[labmesh.TaskID]bool
	deaf      bool // the mesh has no leader
	log       []string
	sent      func(task labmesh.TaskID, attempt int, socket uint64) // may be nil
}

func newStage(t *testing.T) *stage {
	t0 := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	g := &stage{t: t, s: light.NewSession(t0), now: t0, cancelled: map[labmesh.TaskID]bool{}}
	g.facts.Cancelled = func(id labmesh.TaskID) bool { return g.cancelled[id] }
	return g
}

// attached is a stage whose worker has been there for a second, on socket 1.
func attached(t *testing.T) *stage {
	g := newStage(t)
	g.register(1)
	g.pass(second)
	return g
}

// look has the session do what it wants until it wants nothing more, and plays the mesh's part.
func (g *stage) look() (wake time.Time) {
	for range 20 {
		steps, next := g.s.Next(g.facts, g.now)
		wake = next
		if len(steps) == 0 {
			return wake
		}
		for _, step := range steps {
			g.do(step)
		}
	}
	g.t.Fatalf("the session does not come to rest: %v", g.log)
	return wake
}

func (g *stage) note(format string, args ...any) { g.log = append(g.log, fmt.Sprintf(format, args...)) }

func (g *stage) do(step light.Step) {
	ok := !g.deaf
	switch step.Do {
	case light.SendTask:
		g.note("execute %s on %d", step.Task, step.Socket)
		if g.sent != nil {
			g.sent(step.Task, step.Attempt, step.Socket)
		}
		return
	case light.SendStop:
		g.note("cancel %s on %d: %s", step.Task, step.Socket, step.Reason)
		return
	case light.HangUp:
		g.note("hang up %d", step.Socket)
		g.s.Close(step.Socket, g.now)
		return
	case light.Claim:
		if ok {
			g.note("claim")
			g.facts.Known, g.facts.Mine, g.facts.Offline = true, true, false
		}
	case light.Lose:
		if ok {
			g.note("lose: %s", step.Why)
			g.facts.Offline, g.facts.Held = true, nil
		}
	case light.Start:
		if ok = ok && g.facts.Held != nil; ok {
			g.note("start %s/%d", step.Task, step.Attempt)
			t := *g.facts.Held
			t.Phase = labmesh.Running
			g.facts.Held = &t
		}
	case light.GiveUp:
		if ok {
			g.note("give up %s/%d: %s", step.Task, step.Attempt, step.Cause)
			g.facts.Held = nil
		}
	}
	g.s.Answered(step, ok, g.now)
}

// pass lets time go by, waking the session whenever it wants to be woken.
func (g *stage) pass(d time.Duration) {
	end := g.now.Add(d)
	for {
		wake := g.look()
		if wake.IsZero() || wake.After(end) {
			break
		}
		g.now = wake
	}
	g.now = end
	g.look()
}

func (g *stage) place(id labmesh.TaskID, attempt int) {
	g.facts.Held = &labmesh.Task{ID: id, Attempt: attempt, Phase: labmesh.Assigned}
	g.look()
}

func (g *stage) register(n uint64) { g.s.Register(n, g.now, g.now); g.look() }

func (g *stage) beat(n uint64, running labmesh.TaskID) { g.s.Heartbeat(n, running, g.now); g.look() }

func (g *stage) close(n uint64) { g.s.Close(n, g.now); g.look() }

func (g *stage) result(id labmesh.TaskID) {
	g.s.Result(id)
	g.look()
	g.facts.Held = nil
	g.s.Reported(id, true)
	g.look()
}

func (g *stage) cancel(id labmesh.TaskID) {
	g.cancelled[id], g.facts.Held = true, nil
	g.look()
}

// said checks what the session has wanted since the last call.
func (g *stage) said(want ...string) {
	g.t.Helper()
	if !slices.Equal(g.log, want) {
		g.t.Fatalf("said:\n  %s\nwant:\n  %s", strings.Join(g.log, "\n  "), strings.Join(want, "\n  "))
	}
	g.log = nil
}

const second = time.Second

func TestATaskGoesToASocketThatLasts(t *testing.T) {
	t.Parallel()
	g := newStage(t)
	g.register(1)
	g.said("claim")
	g.place("t", 1)
	g.pass(50 * time.Millisecond)
	g.close(1) // as such workers do
	g.pass(second)
	g.said()
	g.register(2)
	g.pass(light.SocketAge - time.Millisecond)
	g.said("claim")
	g.pass(time.Millisecond)
	g.said("start t/1", "execute t on 2")
	g.pass(20 * second)
	g.said()
}

func TestOneTaskASocket(t *testing.T) {
	t.Parallel()
	g := attached(t)
	g.place("a", 1)
	g.said("claim", "start a/1", "execute a on 1")
	g.pass(5 * second)
	g.result("a")
	g.pass(5 * second)
	g.said() // nobody needs the socket
	g.place("b", 1)
	g.said("hang up 1") // it has been idle long enough
	g.pass(second)
	g.register(2)
	g.pass(second)
	g.said("claim", "start b/1", "execute b on 2")
}

func TestTheNewestSocketWins(t *testing.T) {
	t.Parallel()
	g := newStage(t)
	g.register(1)
	g.register(2)
	g.pass(second)
	g.close(1)
	g.place("a", 1)
	g.said("claim", "claim", "start a/1", "execute a on 2")
	g.pass(2 * light.Grace)
	g.said() // closing the older one did not make it offline
	g.register(3)
	g.close(3) // the one before it is there still
	g.pass(2 * light.Grace)
	g.said("claim")
}

func TestAClosedSocketKeepsTheAttempt(t *testing.T) {
	t.Parallel()
	g := attached(t)
	g.place("a", 1)
	g.pass(second)
	g.close(1)
	g.pass(light.Grace - second)
	g.said("claim", "start a/1", "execute a on 1")
	g.register(2)
	g.beat(2, "a")
	g.pass(2 * light.Grace)
	g.said("claim")
	g.beat(2, "") // on the same socket: it only says nothing of it
	g.pass(2 * light.Grace)
	g.said()
	g.result("a")
	g.said()
}

func TestAWorkerThatComesBackWithoutTheTaskLosesIt(t *testing.T) {
	t.Parallel()
	g := attached(t)
	g.place("a", 1)
	g.close(1)
	g.register(2)
	g.pass(10 * second)
	g.said("claim", "start a/1", "execute a on 1", "claim")
	g.beat(2, "")
	g.pass(light.SettleWait - time.Millisecond)
	g.said()
	g.pass(time.Millisecond)
	g.said("give up a/1: worker_lost")
}

func TestAResultOnItsWayIsNotOvertaken(t *testing.T) {
	t.Parallel()
	g := attached(t)
	g.place("a", 1)
	g.close(1)
	g.register(2)
	g.beat(2, "")
	g.s.Result("a")
	g.pass(10 * second) // no leader takes it
	g.said("claim", "start a/1", "execute a on 1", "claim")
}

func TestAWorkerWithoutASocketIsLost(t *testing.T) {
	t.Parallel()
	g := attached(t)
	g.place("a", 1)
	g.close(1)
	g.pass(light.Grace - time.Millisecond)
	g.said("claim", "start a/1", "execute a on 1")
	g.pass(time.Millisecond)
	g.said("lose: it had no socket open for 30s")
	g.register(2)
	g.said("claim")
}

func TestANodeThatStartsGivesItsWorkersTime(t *testing.T) {
	t.Parallel()
	g := newStage(t)
	g.facts.Known, g.facts.Mine = true, true
	g.facts.Held = &labmesh.Task{ID: "a", Attempt: 3, Phase: labmesh.Running}
	g.pass(light.Grace - time.Millisecond)
	g.said()
	g.register(7)
	g.pass(2 * second)
	g.said("claim") // it is not sent a second time
	g.beat(7, "")
	g.pass(2 * second)
	g.said("give up a/3: worker_lost")
}

func TestACancelledTaskIsOverAtOnce(t *testing.T) {
	t.Parallel()
	g := attached(t)
	g.place("a", 1)
	g.cancel("a")
	g.said("claim", "start a/1", "execute a on 1", "cancel a on 1: user_request")
	g.place("b", 1)
	g.pass(light.UsedWait)
	g.said("hang up 1")
	g.register(2)
	g.pass(second)
	g.said("claim", "start b/1", "execute b on 2")
}

func TestAWorkerThatDoesNotStopTakesNoWork(t *testing.T) {
	t.Parallel()
	g := attached(t)
	g.place("a", 1)
	g.beat(1, "a")
	g.facts.Held = nil // its timeout, perhaps
	g.look()
	g.said("claim", "start a/1", "execute a on 1", "cancel a on 1: migration")
	g.beat(1, "a")
	g.said("cancel a on 1: migration")
	g.pass(10 * second)
	g.beat(1, "a")
	g.said("lose: it still runs a, which it was told to stop")
	g.pass(10 * second)
	g.beat(1, "")
	g.said("claim")
}

func TestATaskThatCannotBeSentGoesElsewhere(t *testing.T) {
	t.Parallel()
	g := newStage(t)
	g.register(1)
	g.close(1)
	g.facts.Known, g.facts.Mine = true, true
	g.place("a", 1)
	g.pass(light.OfferWait)
	g.said("claim", "give up a/1: offer")
}

func TestATimeoutIsKeptForTheWorker(t *testing.T) {
	t.Parallel()
	g := attached(t)
	g.facts.Held = &labmesh.Task{ID: "a", Attempt: 1, Phase: labmesh.Assigned, Spec: labmesh.Spec{TimeoutSeconds: 60}}
	g.look()
	g.pass(60*second + light.TimeoutWait)
	g.said("claim", "start a/1", "execute a on 1", "give up a/1: timeout", "cancel a on 1: migration")
}

func TestWithoutALeaderEverythingIsToldAgain(t *testing.T) {
	t.Parallel()
	g := newStage(t)
	g.deaf = true
	g.register(1)
	g.pass(3 * second)
	g.said()
	g.deaf = false
	g.pass(second)
	g.place("a", 1)
	g.said("claim", "start a/1", "execute a on 1")
}

func TestAWorkerThatSpeaksHereIsTakenBack(t *testing.T) {
	t.Parallel()
	g := newStage(t)
	g.register(1)
	g.facts.Mine = false // another node says that it has it
	g.beat(1, "")
	g.said("claim")
	g.pass(10 * second)
	g.said()
	g.beat(1, "")
	g.said("claim")
	g.facts.Offline = true // the leader gave it up
	g.look()
	g.said("claim")
}

func TestAnAttemptThatWasGivenUpTooEarlyIsAdopted(t *testing.T) {
	t.Parallel()
	g := newStage(t)
	g.register(2)
	g.place("a", 2)
	g.beat(2, "a") // it runs attempt 1 of it
	g.pass(10 * second)
	g.said("claim", "start a/2")
}

// Whatever a worker and a mesh do, a socket is sent one task at most, no task is sent twice while the worker
// may run it, none is sent on a socket younger than 0.5 s, and the session always comes to rest.
func TestSendsEachTaskOnce(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(r *rapid.T) {
		g := newStage(t)
		opened := map[uint64]time.Time{}
		used := map[uint64]bool{}
		sent := map[string]bool{}
		var sockets []uint64
		var n uint64
		attempt := 0
		g.sent = func(task labmesh.TaskID, number int, socket uint64) {
			switch name := fmt.Sprintf("%s/%d", task, number); {
			case used[socket]:
				r.Fatalf("socket %d was sent two tasks: %v", socket, g.log)
			case sent[name]:
				r.Fatalf("%s was sent twice: %v", name, g.log)
			case g.now.Sub(opened[socket]) < light.SocketAge:
				r.Fatalf("socket %d is too young: %v", socket, g.log)
			case slices.ContainsFunc(sockets, func(n uint64) bool { return n > socket && g.s.Has(n) }):
				r.Fatalf("socket %d is not the newest that is open of %v", socket, sockets)
			default:
				used[socket], sent[name] = true, true
			}
		}
		for range rapid.IntRange(1, 60).Draw(r, "moves") {
			switch rapid.IntRange(0, 9).Draw(r, "move") {
			case 0, 1:
				n++
				opened[n], sockets = g.now, append(sockets, n)
				g.register(n)
			case 2:
				if len(sockets) > 0 {
					i := rapid.IntRange(0, len(sockets)-1).Draw(r, "closed")
					g.close(sockets[i])
					sockets = slices.Delete(sockets, i, i+1)
				}
			case 3, 4:
				if g.facts.Held == nil && g.facts.Known && !g.facts.Offline {
					attempt++
					g.place("t", attempt)
				}
			case 5:
				g.deaf = !g.deaf
			case 6:
				if len(sockets) > 0 {
					g.beat(rapid.SampledFrom(sockets).Draw(r, "on"), rapid.SampledFrom([]labmesh.TaskID{"", "t", "other"}).Draw(r, "running"))
				}
			case 7:
				if g.facts.Held != nil {
					g.result("t")
				}
			case 8:
				g.facts.Mine = !g.facts.Mine && g.facts.Known
				g.look()
			default:
				g.pass(time.Duration(rapid.IntRange(1, 40_000).Draw(r, "ms")) * time.Millisecond)
			}
			for i := 0; i < len(sockets); i++ {
				if !g.s.Has(sockets[i]) { // it was hung up
					sockets = slices.Delete(sockets, i, i+1)
					i--
				}
			}
		}
	})
}
