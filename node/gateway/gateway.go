package gateway

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"sync"
	"time"

	"labmesh"
	"labmesh/light"
)

// Limits of a gateway.
const (
	SocketsMax  = 8192                 // open at once
	StrangerMax = 256                  // of which so many have not said yet who they are
	pace        = 5 * time.Millisecond // between two looks at all sessions
	adoptEvery  = time.Second          // look for workers that the mesh has here, and that are not
	tellWait    = 10 * time.Second     // for the mesh to take something
)

// Mesh is what a gateway knows of the mesh, and the way for what it has to say.
type Mesh interface {
	// Facts is what the mesh says of a worker.
	Facts(labmesh.WorkerID) light.Facts
	// Worker is a worker that was ever registered.
	Worker(labmesh.WorkerID) (*labmesh.Worker, bool)
	// Attached lists the light workers that the mesh has at this node.
	Attached() []labmesh.WorkerID
	// Task is a live task or one that ended lately. Known reports whether there ever was one, as far as is remembered.
	Task(labmesh.TaskID) (task *labmesh.Task, ok, known bool)
	// Changed is closed when any of that may have changed. Take it, then look.
	Changed() <-chan struct{}
	// Refresh returns once all of that is as new as when it was called, or cannot be.
	Refresh(ctx context.Context)
	// Await returns once all of that is as it was at a log index, or newer.
	Await(ctx context.Context, index uint64) error
	// Propose puts commands into the log. Unavailable says that nothing is known of their fate.
	Propose(ctx context.Context, cmds ...labmesh.Command) (labmesh.Receipt, error)
}

// Caller is who speaks on a socket.
type Caller struct {
	Key           string           // id of the API key
	Worker        labmesh.WorkerID // that a token was made for; "" for a key
	RequireSigned bool             // what is not signed is refused
}

// Guard knows who may attach.
type Guard interface {
	// Authenticate is who bears an API key or a token, or a refusal with reason Denied.
	Authenticate(credential string) (Caller, error)
	// Mint makes a token by which a worker may come back, at any node.
	Mint(ctx context.Context, c Caller, worker labmesh.WorkerID) (string, error)
	// Verify proves the signature of a message, good once.
	Verify(c Caller, message []byte) error
}

// Config says what a gateway is made of. All must be set.
type Config struct {
	Node   labmesh.NodeID
	Mesh   Mesh
	Guard  Guard
	NewID  func() string // for a worker that has no id
	Logger *slog.Logger
}

// Gateway is the door for light workers of one node. It answers requests for its
// WebSocket; [Gateway.Run] must run meanwhile.
type Gateway struct {
	cfg  Config
	poke chan struct{}
	work sync.WaitGroup // sockets, and words to the mesh

	mu        sync.Mutex
	sessions  map[labmesh.WorkerID]*attached
	sockets   map[uint64]*socket
	strangers int
	last      uint64 // number of the newest socket
	run       context.Context
	closed    bool
}

// attached is a light worker and its sockets here.
type attached struct {
	session *light.Session
	worker  labmesh.Worker // as it registered
	heard   time.Time      // zero before the first word
	metrics *labmesh.Metrics
}

// New makes a gateway.
func New(cfg Config) *Gateway {
	return &Gateway{cfg: cfg, poke: make(chan struct{}, 1), sessions: map[labmesh.WorkerID]*attached{}, sockets: map[uint64]*socket{}}
}

// errStopped is why sockets are closed when the node stops.
var errStopped = errors.New("this node stops: attach to another")

// Run has sessions do what is to be done until ctx ends, and then closes all sockets.
func (g *Gateway) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancelCause(ctx)
	g.mu.Lock()
	g.run = ctx
	g.mu.Unlock()
	defer g.work.Wait()
	defer g.close()
	defer cancel(errStopped)
	timer := time.NewTimer(0)
	defer timer.Stop()
	var adopted time.Time
	for ctx.Err() == nil {
		changed := g.cfg.Mesh.Changed()
		now := time.Now()
		if now.Sub(adopted) >= adoptEvery {
			adopted = now
			g.adopt(now)
		}
		wake := g.round(ctx, now)
		timer.Reset(pace)
		select {
		case <-timer.C:
		case <-ctx.Done():
			return nil
		}
		next := adopted.Add(adoptEvery)
		if !wake.IsZero() && wake.Before(next) {
			next = wake
		}
		timer.Reset(max(time.Until(next), 0))
		select {
		case <-changed:
		case <-g.poke:
		case <-timer.C:
		case <-ctx.Done():
		}
	}
	return nil
}

func (g *Gateway) close() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.closed = true
	for _, s := range g.sockets {
		s.stop(errStopped)
	}
}

func (g *Gateway) nudge() {
	select {
	case g.poke <- struct{}{}:
	default: // it is about to look
	}
}

// adopt begins sessions of workers that the mesh has here and that have no socket: an
// earlier life of the node had them. It also ends silent sockets.
func (g *Gateway) adopt(now time.Time) {
	ids := g.cfg.Mesh.Attached()
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, id := range ids {
		g.attachedAs(id, now)
	}
	for _, s := range g.sockets {
		if now.Sub(s.lastWord()) > silenceMax {
			s.stop(errSilent)
		}
	}
}

// attachedAs is the session of a worker, made where there is none. The caller holds mu.
func (g *Gateway) attachedAs(id labmesh.WorkerID, now time.Time) *attached {
	a := g.sessions[id]
	if a == nil {
		a = &attached{session: light.NewSession(now)}
		if w, ok := g.cfg.Mesh.Worker(id); ok {
			a.worker = *w
		}
		g.sessions[id] = a
	}
	return a
}

// round has every session do what is to be done now, and says when to look again at the latest.
func (g *Gateway) round(ctx context.Context, now time.Time) (wake time.Time) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for id, a := range g.sessions {
		facts := g.cfg.Mesh.Facts(id)
		if a.session.Over(facts) {
			delete(g.sessions, id)
			continue
		}
		steps, next := a.session.Next(facts, now)
		for _, step := range steps {
			g.perform(ctx, id, a, facts, step)
		}
		if !next.IsZero() && (wake.IsZero() || next.Before(wake)) {
			wake = next
		}
	}
	return wake
}

// perform does one step. The caller holds mu.
func (g *Gateway) perform(ctx context.Context, id labmesh.WorkerID, a *attached, facts light.Facts, step light.Step) {
	s := g.sockets[step.Socket]
	switch step.Do {
	case light.SendTask:
		if s != nil {
			s.say(execute(facts.Held))
		}
	case light.SendStop:
		if s != nil {
			s.say(light.Cancel{Type: light.TypeCancelTask, Task: step.Task, Reason: step.Reason})
		}
	case light.HangUp:
		if s != nil {
			s.stop(errUsed)
		}
	default:
		cmd := g.command(id, a, step)
		g.work.Go(func() { g.tell(ctx, id, step, cmd) })
	}
}

func execute(t *labmesh.Task) light.Execute {
	config := t.Spec.Config
	if len(config) == 0 {
		config = json.RawMessage("{}")
	}
	return light.Execute{Type: light.TypeExecuteTask, Task: t.ID, Kind: t.Spec.Kind, Config: config, Timeout: t.Spec.TimeoutSeconds}
}

// command is what the mesh is told by a step. The caller holds mu.
func (g *Gateway) command(id labmesh.WorkerID, a *attached, step light.Step) labmesh.Command {
	switch step.Do {
	case light.Claim:
		w := a.worker
		if old, ok := g.cfg.Mesh.Worker(id); ok && old.Light {
			w.Capabilities.Memory.AvailableGB = old.Capabilities.Memory.AvailableGB // that it varies is no news
		}
		return labmesh.PutWorker{Worker: labmesh.Worker{
			ID: id, Node: g.cfg.Node, Light: true, Slots: 1, Hostname: w.Hostname, Kinds: w.Kinds, Capabilities: w.Capabilities, Tags: w.Tags,
		}}
	case light.Start:
		return labmesh.StartTask{ID: step.Task, Attempt: step.Attempt, Worker: id}
	case light.Lose:
		return labmesh.LoseWorker{ID: id, Reason: step.Why}
	}
	return labmesh.FinishTask{ID: step.Task, Attempt: step.Attempt, Worker: id, Outcome: labmesh.Outcome{Cause: step.Cause, Error: step.Why}}
}

// tell has the mesh hear of a step, once: the session repeats what was not taken.
func (g *Gateway) tell(ctx context.Context, id labmesh.WorkerID, step light.Step, cmd labmesh.Command) {
	ctx, cancel := context.WithTimeout(ctx, tellWait)
	defer cancel()
	rc, err := g.cfg.Mesh.Propose(ctx, cmd)
	var refused *labmesh.Error
	if err == nil {
		err = g.cfg.Mesh.Await(ctx, rc.Index)
		refused = rc.Answers[0].Refused
	}
	if err != nil || refused != nil {
		g.cfg.Logger.DebugContext(ctx, "not taken of a light worker", "worker", id, "command", cmd.CommandName(), "err", err, "refused", refused)
	}
	g.mu.Lock()
	if a := g.sessions[id]; a != nil {
		a.session.Answered(step, err == nil && (refused == nil || step.Do == light.Claim), time.Now())
		if refused != nil && step.Do == light.Claim {
			g.turnAway(id, refused)
		}
	}
	g.mu.Unlock()
	g.nudge()
}

// turnAway closes the sockets of a worker that the mesh does not take. The caller holds mu.
func (g *Gateway) turnAway(id labmesh.WorkerID, why *labmesh.Error) {
	for _, s := range g.sockets {
		if s.worker == id {
			s.say(light.Error{Type: light.TypeError, Message: why.Message})
			s.stop(errRefused)
		}
	}
}

// Heard is when a worker last said something here, and what its machine was doing, if
// it said that; false for one that is not attached here.
func (g *Gateway) Heard(id labmesh.WorkerID) (at time.Time, doing *labmesh.Metrics, ok bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	a := g.sessions[id]
	if a == nil || a.heard.IsZero() {
		return time.Time{}, nil, false
	}
	return a.heard, a.metrics, true
}

// Sockets is how many sockets are open.
func (g *Gateway) Sockets() int {
	g.mu.Lock()
	defer g.mu.Unlock()
	return len(g.sockets)
}
