// Package nodetest runs whole meshes in memory and virtual time: real nodes, with
// libp2p over a simulated network, raft with its log in memory, and runners that
// only wait. A mesh belongs in a testing/synctest bubble; a minute of the life of
// five nodes takes about a second of ours.
package nodetest

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"labmesh"
	"labmesh/consensus"
	"labmesh/exec"
	"labmesh/exec/calibrate"
	"labmesh/mesh/meshtest"
	"labmesh/node"
	"labmesh/node/httpapi"
	"labmesh/store/memory"
)

// CalibrateEvery is how often machines are measured, where they are: a day would be long.
const CalibrateEvery = time.Minute

// Slots is how many slots each node's worker has.
const Slots = 4

// Mesh is a mesh of nodes on one simulated network. Node 0 founded it.
type Mesh struct {
	Nodes []*Node
	// Calibrate measures the machines of nodes that run from now on; nil measures none.
	Calibrate func(ctx context.Context, dir string, memory int64) (calibrate.Result, error)
	// MaxReplicas is what nodes that run from now on take for it; 0 is the default.
	MaxReplicas int

	// SumEvery is how many entries lie between two comparisons of the states of nodes that run from now on.
	SumEvery uint64

	sim     *meshtest.Sim
	invite  string
	runners map[labmesh.Kind]exec.Runner
}

// Node is one node that runs.
type Node struct {
	*node.Node
	Index int
	Has   labmesh.Capabilities // of its machine
	// Feature is the feature level of its build, 0 for that of this one. A change holds from the next Run on.
	Feature int
	// Leaf is what its flags say of being a leaf; nil when they say nothing.
	Leaf *bool

	slept  atomic.Int64 // nanoseconds that its machine has slept
	dir    string
	log    *consensus.Memory
	ledger *memory.DB
	stop   context.CancelFunc
	done   chan error
}

// Start founds a mesh and has n-1 more nodes join it. It returns when all are
// ready and, with three nodes and more, enough of them vote.
func Start(t *testing.T, n int, runners map[labmesh.Kind]exec.Runner) *Mesh {
	t.Helper()
	return StartAt(t, n, 0, runners)
}

// StartComparing is Start with nodes that compare their states each so many entries.
func StartComparing(t *testing.T, n int, entries uint64, runners map[labmesh.Kind]exec.Runner) *Mesh {
	t.Helper()
	return startMesh(t, &Mesh{sim: meshtest.NewSim(t), runners: runners, SumEvery: entries}, n, 0)
}

// StartAt is Start with nodes of builds of a feature level.
func StartAt(t *testing.T, n, feature int, runners map[labmesh.Kind]exec.Runner) *Mesh {
	t.Helper()
	return startMesh(t, &Mesh{sim: meshtest.NewSim(t), runners: runners}, n, feature)
}

func startMesh(t *testing.T, m *Mesh, n, feature int) *Mesh {
	t.Helper()
	for i := range n {
		m.add(t, Plain()).Feature = feature
		m.Run(t, i)
		if i == 0 {
			var err error
			m.invite, err = m.Nodes[0].Service().Invite(t.Context(), httpapi.InviteRequest{Role: labmesh.RoleNode, TTL: time.Hour, Uses: n})
			if err != nil {
				t.Fatal(err)
			}
		}
	}
	t.Cleanup(func() { m.Stop(t) })
	want := map[bool]int{true: 1, false: 3}[n < 3]
	if n >= 5 {
		want = 5
	}
	m.Wait(t, time.Minute, "all voters", func() bool {
		return len(m.Nodes[0].Service().Status(t.Context()).Voters) == want
	})
	return m
}

// Plain is what the machine of a node offers unless a test says otherwise.
func Plain() labmesh.Capabilities {
	return labmesh.Capabilities{Platform: "test", Hardware: []string{"cpu"}, Memory: labmesh.Memory{TotalGB: 8}, Absent: map[string]string{"cuda": "no NVIDIA driver"}}
}

func (m *Mesh) add(t *testing.T, has labmesh.Capabilities) *Node {
	n := &Node{Index: len(m.Nodes), Has: has, dir: t.TempDir(), log: consensus.NewMemory(), ledger: memory.New()}
	m.Nodes = append(m.Nodes, n)
	return n
}

// Join has one more node come, on a machine that offers what has says.
func (m *Mesh) Join(t *testing.T, has labmesh.Capabilities) *Node {
	t.Helper()
	n := m.invited(t, has)
	m.Run(t, n.Index)
	return n
}

func (m *Mesh) invited(t *testing.T, has labmesh.Capabilities) *Node {
	t.Helper()
	var err error
	if m.invite, err = m.Nodes[0].Service().Invite(t.Context(), httpapi.InviteRequest{Role: labmesh.RoleNode, TTL: time.Hour, Uses: 1}); err != nil {
		t.Fatal(err)
	}
	return m.add(t, has)
}

// JoinLeaf has one more node come, as a leaf.
func (m *Mesh) JoinLeaf(t *testing.T) *Node {
	t.Helper()
	n := m.invited(t, Plain())
	leaf := true
	n.Leaf = &leaf
	m.Run(t, n.Index)
	return n
}

// Run starts node i, for the first time or again.
func (m *Mesh) Run(t *testing.T, i int) {
	t.Helper()
	n := m.Nodes[i]
	cfg := node.Config{
		DataDir: n.dir, Hostname: string(rune('a' + i)), Slots: Slots, Version: "test", Logger: slog.New(slog.DiscardHandler),
		WorkerID: labmesh.WorkerID(fmt.Sprint("w", i)), Calibrate: m.Calibrate, MaxReplicas: m.MaxReplicas, Leaf: n.Leaf,
		Parts: node.Parts{
			Libp2p: m.sim.Stranger(t, i).Libp2p, Backend: n.ledger, Log: n.log, Runners: m.runners, NoHTTP: true, NoDiscovery: true, CalibrateEvery: CalibrateEvery, SumEvery: m.SumEvery,
			Capabilities: &n.Has, Feature: n.Feature, Uptime: n.uptime,
		},
	}
	if i > 0 {
		cfg.Join = []string{m.invite}
	}
	var err error
	if n.Node, err = node.Open(t.Context(), cfg); err != nil {
		t.Fatalf("open node %d: %v", i, err)
	}
	ctx, stop := context.WithCancel(context.WithoutCancel(t.Context()))
	n.stop, n.done = stop, make(chan error, 1)
	opened := n.Node
	go func() { n.done <- opened.Run(ctx) }()
	select {
	case <-n.Ready():
	case err := <-n.done:
		t.Fatalf("node %d ended before it was ready: %v", i, err)
	case <-time.After(time.Minute):
		t.Fatalf("node %d is not ready after a minute", i)
	}
}

// Dir is the data dir of node i.
func (m *Mesh) Dir(i int) string { return m.Nodes[i].dir }

// Halt stops node i in order, as SIGTERM does. Run starts it again with the same
// data.
func (m *Mesh) Halt(t *testing.T, i int) {
	t.Helper()
	n := m.Nodes[i]
	if n.stop == nil {
		return
	}
	n.stop()
	if err := <-n.done; err != nil {
		t.Errorf("node %d ended with: %v", i, err)
	}
	if err := n.Close(); err != nil {
		t.Errorf("node %d closed with: %v", i, err)
	}
	n.lost()
}

func (n *Node) lost() {
	n.stop, n.ledger = nil, memory.New() // its ledger is lost, to be had from the log and from peers
}

// Log is the disk that the node's log is on.
func (n *Node) Log() *consensus.Memory { return n.log }

// Ended is how node i ended, by itself, within limit.
func (m *Mesh) Ended(t *testing.T, i int, limit time.Duration) error {
	t.Helper()
	n := m.Nodes[i]
	select {
	case err := <-n.done:
		n.stop()
		n.lost()
		return errors.Join(err, n.Close())
	case <-time.After(limit):
		t.Fatalf("node %d has not ended after %v", i, limit)
		return nil
	}
}

// PowerOff takes the power from all nodes at once: what their disks have not synced
// is lost, but for as much of each write under way as keep says; see
// [consensus.Memory.PowerOff].
func (m *Mesh) PowerOff(t *testing.T, keep func(n int) int) {
	t.Helper()
	for i, n := range m.Nodes {
		n.log.PowerOff(keep)
		m.sim.Cut(i)
	}
	var stopping sync.WaitGroup
	for i, n := range m.Nodes {
		stopping.Go(func() {
			n.stop()
			<-n.done // with or without an error: nobody can hear it
			if err := n.Close(); err != nil {
				t.Errorf("node %d closed with: %v", i, err)
			}
			n.lost()
		})
	}
	stopping.Wait()
}

// PowerOn starts all nodes again, and returns when all are ready.
func (m *Mesh) PowerOn(t *testing.T) {
	t.Helper()
	for i, n := range m.Nodes {
		n.log.PowerOn()
		m.sim.Heal(i)
	}
	var starting sync.WaitGroup
	for i := range m.Nodes {
		starting.Go(func() { m.Run(t, i) })
	}
	starting.Wait()
}

// Sleep has the machine of n wake from a sleep of d. What runs there has slept too, and finds that the others have moved on.
func (n *Node) Sleep(d time.Duration) { n.slept.Add(int64(d)) }

// uptime is the time in the bubble and what the machine has slept.
func (n *Node) uptime() time.Duration {
	return time.Duration(time.Now().UnixNano() + n.slept.Load())
}

// Ledger is the node's ledger.
func (n *Node) Ledger() *memory.DB { return n.ledger }

// Stop stops all nodes that run.
func (m *Mesh) Stop(t *testing.T) {
	t.Helper()
	var stopping sync.WaitGroup
	for i := range m.Nodes {
		stopping.Go(func() { m.Halt(t, i) })
	}
	stopping.Wait()
}

// Cut splits off nodes: they reach one another, and none of the rest.
func (m *Mesh) Cut(nodes ...int) { m.sim.Cut(nodes...) }

// Heal ends a cut.
func (m *Mesh) Heal(nodes ...int) { m.sim.Heal(nodes...) }

// Leader waits for a node to lead that is none of the given ones, with a
// leadership that the other nodes know.
func (m *Mesh) Leader(t *testing.T, but ...int) *Node {
	t.Helper()
	var leader *Node
	m.Wait(t, time.Minute, "a leader", func() bool {
		for _, n := range m.Nodes {
			if n.stop == nil || n.Node.Leaf() || contains(but, n.Index) {
				continue
			}
			if s := n.Service().Status(t.Context()); s.Role == "leader" {
				leader = n
				return true
			}
		}
		return false
	})
	return leader
}

// Wait waits, in the mesh's time, until cond holds.
func (m *Mesh) Wait(t *testing.T, limit time.Duration, what string, cond func() bool) {
	t.Helper()
	meshtest.Wait(t, limit, what, cond)
}

// Submit submits a custom task through node i, repeating it as long as the mesh
// is unavailable, as clients do.
func (m *Mesh) Submit(t *testing.T, i int, spec labmesh.Spec) labmesh.TaskID {
	t.Helper()
	if spec.Kind == "" {
		spec.Kind = labmesh.Custom
	}
	if spec.Config == nil {
		spec.Config = json.RawMessage(`{"name":"x"}`)
	}
	for range 600 {
		answers, err := m.Nodes[i].Service().Submit(t.Context(), httpapi.Caller{Name: "test"}, []labmesh.Spec{spec})
		if err == nil {
			return answers[0].Task
		}
		if labmesh.ReasonOf(err) != labmesh.Unavailable {
			t.Fatalf("submit through node %d: %v", i, err)
		}
		time.Sleep(100 * time.Millisecond)
	}
	t.Fatalf("submit through node %d: unavailable for a minute", i)
	return ""
}

// Task is a task as node i sees it.
func (m *Mesh) Task(t *testing.T, i int, id labmesh.TaskID) labmesh.Task {
	t.Helper()
	task, err := m.Nodes[i].Service().Task(t.Context(), id)
	if err != nil {
		t.Fatalf("task %s on node %d: %v", id, i, err)
	}
	return task
}

func contains(list []int, i int) bool {
	for _, x := range list {
		if x == i {
			return true
		}
	}
	return false
}

// Runner is a runner that waits. It counts how often each task was started and
// how many run at the same time.
type Runner struct {
	Takes time.Duration

	mu     sync.Mutex
	starts map[labmesh.TaskID]int
	now    int
}

// Run waits until the task has taken its time, or is stopped.
func (r *Runner) Run(ctx context.Context, a exec.Attempt) labmesh.Outcome {
	r.count(a.Task.ID, 1)
	defer r.count("", -1)
	select {
	case <-time.After(r.Takes):
		return labmesh.Outcome{OK: true, Result: json.RawMessage(`{"exit_code":0}`)}
	case <-ctx.Done():
		cause, message, _ := exec.Stopped(ctx)
		return labmesh.Outcome{Cause: cause, Error: message}
	}
}

func (r *Runner) count(id labmesh.TaskID, n int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.starts == nil {
		r.starts = map[labmesh.TaskID]int{}
	}
	if id != "" {
		r.starts[id]++
	}
	r.now += n
}

// Starts is how often a task was started.
func (r *Runner) Starts(id labmesh.TaskID) int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.starts[id]
}

// Running is how many attempts run now.
func (r *Runner) Running() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.now
}
