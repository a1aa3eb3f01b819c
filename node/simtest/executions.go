package simtest

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"labmesh"
	"labmesh/exec"
)

// Job is what a task of the simulation is to do, as its config says.
type Job struct {
	Name  string `json:"name"`
	Takes int64  `json:"takes_ms"`
	Bad   int    `json:"bad"`     // so many of its first attempts fail
	Slow  int64  `json:"slow_ms"` // it takes so long to stop when it is told to
}

// Execution is one run of an attempt as the machine saw it, whatever the mesh
// believes.
type Execution struct {
	Task    labmesh.TaskID
	Attempt int
	Worker  labmesh.WorkerID
	Life    int       // of its machine
	Began   time.Time // of the bubble
	Ended   time.Time // zero while it runs
	How     string    // done, stopped with its cause, or killed with its node
}

func (e Execution) String() string {
	return fmt.Sprintf("attempt %d on %s (life %d), %s to %s: %s", e.Attempt, e.Worker, e.Life, e.Began.Format(clockFormat), e.Ended.Format(clockFormat), e.How)
}

const clockFormat = "04:05.000"

// Executions is the record of all that really ran, kept outside the mesh.
type Executions struct {
	mu  sync.Mutex
	all []*Execution
}

func (x *Executions) begin(e Execution) *Execution {
	x.mu.Lock()
	defer x.mu.Unlock()
	e.Began = time.Now()
	x.all = append(x.all, &e)
	return &e
}

func (x *Executions) end(e *Execution, how string) {
	x.mu.Lock()
	defer x.mu.Unlock()
	e.Ended, e.How = time.Now(), how
}

// All is the record so far, in the order of starts.
func (x *Executions) All() []Execution {
	x.mu.Lock()
	defer x.mu.Unlock()
	out := make([]Execution, len(x.all))
	for i, e := range x.all {
		out[i] = *e
	}
	return out
}

// Running is how many attempts run.
func (x *Executions) Running() int {
	n := 0
	for _, e := range x.All() {
		if e.Ended.IsZero() {
			n++
		}
	}
	return n
}

// Runner does jobs on one worker, for one life of its machine.
type Runner struct {
	Executions *Executions
	Life       int
	Dead       <-chan struct{} // closed when the machine dies, and with it all that runs; nil never
}

var _ exec.Runner = (*Runner)(nil)

// Run does the job of the task.
func (r *Runner) Run(ctx context.Context, a exec.Attempt) labmesh.Outcome {
	var job Job
	if err := json.Unmarshal(a.Task.Spec.Config, &job); err != nil {
		return labmesh.Outcome{Cause: labmesh.CauseConfig, Error: err.Error()}
	}
	e := r.Executions.begin(Execution{Task: a.Task.ID, Attempt: a.Number, Worker: a.Worker, Life: r.Life})
	takes := time.NewTimer(time.Duration(job.Takes) * time.Millisecond)
	defer takes.Stop()
	select {
	case <-r.Dead:
	case <-takes.C:
		r.Executions.end(e, "done")
		if a.Task.Failed < job.Bad {
			return labmesh.Outcome{Cause: labmesh.CauseExit, Error: "as it was told"}
		}
		return labmesh.Outcome{OK: true, Result: json.RawMessage(fmt.Sprintf(`{"attempt":%d}`, a.Number))}
	case <-ctx.Done():
		slow := time.NewTimer(time.Duration(job.Slow) * time.Millisecond)
		defer slow.Stop()
		select {
		case <-slow.C:
		case <-r.Dead:
		}
		r.Executions.end(e, "stopped: "+context.Cause(ctx).Error())
		cause, message, _ := exec.Stopped(ctx)
		return labmesh.Outcome{Cause: cause, Error: message}
	}
	r.Executions.end(e, "killed")
	return labmesh.Outcome{Cause: labmesh.CauseWorkerLost, Error: "killed"}
}

// errOverlap is found where two attempts of a task ran at the same time.
var errOverlap = errors.New("two attempts of one task ran at the same time")

// Overlaps checks that no two attempts of one task ran at the same time for more than
// margin. It returns the longest time that two did.
func Overlaps(all []Execution, margin time.Duration) (longest time.Duration, err error) {
	byTask := map[labmesh.TaskID][]Execution{}
	for _, e := range all {
		byTask[e.Task] = append(byTask[e.Task], e)
	}
	for id, list := range byTask {
		slices.SortStableFunc(list, func(a, b Execution) int { return a.Began.Compare(b.Began) })
		for i := 1; i < len(list); i++ {
			for _, before := range list[:i] {
				over := before.Ended.Sub(list[i].Began)
				if list[i].Ended.Before(before.Ended) {
					over = list[i].Ended.Sub(list[i].Began)
				}
				longest = max(longest, over)
				if over > margin {
					err = fmt.Errorf("%w for %s: %s:\n    %s\n    %s", errOverlap, over, id, before, list[i])
				}
			}
		}
	}
	return longest, err
}
