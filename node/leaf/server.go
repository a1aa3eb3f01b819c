package leaf

import (
	"bufio"
	"context"
	"errors"
	"log/slog"
	"net"
	"slices"
	"sync"
	"time"

	"labmesh"
	"labmesh/state"
)

// Limits of a replica's end.
const (
	helloWait   = 5 * time.Second // for a leaf to say who it is
	catchUpWait = 2 * time.Second // for the view to get as far as the leaf has seen
	beatEvery   = time.Second     // that a leaf is told at least that nothing changed
	writeWait   = 5 * time.Second // for a leaf to take a frame
	leaderWait  = 3 * time.Second // without a leader, until leaves are sent elsewhere
	leavesMax   = 1024            // streams of leaves at the same time
	requestsMax = 64              // of one leaf that wait for their answer
)

// Replica is what leaves are served from.
type Replica interface {
	View() state.View
	Changed() <-chan struct{}
	Await(ctx context.Context, index uint64) error
	Propose(ctx context.Context, cmds ...labmesh.Command) (labmesh.Receipt, error)
	Leader() (labmesh.NodeID, uint64)
}

// Server serves leaves from a replica.
type Server struct {
	Replica  Replica
	Replicas func() []labmesh.NodeID // the nodes that hold the log
	Trees    func() []string         // of files, that are in use
	// Value is the value of a secret, which may be sealed.
	Value  func(*labmesh.Secret) (string, bool)
	Logger *slog.Logger
}

// Serve serves the leaves that come over l until ctx ends, and closes l.
func (s *Server) Serve(ctx context.Context, l net.Listener) error {
	defer context.AfterFunc(ctx, func() { _ = l.Close() })()
	var served sync.WaitGroup
	defer served.Wait()
	room := make(chan struct{}, leavesMax)
	for {
		conn, err := l.Accept()
		if err != nil {
			return nil //nolint:nilerr // the listener was closed, as ctx ended
		}
		select {
		case room <- struct{}{}:
		default:
			_ = conn.Close() // it tries another replica
			continue
		}
		served.Go(func() {
			defer func() { <-room }()
			defer conn.Close()
			defer context.AfterFunc(ctx, func() { _ = conn.Close() })()
			s.serve(ctx, conn)
		})
	}
}

// serve speaks with one leaf until either side ends it.
func (s *Server) serve(ctx context.Context, conn net.Conn) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	node := labmesh.NodeID(conn.RemoteAddr().String())
	sp := &speaker{server: s, conn: conn, leaf: node, poked: make(chan struct{}, 1), sent: map[labmesh.TaskID]uint64{}}
	in := bufio.NewReader(conn)
	_ = conn.SetReadDeadline(time.Now().Add(helloWait))
	if err := readFrame(in, &sp.hello); err != nil {
		return // it does not say who it is
	}
	_ = conn.SetReadDeadline(time.Time{})
	if refused := s.ready(ctx, sp.hello.Seen); refused != nil {
		_ = sp.send(&news{Refused: refused})
		return
	}
	var reading sync.WaitGroup
	defer reading.Wait()
	defer conn.Close() // wakes the reader
	reading.Go(func() {
		defer cancel()
		sp.listen(ctx, in)
	})
	if err := sp.speak(ctx); err != nil && ctx.Err() == nil {
		s.Logger.DebugContext(ctx, "a leaf is served no more", "leaf", node, "err", err)
	}
	cancel()
}

// ready refuses a leaf that this replica could only mislead.
func (s *Server) ready(ctx context.Context, seen uint64) *labmesh.Error {
	if leader, _ := s.Replica.Leader(); leader == "" {
		return labmesh.Refuse(labmesh.Unavailable, "this replica knows no leader")
	}
	ctx, cancel := context.WithTimeout(ctx, catchUpWait)
	defer cancel()
	if err := s.Replica.Await(ctx, seen); err != nil {
		return labmesh.Refuse(labmesh.Unavailable, "this replica is at log index %d, behind what the leaf has seen (%d)", s.Replica.View().Index(), seen)
	}
	return nil
}

// speaker tells one leaf what changes.
type speaker struct {
	server *Server
	conn   net.Conn
	leaf   labmesh.NodeID
	hello  hello
	poked  chan struct{} // has one in it when an answer or an index is to be told

	mu      sync.Mutex
	answers []answer
	want    uint64 // the leaf is to be told once the view has got here

	// What the leaf was told last, for speak alone.
	index      uint64
	sent       map[labmesh.TaskID]uint64 // what it holds, and the log index of each
	registered bool
	leader     labmesh.NodeID
}

func (sp *speaker) poke() {
	select {
	case sp.poked <- struct{}{}:
	default:
	}
}

// speak tells the leaf all there is, and then what changes, until it must not.
func (sp *speaker) speak(ctx context.Context) error {
	beat := time.NewTicker(beatEvery)
	defer beat.Stop()
	whole, due, led := true, true, time.Now()
	for {
		changed := sp.server.Replica.Changed()
		view := sp.server.Replica.View()
		if m, ok := view.Member(sp.leaf); !ok || m.Banned {
			return sp.end("the node is no member")
		}
		if leader, _ := sp.server.Replica.Leader(); leader != "" {
			led = time.Now()
		} else if time.Since(led) > leaderWait {
			return sp.end("this replica has known no leader for %s", leaderWait)
		}
		for _, n := range sp.news(view, whole, due) {
			if err := sp.send(n); err != nil {
				return err
			}
		}
		whole, due = false, false
		select {
		case <-changed:
		case <-sp.poked:
		case <-beat.C:
			due = true
		case <-ctx.Done():
			return nil
		}
	}
}

func (sp *speaker) end(format string, args ...any) error {
	refused := labmesh.Refuse(labmesh.Unavailable, format, args...)
	return errors.Join(refused, sp.send(&news{Refused: refused}))
}

func (sp *speaker) send(n *news) error {
	_ = sp.conn.SetWriteDeadline(time.Now().Add(writeWait))
	return writeFrame(sp.conn, n)
}

// news is what the leaf is to be told of a view: whole says that it knows
// nothing yet, due that it is to hear something in any case.
func (sp *speaker) news(view state.View, whole, due bool) []*news {
	n := &news{Index: view.Index(), Whole: whole}
	n.Leader, n.Term = sp.server.Replica.Leader()
	held := sp.held(view)
	for _, t := range held {
		if index, known := sp.sent[t.ID]; !known || index != t.Index {
			sp.sent[t.ID] = t.Index
			n.Put = append(n.Put, t)
		}
	}
	if len(sp.sent) > len(held) {
		n.Gone = sp.gone(held)
	}
	w, ok := view.Worker(sp.hello.Worker)
	n.Registered = ok && w.Node == sp.leaf && w.Status != labmesh.WorkerOffline
	changed := len(n.Put) > 0 || len(n.Gone) > 0 || n.Registered != sp.registered || n.Leader != sp.leader
	sp.registered, sp.leader = n.Registered, n.Leader
	if due { // these may come a little late
		n.Members = sp.members(view)
		n.Replicas = sp.server.Replicas()
	}
	sp.mu.Lock()
	n.Answers, sp.answers = sp.answers, nil
	wanted := sp.want > sp.index && n.Index >= sp.want
	sp.mu.Unlock()
	if !whole && !due && !changed && !wanted && len(n.Answers) == 0 {
		return nil
	}
	sp.index = n.Index
	return sp.server.split(n, view)
}

// held is what the leaf's worker holds. A worker of another node is none of its business.
func (sp *speaker) held(view state.View) (held []*labmesh.Task) {
	w, ok := view.Worker(sp.hello.Worker)
	if !ok || w.Node != sp.leaf {
		return nil
	}
	for t := range view.Held(w.ID) {
		held = append(held, t)
	}
	return held
}

func (sp *speaker) gone(held []*labmesh.Task) (gone []labmesh.TaskID) {
	on := make(map[labmesh.TaskID]bool, len(held))
	for _, t := range held {
		on[t.ID] = true
	}
	for id := range sp.sent {
		if !on[id] {
			gone = append(gone, id)
			delete(sp.sent, id)
		}
	}
	slices.Sort(gone)
	return gone
}

// members are those that the leaf does not know as they are now.
func (sp *speaker) members(view state.View) (changed []labmesh.Member) {
	newest := sp.hello.Members
	for m := range view.Members() {
		if m.Index > sp.hello.Members {
			changed = append(changed, *m)
			newest = max(newest, m.Index)
		}
	}
	sp.hello.Members = newest
	return changed
}

// split puts the secrets that tasks ask for beside them, and spreads many tasks over several frames.
func (s *Server) split(n *news, view state.View) (frames []*news) {
	tasks := n.Put
	n.Put = nil
	frames = append(frames, n)
	for bytes := 0; len(tasks) > 0; tasks = tasks[1:] {
		t := tasks[0]
		bytes += len(t.Spec.Config) + len(t.Result) + 1<<10
		if bytes > newsBytes && len(n.Put) > 0 {
			n.More = true
			n = &news{Index: n.Index, Leader: n.Leader, Term: n.Term, Registered: n.Registered}
			frames, bytes = append(frames, n), 0
		}
		n.Put = append(n.Put, t)
		for _, name := range t.Spec.Secrets {
			if kept, ok := view.Secret(name); ok {
				value, ok := s.Value(kept)
				if !ok {
					continue
				}
				if n.Secrets == nil {
					n.Secrets = map[string]string{}
				}
				n.Secrets[name] = value
			}
		}
	}
	return frames
}

// listen takes what the leaf asks for until the stream ends.
func (sp *speaker) listen(ctx context.Context, in *bufio.Reader) {
	var serving sync.WaitGroup
	defer serving.Wait()
	room := make(chan struct{}, requestsMax)
	for {
		var q request
		if err := readFrame(in, &q); err != nil {
			return
		}
		select {
		case room <- struct{}{}:
		case <-ctx.Done():
			return
		}
		serving.Go(func() {
			defer func() { <-room }()
			sp.serve(ctx, q)
		})
	}
}

// serve answers one request, and has the leaf told when the view shows what it did.
func (sp *speaker) serve(ctx context.Context, q request) {
	a := answer{ID: q.ID}
	var err error
	if len(q.Commands) == 0 {
		a.Trees = sp.server.Trees()
	} else if a.Receipt, err = sp.propose(ctx, q.Commands); err != nil {
		a.Refused = refusal(err)
	}
	sp.mu.Lock()
	sp.answers = append(sp.answers, a)
	sp.mu.Unlock()
	sp.poke()
	if a.Receipt.Index == 0 || sp.server.Replica.Await(ctx, a.Receipt.Index) != nil {
		return
	}
	sp.mu.Lock()
	sp.want = max(sp.want, a.Receipt.Index)
	sp.mu.Unlock()
	sp.poke()
}

func (sp *speaker) propose(ctx context.Context, lines []byte) (labmesh.Receipt, error) {
	cmds, err := labmesh.DecodeCommands(lines)
	if err != nil {
		return labmesh.Receipt{}, err
	}
	if err := sp.allowed(cmds); err != nil {
		return labmesh.Receipt{}, err
	}
	return sp.server.Replica.Propose(ctx, cmds...)
}

// allowed refuses what a leaf has no business to say: what it submits or asks for
// goes through the HTTP API, with a key.
func (sp *speaker) allowed(cmds []labmesh.Command) error {
	w, there := sp.server.Replica.View().Worker(sp.hello.Worker)
	foreign := there && w.Node != sp.leaf // it says that it is a worker of another node
	own := func(id labmesh.WorkerID) bool { return id == sp.hello.Worker && !foreign }
	for _, c := range cmds {
		ok := false
		switch c := c.(type) {
		case labmesh.StartTask:
			ok = own(c.Worker)
		case labmesh.FinishTask:
			ok = own(c.Worker)
		case labmesh.RecordTests:
			ok = own(c.Worker)
		case labmesh.RecordBench:
			ok = own(c.Worker)
		case labmesh.PutWorker: // a machine that comes anew may take up its worker, once that is lost
			ok = c.Worker.ID == sp.hello.Worker && c.Worker.Node == sp.leaf && (!foreign || w.Status == labmesh.WorkerOffline)
		case labmesh.LoseWorker:
			ok = own(c.ID)
		case labmesh.PutKey:
			m, known := sp.server.Replica.View().Member(sp.leaf)
			ok = known && m.Role == labmesh.RoleNode
		case labmesh.WakeTasks:
			ok = true
		}
		if !ok {
			return labmesh.Refuse(labmesh.Denied, "propose: a leaf may not %s", c.CommandName())
		}
	}
	return nil
}

// refusal is err for the leaf: an internal fault without its text.
func refusal(err error) *labmesh.Error {
	var e *labmesh.Error
	if errors.As(err, &e) {
		return e
	}
	return labmesh.Refuse(labmesh.Internal, "the replica met an internal fault")
}
