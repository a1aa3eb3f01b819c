package node

import (
	"context"
	"fmt"
	"io"
	"iter"
	"slices"
	"time"

	"golang.org/x/time/rate"

	"labmesh"
	"labmesh/node/httpapi"
	"labmesh/security"
	"labmesh/state"
	"labmesh/store"
)

// service is what the node does for its users, in terms of its parts.
type service struct {
	n      *Node
	fresh  *rate.Limiter
	uses   keyUses
	opened openedKeys
	// replays remembers the signatures of messages and requests that were taken.
	replays *security.Replays
}

var _ httpapi.Service = (*service)(nil)

func newService(n *Node) *service {
	return &service{n: n, fresh: rate.NewLimiter(freshenRate, freshenBurst), replays: security.NewReplays(time.Now())}
}

// Task is a task from the view, or from the ledger when it ended long ago.
func (s *service) Task(ctx context.Context, id labmesh.TaskID) (labmesh.Task, error) {
	view := s.n.replica.View()
	if t, ok := view.Task(id); ok {
		return *t, nil
	}
	if !view.Known(id) && s.freshen(ctx) {
		view = s.n.replica.View()
		if t, ok := view.Task(id); ok {
			return *t, nil
		}
	}
	s.n.ledger.await(ctx, view.Index())
	t, ok, err := s.n.ledger.Task(ctx, id)
	if err != nil {
		return labmesh.Task{}, err
	}
	switch {
	case !ok && !s.n.caughtUp.Load():
		return labmesh.Task{}, labmesh.Refuse(labmesh.Unavailable, "this node has not caught up yet")
	case !ok:
		return labmesh.Task{}, labmesh.Refuse(labmesh.NotFound, "no task %s", id)
	}
	return t, nil
}

// Benchmarks lists rows of a benchmark from the ledger.
func (s *service) Benchmarks(ctx context.Context, f httpapi.BenchFilter) ([]labmesh.Bench, error) {
	s.n.ledger.await(ctx, s.n.replica.View().Index())
	found, err := s.n.ledger.Bench(ctx, store.BenchFilter{Task: f.Task, AfterID: f.After, Limit: f.Limit})
	if err != nil {
		return nil, err
	}
	out := make([]labmesh.Bench, len(found))
	for i := range found {
		out[i] = found[i].Bench
	}
	return out, nil
}

// freshen waits until this node's view holds all that was decided before the
// call, so that what was just submitted through another node is found here. It
// costs an entry of the log, so it is for what is not found otherwise, and not
// for all of that when there is much.
func (s *service) freshen(ctx context.Context) bool {
	if !s.fresh.Allow() || s.Ready() != nil {
		return false
	}
	ctx, cancel := context.WithTimeout(ctx, freshenTimeout)
	defer cancel()
	rc, err := s.n.replica.Propose(ctx, labmesh.WakeTasks{})
	return err == nil && s.n.replica.Await(ctx, rc.Index) == nil
}

// Limits of freshening.
const (
	freshenTimeout = time.Second
	freshenRate    = 50 // per second
	freshenBurst   = 50
)

// ListTasks lists live tasks from the view and ended ones from the ledger, as
// one list in the order of submits.
func (s *service) ListTasks(ctx context.Context, f httpapi.TaskFilter) (list []labmesh.Task, next uint64, err error) {
	view := s.n.replica.View()
	for t := range view.Tasks(f.After) {
		if len(list) > f.Limit {
			break
		}
		if matches(t, f) {
			list = append(list, *t)
		}
	}
	if !view.HoldsAll() && (f.Phase == "" || f.Phase.Final()) {
		s.n.ledger.await(ctx, view.Index())
		lf := store.Filter{Kind: f.Kind, Worker: f.Worker, After: f.After, Limit: f.Limit + 1, Project: f.Project}
		if f.Phase != "" {
			lf.Phases = []labmesh.Phase{f.Phase}
		}
		ended, err := s.n.ledger.Tasks(ctx, lf)
		if err != nil {
			return nil, 0, err
		}
		list = merge(list, ended)
	}
	if len(list) > f.Limit {
		list = list[:f.Limit]
		next = list[f.Limit-1].Seq
	}
	return list, next, nil
}

func matches(t *labmesh.Task, f httpapi.TaskFilter) bool {
	return (f.Phase == "" || f.Phase == t.Phase) && (f.Kind == "" || f.Kind == t.Spec.Kind) && (f.Worker == "" || f.Worker == t.Worker) &&
		(f.Project == "" || f.Project == t.Project)
}

// merge joins two lists by seq; of a task in both the first list's word holds.
func merge(view, ledger []labmesh.Task) []labmesh.Task {
	out := make([]labmesh.Task, 0, len(view)+len(ledger))
	for len(view) > 0 || len(ledger) > 0 {
		switch {
		case len(ledger) == 0, len(view) > 0 && view[0].Seq < ledger[0].Seq:
			out, view = append(out, view[0]), view[1:]
		case len(view) == 0, ledger[0].Seq < view[0].Seq:
			out, ledger = append(out, ledger[0]), ledger[1:]
		default:
			out, view, ledger = append(out, view[0]), view[1:], ledger[1:]
		}
	}
	return out
}

// ListWorkers lists all workers that were ever registered.
func (s *service) ListWorkers(context.Context) ([]httpapi.Worker, error) {
	view := s.n.replica.View()
	heard := s.heard()
	var out []httpapi.Worker
	for w := range view.Workers() {
		out = append(out, look(view, w, heard))
	}
	return out, nil
}

// Worker is one worker, with the tasks it holds and the newest it held.
func (s *service) Worker(ctx context.Context, id labmesh.WorkerID) (httpapi.Worker, []labmesh.Task, error) {
	view := s.n.replica.View()
	w, ok := view.Worker(id)
	if !ok {
		return httpapi.Worker{}, nil, labmesh.Refuse(labmesh.NotFound, "no worker %s", id)
	}
	var tasks []labmesh.Task
	for t := range view.Tasks(0) {
		if t.Worker == id {
			tasks = append(tasks, *t)
		}
	}
	tasks = tasks[max(0, len(tasks)-workerTasks):]
	return look(view, w, s.heard()), tasks, nil
}

// workerTasks is how many tasks are shown with a worker.
const workerTasks = 100

// word is what was last heard of a worker.
type word struct {
	at     time.Time
	advert labmesh.Advert
	mute   bool // its metrics are not known here
}

func (s *service) heard() map[labmesh.WorkerID]word {
	out := map[labmesh.WorkerID]word{}
	for _, h := range s.n.host.Heard() {
		if h.Advert.Worker != "" {
			out[h.Advert.Worker] = word{at: h.At, advert: h.Advert}
		}
	}
	s.hearLight(out)
	return out
}

func look(view state.View, w *labmesh.Worker, heard map[labmesh.WorkerID]word) httpapi.Worker {
	u := view.Used(w.ID)
	out := httpapi.Worker{Worker: *w, SlotsUsed: u.Slots, Busy: w.Status == labmesh.WorkerActive && u.Slots >= w.Slots}
	if h, ok := heard[w.ID]; ok {
		if out.Heartbeat = h.at; !h.mute {
			out.Metrics = &h.advert.Metrics
		}
		if out.Reason == "" {
			out.Reason = h.advert.Reason
		}
	}
	return out
}

// Register makes a worker known before it comes. It is given nothing to do
// until it is heard of.
func (s *service) Register(ctx context.Context, w labmesh.Worker) (labmesh.WorkerID, error) {
	if w.ID == "" {
		w.ID = labmesh.WorkerID("w-" + newID())
	}
	if old, ok := s.n.replica.View().Worker(w.ID); ok && old.Node != "" && !old.Light {
		return "", labmesh.Refuse(labmesh.Conflict, "worker %s is that of a node, which registers itself: choose another worker_id", w.ID)
	}
	rc, err := s.n.replica.Propose(ctx, labmesh.PutWorker{Worker: w})
	if err != nil {
		return "", err
	}
	if refused := rc.Answers[0].Refused; refused != nil {
		return "", refused
	}
	return w.ID, s.n.replica.Await(ctx, rc.Index)
}

// Ready says whether this node is of use.
func (s *service) Ready() error {
	if leader, _ := s.n.replica.Leader(); leader == "" {
		return labmesh.Refuse(labmesh.Unavailable, "no leader")
	}
	if !s.n.caughtUp.Load() {
		return labmesh.Refuse(labmesh.Unavailable, "this node has not caught up yet")
	}
	return nil
}

// Events sends what happens, in order. Each event is sent when the view holds
// it: whoever hears of it and asks is not told what was before.
func (s *service) Events(ctx context.Context, after httpapi.EventID, send func(labmesh.Event) error) error {
	return s.n.ledger.hub.follow(ctx, s.n.ledger, after, func(e labmesh.Event) error {
		if err := s.n.replica.Await(ctx, e.Index); err != nil {
			return err
		}
		return send(e)
	})
}

// Query answers SQL on the ledger and on what is live.
func (s *service) Query(ctx context.Context, q httpapi.Query) (httpapi.QueryResult, error) {
	r, err := s.n.ledger.Query(ctx, s.query(ctx, q))
	if err != nil {
		return httpapi.QueryResult{}, err
	}
	return httpapi.QueryResult(r), nil
}

// QueryParquet answers SQL as a Parquet file.
func (s *service) QueryParquet(ctx context.Context, q httpapi.Query, w io.Writer) error {
	return s.n.ledger.WriteParquet(ctx, s.query(ctx, q), w)
}

func (s *service) query(ctx context.Context, q httpapi.Query) store.Query {
	view := s.n.replica.View()
	s.n.ledger.await(ctx, view.Index())
	return store.Query{SQL: q.SQL, Timeout: q.Timeout, MaxRows: q.MaxRows, Live: live{view, s.heard()}}
}

// live shows a view to a query.
type live struct {
	view  state.View
	heard map[labmesh.WorkerID]word
}

// Index is the log index of the view.
func (l live) Index() uint64 { return l.view.Index() }

// Tasks are the tasks of the view.
func (l live) Tasks() iter.Seq[*labmesh.Task] { return l.view.Tasks(0) }

// Workers are the workers of the view and what was heard of them.
func (l live) Workers() iter.Seq[store.LiveWorker] {
	return func(yield func(store.LiveWorker) bool) {
		for w := range l.view.Workers() {
			seen := look(l.view, w, l.heard)
			row := store.LiveWorker{Worker: w, Heartbeat: seen.Heartbeat, Metrics: seen.Metrics}
			if seen.Busy {
				row.Status = "busy"
			}
			if !yield(row) {
				return
			}
		}
	}
}

// Status is the mesh as this node sees it; it needs no leader.
func (s *service) Status(context.Context) httpapi.Status {
	n, view, rs := s.n, s.n.replica.View(), s.n.replica.Status()
	out := httpapi.Status{
		Node: n.host.ID(), Leader: rs.Leader, Mesh: n.Mesh(), Role: "learner", Term: rs.Term, Voters: rs.Voters,
		Replicas: append(slices.Clone(rs.Voters), rs.Learners...), Quorum: len(rs.Voters)/2 + 1,
		Applied: view.Index(), Ledger: n.ledger.behind.Applied(), Uptime: time.Since(n.began), Version: n.cfg.Version,
		Tasks: view.Counts(), TasksTotal: int(view.Submitted()),
	}
	switch {
	case rs.Leader == out.Node && out.Node != "":
		out.Role = "leader"
	case slices.Contains(rs.Voters, out.Node):
		out.Role = "voter"
	}
	if out.Role != "leader" && !rs.LastContact.IsZero() {
		out.StaleSeconds = time.Since(rs.LastContact).Seconds()
	}
	for m := range view.Members() {
		if !m.Banned && !slices.Contains(out.Replicas, m.Node) {
			out.Leaves = append(out.Leaves, m.Node)
		}
	}
	for w := range view.Workers() {
		out.Workers.Total++
		switch {
		case w.Status == labmesh.WorkerOffline:
			out.Workers.Offline++
		case w.Status != labmesh.WorkerActive:
			out.Workers.Held++
		case view.Used(w.ID).Tasks == 0:
			out.Workers.Active++
			out.Workers.Idle++
		default:
			out.Workers.Active++
		}
	}
	for _, v := range out.Voters {
		if v == out.Node || n.host.Alive(v) {
			out.Alive++
		}
	}
	out.Warnings = s.warnings(out)
	return out
}

// warningsMax bounds how many warnings there are before those of this node.
const warningsMax = 16

// warnings says what a person should know, and do.
func (s *service) warnings(st httpapi.Status) (out []string) {
	alive := st.Alive
	switch {
	case st.Leader == "":
		out = append(out, fmt.Sprintf("no leader: %d of %d voters are heard of, %d must be; submits are refused until then", alive, len(st.Voters), st.Quorum))
	case len(st.Voters) == 1 && len(st.Replicas) == 1:
		out = append(out, "one voter, no replica: there is no failover, and this disk holds the only copy; let two more nodes join (labmesh invite)")
	case len(st.Voters) == 1:
		out = append(out, "one voter: there is no failover until three nodes can vote; let another node join (labmesh invite)")
	case alive-1 < st.Quorum:
		out = append(out, fmt.Sprintf("%d of %d voters are heard of: the loss of one more stops the mesh", alive, len(st.Voters)))
	}
	for w := range s.n.replica.View().Workers() {
		if c := w.Capabilities.Calibration; c != nil && c.Slower != "" && w.Status != labmesh.WorkerOffline && len(out) < warningsMax {
			out = append(out, fmt.Sprintf("worker %s (%s): %s", w.ID, w.Hostname, c.Slower))
		}
	}
	if err := s.n.ledger.behind.Err(); err != nil {
		out = append(out, fmt.Sprintf("the ledger cannot be written, results wait in memory: %v", err))
	}
	if s.n.ledger.aside != "" {
		out = append(out, "the ledger was damaged and is set aside as "+s.n.ledger.aside)
	}
	if gap := s.n.ledger.gap.Load(); gap != nil {
		out = append(out, fmt.Sprintf("the ledger lacks the rows of log entries %d to %d; they are fetched from a peer as soon as one has them", gap.After+1, gap.Upto))
	}
	for _, h := range s.n.host.Heard() {
		if h.Advert.Worker != "" && !h.Advert.Accepts && h.Advert.Reason != "" {
			out = append(out, fmt.Sprintf("worker %s takes no work: %s", h.Advert.Worker, h.Advert.Reason))
		}
	}
	slices.Sort(out)
	return out
}
