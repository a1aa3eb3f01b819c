package leaf

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"labmesh"
	"labmesh/state"
)

const (
	self   labmesh.NodeID   = "leaf"
	worker labmesh.WorkerID = "w"
)

// replica is one with a log of its own that others may copy.
type replica struct {
	id labmesh.NodeID

	mu      sync.Mutex
	cluster *state.Cluster
	index   uint64
	log     []labmesh.Command
	changed chan struct{}
	leads   bool
}

// newReplica knows a mesh with one leaf and its worker.
func newReplica(id labmesh.NodeID) *replica {
	r := &replica{id: id, cluster: state.New(), changed: make(chan struct{}), leads: true}
	r.do(labmesh.FoundMesh{Mesh: "m", Founder: labmesh.Member{Node: "a"}, Level: labmesh.Feature})
	r.do(labmesh.PutInvite{Invite: labmesh.Invite{ID: "i", Role: labmesh.RoleNode, Uses: 1, Key: []byte("k"), Expires: time.Now().Add(time.Hour)}})
	r.do(labmesh.PutMember{Member: labmesh.Member{Node: self}, Invite: "i"})
	r.do(labmesh.PutWorker{Worker: labmesh.Worker{ID: worker, Node: self, Slots: 64, Kinds: labmesh.Kinds()}})
	return r
}

func (r *replica) do(cmds ...labmesh.Command) labmesh.Receipt {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.index++
	_, answers := r.cluster.Apply(r.index, labmesh.Entry{At: time.Now(), Commands: cmds})
	r.log = append(r.log, cmds...)
	close(r.changed)
	r.changed = make(chan struct{})
	return labmesh.Receipt{Index: r.index, Answers: answers}
}

// give submits a task and gives it to the worker.
func (r *replica) give(t *testing.T, id labmesh.TaskID, secrets ...string) {
	t.Helper()
	rc := r.do(
		labmesh.SubmitTask{ID: id, Spec: labmesh.Spec{Kind: labmesh.Custom, Config: []byte(`{"name":"x"}`), Secrets: secrets}},
		labmesh.PlaceTask{ID: id, Attempt: 1, Worker: worker})
	for _, a := range rc.Answers {
		if a.Refused != nil {
			t.Fatalf("give %s: %v", id, a.Refused)
		}
	}
}

func (r *replica) View() state.View {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.cluster.View()
}

func (r *replica) Changed() <-chan struct{} {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.changed
}

func (r *replica) Await(ctx context.Context, index uint64) error {
	for {
		changed := r.Changed()
		if r.View().Index() >= index {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func (r *replica) Propose(_ context.Context, cmds ...labmesh.Command) (labmesh.Receipt, error) {
	return r.do(cmds...), nil
}

func (r *replica) Leader() (labmesh.NodeID, uint64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.leads {
		return "", 1
	}
	return "a", 1
}

func (r *replica) lead(leads bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.leads = leads
}

// named is an end of a pipe to a node.
type named struct {
	net.Conn
	to labmesh.NodeID
}

func (n named) RemoteAddr() net.Addr { return address(n.to) }

type address labmesh.NodeID

func (address) Network() string  { return "test" }
func (a address) String() string { return string(a) }

// pipes is a network of replicas.
type pipes struct {
	ctx    context.Context //nolint:containedctx // of all that is served
	served sync.WaitGroup

	mu   sync.Mutex
	all  map[labmesh.NodeID]*replica
	down map[labmesh.NodeID]bool
	open map[labmesh.NodeID]net.Conn
}

func (p *pipes) Dial(_ context.Context, node labmesh.NodeID) (net.Conn, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	r := p.all[node]
	if r == nil || p.down[node] {
		return nil, errors.New("nobody is there")
	}
	here, there := net.Pipe()
	p.open[node] = there
	s := Server{Replica: r, Replicas: func() []labmesh.NodeID { return []labmesh.NodeID{"a", "b"} }, Trees: func() []string { return []string{"tree-" + string(node)} }, Logger: slog.New(slog.DiscardHandler), Value: func(s *labmesh.Secret) (string, bool) { return s.Value, true }}
	p.served.Go(func() {
		defer there.Close()
		s.serve(p.ctx, named{there, self})
	})
	return named{here, node}, nil
}

// kill ends a replica's streams, and has nobody reach it from now on.
func (p *pipes) kill(node labmesh.NodeID) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.down[node] = true
	if c := p.open[node]; c != nil {
		_ = c.Close()
	}
}

// desk runs a desk over replicas until the test ends.
func desk(t *testing.T, replicas ...*replica) (*Desk, *pipes) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	p := &pipes{ctx: ctx, all: map[labmesh.NodeID]*replica{}, down: map[labmesh.NodeID]bool{}, open: map[labmesh.NodeID]net.Conn{}}
	var ids []labmesh.NodeID
	for _, r := range replicas {
		p.all[r.id] = r
		ids = append(ids, r.id)
	}
	d := New(Config{
		Worker: worker, Dial: p.Dial, Replicas: func() []labmesh.NodeID { return ids }, Alive: func(labmesh.NodeID) bool { return true },
		Known: func() uint64 { return 0 }, Heard: func([]labmesh.Member, []labmesh.NodeID) {}, Logger: slog.New(slog.DiscardHandler),
	})
	done := make(chan error, 1)
	go func() { done <- d.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
		p.served.Wait()
	})
	return d, p
}

func names(d *Desk) string {
	var out []string
	for _, t := range d.Held(worker) {
		out = append(out, string(t.ID)+":"+string(t.Phase))
	}
	return strings.Join(out, " ")
}

func expect(t *testing.T, d *Desk, want string) {
	t.Helper()
	time.Sleep(100 * time.Millisecond)
	synctest.Wait()
	if got := names(d); got != want {
		t.Errorf("the desk shows %q, want %q", got, want)
	}
}

func TestADeskShowsWhatTheReplicaKnows(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		r := newReplica("a")
		r.do(labmesh.PutSecret{Secret: labmesh.Secret{Name: "S", Value: "open"}}, labmesh.PutSecret{Secret: labmesh.Secret{Name: "O", Value: "shut"}})
		r.give(t, "t1", "S")
		d, _ := desk(t, r)
		expect(t, d, "t1:assigned")
		if v, ok := d.Secret("S"); !ok || v != "open" {
			t.Errorf("secret: %q, %v", v, ok)
		}
		if _, ok := d.Secret("O"); ok {
			t.Error("a secret that no task here asks for is known")
		}
		changed := d.Changed()
		r.give(t, "t2")
		<-changed
		expect(t, d, "t1:assigned t2:assigned")
		rc, err := d.Propose(t.Context(), labmesh.StartTask{ID: "t1", Attempt: 1, Worker: worker}, labmesh.StartTask{ID: "t2", Attempt: 1, Worker: worker})
		if err != nil || len(rc.Answers) != 2 || rc.Answers[0].Refused != nil {
			t.Fatalf("start: %+v, %v", rc, err)
		}
		if err := d.Await(t.Context(), rc.Index); err != nil {
			t.Fatal(err)
		}
		expect(t, d, "t1:running t2:running")
		r.do(labmesh.CancelTask{ID: "t2"})
		expect(t, d, "t1:running t2:cancelling")
		if _, err := d.Propose(t.Context(), labmesh.FinishTask{ID: "t1", Attempt: 1, Worker: worker, Outcome: labmesh.Outcome{OK: true}}); err != nil {
			t.Fatal(err)
		}
		expect(t, d, "t2:cancelling")
		if _, ok := d.Secret("S"); ok {
			t.Error("a secret is known after the task that asked for it has ended")
		}
		// The same once more changes nothing, and is answered.
		if rc, err = d.Propose(t.Context(), labmesh.FinishTask{ID: "t1", Attempt: 1, Worker: worker, Outcome: labmesh.Outcome{OK: true}}); err != nil {
			t.Errorf("the same report again: %+v, %v", rc, err)
		}
		if trees, err := d.Trees(t.Context()); err != nil || !slices.Equal(trees, []string{"tree-a"}) {
			t.Errorf("trees: %v, %v", trees, err)
		}
	})
}

func TestADeskNeverGoesBack(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		ahead, behind := newReplica("a"), newReplica("b")
		behind.lead(false) // so that the desk begins at the other
		ahead.give(t, "t1")
		d, p := desk(t, ahead, behind)
		expect(t, d, "t1:assigned")
		behind.lead(true)
		p.kill("a")
		expect(t, d, "t1:assigned") // and not nothing, which is what the one that is behind would say
		time.Sleep(10 * time.Second)
		if expect(t, d, "t1:assigned"); d.Replica() != "" {
			t.Errorf("the desk is read from %s, which is behind", d.Replica())
		}
		if _, err := d.Propose(t.Context(), labmesh.WakeTasks{}); labmesh.ReasonOf(err) != labmesh.Unavailable {
			t.Errorf("without a replica: %v", err)
		}
		behind.give(t, "t1")
		behind.do(labmesh.CancelTask{ID: "t1"})
		time.Sleep(5 * time.Second)
		if expect(t, d, "t1:cancelling"); d.Replica() != "b" {
			t.Errorf("once it has caught up: %q is asked", d.Replica())
		}
	})
}

func TestADeskLeavesAReplicaWithoutALeader(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		a, b := newReplica("a"), newReplica("b")
		b.lead(false)
		d, _ := desk(t, a, b)
		time.Sleep(time.Second)
		if d.Replica() != "a" {
			t.Fatalf("%q is asked, want the one with a leader", d.Replica())
		}
		a.lead(false)
		time.Sleep(leaderWait / 2)
		if d.Replica() != "a" {
			t.Error("it was left during a short election")
		}
		b.lead(true)
		time.Sleep(leaderWait + 2*time.Second)
		if d.Replica() != "b" {
			t.Errorf("%q is asked, want the one with a leader", d.Replica())
		}
	})
}

func TestManyTasksArriveWhole(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		r := newReplica("a")
		big := json.RawMessage(fmt.Sprintf(`{"name":"x","args":[%q]}`, strings.Repeat("x", 200<<10)))
		for i := range 20 {
			id := labmesh.TaskID(fmt.Sprintf("t%02d", i))
			r.do(labmesh.SubmitTask{ID: id, Spec: labmesh.Spec{Kind: labmesh.Custom, Config: big}}, labmesh.PlaceTask{ID: id, Attempt: 1, Worker: worker})
		}
		d, _ := desk(t, r)
		time.Sleep(time.Second)
		held := d.Held(worker)
		if len(held) != 20 {
			t.Fatalf("%d tasks arrived, want 20", len(held))
		}
		for i, task := range held {
			if task.Seq != uint64(i+1) || !bytes.Equal(task.Spec.Config, big) {
				t.Errorf("task %d: seq %d, %d bytes", i, task.Seq, len(task.Spec.Config))
			}
		}
	})
}

func TestALeafMaySpeakForItselfAlone(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		r := newReplica("a")
		d, _ := desk(t, r)
		for _, c := range []labmesh.Command{
			labmesh.StartTask{ID: "t", Attempt: 1, Worker: "another"},
			labmesh.PutWorker{Worker: labmesh.Worker{ID: worker, Node: "another"}},
			labmesh.PutWorker{Worker: labmesh.Worker{ID: "another", Node: self}},
			labmesh.LoseWorker{ID: "another"},
			labmesh.BanMember{Node: "a"},
			labmesh.SubmitTask{ID: "t"},
			labmesh.PutSecret{Secret: labmesh.Secret{Name: "S"}},
		} {
			if _, err := d.Propose(t.Context(), c); labmesh.ReasonOf(err) != labmesh.Denied {
				t.Errorf("%s of another: %v", c.CommandName(), err)
			}
		}
		if _, err := d.Propose(t.Context(), labmesh.PutKey{Key: labmesh.Key{ID: "k"}}); err != nil {
			t.Errorf("a key for the person at the leaf: %v", err)
		}
		r.do(labmesh.BanMember{Node: self})
		time.Sleep(3 * time.Second)
		if d.Replica() != "" {
			t.Error("a banned leaf is still served")
		}
	})
}

func FuzzNews(f *testing.F) {
	var whole, more bytes.Buffer
	_ = writeFrame(&whole, news{Index: 7, Whole: true, Put: []*labmesh.Task{{ID: "t"}}, Secrets: map[string]string{"S": "v"}})
	_ = writeFrame(&more, news{Index: 7, More: true})
	f.Add(whole.Bytes())
	f.Add(append(more.Bytes(), whole.Bytes()...))
	f.Add([]byte{0xff, 0xff, 0xff, 0xff})
	f.Add([]byte{0, 0, 0, 4, 'n', 'u', 'l', 'l'})
	f.Add([]byte("\x00\x00\x00\x0e{\"put\":[null]}"))
	f.Fuzz(func(t *testing.T, data []byte) {
		n, err := readNews(bufio.NewReader(bytes.NewReader(data)))
		if err != nil {
			return
		}
		d := New(Config{})
		n.Whole = true
		if err := d.take(n, true); err == nil && d.Index() != n.Index {
			t.Errorf("index %d, want %d", d.Index(), n.Index)
		}
	})
}
