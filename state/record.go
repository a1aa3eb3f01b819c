package state

import (
	"fmt"
	"time"

	"labmesh"
)

// What is remembered of the attempts that ended on a worker.
const (
	outcomesMax = 8                // the newest
	burnWithin  = 1.0              // seconds: a failure that takes longer is no sign of a bad worker
	staleAfter  = 15 * time.Minute // before the newest of all, an outcome says nothing any more
)

// What makes a worker a bad one.
const (
	BurnsMax    = 3  // tasks in a row that failed at once, before it is given no more
	goodEnough  = 3  // outcomes of other workers that show that such tasks can do better
	burnedShare = 10 // at most one in so many of those may have failed at once
)

// outcome is how an attempt ended, as far as it tells something about its worker.
type outcome struct {
	Seq   uint64    `json:"seq"`
	Class string    `json:"class"`
	Cause string    `json:"cause,omitempty"` // it failed at once, and so; "" for one that did well or ran for a while
	At    time.Time `json:"at"`
}

// witness remembers how an attempt ended on a worker.
func (x *change) witness(id labmesh.WorkerID, t *labmesh.Task, o labmesh.Outcome) {
	if x.v.Level() < bearingLevel {
		return
	}
	e := outcome{Seq: t.Seq, Class: t.Class, At: x.at}
	switch {
	case o.OK || o.Seconds > burnWithin:
	case burns(o.Cause):
		e.Cause = string(o.Cause)
	default:
		return // it says nothing
	}
	old, _ := x.v.outcomes.Get(id)
	old = old[max(0, len(old)-outcomesMax+1):]
	x.v.outcomes.Set(id, append(old[:len(old):len(old)], e))
}

// burnt reports whether the newest attempt of a worker failed at once.
func (x *change) burnt(id labmesh.WorkerID) bool {
	list, _ := x.v.outcomes.Get(id)
	return len(list) > 0 && list[len(list)-1].Cause != ""
}

// bearingLevel is the feature level from which on the mesh looks at how workers bear themselves.
const bearingLevel = 3

func burns(c labmesh.Cause) bool {
	switch c {
	case labmesh.CauseExit, labmesh.CauseSignal, labmesh.CauseProgram, labmesh.CauseSpawn, labmesh.CauseDisk, labmesh.CauseBundle, labmesh.CauseWorker:
		return true
	}
	return false
}

// Burns is how many different tasks in a row failed at once on a worker, and on other
// active workers such tasks do not; 0 where there is no such difference. why says it in words.
func (v View) Burns(id labmesh.WorkerID) (n int, why string) {
	own, _ := v.outcomes.Get(id)
	tasks, classes := map[uint64]bool{}, map[string]bool{}
	cause := ""
	for i := len(own) - 1; i >= 0 && own[i].Cause != "" && v.now.Sub(own[i].At) < staleAfter; i-- {
		tasks[own[i].Seq], classes[own[i].Class], cause = true, true, own[i].Cause
	}
	if len(tasks) == 0 {
		return 0, ""
	}
	good, burned := v.others(id, classes)
	if good < goodEnough || burned*burnedShare > good+burned {
		return 0, ""
	}
	return len(tasks), fmt.Sprintf("the last %d tasks failed here within a second (%s); of those like them, other workers ran %d of %d well", len(tasks), cause, good, good+burned)
}

// others is how the newest attempts of tasks of some classes ended on the active workers but one.
func (v View) others(but labmesh.WorkerID, classes map[string]bool) (good, burned int) {
	v.outcomes.Scan(func(other labmesh.WorkerID, list []outcome) bool {
		w, ok := v.workers.Get(other)
		if other == but || !ok || w.Status != labmesh.WorkerActive {
			return true
		}
		for _, e := range list {
			switch {
			case !classes[e.Class] || v.now.Sub(e.At) >= staleAfter:
			case e.Cause == "":
				good++
			default:
				burned++
			}
		}
		return true
	})
	return good, burned
}

// Unproven is how many attempts in a row failed at once on a worker, the last of them when, while nobody can
// say yet whether tasks of that class do better elsewhere: another active worker fits them, and too few have
// ended there. 0 where that is known, or cannot come to be.
func (v View) Unproven(id labmesh.WorkerID) (n int, last time.Time) {
	own, _ := v.outcomes.Get(id)
	for i := len(own) - 1; i >= 0 && own[i].Cause != "" && v.now.Sub(own[i].At) < staleAfter; i-- {
		n++
	}
	if n == 0 {
		return 0, last
	}
	newest := own[len(own)-1]
	c, waits := v.classes.Get(newest.Class)
	if good, burned := v.others(id, map[string]bool{newest.Class: true}); !waits || burned > 0 || good >= goodEnough {
		return 0, last
	}
	fits := false
	v.workers.Scan(func(other labmesh.WorkerID, w *labmesh.Worker) bool {
		fits = other != id && w.Status == labmesh.WorkerActive && c.Fits(w)
		return !fits
	})
	if !fits {
		return 0, last
	}
	return n, newest.At
}
