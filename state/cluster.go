package state

import (
	"fmt"
	"time"

	"labmesh"
)

// Cluster is the state machine. It is not safe for concurrent use: one
// goroutine applies, the others read views.
type Cluster struct {
	v    View
	last labmesh.SubmitTask // what was submitted last, see share
}

// New returns the state of a mesh that nobody has founded yet.
func New() *Cluster { return &Cluster{v: emptyView()} }

// View returns an immutable copy of the state, in constant time.
func (c *Cluster) View() View { return c.v.copy() }

// Size is the log index of the last entry applied, and how many tasks the state holds whole.
func (c *Cluster) Size() (index uint64, tasks int) { return c.v.index, c.v.tasks.Len() }

// Apply applies one entry of the log, which stands there at index. It returns
// what happened, in order, and an answer to each command, in their order. An
// entry at or below the last applied index changes nothing.
func (c *Cluster) Apply(index uint64, e labmesh.Entry) ([]labmesh.Event, []labmesh.Answer) {
	answers := make([]labmesh.Answer, len(e.Commands))
	if index <= c.v.index {
		return nil, answers
	}
	c.v.index = index
	if at := e.At.Truncate(time.Microsecond); at.After(c.v.now) { // what the ledger can hold
		c.v.now = at // the time of the mesh never goes back, whatever a leader's clock does
	}
	x := &change{v: &c.v, at: c.v.now, last: &c.last, events: make([]labmesh.Event, 0, 2*len(e.Commands))}
	x.wake()
	for i, cmd := range e.Commands {
		answers[i] = x.apply(cmd)
		x.settleDependents()
	}
	x.forget()
	return x.events, answers
}

// change is one entry being applied.
type change struct {
	v      *View
	at     time.Time
	last   *labmesh.SubmitTask
	events []labmesh.Event
	over   []*labmesh.Task // ended in this entry, and not yet looked at by those who depend on them
	cases  int64           // test cases recorded
}

func (x *change) apply(cmd labmesh.Command) labmesh.Answer {
	switch cmd := cmd.(type) {
	case labmesh.SubmitTask:
		return x.submit(cmd)
	case labmesh.PlaceTask:
		return answer(cmd.ID, x.place(cmd))
	case labmesh.StartTask:
		return answer(cmd.ID, x.start(cmd))
	case labmesh.FinishTask:
		return answer(cmd.ID, x.finish(cmd))
	case labmesh.CancelTask:
		return answer(cmd.ID, x.cancel(cmd))
	case labmesh.ExpireTask:
		return answer(cmd.ID, x.expire(cmd))
	case labmesh.WakeTasks:
		return labmesh.Answer{} // every entry wakes
	case labmesh.PutWorker:
		return labmesh.Answer{Refused: x.putWorker(cmd)}
	case labmesh.LoseWorker:
		return labmesh.Answer{Refused: x.loseWorker(cmd)}
	case labmesh.HoldWorker:
		return labmesh.Answer{Refused: x.holdWorker(cmd)}
	case labmesh.FoundMesh:
		return labmesh.Answer{Refused: x.found(cmd)}
	case labmesh.RaiseLevel:
		return labmesh.Answer{Refused: x.raiseLevel(cmd)}
	case labmesh.ReportState:
		return labmesh.Answer{} // replicas compare; the state does not change
	case labmesh.PutMember:
		return labmesh.Answer{Refused: x.putMember(cmd)}
	case labmesh.BanMember:
		return labmesh.Answer{Refused: x.banMember(cmd)}
	case labmesh.PutInvite:
		return labmesh.Answer{Refused: x.putInvite(cmd)}
	case labmesh.PutKey:
		return labmesh.Answer{Refused: x.putKey(cmd)}
	case labmesh.RevokeKey:
		return labmesh.Answer{Refused: x.revokeKey(cmd)}
	case labmesh.UseKeys:
		return labmesh.Answer{Refused: x.useKeys(cmd)}
	case labmesh.DropInvite:
		return labmesh.Answer{Refused: x.dropInvite(cmd)}
	case labmesh.PutTokenKey:
		return labmesh.Answer{Refused: x.putTokenKey(cmd)}
	case labmesh.PutSealKey:
		return labmesh.Answer{Refused: x.putSealKey(cmd)}
	case labmesh.RecordAudit:
		return labmesh.Answer{Refused: x.recordAudit(cmd)}
	case labmesh.RecordTests:
		return answer(cmd.ID, x.recordTests(cmd))
	case labmesh.RecordBench:
		return answer(cmd.ID, x.recordBench(cmd))
	case labmesh.PutSecret:
		return labmesh.Answer{Refused: x.putSecret(cmd)}
	case labmesh.DropSecret:
		return labmesh.Answer{Refused: x.dropSecret(cmd)}
	}
	// The codec decodes no command that is not above; a test holds the two together.
	panic(fmt.Sprintf("state: no rule for %T", cmd))
}

func answer(id labmesh.TaskID, refused *labmesh.Error) labmesh.Answer {
	return labmesh.Answer{Task: id, Refused: refused}
}

// tell records an event of this entry.
func (x *change) tell(e labmesh.Event) {
	e.Index, e.N, e.At = x.v.index, len(x.events), x.at
	x.events = append(x.events, e)
}
