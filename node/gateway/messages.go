package gateway

import (
	"context"
	"errors"
	"slices"
	"time"

	"labmesh"
	"labmesh/api"
	"labmesh/light"
)

// Handing in a result.
const (
	receiptWait = 5 * time.Second // after which its receipt is confirmed while the mesh has no leader
	againMin    = 50 * time.Millisecond
	againMax    = time.Second
)

// take answers one message of a worker that is known.
func (g *Gateway) take(ctx context.Context, s *socket, data []byte) error {
	m, err := light.Decode(data)
	if err != nil {
		s.fail(light.ErrorFormat)
		return nil
	}
	if s.caller.RequireSigned && m.Type != light.TypeAuth && g.cfg.Guard.Verify(s.caller, data) != nil {
		s.fail(light.ErrorSignature)
		return nil
	}
	switch m.Type {
	case light.TypeAuth:
		return g.authenticate(ctx, s, m)
	case light.TypeRegister:
		g.register(s, m)
	case light.TypeHeartbeat:
		g.heartbeat(s, m)
	case light.TypeTaskResult:
		if m.Task == "" {
			s.fail(light.ErrorTaskID)
			return nil
		}
		worker, ok := g.speaksFor(s, m)
		if !ok {
			s.fail(light.ErrorNotRegistered)
			return nil
		}
		g.mu.Lock()
		if a := g.sessions[worker]; a != nil {
			a.session.Result(m.Task)
		}
		g.mu.Unlock()
		g.work.Go(func() { g.result(s, worker, m) })
	default:
		s.fail(light.ErrorUnknownType(m.Type))
	}
	return nil
}

// register takes in a worker. It is answered at once; the mesh hears of it as soon as it has a leader.
func (g *Gateway) register(s *socket, m light.Message) {
	id := m.Worker
	if id == "" {
		id = s.named
	}
	refuse := func(why string) {
		s.fail(why)
		s.stop(errRefused)
	}
	if !api.ValidID(string(id)) {
		refuse("worker_id: it is not 1 to 128 of A-Z a-z 0-9 . _ : -")
		return
	}
	if w, ok := g.cfg.Mesh.Worker(id); ok && !w.Light && w.Node != "" {
		refuse("worker_id: " + string(id) + " is the worker of a node: choose another")
		return
	}
	now := time.Now()
	g.mu.Lock()
	if old := g.sessions[s.worker]; old != nil && s.worker != id {
		old.session.Close(s.n, now)
	}
	a := g.attachedAs(id, now)
	a.worker = labmesh.Worker{ID: id, Hostname: m.Hostname, Kinds: m.Kinds, Capabilities: m.Capabilities, Tags: m.Tags}
	a.heard, s.worker = now, id
	a.session.Register(s.n, s.opened, now)
	g.mu.Unlock()
	s.say(light.RegisterResponse{Type: light.TypeRegisterResponse, Status: "success", Worker: id})
	g.nudge()
}

// speaksFor is the worker for which a socket speaks: the one that registered on it or, where none did, the one that
// it names and that is known already.
func (g *Gateway) speaksFor(s *socket, m light.Message) (labmesh.WorkerID, bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if s.worker != "" {
		return s.worker, true
	}
	id := m.Worker
	if id == "" {
		id = s.named
	}
	if w, ok := g.cfg.Mesh.Worker(id); !ok || !w.Light {
		return "", false
	}
	s.worker = id
	g.attachedAs(id, time.Now()).session.Attach(s.n, s.opened)
	return id, true
}

func (g *Gateway) heartbeat(s *socket, m light.Message) {
	id, ok := g.speaksFor(s, m)
	if !ok {
		s.fail(light.ErrorNotRegistered)
		return
	}
	now := time.Now()
	g.mu.Lock()
	if a := g.sessions[id]; a != nil {
		if a.heard = now; len(m.Metrics) > 0 {
			a.metrics = light.MetricsOf(m.Metrics)
		}
		a.session.Heartbeat(s.n, m.Running, now)
	}
	g.mu.Unlock()
	s.say(light.HeartbeatResponse{Type: light.TypeHeartbeatResponse, At: light.Stamp(now)})
	g.nudge()
}

// result hands in what a worker says of an attempt, and repeats that until the mesh takes it or declines.
func (g *Gateway) result(s *socket, worker labmesh.WorkerID, m light.Message) {
	ctx := g.run
	confirm := func() {
		s.say(light.ResultResponse{Type: light.TypeTaskResultResponse, Task: m.Task, Received: light.Stamp(time.Now())})
	}
	late := time.AfterFunc(receiptWait, confirm)
	err := g.report(ctx, worker, m)
	confirmed := !late.Stop()
	g.mu.Lock()
	if a := g.sessions[worker]; a != nil {
		a.session.Reported(m.Task, err == nil)
	}
	g.mu.Unlock()
	g.nudge()
	switch {
	case err == nil && !confirmed:
		confirm()
	case err != nil && ctx.Err() == nil:
		s.fail(err.Error())
	}
}

// report returns nil when the mesh took a result, and else what to tell the worker.
func (g *Gateway) report(ctx context.Context, worker labmesh.WorkerID, m light.Message) error {
	attempt, err := g.attemptOf(ctx, worker, m.Task)
	if err != nil {
		return err
	}
	for _, cmd := range reports(worker, attempt, m) {
		refused, err := g.insist(ctx, cmd)
		if err != nil {
			return err
		}
		if _, last := cmd.(labmesh.FinishTask); last && refused != nil {
			g.cfg.Logger.InfoContext(ctx, "result of a light worker not taken", "worker", worker, "task", m.Task, "attempt", attempt, "why", refused.Message)
			return errors.New(light.ErrorNotYours(m.Task))
		}
	}
	return nil
}

// reports are the commands that tell of a result: what was measured first, its end last.
func reports(worker labmesh.WorkerID, attempt int, m light.Message) (cmds []labmesh.Command) {
	from := 0
	for rows := range slices.Chunk(m.Rows, labmesh.BenchRowsMax) {
		cmds = append(cmds, labmesh.RecordBench{ID: m.Task, Attempt: attempt, Worker: worker, From: from, Rows: rows})
		from += len(rows)
	}
	from = 0
	for cases := range slices.Chunk(m.Cases, labmesh.CasesMax) {
		cmds = append(cmds, labmesh.RecordTests{ID: m.Task, Attempt: attempt, Worker: worker, From: from, Cases: cases})
		from += len(cases)
	}
	return append(cmds, labmesh.FinishTask{ID: m.Task, Attempt: attempt, Worker: worker, Outcome: m.Outcome})
}

// attemptOf is the number of the attempt that a result is of: the one that the worker holds or, for
// what comes too late, the last one that it held.
func (g *Gateway) attemptOf(ctx context.Context, worker labmesh.WorkerID, id labmesh.TaskID) (int, error) {
	t, ok, known := g.cfg.Mesh.Task(id)
	if !ok || t.Worker != worker || !t.Phase.Held() {
		g.cfg.Mesh.Refresh(ctx) // it may have been placed through another node just now
		t, ok, known = g.cfg.Mesh.Task(id)
	}
	switch {
	case !ok && !known:
		return 0, errors.New(light.ErrorNoTask(id))
	case !ok:
		return 0, errors.New(light.ErrorNotYours(id))
	case t.Worker == worker && t.Phase.Held():
		return t.Attempt, nil
	}
	for _, a := range slices.Backward(t.History) {
		if a.Worker == worker {
			return a.Number, nil // the state refuses it, and has it on record
		}
	}
	return 0, errors.New(light.ErrorNotYours(id))
}

// insist proposes a command until the mesh answers.
func (g *Gateway) insist(ctx context.Context, cmd labmesh.Command) (*labmesh.Error, error) {
	for wait := againMin; ; wait = min(2*wait, againMax) {
		once, cancel := context.WithTimeout(ctx, tellWait)
		rc, err := g.cfg.Mesh.Propose(once, cmd)
		if err == nil {
			err = g.cfg.Mesh.Await(once, rc.Index)
		}
		cancel()
		if err == nil {
			return rc.Answers[0].Refused, nil
		}
		if r := labmesh.ReasonOf(err); ctx.Err() == nil && r != labmesh.Unavailable && r != labmesh.Exhausted && r != labmesh.Internal {
			return labmesh.Refuse(r, "%v", err), nil
		}
		select {
		case <-time.After(wait):
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
}
