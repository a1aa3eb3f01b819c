package lab

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"time"

	"labmesh/api"
)

// Bounds on what a mesh may take.
const (
	formWait  = 60 * time.Second // until all who shall vote do
	lookEvery = 10 * time.Millisecond
)

// Config says which mesh to make. Bin, Dir and Nodes must be set.
type Config struct {
	Bin   string   // see [Build]
	Dir   string   // must be there; each node gets a data dir in it
	Nodes int      // how many
	Slots int      // of each node; 0 leaves it to labmesh
	Args  []string // further flags of `labmesh up`, for every node

	// Place says where the node of that index in [Mesh.Nodes] runs; nil means here.
	Place func(i int) (Place, error)

	// Output gets what the nodes log, each line behind the node's name; nil for nobody.
	Output io.Writer
	// Joined is told of each node that is ready; nil for nobody.
	Joined func(*Node)
}

// Mesh is a mesh of real processes on this machine.
type Mesh struct {
	Nodes []*Node // in the order in which they came

	cfg    Config
	invite string
}

// Start founds a mesh, has the other nodes join it by invite, and returns when
// all are there and all that shall vote do. On an error nothing is left behind.
func Start(ctx context.Context, cfg Config) (*Mesh, error) {
	dir, err := filepath.Abs(cfg.Dir)
	if err != nil {
		return nil, fmt.Errorf("start mesh: %w", err)
	}
	cfg.Dir = dir
	if cfg.Output != nil {
		cfg.Output = &locked{w: cfg.Output}
	}
	m := &Mesh{cfg: cfg}
	ctx, cancel := context.WithTimeoutCause(ctx, formWait, fmt.Errorf("it had not formed after %s", formWait))
	defer cancel()
	for range cfg.Nodes {
		n, err := m.Join(ctx)
		if err != nil {
			return nil, errors.Join(fmt.Errorf("start mesh: %w", err), m.Close())
		}
		if cfg.Joined != nil {
			cfg.Joined(n)
		}
	}
	if err := m.Formed(ctx); err != nil {
		return nil, errors.Join(fmt.Errorf("start mesh: %w", err), m.Close())
	}
	return m, nil
}

// Join starts one more node; the first founds the mesh. Flags are further ones
// of `labmesh up`.
func (m *Mesh) Join(ctx context.Context, flags ...string) (*Node, error) {
	n := m.NewNode(flags...)
	if m.cfg.Place != nil {
		place, err := m.cfg.Place(len(m.Nodes) - 1)
		if err != nil {
			return nil, fmt.Errorf("place %s: %w", n.Name, err)
		}
		n.Put(place)
	}
	if err := n.Start(ctx); err != nil {
		return nil, err
	}
	if m.invite == "" {
		m.invite = n.invite
	}
	return n, nil
}

// NewNode makes a node of the mesh without starting it.
func (m *Mesh) NewNode(flags ...string) *Node {
	name := "n" + strconv.Itoa(len(m.Nodes)+1)
	n := &Node{
		Name: name, Dir: filepath.Join(m.cfg.Dir, name), bin: m.cfg.Bin, join: m.invite,
		log: &tail{}, copies: m.cfg.Output, args: slices.Concat(m.cfg.Args, flags),
	}
	if m.cfg.Slots > 0 {
		n.args = append(n.args, "--slots", strconv.Itoa(m.cfg.Slots))
	}
	m.Nodes = append(m.Nodes, n)
	return n
}

// Invite is the founder's invite. It lets sixteen nodes in.
func (m *Mesh) Invite() string { return m.invite }

// Running lists the nodes whose process is there.
func (m *Mesh) Running() []*Node {
	return slices.DeleteFunc(slices.Clone(m.Nodes), func(n *Node) bool { return !n.Running() })
}

// Formed waits until every running node knows a leader and as many voters as
// the mesh has nodes for: one, three or five.
func (m *Mesh) Formed(ctx context.Context) error {
	want := 1
	for _, odd := range []int{3, 5} {
		if len(m.Nodes) >= odd {
			want = odd
		}
	}
	var last string
	err := Until(ctx, func() bool {
		for _, n := range m.Running() {
			st, err := n.Client().Status(ctx)
			if last = fmt.Sprintf("%s: %v, leader %q, %d voters", n.Name, err, st.Leader, len(st.Voters)); err != nil || st.Leader == "" || len(st.Voters) < want {
				return false
			}
		}
		return m.workersKnown(ctx)
	})
	if err != nil {
		return fmt.Errorf("form mesh: %w (%s)", err, last)
	}
	return nil
}

// workersKnown reports whether every running node knows the workers of all.
func (m *Mesh) workersKnown(ctx context.Context) bool {
	for _, n := range m.Running() {
		workers, err := n.Client().Workers(ctx)
		if err != nil {
			return false
		}
		for _, other := range m.Running() {
			if !slices.Contains(other.args, "--no-work") && !slices.ContainsFunc(workers, func(w api.WorkerSummary) bool {
				return w.ID == other.Worker() && w.Status != "offline"
			}) {
				return false
			}
		}
	}
	return true
}

// Leader waits until the running nodes agree on a leader that runs, and returns it.
func (m *Mesh) Leader(ctx context.Context) (leader *Node, err error) {
	err = Until(ctx, func() bool {
		leader = nil
		for i, n := range m.Running() {
			st, err := n.Client().Status(ctx)
			if err != nil {
				return false
			}
			at := slices.IndexFunc(m.Running(), func(n *Node) bool { return string(n.id) == string(st.Leader) })
			if at < 0 || i > 0 && leader != m.Running()[at] {
				return false
			}
			leader = m.Running()[at]
		}
		return leader != nil
	})
	if err != nil {
		return nil, fmt.Errorf("find leader: %w", err)
	}
	return leader, nil
}

// Followers are the running nodes but for leader.
func (m *Mesh) Followers(leader *Node) []*Node {
	return slices.DeleteFunc(m.Running(), func(n *Node) bool { return n == leader })
}

// Close ends every node, and every process of every attempt that is left. It is
// safe twice.
func (m *Mesh) Close() error {
	errs := make([]error, len(m.Nodes))
	var wg sync.WaitGroup
	for i, n := range m.Nodes {
		wg.Go(func() {
			if n.Running() {
				errs[i] = errors.Join(n.Resume(), n.Stop()) // it may be paused
			}
			if n.client != nil {
				n.client.Close()
			}
			errs[i] = errors.Join(errs[i], n.EndKeeper())
		})
	}
	wg.Wait()
	return errors.Join(errors.Join(errs...), m.endAttempts())
}

// endAttempts ends what nodes that were killed have left running.
func (m *Mesh) endAttempts() error {
	ctx, cancel := context.WithTimeout(context.Background(), killWait)
	defer cancel()
	return Until(ctx, func() bool {
		left, err := m.Attempts()
		for _, p := range left {
			if proc, err := os.FindProcess(p.PID); err == nil {
				_ = proc.Kill() // it may have ended by itself
				_ = proc.Release()
			}
		}
		return err == nil && len(left) == 0
	})
}

// Until calls done again and again until it is true, or ctx ends: then the error says why.
func Until(ctx context.Context, done func() bool) error {
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	for {
		if done() {
			return nil
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// locked lets several nodes write to one stream.
type locked struct {
	mu sync.Mutex
	w  io.Writer
}

func (l *locked) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.w.Write(p)
}
