package node

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/google/uuid"

	"labmesh"
	"labmesh/api"
	"labmesh/bench"
	"labmesh/node/httpapi"
	"labmesh/state"
)

// liveMax is how many tasks may be live in the mesh before submits are refused.
const liveMax = 1_000_000

// newID is a name that nobody else chooses, and that sorts by time.
func newID() string {
	id, err := uuid.NewV7()
	if err != nil {
		id = uuid.New() // the clock cannot be read; chance alone will do
	}
	return id.String()
}

// Submit brings tasks into the mesh, all or none.
func (s *service) Submit(ctx context.Context, by httpapi.Caller, specs []labmesh.Spec) ([]labmesh.Answer, error) {
	counts := s.n.replica.View().Counts()
	if live := counts[labmesh.Pending] + counts[labmesh.Assigned] + counts[labmesh.Running]; live+len(specs) > liveMax {
		return nil, labmesh.Refuse(labmesh.Exhausted, "%d tasks are waiting, which is as many as the mesh takes: try again when some have ended", live)
	}
	if err := s.checkDependencies(ctx, by.Project, specs); err != nil {
		return nil, err
	}
	if err := s.checkSecrets(ctx, by, specs); err != nil {
		return nil, err
	}
	if err := s.needBundles(ctx, specs); err != nil {
		return nil, err
	}
	answers := make([]labmesh.Answer, len(specs))
	cmds := make([]labmesh.Command, 0, len(specs))
	at := make([]int, 0, len(specs)) // cmds[i] is specs[at[i]]
	for i, spec := range specs {
		id := spec.TaskID
		if known, err := s.endedBefore(ctx, by.Project, spec); err != nil {
			return nil, err
		} else if known != "" {
			answers[i] = labmesh.Answer{Task: known, Existed: true}
			continue
		}
		if id == "" {
			id = labmesh.TaskID(newID())
		}
		bench.Place(&spec)
		if spec.OnDisconnect == api.DisconnectStop {
			spec.OnDisconnect = ""
		}
		cmds, at = append(cmds, labmesh.SubmitTask{ID: id, Spec: spec, By: by.Who(), Project: by.Project}), append(at, i)
	}
	if len(cmds) == 0 {
		return answers, nil
	}
	rc, err := s.n.replica.Propose(ctx, cmds...)
	if err != nil {
		return nil, err
	}
	for i, a := range rc.Answers {
		if a.Refused != nil {
			return nil, a.Refused
		}
		answers[at[i]] = a
	}
	s.spreadBundles(specs)
	return answers, s.n.replica.Await(ctx, rc.Index) // who asks here next sees them
}

// checkDependencies refuses specs one of which depends on a task that is not
// there, so that all come in or none. What completed so long ago that the state
// has forgotten it is not waited for.
func (s *service) checkDependencies(ctx context.Context, project string, specs []labmesh.Spec) error {
	if !slices.ContainsFunc(specs, func(s labmesh.Spec) bool { return len(s.DependsOn) > 0 }) {
		return nil
	}
	fresh := false
	before := make(map[labmesh.TaskID]bool)
	for i := range specs {
		var on []labmesh.TaskID
		for _, id := range specs[i].DependsOn {
			if !before[id] && !s.n.replica.View().Known(id) {
				if !fresh { // it may have been submitted elsewhere a moment ago
					if err := s.catchUp(ctx); err != nil {
						return err
					}
					fresh = true
				}
				done, err := s.completedBefore(ctx, project, id)
				switch {
				case err != nil:
					return err
				case done:
					continue
				}
			}
			on = append(on, id)
		}
		specs[i].DependsOn = on
		before[specs[i].TaskID] = specs[i].TaskID != ""
	}
	return nil
}

// completedBefore reports whether a task completed longer ago than the state
// remembers, and refuses one that is not known or did not complete.
func (s *service) completedBefore(ctx context.Context, project string, id labmesh.TaskID) (bool, error) {
	if s.n.replica.View().Known(id) {
		return false, nil
	}
	t, ok, err := s.n.ledger.Task(ctx, id)
	switch {
	case err != nil:
		return false, err
	case !ok, project != "" && t.Project != project:
		return false, labmesh.RefuseField("depends_on", "depends_on: there is no task %s: submit it first", id)
	case t.Phase != labmesh.Completed:
		return false, labmesh.RefuseField("depends_on", "depends_on: task %s is %s and will not complete", id, t.Phase)
	}
	return true, nil
}

// catchUp returns when this node has seen all that was in the log when it was called.
func (s *service) catchUp(ctx context.Context) error {
	rc, err := s.n.replica.Propose(ctx, labmesh.WakeTasks{})
	if err != nil {
		return err
	}
	return s.n.replica.Await(ctx, rc.Index)
}

// endedBefore looks in the ledger for a task with the same id or idempotency
// key that ended longer ago than the state remembers.
func (s *service) endedBefore(ctx context.Context, project string, spec labmesh.Spec) (labmesh.TaskID, error) {
	view := s.n.replica.View()
	if view.KnowsAll() {
		return "", nil
	}
	if id := spec.TaskID; id != "" && !view.Known(id) {
		t, ok, err := s.n.ledger.Task(ctx, id)
		switch {
		case err != nil:
			return "", err
		case ok && project != "" && t.Project != project:
			return "", state.TaskTaken(id)
		case ok:
			return id, nil
		}
	}
	if key := spec.IdempotencyKey; key != "" {
		if _, ok := view.TaskByKey(project, key); !ok {
			id, _, err := s.n.ledger.FindKey(ctx, project, key)
			return id, err
		}
	}
	return "", nil
}

// Cancel says that a task is wanted no more.
func (s *service) Cancel(ctx context.Context, id labmesh.TaskID, by, reason string) error {
	rc, err := s.n.replica.Propose(ctx, labmesh.CancelTask{ID: id, By: by, Reason: reason})
	if err != nil {
		return err
	}
	if refused := rc.Answers[0].Refused; refused != nil {
		return refused
	}
	return s.n.replica.Await(ctx, rc.Index)
}

// Why explains where a task stands.
func (s *service) Why(ctx context.Context, id labmesh.TaskID) (httpapi.Why, error) {
	t, err := s.Task(ctx, id)
	if err != nil {
		return httpapi.Why{}, err
	}
	why := httpapi.Why{Task: id, Status: t.Phase}
	switch t.Phase {
	case labmesh.Pending:
		s.whyPending(&t, &why)
	case labmesh.Assigned:
		if !t.Unknown.IsZero() {
			why.Summary = whyUnknown(&t)
			break
		}
		if t.Ahead {
			why.Summary = fmt.Sprintf("it waits on worker %s for a slot, behind other short tasks", t.Worker)
			break
		}
		why.Summary = fmt.Sprintf("it was given to worker %s, which has not said yet that it started it", t.Worker)
	case labmesh.Running:
		if !t.Unknown.IsZero() {
			why.Summary = whyUnknown(&t)
			break
		}
		why.Summary = fmt.Sprintf("attempt %d runs on worker %s since %s", t.Attempt, t.Worker, t.Started.Format("15:04:05 MST"))
	case labmesh.Cancelling:
		why.Summary = fmt.Sprintf("worker %s is stopping it: %s", t.Worker, t.Error)
	case labmesh.Completed:
		why.Summary = fmt.Sprintf("attempt %d completed on worker %s", t.Attempt, t.Worker)
	default:
		why.Summary = fmt.Sprintf("%s (%s): %s", t.Phase, t.Cause, t.Error)
	}
	return why, nil
}

// whyUnknown is said of a task that stays with a worker that is not heard of.
func whyUnknown(t *labmesh.Task) string {
	until := "until that is back, or somebody cancels the task"
	if t.Spec.Outlasts() > 0 {
		until = "for " + t.Spec.OnDisconnect + ", and goes elsewhere if that is not back by then"
	}
	return fmt.Sprintf("nobody can say whether attempt %d still runs: worker %s is not heard of since %s. With on_disconnect %s the task stays with it %s",
		t.Attempt, t.Worker, t.Unknown.Format("15:04:05 MST"), t.Spec.OnDisconnect, until)
}

// whyAheadMax bounds how far a queue is counted.
const whyAheadMax = 10_000

func (s *service) whyPending(t *labmesh.Task, why *httpapi.Why) {
	view := s.n.replica.View()
	heard := s.heard()
	needs := &t.Spec.Requirements
	fits, open := 0, 0
	for w := range view.Workers() {
		ww := httpapi.WhyWorker{Worker: w.ID, Hostname: w.Hostname, Reasons: needs.Misfits(t.Spec.Kind, w)}
		if what := t.Spec.NeedsNode(); w.Light && what != "" {
			ww.Reasons = append(ww.Reasons, "it is a light worker, and the task has "+what)
		}
		ww.Fits = len(ww.Reasons) == 0
		if w.Status != labmesh.WorkerActive {
			ww.Reasons = append(ww.Reasons, "it is "+string(w.Status)+": "+w.Reason)
		} else if h, ok := heard[w.ID]; !ok {
			ww.Reasons = append(ww.Reasons, "it has not been heard of lately")
		} else if !h.advert.Accepts {
			ww.Reasons = append(ww.Reasons, "it takes no work: "+h.advert.Reason)
		} else if ww.Fits {
			open++
		}
		u := view.Used(w.ID)
		if ww.Fits && u.Slots+needs.Slots(w.Slots) > w.Slots {
			ww.Reasons = append(ww.Reasons, fmt.Sprintf("%d of its %d slots are taken", u.Slots, w.Slots))
		}
		if ww.Fits {
			fits++
		}
		why.Workers = append(why.Workers, ww)
	}
	for _, q := range view.Queue(t.Class, nil, whyAheadMax, nil) {
		if q.ID == t.ID {
			break
		}
		why.Ahead++
	}
	leader, _ := s.n.replica.Leader()
	switch {
	case t.Waits > 0:
		why.Summary = "it waits for tasks that it depends on: " + unfinished(view, t)
	case leader == "":
		why.Summary = "the mesh has no leader just now, and nothing is placed until it has one"
	case !t.NotBefore.IsZero():
		why.Summary = fmt.Sprintf("attempt %d ended (%s: %s); it runs again at %s", t.Attempt, t.Cause, t.Error, t.NotBefore.Format("15:04:05 MST"))
	case len(why.Workers) == 0:
		why.Summary = "there is no worker in the mesh"
	case fits == 0:
		why.Summary = "no worker fits: " + firstReasons(why.Workers)
	case open == 0:
		why.Summary = "the workers that fit take no work now: " + firstReasons(why.Workers)
	default:
		why.Summary = fmt.Sprintf("it waits for a free slot on one of %d workers that fit; %d tasks with the same needs go first", fits, why.Ahead)
	}
}

// unfinished names the tasks that t depends on and that have not ended.
func unfinished(view state.View, t *labmesh.Task) string {
	const most = 5
	var names []string
	for _, id := range t.Spec.DependsOn {
		if on, ok := view.Task(id); ok && !on.Phase.Final() {
			if len(names) == most {
				return strings.Join(append(names, "…"), ", ")
			}
			names = append(names, fmt.Sprintf("%s (%s)", id, on.Phase))
		}
	}
	return strings.Join(names, ", ")
}

// firstReasons names what stands in the way, each reason once.
func firstReasons(workers []httpapi.WhyWorker) string {
	const most = 5
	var out []string
	for _, w := range workers {
		if len(w.Reasons) > 0 && len(out) < most {
			name := string(w.Worker)
			if w.Hostname != "" && w.Hostname != name {
				name += " (" + w.Hostname + ")"
			}
			out = append(out, name+": "+w.Reasons[0])
		}
	}
	return strings.Join(out, "; ")
}
