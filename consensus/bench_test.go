package consensus

import (
	"bufio"
	"context"
	"fmt"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"labmesh"
)

// tcpnet gives streams over loopback TCP. A stream begins with the dialler's id.
type tcpnet struct {
	mu    sync.Mutex
	addrs map[string]string
}

type tcpStreams struct {
	net      *tcpnet
	self     labmesh.NodeID
	protocol string
}

func (s tcpStreams) Listen() (net.Listener, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	s.net.mu.Lock()
	defer s.net.mu.Unlock()
	s.net.addrs[s.protocol+"/"+string(s.self)] = l.Addr().String()
	return tcpListener{l}, nil
}

func (s tcpStreams) Dial(ctx context.Context, to labmesh.NodeID) (net.Conn, error) {
	s.net.mu.Lock()
	addr := s.net.addrs[s.protocol+"/"+string(to)]
	s.net.mu.Unlock()
	c, err := (&net.Dialer{}).DialContext(ctx, "tcp", addr)
	if err != nil {
		return nil, err
	}
	if _, err := c.Write([]byte(string(s.self) + "\n")); err != nil {
		return nil, err
	}
	return c, nil
}

type tcpListener struct{ net.Listener }

func (l tcpListener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	in := bufio.NewReader(c)
	id, err := in.ReadString('\n')
	if err != nil {
		return nil, err
	}
	return tcpConn{c, in, labmesh.NodeID(strings.TrimSpace(id))}, nil
}

type tcpConn struct {
	net.Conn
	in     *bufio.Reader
	remote labmesh.NodeID
}

func (c tcpConn) Read(p []byte) (int, error) { return c.in.Read(p) }
func (c tcpConn) RemoteAddr() net.Addr       { return nodeAddr(c.remote) }

// onDisk makes the replicas of a group keep their logs on disk and speak TCP.
func onDisk(b testing.TB) func(*Config) {
	tcp := &tcpnet{addrs: map[string]string{}}
	return func(c *Config) {
		c.Memory, c.Dir = nil, b.TempDir()
		c.Raft, c.Forward = tcpStreams{tcp, c.ID, "raft"}, tcpStreams{tcp, c.ID, "forward"}
		c.Ledger = discard{}
	}
}

// discard is a ledger that keeps nothing.
type discard struct{}

func (discard) Append(uint64, []labmesh.Event)      {}
func (discard) Await(context.Context, uint64) error { return nil }
func (discard) Require(uint64)                      {}

// benchTask is a task as a user would submit it.
func benchTask(id string) labmesh.SubmitTask {
	return labmesh.SubmitTask{ID: labmesh.TaskID(id), By: "bench", Spec: labmesh.Spec{
		Kind: labmesh.Custom, Config: []byte(`{"program":"/bin/true","args":["one","two"]}`), MaxAttempts: 3}}
}

var taskSeq atomic.Int64

func BenchmarkPropose(b *testing.B) {
	for _, proposers := range []int{1, 64, 1024} {
		for _, at := range []string{"leader", "follower"} {
			b.Run(fmt.Sprintf("%s/%d", at, proposers), func(b *testing.B) {
				g := startGroup(b, 3, onDisk(b))
				defer g.haltAll(b)
				r := g.leader(b, "")
				if at == "follower" {
					r = g.follower(b)
				}
				var left atomic.Int64
				left.Store(int64(b.N))
				b.ResetTimer()
				var proposing sync.WaitGroup
				for range proposers {
					proposing.Go(func() {
						for left.Add(-1) >= 0 {
							if _, err := r.Propose(b.Context(), benchTask(fmt.Sprintf("bench-%d", taskSeq.Add(1)))); err != nil {
								b.Error(err)
								return
							}
						}
					})
				}
				proposing.Wait()
				b.StopTimer()
				b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "proposals/s")
			})
		}
	}
}

func BenchmarkBatchOf10000(b *testing.B) {
	for _, at := range []string{"leader", "follower"} {
		b.Run(at, func(b *testing.B) {
			g := startGroup(b, 3, onDisk(b))
			defer g.haltAll(b)
			r := g.leader(b, "")
			if at == "follower" {
				r = g.follower(b)
			}
			for b.Loop() {
				b.StopTimer()
				cmds := make([]labmesh.Command, 10_000)
				for i := range cmds {
					cmds[i] = benchTask(fmt.Sprintf("bench-%d", taskSeq.Add(1)))
				}
				b.StartTimer()
				if _, err := r.Propose(b.Context(), cmds...); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// BenchmarkFollowerApply is the time from a receipt at the leader of an idle
// mesh until all followers have applied the entry.
func BenchmarkFollowerApply(b *testing.B) {
	g := startGroup(b, 3, onDisk(b))
	defer g.haltAll(b)
	leader := g.leader(b, "")
	var worst time.Duration
	for b.Loop() {
		b.StopTimer()
		time.Sleep(20 * time.Millisecond) // idle; a benchmark measures, it does not wait for anything
		rc, err := leader.Propose(b.Context(), benchTask(fmt.Sprintf("bench-%d", taskSeq.Add(1))))
		if err != nil {
			b.Fatal(err)
		}
		b.StartTimer()
		begun := time.Now()
		for _, r := range g.replicas {
			if err := r.Await(b.Context(), rc.Index); err != nil {
				b.Fatal(err)
			}
		}
		worst = max(worst, time.Since(begun))
	}
	b.ReportMetric(float64(worst.Microseconds())/1000, "ms-worst")
}

// BenchmarkFailover is the time from the death of a leader to the first receipt
// of the next one.
func BenchmarkFailover(b *testing.B) {
	g := startGroup(b, 3, onDisk(b))
	defer g.haltAll(b)
	var worst time.Duration
	for b.Loop() {
		b.StopTimer()
		old := g.leader(b, "")
		r := g.follower(b)
		time.Sleep(time.Second) // until all is calm
		b.StartTimer()
		begun := time.Now()
		_ = old.severed().Close() // no word of farewell
		for {
			ctx, cancel := context.WithTimeout(b.Context(), time.Second)
			_, err := r.Propose(ctx, benchTask(fmt.Sprintf("bench-%d", taskSeq.Add(1))))
			cancel()
			if err == nil {
				break
			}
		}
		worst = max(worst, time.Since(begun))
		b.StopTimer()
		id := old.cfg.ID
		g.halt(b, id)
		delete(g.replicas, id)
		g.start(b, id, false)
		b.StartTimer()
	}
	b.ReportMetric(float64(worst.Milliseconds()), "ms-worst")
}

// severed is the transport of a replica.
func (r *Replica) severed() *transport { return r.nudger.trans }
