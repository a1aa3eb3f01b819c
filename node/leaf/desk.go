package leaf

import (
	"bufio"
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"math/rand/v2"
	"net"
	"slices"
	"sync"
	"time"

	"labmesh"
)

// Limits of a leaf's end.
const (
	dialWait    = 3 * time.Second
	firstWait   = catchUpWait + 2*time.Second // for a replica's first word
	silenceMax  = 3 * beatEvery               // of a replica, until it counts as lost
	againMin    = 50 * time.Millisecond       // between two rounds through all replicas; doubled each time
	againMax    = time.Second
	replicaWait = 3 * time.Second // that a request waits for a replica
)

// Config says what a [Desk] goes by. Streams, Replicas and Logger must be set.
type Config struct {
	Worker labmesh.WorkerID // "" on a leaf that takes no work
	// Dial opens a stream to a replica.
	Dial func(ctx context.Context, replica labmesh.NodeID) (net.Conn, error)
	// Replicas are the nodes to ask, as far as they are known.
	Replicas func() []labmesh.NodeID
	// Alive says whether a node is heard of: those that are, are asked first.
	Alive func(labmesh.NodeID) bool
	// Known is the newest log index of a member that is known.
	Known func() uint64
	// Heard takes in members that came or changed, and who the replicas are.
	Heard  func(members []labmesh.Member, replicas []labmesh.NodeID)
	Logger *slog.Logger
}

// Desk is a worker's desk that is read from a replica, and the way to the log of
// a node that has none. While no replica can be reached it goes on saying what it knew last.
type Desk struct {
	cfg Config

	mu         sync.Mutex
	changed    chan struct{}
	tasks      map[labmesh.TaskID]*labmesh.Task
	held       []*labmesh.Task // the same, in the order of submits
	secrets    map[string]string
	registered bool
	leader     labmesh.NodeID
	term       uint64
	index      uint64 // of the newest view that was told
	seen       uint64 // the newest log index that was told, in an answer too
	link       *link  // nil while there is none
	linked     chan struct{}
}

// New makes a desk. It knows nothing until [Desk.Run] runs.
func New(cfg Config) *Desk {
	return &Desk{cfg: cfg, changed: make(chan struct{}), linked: make(chan struct{})}
}

// Held is what the worker holds, in the order of submits.
func (d *Desk) Held(labmesh.WorkerID) []*labmesh.Task {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.held
}

// Changed is closed at the next news. Take the channel, then look.
func (d *Desk) Changed() <-chan struct{} {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.changed
}

// Secret is the value of a secret that a task asks for which the worker holds.
func (d *Desk) Secret(name string) (string, bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	value, ok := d.secrets[name]
	return value, ok
}

// Registered reports whether the mesh has the worker, and has not lost it.
func (d *Desk) Registered(labmesh.WorkerID) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.registered
}

// Leader is who leads the log, and in which term, as the replica that is asked said last.
func (d *Desk) Leader() (labmesh.NodeID, uint64) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.leader, d.term
}

// Replica is the replica that is asked, "" while there is none.
func (d *Desk) Replica() labmesh.NodeID {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.link == nil {
		return ""
	}
	return d.link.to
}

// Index is the log index of what the desk says.
func (d *Desk) Index() uint64 {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.index
}

// newest is the newest log index that the desk was told of.
func (d *Desk) newest() uint64 {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.seen
}

// Await returns once the desk has been told of a view at index or later.
func (d *Desk) Await(ctx context.Context, index uint64) error {
	for {
		changed := d.Changed()
		if d.Index() >= index {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return fmt.Errorf("await log index %d: %w", index, context.Cause(ctx))
		}
	}
}

// Propose has a replica put commands into the log, and returns where they are
// and what was answered to each. An error with the reason Unavailable says that nothing is
// known of their fate: repeat them.
func (d *Desk) Propose(ctx context.Context, cmds ...labmesh.Command) (labmesh.Receipt, error) {
	lines, err := labmesh.EncodeCommands(cmds)
	if err != nil {
		return labmesh.Receipt{}, fmt.Errorf("propose: %w", err)
	}
	if len(lines) > labmesh.EntryBytesMax {
		return labmesh.Receipt{}, labmesh.Refuse(labmesh.TooLarge, "propose: commands of %d bytes; at most %d", len(lines), labmesh.EntryBytesMax)
	}
	a, err := d.request(ctx, lines)
	if err != nil {
		return labmesh.Receipt{}, err
	}
	d.mu.Lock()
	d.seen = max(d.seen, a.Receipt.Index)
	d.mu.Unlock()
	return a.Receipt, nil
}

// Trees are the trees of files that tasks of the mesh use.
func (d *Desk) Trees(ctx context.Context) ([]string, error) {
	a, err := d.request(ctx, nil)
	return a.Trees, err
}

// request has a replica do something.
func (d *Desk) request(ctx context.Context, lines []byte) (answer, error) {
	l, err := d.reach(ctx)
	if err != nil {
		return answer{}, err
	}
	a, err := l.request(ctx, lines)
	if err == nil && a.Refused != nil {
		return answer{}, a.Refused
	}
	return a, err
}

// reach waits, within a bound, until a replica is asked.
func (d *Desk) reach(ctx context.Context) (*link, error) {
	timer := time.NewTimer(replicaWait)
	defer timer.Stop()
	for {
		d.mu.Lock()
		l, linked := d.link, d.linked
		d.mu.Unlock()
		if l != nil {
			return l, nil
		}
		select {
		case <-linked:
		case <-timer.C:
			return nil, labmesh.Refuse(labmesh.Unavailable, "no replica of the mesh can be reached")
		case <-ctx.Done():
			return nil, labmesh.Refuse(labmesh.Unavailable, "no replica of the mesh was reached: %v", context.Cause(ctx))
		}
	}
}

// Run asks one replica after the other until ctx ends, each for as long as it answers.
func (d *Desk) Run(ctx context.Context) error {
	var last labmesh.NodeID
	wait := againMin
	for ctx.Err() == nil {
		for _, node := range d.order(last) {
			spoke, err := d.ask(ctx, node)
			if ctx.Err() != nil {
				return nil
			}
			last = node
			if spoke {
				d.cfg.Logger.InfoContext(ctx, "this leaf asks another replica", "left", node, "why", err)
				wait = againMin
				break
			}
			d.cfg.Logger.DebugContext(ctx, "a replica was not of use", "node", node, "err", err)
		}
		select {
		case <-time.After(wait/2 + rand.N(wait)):
		case <-ctx.Done():
		}
		wait = min(2*wait, againMax)
	}
	return nil
}

// order is in which order replicas are asked: by chance, so that leaves spread
// over them, those heard of first, and the one that was just left last.
func (d *Desk) order(last labmesh.NodeID) []labmesh.NodeID {
	nodes := slices.Clone(d.cfg.Replicas())
	rand.Shuffle(len(nodes), func(i, j int) { nodes[i], nodes[j] = nodes[j], nodes[i] })
	rank := func(n labmesh.NodeID) int {
		r := 0
		if n == last {
			r++
		}
		if !d.cfg.Alive(n) {
			r += 2
		}
		return r
	}
	slices.SortStableFunc(nodes, func(a, b labmesh.NodeID) int { return rank(a) - rank(b) })
	return nodes
}

// ask reads the desk from one replica until that ends. spoke says that the
// replica had something to say.
func (d *Desk) ask(ctx context.Context, node labmesh.NodeID) (spoke bool, err error) {
	dialing, cancel := context.WithTimeout(ctx, dialWait)
	conn, err := d.cfg.Dial(dialing, node)
	cancel()
	if err != nil {
		return false, err
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { _ = conn.Close() })()
	greeting := hello{Worker: d.cfg.Worker, Seen: d.newest(), Members: d.cfg.Known()}
	_ = conn.SetDeadline(time.Now().Add(firstWait))
	if err := writeFrame(conn, greeting); err != nil {
		return false, err
	}
	l := &link{to: node, conn: conn, broken: make(chan struct{}), open: map[uint64]chan answer{}}
	defer d.unlink(l)
	in := bufio.NewReader(conn)
	for whole := true; ; whole = false {
		n, err := readNews(in)
		if err == nil {
			err = d.take(n, whole)
		}
		if err != nil {
			return spoke, err
		}
		if len(n.Members) > 0 || len(n.Replicas) > 0 {
			d.cfg.Heard(n.Members, n.Replicas)
		}
		if !spoke {
			spoke = true
			_ = conn.SetWriteDeadline(time.Time{})
			d.setLink(l)
		}
		for _, a := range n.Answers {
			l.settle(a)
		}
		_ = conn.SetReadDeadline(time.Now().Add(silenceMax))
	}
}

// readNews reads news, all frames that belong together as one.
func readNews(in *bufio.Reader) (*news, error) {
	var all *news
	for {
		var n news
		if err := readFrame(in, &n); err != nil {
			return nil, err
		}
		if n.Refused != nil {
			return nil, n.Refused
		}
		if all == nil {
			all = &n
		} else {
			all.Put = append(all.Put, n.Put...)
			if all.Secrets == nil {
				all.Secrets = map[string]string{}
			}
			maps.Copy(all.Secrets, n.Secrets)
		}
		if slices.Contains(all.Put, nil) {
			return nil, errors.New("the replica tells of a task that is none")
		}
		if len(all.Put) > tasksMax {
			return nil, labmesh.Refuse(labmesh.TooLarge, "the replica tells of more than %d tasks at once", tasksMax)
		}
		if !n.More {
			return all, nil
		}
	}
}

// tasksMax bounds what one worker is told to hold.
const tasksMax = 100_000

// take makes news the desk's own. First news must be whole, and none may be older
// than what is known.
func (d *Desk) take(n *news, first bool) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	switch {
	case first && !n.Whole:
		return errors.New("the replica began in the middle")
	case n.Index < d.index || first && n.Index < d.seen:
		return fmt.Errorf("the replica went back to log index %d from %d", n.Index, max(d.index, d.seen))
	}
	d.change(n)
	d.index, d.seen, d.registered = n.Index, max(d.seen, n.Index), n.Registered
	d.leader, d.term = n.Leader, n.Term
	close(d.changed)
	d.changed = make(chan struct{})
	return nil
}

// change makes the tasks and the secrets of n the desk's. Both are made anew: who has
// the old ones may go on reading them. The caller holds mu.
func (d *Desk) change(n *news) {
	if !n.Whole && len(n.Put) == 0 && len(n.Gone) == 0 {
		return
	}
	tasks, secrets := make(map[labmesh.TaskID]*labmesh.Task), maps.Clone(n.Secrets)
	if !n.Whole {
		maps.Copy(tasks, d.tasks)
	}
	for _, id := range n.Gone {
		delete(tasks, id)
	}
	for _, t := range n.Put {
		tasks[t.ID] = t
	}
	d.held = slices.SortedFunc(maps.Values(tasks), func(a, b *labmesh.Task) int { return cmp.Compare(a.Seq, b.Seq) })
	for _, t := range d.held { // what no task here asks for is forgotten
		for _, name := range t.Spec.Secrets {
			if old, ok := d.secrets[name]; ok && !n.Whole {
				if _, newer := secrets[name]; !newer {
					if secrets == nil {
						secrets = map[string]string{}
					}
					secrets[name] = old
				}
			}
		}
	}
	d.tasks, d.secrets = tasks, secrets
}

func (d *Desk) setLink(l *link) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.link = l
	close(d.linked)
	d.linked = make(chan struct{})
}

func (d *Desk) unlink(l *link) {
	l.close()
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.link == l {
		d.link = nil
	}
}

// link is a stream to a replica that speaks.
type link struct {
	to     labmesh.NodeID
	conn   net.Conn
	broken chan struct{}
	once   sync.Once

	writing sync.Mutex // held while a frame is written

	mu   sync.Mutex
	last uint64
	open map[uint64]chan answer
}

func (l *link) close() {
	l.once.Do(func() {
		_ = l.conn.Close()
		close(l.broken)
	})
}

// settle hands an answer to whoever waits for it.
func (l *link) settle(a answer) {
	l.mu.Lock()
	waits := l.open[a.ID]
	delete(l.open, a.ID)
	l.mu.Unlock()
	if waits != nil {
		waits <- a
	}
}

// request sends a request and waits for its answer.
func (l *link) request(ctx context.Context, lines []byte) (answer, error) {
	settled := make(chan answer, 1)
	l.mu.Lock()
	l.last++
	id := l.last
	l.open[id] = settled
	l.mu.Unlock()
	defer func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		delete(l.open, id)
	}()
	l.writing.Lock()
	_ = l.conn.SetWriteDeadline(time.Now().Add(writeWait))
	err := writeFrame(l.conn, request{ID: id, Commands: lines})
	l.writing.Unlock()
	if err != nil {
		l.close() // half a frame may have been written
		return answer{}, labmesh.Refuse(labmesh.Unavailable, "through %s: %v", l.to, err)
	}
	select {
	case a := <-settled:
		return a, nil
	case <-l.broken:
	case <-ctx.Done():
		return answer{}, labmesh.Refuse(labmesh.Unavailable, "through %s: the time to answer is over; it is not known whether it was done", l.to)
	}
	select { // the answer may have been the last thing that came
	case a := <-settled:
		return a, nil
	default:
		return answer{}, labmesh.Refuse(labmesh.Unavailable, "the stream to %s broke; it is not known whether it was done", l.to)
	}
}
