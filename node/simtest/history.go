package simtest

import (
	"fmt"
	"math"
	"sync"
	"time"

	"github.com/anishathalye/porcupine"

	"labmesh"
)

// Op is what was asked of the mesh about one task.
type Op string

// The operations: three of clients, one of workers.
const (
	Submit Op = "submit"
	Cancel Op = "cancel"
	Look   Op = "read" // one that must see all that was acknowledged before it
	Finish Op = "finish"
)

// Ask is an operation as it was asked.
type Ask struct {
	Op      Op
	Attempt int  // of a finish
	OK      bool // of a finish: the attempt ended well
}

// Word is what came back.
type Word struct {
	Unknown bool // nothing came back: it may have been done, now or later, or not
	Refused bool // it was refused, as what the mesh has moved on from
	Phase   labmesh.Phase
	Attempt int
}

// History is what clients and workers asked of the mesh and were told, for each
// task by its idempotency key.
type History struct {
	mu    sync.Mutex
	start time.Time
	ops   map[string][]porcupine.Operation
	names map[labmesh.TaskID]string
}

// NewHistory is an empty one. Times count from now.
func NewHistory() *History {
	return &History{start: time.Now(), ops: map[string][]porcupine.Operation{}, names: map[labmesh.TaskID]string{}}
}

// Named notes which task a key stands for. One key has one task, for ever.
func (h *History) Named(key string, id labmesh.TaskID) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	for known, k := range h.names {
		if k == key && known != id {
			return fmt.Errorf("the key %s was answered with two tasks, %s and %s", key, known, id)
		}
	}
	h.names[id] = key
	return nil
}

// Acknowledged is every task whose submit was answered, with its key.
func (h *History) Acknowledged() map[labmesh.TaskID]string {
	h.mu.Lock()
	defer h.mu.Unlock()
	out := make(map[labmesh.TaskID]string, len(h.names))
	for id, key := range h.names {
		out[id] = key
	}
	return out
}

// Note adds an operation that was called at called and came back now.
func (h *History) Note(who int, key string, a Ask, w Word, called time.Time) {
	h.mu.Lock()
	defer h.mu.Unlock()
	back := int64(time.Since(h.start))
	if w.Unknown {
		back = math.MaxInt64
	}
	h.ops[key] = append(h.ops[key], porcupine.Operation{ClientId: who, Input: a, Output: w, Call: int64(called.Sub(h.start)), Return: back})
}

// Check looks for a task whose history no single order of its operations
// explains, each between its call and its return.
func (h *History) Check() error {
	h.mu.Lock()
	defer h.mu.Unlock()
	model := taskModel.ToModel()
	for key, ops := range h.ops {
		if !porcupine.CheckOperations(model, ops) {
			text := ""
			for _, op := range ops {
				text += fmt.Sprintf("\n    %12s to %12s: %v -> %+v", time.Duration(op.Call), time.Duration(op.Return), op.Input, op.Output)
			}
			return fmt.Errorf("the history of %s is not linearizable:%s", key, text)
		}
	}
	return nil
}

// standing is a task as the model has it. Live stands for all phases from which
// a task can still become anything; attempt is the accepted one of a completed task.
type standing struct {
	phase   labmesh.Phase // "" before the submit
	attempt int
}

const live = labmesh.Pending

// taskModel is what a task may do, as far as those outside can tell: what
// happens inside (a worker is lost, an attempt fails) happens when it is seen.
var taskModel = porcupine.NondeterministicModel{
	Init: func() []any { return []any{standing{}} },
	Step: func(state, input, output any) []any {
		s, a, w := state.(standing), input.(Ask), output.(Word)
		next := s.after(a, w)
		if w.Unknown {
			next = append(s.after(a, Word{}), s) // done or not
		}
		out := make([]any, len(next))
		for i, n := range next {
			out[i] = n
		}
		return out
	},
	DescribeOperation: func(in, out any) string { return fmt.Sprintf("%v -> %+v", in, out) },
}

// after is where a task may stand after an operation; nothing if it cannot have happened.
func (s standing) after(a Ask, w Word) []standing {
	same := []standing{s}
	switch a.Op {
	case Submit:
		if s.phase == "" {
			return []standing{{phase: live}}
		}
		return same
	case Cancel:
		return s.cancelled(w.Refused)
	case Finish:
		switch {
		case !a.OK || w.Refused:
			return same
		case s.phase == live, s.phase == labmesh.Cancelling:
			return []standing{{labmesh.Completed, a.Attempt}}
		case s == standing{labmesh.Completed, a.Attempt}:
			return same // sent twice
		}
	case Look:
		return s.seen(w)
	}
	return nil
}

func (s standing) cancelled(refused bool) []standing {
	switch {
	case s.phase == "":
		return nil
	case refused && s.phase == live: // it has ended, and nobody has looked since
		return []standing{{phase: labmesh.Failed}, {phase: labmesh.TimedOut}}
	case refused && (s.phase == labmesh.Cancelling || s.phase == labmesh.Cancelled):
		return nil
	case refused:
		return []standing{s}
	case s.phase == live:
		return []standing{{phase: labmesh.Cancelling}}
	case s.phase == labmesh.Cancelling, s.phase == labmesh.Cancelled:
		return []standing{s}
	}
	return nil
}

func (s standing) seen(w Word) []standing {
	final := standing{phase: w.Phase}
	switch w.Phase {
	case labmesh.Pending, labmesh.Assigned, labmesh.Running:
		final.phase = live
	case labmesh.Completed:
		final.attempt = w.Attempt
	case labmesh.Cancelled, labmesh.Failed, labmesh.TimedOut:
		if before := map[bool]labmesh.Phase{true: labmesh.Cancelling, false: live}[w.Phase == labmesh.Cancelled]; s.phase == before {
			return []standing{final}
		}
	case labmesh.Cancelling:
	}
	if s == final {
		return []standing{s}
	}
	return nil
}
