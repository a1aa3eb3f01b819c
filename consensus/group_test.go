package consensus

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"labmesh"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// group is a mesh of replicas on a memnet.
type group struct {
	net      *memnet
	replicas map[labmesh.NodeID]*testReplica
	adjust   func(*Config)
}

// testReplica is a replica under way, and what it keeps over a restart.
type testReplica struct {
	*Replica
	memory *Memory
	ledger *memLedger
	stop   context.CancelFunc
	ended  chan error
}

func newGroup(adjust func(*Config)) *group {
	if adjust == nil {
		adjust = func(*Config) {}
	}
	return &group{net: newMemnet(), replicas: map[labmesh.NodeID]*testReplica{}, adjust: adjust}
}

func logger() *slog.Logger {
	if os.Getenv("RAFTLOG") != "" {
		return slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelDebug}))
	}
	return slog.New(slog.DiscardHandler)
}

// start opens a replica, or starts it again.
func (g *group) start(t testing.TB, id labmesh.NodeID, found bool) *testReplica {
	t.Helper()
	r := g.replicas[id]
	if r == nil {
		r = &testReplica{memory: NewMemory(), ledger: newMemLedger()}
		g.replicas[id] = r
	}
	cfg := Config{
		ID: id, Memory: r.memory, Found: found, Ledger: r.ledger, Logger: logger().With("on", id),
		Raft: g.net.streams(id, "raft"), Forward: g.net.streams(id, "forward"),
	}
	g.adjust(&cfg)
	var err error
	if r.Replica, err = Open(t.Context(), cfg); err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	r.stop, r.ended = stop, make(chan error, 1)
	go func(run *Replica) { r.ended <- run.Run(ctx) }(r.Replica)
	return r
}

// halt stops a replica.
func (g *group) halt(t testing.TB, id labmesh.NodeID) {
	t.Helper()
	r := g.replicas[id]
	r.stop()
	if err := <-r.ended; err != nil {
		t.Errorf("%s: %v", id, err)
	}
	if err := r.Close(); err != nil {
		t.Errorf("close %s: %v", id, err)
	}
	r.ended <- nil // for haltAll
}

func (g *group) haltAll(t testing.TB) {
	t.Helper()
	for id := range g.replicas {
		g.halt(t, id)
	}
}

// startGroup founds a mesh of n voters, n0 first.
func startGroup(t testing.TB, n int, adjust func(*Config)) *group {
	t.Helper()
	g := newGroup(adjust)
	first := g.start(t, name(0), true)
	g.leader(t, "")
	for i := 1; i < n; i++ {
		g.start(t, name(i), false)
		if err := first.AddLearner(t.Context(), name(i)); err != nil {
			t.Fatal(err)
		}
		if err := first.Promote(t.Context(), name(i)); err != nil {
			t.Fatal(err)
		}
	}
	for _, r := range g.replicas { // a replica that has not heard who votes refuses its vote
		for range 1000 {
			if len(r.Status().Voters) == n {
				break
			}
			time.Sleep(10 * time.Millisecond)
		}
	}
	return g
}

func name(i int) labmesh.NodeID { return labmesh.NodeID(fmt.Sprintf("n%d", i)) }

// leader waits until a replica other than not leads.
func (g *group) leader(t testing.TB, not labmesh.NodeID) *testReplica {
	t.Helper()
	for range 3000 {
		for id, r := range g.replicas {
			if id != not && r.Status().Role == "leader" {
				return r
			}
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Fatal("no leader within 30 s")
	return nil
}

// follower is some replica that does not lead.
func (g *group) follower(t testing.TB) *testReplica {
	t.Helper()
	leader := g.leader(t, "")
	for _, r := range g.replicas {
		if r != leader {
			return r
		}
	}
	t.Fatal("there is no follower")
	return nil
}

// memLedger is a ledger in memory that writes down nothing but what it was told.
type memLedger struct {
	mu       sync.Mutex
	reached  uint64
	required uint64
	events   []labmesh.Event
	stuck    chan struct{} // when set, Await waits for it
}

func newMemLedger() *memLedger { return &memLedger{} }

func (l *memLedger) Append(index uint64, events []labmesh.Event) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if index <= l.reached {
		return
	}
	l.reached = index
	l.events = append(l.events, events...)
}

func (l *memLedger) Await(ctx context.Context, _ uint64) error {
	if l.stuck == nil {
		return nil
	}
	select {
	case <-l.stuck:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (l *memLedger) Require(index uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.required = index
}

func submit(id string) labmesh.SubmitTask {
	return labmesh.SubmitTask{ID: labmesh.TaskID(id), By: "test"}
}
