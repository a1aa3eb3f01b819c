package mesh

import (
	"context"
	"encoding/json"
	"errors"
	"net/netip"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	"golang.org/x/time/rate"

	"labmesh"
)

// Limits on joins.
const (
	joinFrameMax  = 32 << 10
	joinReplyMax  = 4 << 20
	joinTimeout   = 15 * time.Second // a whole join, the mesh's decision included
	joinSpeak     = 3 * time.Second  // for each thing the stranger has to say
	joinsAtOnce   = 32
	joinRate      = 32 // per second, from everywhere
	joinBurst     = 128
	joinRatePerIP = 4 // per second
	joinBurstIP   = 32
	joinIPsMax    = 1024 // addresses that are told apart
	inviteIDMax   = 256
)

// turnstile bounds how often strangers may try to join, per address and overall.
type turnstile struct {
	all  *rate.Limiter
	room chan struct{}

	mu    sync.Mutex
	perIP map[netip.Addr]*rate.Limiter
}

func newTurnstile() *turnstile {
	return &turnstile{
		all:   rate.NewLimiter(joinRate, joinBurst),
		room:  make(chan struct{}, joinsAtOnce),
		perIP: map[netip.Addr]*rate.Limiter{},
	}
}

// enter says whether somebody at ip may try now; leave must follow if so. The
// address is asked first, so that one address cannot use up everybody's turns.
func (t *turnstile) enter(ip netip.Addr, now time.Time) bool {
	if !t.ofIP(ip, now).AllowN(now, 1) || !t.all.AllowN(now, 1) {
		return false
	}
	select {
	case t.room <- struct{}{}:
		return true
	default:
		return false
	}
}

func (t *turnstile) leave() { <-t.room }

func (t *turnstile) ofIP(ip netip.Addr, now time.Time) *rate.Limiter {
	t.mu.Lock()
	defer t.mu.Unlock()
	if l, ok := t.perIP[ip]; ok {
		return l
	}
	if len(t.perIP) >= joinIPsMax {
		for other, l := range t.perIP { // those who have rested are as good as new
			if l.TokensAt(now) >= joinBurstIP {
				delete(t.perIP, other)
			}
		}
	}
	if len(t.perIP) >= joinIPsMax {
		return rate.NewLimiter(0, 0) // too many at once: nobody new for now
	}
	l := rate.NewLimiter(joinRatePerIP, joinBurstIP)
	t.perIP[ip] = l
	return l
}

// serveJoin lets one stranger try to join.
func (h *Host) serveJoin(s network.Stream) {
	defer s.Close()
	if !h.turnstile.enter(ipOf(s.Conn().RemoteMultiaddr()), time.Now()) {
		h.count.joinsRefused.Add(1)
		_ = s.SetDeadline(time.Now().Add(joinSpeak)) // a stream that cannot have one fails on use
		_ = writeFrame(s, joinChallenge{Refused: labmesh.Refuse(labmesh.Exhausted, "too many try to join just now: try again in a while")}, joinFrameMax)
		return
	}
	defer h.turnstile.leave()
	h.strangers.hold(s.Conn())
	defer h.strangers.release(s.Conn())
	ctx, cancel := context.WithTimeout(h.alive, joinTimeout)
	defer cancel()

	node := nodeID(s.Conn().RemotePeer())
	reply, err := h.takeJoin(ctx, s, node)
	if err != nil {
		h.count.joinsRefused.Add(1)
		h.cfg.Logger.InfoContext(ctx, "join refused", "node", node, "from", s.Conn().RemoteMultiaddr(), "err", err)
		return
	}
	h.count.joined.Add(1)
	h.cfg.Logger.InfoContext(ctx, "node joined", "node", node, "role", reply.Role, "from", s.Conn().RemoteMultiaddr())
	h.keeper.heardOf(node)
}

// takeJoin hears the stranger out, and tells it the verdict.
func (h *Host) takeJoin(ctx context.Context, s network.Stream, node labmesh.NodeID) (JoinReply, error) {
	var hello joinHello
	if err := h.speak(s, func() error { return readFrame(s, &hello, joinFrameMax) }); err != nil {
		return JoinReply{}, err
	}
	key, err := h.inviteKey(ctx, hello)
	if err != nil {
		return JoinReply{}, errors.Join(err, h.speak(s, func() error {
			return writeFrame(s, joinChallenge{Refused: refusal(err)}, joinFrameMax)
		}))
	}
	hs := handshake{mesh: h.cfg.Mesh, inviteID: hello.InviteID, joiner: node, server: h.ID(), nonceJ: hello.Nonce, nonceS: newNonce()}
	var said joinProof
	err = h.speak(s, func() error {
		return errors.Join(writeFrame(s, joinChallenge{Nonce: hs.nonceS}, joinFrameMax), readFrame(s, &said, joinFrameMax))
	})
	if err != nil {
		return JoinReply{}, err
	}
	verdict, reply, err := h.judge(ctx, s, hs, key, said)
	return reply, errors.Join(err, h.speak(s, func() error { return writeFrame(s, verdict, joinReplyMax) }))
}

// speak bounds one exchange with the stranger.
func (h *Host) speak(s network.Stream, exchange func() error) error {
	if err := s.SetDeadline(time.Now().Add(joinSpeak)); err != nil {
		return err
	}
	return exchange()
}

func (h *Host) inviteKey(ctx context.Context, hello joinHello) ([]byte, error) {
	switch {
	case h.cfg.Join == nil:
		return nil, labmesh.Refuse(labmesh.Unavailable, "this node lets nobody in")
	case hello.Mesh != h.cfg.Mesh:
		return nil, labmesh.Refuse(labmesh.Conflict, "wrong mesh: this node belongs to another one than the invite")
	case hello.InviteID == "" || len(hello.InviteID) > inviteIDMax || len(hello.Nonce) != nonceBytes:
		return nil, labmesh.Refuse(labmesh.Invalid, "join: malformed request")
	}
	return h.cfg.Join.InviteKey(ctx, hello.InviteID)
}

// judge decides on a stranger who has said all it has to say.
func (h *Host) judge(ctx context.Context, s network.Stream, hs handshake, key []byte, said joinProof) (joinVerdict, JoinReply, error) {
	refuse := func(err error) (joinVerdict, JoinReply, error) {
		return joinVerdict{Refused: refusal(err)}, JoinReply{}, err
	}
	if !hs.proves(key, sideJoiner, said.Request, said.Proof) {
		return refuse(labmesh.Refuse(labmesh.Denied, "the invite's secret is wrong: check that it was copied whole"))
	}
	var req JoinRequest
	if err := json.Unmarshal(said.Request, &req); err != nil {
		return refuse(labmesh.Refuse(labmesh.Invalid, "join: malformed request: %v", err))
	}
	req.Node, req.InviteID = hs.joiner, hs.inviteID
	req.Addrs = merge(req.Addrs, nil, bookAddrsMax)
	if a := s.Conn().RemoteMultiaddr(); len(req.Addrs) == 0 && a != nil {
		req.Addrs = []string{a.String()}
	}
	reply, err := h.cfg.Join.Admit(ctx, req)
	if err != nil {
		return refuse(err)
	}
	reply.Mesh, reply.Server = h.cfg.Mesh, h.ID()
	data, err := json.Marshal(reply)
	if err != nil {
		return refuse(err)
	}
	h.book.put(hs.joiner, req.Addrs, time.Now())
	return joinVerdict{Reply: data, Proof: hs.proof(key, sideServer, data)}, reply, nil
}

// refusal is what a stranger is told of an error.
func refusal(err error) *labmesh.Error {
	var e *labmesh.Error
	if errors.As(err, &e) {
		return e
	}
	if errors.Is(err, context.DeadlineExceeded) {
		return labmesh.Refuse(labmesh.Unavailable, "the mesh did not decide in time: try again")
	}
	return labmesh.Refuse(labmesh.Internal, "the node that was asked has a fault: its log says which")
}
