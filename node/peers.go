package node

import (
	"cmp"
	"context"
	"net"
	"slices"
	"sync"
	"time"

	"labmesh/node/httpapi"
)

// Limits of asking the other nodes the time.
const (
	clockAsks    = 3               // the quickest answer counts
	clockTimeout = 3 * time.Second // for one node, all asks together
)

// clockAnswer is the time at a member.
type clockAnswer struct {
	Unix int64 `json:"unix_ns"`
}

// serveClock tells members what time it is here.
func (n *Node) serveClock(ctx context.Context) error {
	return serveStreams(ctx, n.host.Streams(clockProtocol), func(_ context.Context, conn net.Conn, _ struct{}) error {
		return answerHead(conn, clockAnswer{Unix: time.Now().UnixNano()})
	})
}

// Peers asks every member whether it can be reached, and how late it is there.
func (s *service) Peers(ctx context.Context) httpapi.Peers {
	n := s.n
	out := httpapi.Peers{Addrs: n.host.Addrs()}
	heard := n.host.Heard()
	var asking sync.WaitGroup
	for _, m := range n.members.list() {
		if m.Banned {
			continue
		}
		p := &httpapi.Peer{Node: m.Node, Hostname: m.Hostname, Role: m.Role, Self: m.Node == n.host.ID(), Addrs: m.Addrs}
		out.Peers = append(out.Peers, p)
		if p.Self {
			p.Reached, p.Version, p.Feature = true, n.cfg.Version, n.cfg.feature()
			continue
		}
		if h, ok := heard[m.Node]; ok {
			p.Heard, p.Version, p.Feature, p.Addrs = h.At, h.Advert.Version, h.Advert.Feature, h.Advert.Addrs
		}
		asking.Go(func() { n.askClock(ctx, p) })
	}
	asking.Wait()
	slices.SortFunc(out.Peers, func(a, b *httpapi.Peer) int { return cmp.Compare(a.Node, b.Node) })
	return out
}

// askClock fills in how a member is reached, and its clock against ours: halfway
// between asking and the answer it was so late there, give or take half of the time between (Cristian 1989).
func (n *Node) askClock(ctx context.Context, p *httpapi.Peer) {
	ctx, cancel := context.WithTimeout(ctx, clockTimeout)
	defer cancel()
	streams := n.host.Streams(clockProtocol)
	for range clockAsks {
		began := time.Now()
		body, answer, err := ask[clockAnswer](ctx, streams, p.Node, struct{}{})
		took := time.Since(began)
		if err != nil {
			if !p.Reached {
				p.Error = err.Error()
			}
			break
		}
		_ = body.Close() // all has been said
		if !p.Reached || took < p.RTT {
			p.RTT, p.Ahead = took, time.Unix(0, answer.Unix).Sub(began.Add(took/2))
		}
		p.Reached = true
	}
	p.Path = string(n.host.PathTo(p.Node))
}
