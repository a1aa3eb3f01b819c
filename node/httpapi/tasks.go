package httpapi

import (
	"encoding/base64"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"labmesh"
	"labmesh/api"
)

// Words of the contract.
const (
	taskNotFound   = "Task not found"
	workerNotFound = "Worker not found"
)

func (a *API) submit(w http.ResponseWriter, r *http.Request, c Caller) error {
	body, err := readBody(w, r, a.limits.BodyBytes)
	if err != nil {
		return err
	}
	spec, err := decodeSubmit(body)
	if err != nil {
		return err
	}
	answers, err := a.svc.Submit(r.Context(), c, []labmesh.Spec{spec})
	switch {
	case err != nil:
		return err
	case len(answers) != 1:
		return fmt.Errorf("submit: %d answers to one task", len(answers))
	case answers[0].Refused != nil:
		return answers[0].Refused
	}
	doneOf(r).target = string(answers[0].Task)
	reply := api.SubmitReply{ID: answers[0].Task, Created: !answers[0].Existed, Message: "Task created"}
	if !reply.Created {
		reply.Message = "Task exists already"
	}
	return a.reply(w, r, reply)
}

func (a *API) submitBatch(w http.ResponseWriter, r *http.Request, c Caller) error {
	specs, err := a.readBatch(w, r)
	if err != nil {
		return err
	}
	answers, err := a.svc.Submit(r.Context(), c, specs)
	switch {
	case err != nil:
		return err
	case len(answers) != len(specs):
		return fmt.Errorf("submit batch: %d answers to %d tasks", len(answers), len(specs))
	}
	reply := api.BatchReply{IDs: make([]labmesh.TaskID, len(answers))}
	for i, an := range answers {
		if an.Refused != nil {
			return inTask(i, an.Refused)
		}
		reply.IDs[i] = an.Task
		if !an.Existed {
			reply.Created++
		}
	}
	if d := doneOf(r); len(reply.IDs) > 0 {
		d.target, d.count = string(reply.IDs[0]), len(reply.IDs)
	}
	return a.reply(w, r, reply)
}

// readBatch reads a batch when few enough others are being read: their bodies
// are held in memory.
func (a *API) readBatch(w http.ResponseWriter, r *http.Request) ([]labmesh.Spec, error) {
	select {
	case a.batches <- struct{}{}:
		defer func() { <-a.batches }()
	case <-r.Context().Done():
		return nil, r.Context().Err()
	}
	body, err := readBody(w, r, a.limits.BatchBytes)
	if err != nil {
		return nil, err
	}
	return decodeBatch(body, a.limits.BatchTasks)
}

func (a *API) listTasks(w http.ResponseWriter, r *http.Request, c Caller) error {
	f, err := taskFilter(r.URL.Query())
	if err != nil {
		return err
	}
	f.Project = c.scope()
	tasks, next, err := a.svc.ListTasks(r.Context(), f)
	if err != nil {
		return err
	}
	reply := api.TaskList{Tasks: taskRows(tasks)}
	if next != 0 {
		reply.NextCursor = taskCursor.at(next)
	}
	return a.reply(w, r, reply)
}

// taskFilter reads the query parameters of a list of tasks.
func taskFilter(q url.Values) (f TaskFilter, err error) {
	f = TaskFilter{
		Phase: labmesh.Phase(q.Get("status")), Kind: labmesh.Kind(q.Get("type")),
		Worker: labmesh.WorkerID(q.Get("worker_id")),
	}
	if f.Phase != "" && !f.Phase.Known() {
		return f, labmesh.RefuseField("status", "status: %.40q is not one of %s", f.Phase, strings.Join(words(labmesh.Phases()), ", "))
	}
	if f.Kind != "" && !slices.Contains(labmesh.Kinds(), f.Kind) {
		return f, labmesh.RefuseField("type", "type: %.40q is not one of %s", f.Kind, strings.Join(words(labmesh.Kinds()), ", "))
	}
	f.After, f.Limit, err = page(q, taskCursor)
	return f, err
}

// page reads the query parameters of a page of a list: the place after which it
// begins, and its length.
func page(q url.Values, of cursorKind) (after uint64, limit int, err error) {
	limit = api.PageDefault
	if q.Has("limit") {
		limit, err = strconv.Atoi(q.Get("limit"))
		if err != nil || limit < 1 || limit > api.PageMax {
			return 0, 0, labmesh.RefuseField("limit", "limit: %.40q is not a number from 1 to %d", q.Get("limit"), api.PageMax)
		}
	}
	if c := q.Get("cursor"); c != "" {
		after, err = of.read(c)
	}
	return after, limit, err
}

// cursorKind is the word that opens a cursor, so that one of another list can
// be told apart.
type cursorKind string

// The lists that have pages.
const (
	taskCursor  cursorKind = "seq:" // tasks in the order of submits
	benchCursor cursorKind = "row:" // rows of a benchmark by id
)

// at is the place after something in a list. It stays right when things are
// added or change.
func (k cursorKind) at(place uint64) string {
	return base64.RawURLEncoding.EncodeToString([]byte(string(k) + strconv.FormatUint(place, 10)))
}

func (k cursorKind) read(s string) (uint64, error) {
	data, err := base64.RawURLEncoding.DecodeString(s)
	digits, ok := strings.CutPrefix(string(data), string(k))
	place, err2 := strconv.ParseUint(digits, 10, 63)
	if err != nil || err2 != nil || !ok {
		return 0, labmesh.RefuseField("cursor", "cursor: %.40q is not a next_cursor of this list", s)
	}
	return place, nil
}

func (a *API) benchmarks(w http.ResponseWriter, r *http.Request, c Caller) error {
	after, limit, err := page(r.URL.Query(), benchCursor)
	if err != nil {
		return err
	}
	t, err := a.lookUp(r, c)
	if err != nil {
		return err
	}
	found, err := a.svc.Benchmarks(r.Context(), BenchFilter{Task: t.ID, After: int64(after), Limit: limit + 1})
	if err != nil {
		return err
	}
	reply := api.BenchList{Rows: benchRows(found)}
	if len(reply.Rows) > limit {
		reply.Rows = reply.Rows[:limit]
		reply.NextCursor = benchCursor.at(uint64(reply.Rows[limit-1].ID))
	}
	return a.reply(w, r, reply)
}

// taskID is the id in the path. An id that no task can have is not looked for.
func taskID(r *http.Request) (labmesh.TaskID, error) {
	id := r.PathValue("id")
	if !api.ValidID(id) {
		return "", labmesh.Refuse(labmesh.NotFound, taskNotFound)
	}
	return labmesh.TaskID(id), nil
}

func (a *API) task(w http.ResponseWriter, r *http.Request, c Caller) error {
	t, err := a.lookUp(r, c)
	if err != nil {
		return err
	}
	return a.reply(w, r, taskDetail(&t))
}

// lookUp is the task in the path. One that the caller may not see is not there.
func (a *API) lookUp(r *http.Request, c Caller) (labmesh.Task, error) {
	id, err := taskID(r)
	if err != nil {
		return labmesh.Task{}, err
	}
	t, err := a.svc.Task(r.Context(), id)
	if err == nil && !c.sees(&t) {
		return labmesh.Task{}, labmesh.Refuse(labmesh.NotFound, taskNotFound)
	}
	return t, rename(err, taskNotFound)
}

// visibleID is the id in the path, of a task that the caller may see or that is not there.
func (a *API) visibleID(r *http.Request, c Caller) (labmesh.TaskID, error) {
	if c.Confined() {
		t, err := a.lookUp(r, c)
		return t.ID, err
	}
	return taskID(r) // what comes next looks for the task
}

func (a *API) cancel(w http.ResponseWriter, r *http.Request, c Caller) error {
	var req api.CancelRequest
	if err := a.readOptional(w, r, &req); err != nil {
		return err
	}
	if len(req.Reason) > api.LabelCharsMax {
		return labmesh.RefuseField("reason", "reason: it is longer than %d bytes", api.LabelCharsMax)
	}
	t, err := a.lookUp(r, c)
	if err != nil {
		return err
	}
	if t.Phase.Final() {
		return cannotCancel(t.Phase)
	}
	held := t.Phase.Held()
	orElse(&req.Reason, "user_request")
	if err := a.svc.Cancel(r.Context(), t.ID, c.Who(), req.Reason); err != nil {
		return a.cancelRefused(r, c, err)
	}
	reply := api.CancelReply{ID: t.ID, Cancelled: true, Message: "Task cancelled"}
	if held {
		reply.Message = "Task is being cancelled: its worker stops the attempt"
	}
	return a.reply(w, r, reply)
}

// cancelRefused explains a cancel that came too late: the task ended since it
// was looked at.
func (a *API) cancelRefused(r *http.Request, c Caller, err error) error {
	if labmesh.ReasonOf(err) != labmesh.Conflict {
		return rename(err, taskNotFound)
	}
	t, lookErr := a.lookUp(r, c)
	if lookErr != nil || !t.Phase.Final() {
		return err
	}
	return cannotCancel(t.Phase)
}

func cannotCancel(p labmesh.Phase) error {
	return labmesh.Refuse(labmesh.Invalid, "Cannot cancel task in %s state", p)
}

func (a *API) why(w http.ResponseWriter, r *http.Request, c Caller) error {
	id, err := a.visibleID(r, c)
	if err != nil {
		return err
	}
	why, err := a.svc.Why(r.Context(), id)
	if err != nil {
		return rename(err, taskNotFound)
	}
	return a.reply(w, r, whyReply(why))
}
