package swarm

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"time"

	"labmesh"
	"labmesh/content"
	"labmesh/content/store"
)

// How much goes on at the same time.
const (
	fetchesMax  = 4   // trees fetched
	pleasesMax  = 4   // trees fetched for others
	streamsMax  = 256 // streams served
	perNodeMax  = 32  // of these from one node
	peersMax    = 16  // nodes that one tree is fetched from
	bannedFor   = 10 * time.Minute
	dialTimeout = 10 * time.Second
	acceptPause = 100 * time.Millisecond // after an error that is not the end
)

// Streams are connections between nodes under the swarm's protocol. The remote
// address of one is the id of the node.
type Streams interface {
	Listen() (net.Listener, error)
	Dial(ctx context.Context, node labmesh.NodeID) (net.Conn, error)
}

// Swarm fetches trees into a store, and serves what is in it.
type Swarm struct {
	store   *store.Store
	streams Streams
	peers   func() []labmesh.NodeID
	log     *slog.Logger
	slots   chan struct{}
	pleases chan struct{}
	recent  *recent

	mu      sync.Mutex
	trees   map[content.Hash]*tree
	flights map[content.Hash]*flight
	banned  map[labmesh.NodeID]time.Time // until when
	served  map[string]int               // streams, by node
	moved   Traffic
}

// Traffic is what went through a swarm since it was made.
type Traffic struct {
	SentChunks, SentBytes         int64
	ReceivedChunks, ReceivedBytes int64 // those that were of use
	WastedBytes                   int64 // that came a second time, or wrong
}

// New makes a swarm. Peers are the other nodes that can be reached; it is
// called often.
func New(s *store.Store, streams Streams, peers func() []labmesh.NodeID, log *slog.Logger) *Swarm {
	return &Swarm{
		store: s, streams: streams, peers: peers, log: log,
		slots: make(chan struct{}, fetchesMax), pleases: make(chan struct{}, pleasesMax), recent: newRecent(),
		trees: map[content.Hash]*tree{}, flights: map[content.Hash]*flight{},
		banned: map[labmesh.NodeID]time.Time{}, served: map[string]int{},
	}
}

// Traffic is what went through so far.
func (w *Swarm) Traffic() Traffic {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.moved
}

func (w *Swarm) count(add func(*Traffic)) {
	w.mu.Lock()
	defer w.mu.Unlock()
	add(&w.moved)
}

// Run serves until ctx ends.
func (w *Swarm) Run(ctx context.Context) error {
	l, err := w.streams.Listen()
	if err != nil {
		return fmt.Errorf("serve content: %w", err)
	}
	var served sync.WaitGroup
	defer served.Wait()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(ctx, func() { _ = l.Close() })() // ends Accept
	for {
		c, err := l.Accept()
		switch {
		case ctx.Err() != nil:
			if err == nil {
				_ = c.Close() // it came too late
			}
			return ctx.Err()
		case errors.Is(err, net.ErrClosed):
			return fmt.Errorf("serve content: %w", err)
		case err != nil:
			w.log.WarnContext(ctx, "no stream accepted", "err", err)
			select {
			case <-ctx.Done():
			case <-time.After(acceptPause):
			}
		case !w.enter(c.RemoteAddr().String()):
			_ = c.Close() // over the limit: the other side asks elsewhere
		default:
			served.Go(func() {
				defer w.exit(c.RemoteAddr().String())
				w.serve(ctx, c)
			})
		}
	}
}

func (w *Swarm) enter(node string) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	total := 0
	for _, n := range w.served {
		total += n
	}
	if total >= streamsMax || w.served[node] >= perNodeMax {
		return false
	}
	w.served[node]++
	return true
}

func (w *Swarm) exit(node string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.served[node]--; w.served[node] == 0 {
		delete(w.served, node)
	}
}

// ban keeps a node that sent wrong bytes from being asked for a while.
func (w *Swarm) ban(node labmesh.NodeID) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.banned[node] = time.Now().Add(bannedFor)
}

// others are the peers that may be asked.
func (w *Swarm) others() []labmesh.NodeID {
	list := w.peers()
	w.mu.Lock()
	defer w.mu.Unlock()
	now := time.Now()
	var out []labmesh.NodeID
	for _, n := range list {
		if until, ok := w.banned[n]; ok {
			if now.Before(until) {
				continue
			}
			delete(w.banned, n)
		}
		out = append(out, n)
	}
	return out
}

// dial opens a stream with a request. It is closed when ctx ends, or by stop.
func (w *Swarm) dial(ctx context.Context, node labmesh.NodeID, ask byte, id content.Hash) (l *link, stop func(), err error) {
	within, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	c, err := w.streams.Dial(within, node)
	if err != nil {
		return nil, nil, err
	}
	l = newLink(c)
	unhook := context.AfterFunc(ctx, func() { _ = c.Close() })
	stop = func() {
		unhook()
		_ = c.Close() // nothing is left to say
	}
	if err := l.greet(ask, id); err != nil {
		stop()
		return nil, nil, err
	}
	return l, stop, nil
}
