package simtest

import (
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/anishathalye/porcupine"

	"labmesh"
)

func TestASeedFixesThePlan(t *testing.T) {
	t.Parallel()
	size := Size{Nodes: 5, Workers: 20, Clients: 3, Orders: 4, Chaos: 10 * time.Second, FaultsMax: 6}
	kinds := map[Kind]bool{}
	for seed := range uint64(300) {
		a, b := NewPlan(seed, size), NewPlan(seed, size)
		if a.String() != b.String() || len(a.Orders) != 12 || a.Orders[7].Key != b.Orders[7].Key || a.Orders[7].Job != b.Orders[7].Job {
			t.Fatalf("seed %d gives two plans:\n%s\n%s", seed, a, b)
		}
		for _, f := range a.Faults {
			kinds[f.Kind] = true
		}
	}
	if len(kinds) != len(weights) {
		t.Errorf("300 seeds have faults of %d kinds, want all %d", len(kinds), len(weights))
	}
}

// op is an operation from one second to another; 0 for one that never came back.
func op(from, to int64, a Ask, w Word) porcupine.Operation {
	if to == 0 {
		to, w.Unknown = 1<<60, true
	}
	return porcupine.Operation{Input: a, Output: w, Call: from, Return: to}
}

func TestHistories(t *testing.T) {
	t.Parallel()
	submit, cancel, look := Ask{Op: Submit}, Ask{Op: Cancel}, Ask{Op: Look}
	ended := func(n int) Ask { return Ask{Op: Finish, Attempt: n, OK: true} }
	saw := func(p labmesh.Phase, n int) Word { return Word{Phase: p, Attempt: n} }
	no, yes := Word{Refused: true}, Word{}
	for name, c := range map[string]struct {
		ops  []porcupine.Operation
		want bool
	}{
		"submitted, run, completed":                   {[]porcupine.Operation{op(0, 1, submit, yes), op(2, 3, look, saw(labmesh.Running, 1)), op(4, 5, ended(1), yes), op(6, 7, look, saw(labmesh.Completed, 1))}, true},
		"an acknowledged submit is lost":              {[]porcupine.Operation{op(0, 1, submit, yes), op(2, 3, look, saw("", 0))}, false},
		"a verdict goes back":                         {[]porcupine.Operation{op(0, 1, submit, yes), op(2, 3, ended(1), yes), op(4, 5, look, saw(labmesh.Running, 2))}, false},
		"a verdict changes":                           {[]porcupine.Operation{op(0, 1, submit, yes), op(2, 3, look, saw(labmesh.Failed, 1)), op(4, 5, look, saw(labmesh.TimedOut, 1))}, false},
		"two attempts are accepted":                   {[]porcupine.Operation{op(0, 1, submit, yes), op(2, 3, ended(1), yes), op(4, 5, ended(2), yes)}, false},
		"the same word is taken twice":                {[]porcupine.Operation{op(0, 1, submit, yes), op(2, 3, ended(1), yes), op(4, 5, ended(1), yes)}, true},
		"completed by nobody":                         {[]porcupine.Operation{op(0, 1, submit, yes), op(2, 3, look, saw(labmesh.Completed, 1))}, false},
		"completed by one that was refused":           {[]porcupine.Operation{op(0, 1, submit, yes), op(2, 3, ended(1), no), op(4, 5, look, saw(labmesh.Completed, 1))}, false},
		"completed by one whose answer was lost":      {[]porcupine.Operation{op(0, 1, submit, yes), op(2, 0, ended(1), yes), op(4, 5, look, saw(labmesh.Completed, 1))}, true},
		"its answer was lost, and nothing came of it": {[]porcupine.Operation{op(0, 1, submit, yes), op(2, 0, ended(1), yes), op(4, 5, ended(2), yes), op(6, 7, look, saw(labmesh.Completed, 2))}, true},
		"cancelled without a cancel":                  {[]porcupine.Operation{op(0, 1, submit, yes), op(2, 3, look, saw(labmesh.Cancelled, 0))}, false},
		"cancelled":                                   {[]porcupine.Operation{op(0, 1, submit, yes), op(2, 3, cancel, yes), op(4, 5, look, saw(labmesh.Cancelled, 1))}, true},
		"an acknowledged cancel is forgotten":         {[]porcupine.Operation{op(0, 1, submit, yes), op(2, 3, cancel, yes), op(4, 5, look, saw(labmesh.Running, 1))}, false},
		"a cancel that came too late":                 {[]porcupine.Operation{op(0, 1, submit, yes), op(2, 5, ended(1), yes), op(3, 6, cancel, no)}, true},
		"a read overlaps the end":                     {[]porcupine.Operation{op(0, 1, submit, yes), op(2, 9, ended(1), yes), op(3, 4, look, saw(labmesh.Completed, 1)), op(5, 6, look, saw(labmesh.Completed, 1))}, true},
		"a later read sees less":                      {[]porcupine.Operation{op(0, 1, submit, yes), op(2, 9, ended(1), yes), op(3, 4, look, saw(labmesh.Completed, 1)), op(5, 6, look, saw(labmesh.Running, 1))}, false},
	} {
		h := NewHistory()
		h.ops["key"] = c.ops
		if err := h.Check(); (err == nil) != c.want {
			t.Errorf("%s: %v, want it to pass: %t", name, err, c.want)
		}
	}
	h := NewHistory()
	if err := errors.Join(h.Named("k", "a"), h.Named("k", "a")); err != nil {
		t.Error(err)
	}
	if h.Named("k", "b") == nil {
		t.Error("one key with two tasks passed")
	}
}

func TestTrails(t *testing.T) {
	t.Parallel()
	ended := func(id labmesh.TaskID, p labmesh.Phase) []labmesh.Event {
		return []labmesh.Event{{Type: labmesh.TaskEnded, Task: &labmesh.Task{ID: id, Phase: p, Attempt: 1}}}
	}
	for want, play := range map[string]func(*Trail){
		"": func(tr *Trail) {
			tr.Applied(0, 1, ended("a", labmesh.Failed))
			tr.Applied(1, 1, ended("a", labmesh.Failed))
			tr.Saw(0, labmesh.Task{ID: "a", Phase: labmesh.Failed, Attempt: 1})
		},
		"applied entry 1 differently": func(tr *Trail) {
			tr.Applied(0, 1, ended("a", labmesh.Failed))
			tr.Applied(1, 1, ended("a", labmesh.Completed))
		},
		"was failed (attempt 1) at entry 1 and is running": func(tr *Trail) {
			tr.Applied(0, 1, ended("a", labmesh.Failed))
			tr.Applied(0, 2, []labmesh.Event{{Type: labmesh.TaskPlaced, Task: &labmesh.Task{ID: "a", Phase: labmesh.Running, Attempt: 2}}})
		},
		"shows a as completed": func(tr *Trail) {
			tr.Applied(0, 1, ended("a", labmesh.Failed))
			tr.Saw(3, labmesh.Task{ID: "a", Phase: labmesh.Completed, Attempt: 1})
		},
	} {
		tr := NewTrail()
		play(tr)
		if err := tr.Err(); (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %q", err, want)
		}
	}
}

func TestOverlaps(t *testing.T) {
	t.Parallel()
	at := func(s int) time.Time { return time.Unix(int64(s), 0) }
	all := []Execution{
		{Task: "a", Attempt: 1, Began: at(0), Ended: at(10)}, {Task: "b", Attempt: 1, Began: at(3), Ended: at(4)},
		{Task: "a", Attempt: 2, Began: at(7), Ended: at(12)},
	}
	for margin, want := range map[time.Duration]error{2 * time.Second: errOverlap, 3 * time.Second: nil} {
		longest, err := Overlaps(all, margin)
		if longest != 3*time.Second || !errors.Is(err, want) {
			t.Errorf("with a margin of %s: %s, %v", margin, longest, err)
		}
	}
}

// pair is a stream from a to b, both ends.
func pair(t *testing.T, n *Net) (a, b net.Conn) {
	t.Helper()
	l, err := n.Port("b").Streams("p").Listen()
	if err != nil {
		t.Fatal(err)
	}
	if a, err = n.Port("a").Streams("p").Dial(t.Context(), "b"); err != nil {
		t.Fatal(err)
	}
	if b, err = l.Accept(); err != nil {
		t.Fatal(err)
	}
	return a, b
}

func TestTheNetCutsEachDirectionByItself(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := NewNet(rand.New(rand.NewPCG(1, 2)))
		a, b := pair(t, n)
		said := func(from, to net.Conn) error {
			if _, err := io.WriteString(from, "word"); err != nil {
				return err
			}
			_ = to.SetReadDeadline(time.Now().Add(time.Second))
			_, err := io.ReadFull(to, make([]byte, 4))
			return err
		}
		ids := []labmesh.NodeID{"a", "b"}
		n.Cut(ids[:1], ids[1:])
		if err := said(a, b); err == nil {
			t.Error("what a said got through a cut")
		}
		if err := said(b, a); err != nil {
			t.Errorf("what b said: %v", err)
		}
		n.Heal(ids[:1], ids[1:])
		_ = b.SetReadDeadline(time.Time{})
		if _, err := io.ReadFull(b, make([]byte, 4)); err != nil {
			t.Errorf("what was said during the cut does not arrive after it: %v", err)
		}
		n.Cut(ids[1:], ids[:1])
		time.Sleep(breakAfter + time.Second)
		if err := said(a, b); !errors.Is(err, errReset) {
			t.Errorf("after a long cut of the other direction: %v", err)
		}
	})
}
