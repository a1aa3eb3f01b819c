package mesh

import (
	"context"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	ma "github.com/multiformats/go-multiaddr"
)

// Limits on those who are connected and not members.
const (
	strangersMax   = 64
	strangerGrace  = 5 * time.Second
	strangersSweep = time.Second
)

// strangers watches connections of those who are not members: so many, for so
// long, unless they are joining.
type strangers struct {
	guard *guard

	mu      sync.Mutex
	conns   map[network.Conn]time.Time // since when
	joining map[network.Conn]int
	seen    uint64
	closed  uint64
}

var _ network.Notifiee = (*strangers)(nil)

func newStrangers(g *guard) *strangers {
	return &strangers{guard: g, conns: map[network.Conn]time.Time{}, joining: map[network.Conn]int{}}
}

// Connected takes note of a stranger, or closes the door when there are too many.
func (s *strangers) Connected(_ network.Network, c network.Conn) {
	if s.guard.member(c.RemotePeer()) {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.seen++
	if c.Stat().Direction == network.DirInbound && len(s.conns) >= strangersMax {
		s.closed++
		_ = c.CloseWithError(network.ConnGated) // the stranger's loss
		return
	}
	s.conns[c] = time.Now()
}

// Disconnected forgets a connection.
func (s *strangers) Disconnected(_ network.Network, c network.Conn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.conns, c)
	delete(s.joining, c)
}

// Listen does nothing.
func (s *strangers) Listen(network.Network, ma.Multiaddr) {}

// ListenClose does nothing.
func (s *strangers) ListenClose(network.Network, ma.Multiaddr) {}

// hold says that a join is under way over c; release ends it.
func (s *strangers) hold(c network.Conn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.joining[c]++
}

func (s *strangers) release(c network.Conn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.joining[c]--; s.joining[c] <= 0 {
		delete(s.joining, c)
	}
}

// overdue are the connections to close at now.
func (s *strangers) overdue(now time.Time) []network.Conn {
	s.mu.Lock()
	defer s.mu.Unlock()
	var over []network.Conn
	for c, since := range s.conns {
		switch {
		case s.guard.member(c.RemotePeer()):
			delete(s.conns, c)
		case s.joining[c] == 0 && now.Sub(since) >= strangerGrace:
			over = append(over, c)
			delete(s.conns, c)
			s.closed++
		}
	}
	return over
}

func (s *strangers) counts() (seen, closed uint64, here int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.seen, s.closed, len(s.conns)
}

// run closes the connections of strangers who stay, until ctx ends.
func (s *strangers) run(ctx context.Context) error {
	tick := time.NewTicker(strangersSweep)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case now := <-tick.C:
			for _, c := range s.overdue(now) {
				_ = c.CloseWithError(network.ConnGated) // closing is all there is to do
			}
		}
	}
}
