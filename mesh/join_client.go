package mesh

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	ma "github.com/multiformats/go-multiaddr"

	"labmesh"
)

// joinWait bounds a join whose context has no deadline.
const joinWait = 20 * time.Second

// Join proves an invite to one of the nodes at addrs, which are multiaddrs that
// end in /p2p/ and the node's id, and becomes a member. All are dialed at once;
// they are asked one after the other, as they answer, until one says yes or the
// invite itself is refused. Then the members in the reply that may vote are
// trusted, and the addresses of all are in the peer book.
//
// An error is a [labmesh.Error]: Unavailable when nobody answered, Conflict when
// a node belongs to another mesh, and what the mesh says of the invite otherwise.
func (h *Host) Join(ctx context.Context, addrs []string, inviteID string, secret []byte, req JoinRequest) (JoinReply, error) {
	ctx, cancel := context.WithTimeout(ctx, joinWait)
	defer cancel()
	servers, err := joinServers(addrs, h.guard.ID())
	if err != nil {
		return JoinReply{}, err
	}
	if len(req.Addrs) == 0 {
		req.Addrs = h.Addrs()
	}
	answered, stop := h.dialServers(ctx, servers)
	defer stop()
	var errs []error
	for range servers {
		a := <-answered
		if a.err != nil {
			errs = append(errs, a.err)
			continue
		}
		reply, err := h.joinAt(ctx, a.server.ID, inviteID, InviteKey(secret), req)
		if err == nil {
			h.welcome(a.server, reply)
			return reply, nil
		}
		errs = append(errs, err)
		if final(err) {
			break
		}
	}
	return JoinReply{}, joinError(errs)
}

// joinServers groups addresses by the node they lead to.
func joinServers(addrs []string, self peer.ID) ([]peer.AddrInfo, error) {
	var list []ma.Multiaddr
	for _, s := range addrs {
		a, err := ma.NewMultiaddr(s)
		if err != nil {
			return nil, labmesh.RefuseField("addrs", "join: %.200q is no address such as /ip4/192.0.2.1/tcp/4080/p2p/ID", s)
		}
		list = append(list, a)
	}
	servers, err := peer.AddrInfosFromP2pAddrs(list...)
	if err != nil {
		return nil, labmesh.RefuseField("addrs", "join: an address does not end in /p2p/ and a node's id: %v", err)
	}
	servers = slices.DeleteFunc(servers, func(s peer.AddrInfo) bool { return s.ID == self })
	if len(servers) == 0 {
		return nil, labmesh.RefuseField("addrs", "join: the invite names no address of another node")
	}
	return servers, nil
}

// answer is how dialing one server went.
type answer struct {
	server peer.AddrInfo
	err    error
}

// dialServers dials all servers at once. Each is heard of once, in the order in
// which they answer; stop ends the dialing and waits for it.
func (h *Host) dialServers(ctx context.Context, servers []peer.AddrInfo) (<-chan answer, func()) {
	ctx, cancel := context.WithCancel(ctx)
	answered := make(chan answer, len(servers))
	var dialing sync.WaitGroup
	for _, s := range servers {
		dialing.Go(func() {
			dialCtx, cancel := context.WithTimeout(ctx, dialTimeout)
			defer cancel()
			clearBackoff(h.guard.Network(), s.ID)
			err := h.guard.Host.Connect(dialCtx, s) // past the guard: it is no member yet
			if err != nil {
				err = labmesh.Refuse(labmesh.Unavailable, "no answer at %s: %v", addrList(s.Addrs), lastLine(err))
			}
			answered <- answer{server: s, err: err}
		})
	}
	return answered, func() {
		cancel()
		dialing.Wait()
	}
}

func addrList(addrs []ma.Multiaddr) string {
	list := make([]string, len(addrs))
	for i, a := range addrs {
		list[i] = a.String()
	}
	return strings.Join(list, ", ")
}

// lastLine is the end of libp2p's dial errors, which list every address on a line.
func lastLine(err error) string {
	lines := strings.Split(strings.TrimSpace(err.Error()), "\n")
	return strings.TrimSpace(strings.TrimPrefix(strings.TrimSpace(lines[len(lines)-1]), "*"))
}

// final says whether no other node would answer otherwise.
func final(err error) bool {
	switch labmesh.ReasonOf(err) {
	case labmesh.Denied, labmesh.NotFound, labmesh.Invalid, labmesh.TooLarge:
		return true
	}
	return false
}

// joinError is the most telling of the errors, with what the others say.
func joinError(errs []error) error {
	if len(errs) == 1 {
		return fmt.Errorf("join: %w", errs[0])
	}
	worst := slices.IndexFunc(errs, final)
	if worst < 0 {
		worst = slices.IndexFunc(errs, func(err error) bool { return labmesh.ReasonOf(err) != labmesh.Unavailable })
	}
	if worst >= 0 {
		return fmt.Errorf("join: %w", errs[worst])
	}
	texts := make([]string, len(errs))
	for i, err := range errs {
		texts[i] = err.Error()
	}
	return labmesh.Refuse(labmesh.Unavailable, "join: %s", strings.Join(texts, "; "))
}

// joinAt proves the invite to one server.
func (h *Host) joinAt(ctx context.Context, server peer.ID, inviteID string, key []byte, req JoinRequest) (JoinReply, error) {
	s, err := h.guard.NewStream(network.WithNoDial(ctx, "dialed before"), server, JoinProtocol)
	if err != nil {
		return JoinReply{}, labmesh.Refuse(labmesh.Unavailable, "%s answered, but is no labmesh node that lets others in: %v", server, err)
	}
	defer s.Close()
	h.strangers.hold(s.Conn())
	defer h.strangers.release(s.Conn())
	stop := context.AfterFunc(ctx, func() { _ = s.Reset() })
	defer stop()
	if err := s.SetDeadline(time.Now().Add(joinTimeout)); err != nil {
		return JoinReply{}, fmt.Errorf("ask %s: %w", server, err)
	}
	hs := handshake{mesh: h.cfg.Mesh, inviteID: inviteID, joiner: h.ID(), server: nodeID(server), nonceJ: newNonce()}
	reply, err := prove(s, hs, key, req)
	if err != nil {
		return JoinReply{}, silence(fmt.Errorf("ask %s: %w", server, err))
	}
	return reply, nil
}

// silence makes what is not a refusal one that says nobody answered.
func silence(err error) error {
	var e *labmesh.Error
	if errors.As(err, &e) {
		return err
	}
	return labmesh.Refuse(labmesh.Unavailable, "%v", err)
}

// prove is the joiner's part of the handshake over s.
func prove(s network.Stream, hs handshake, key []byte, req JoinRequest) (JoinReply, error) {
	var challenge joinChallenge
	err := errors.Join(
		writeFrame(s, joinHello{Mesh: hs.mesh, InviteID: hs.inviteID, Nonce: hs.nonceJ}, joinFrameMax),
		readFrame(s, &challenge, joinFrameMax))
	if err != nil {
		return JoinReply{}, err
	}
	if challenge.Refused != nil {
		return JoinReply{}, challenge.Refused
	}
	hs.nonceS = challenge.Nonce
	said, err := json.Marshal(req)
	if err != nil {
		return JoinReply{}, err
	}
	var verdict joinVerdict
	err = errors.Join(
		writeFrame(s, joinProof{Request: said, Proof: hs.proof(key, sideJoiner, said)}, joinFrameMax),
		readFrame(s, &verdict, joinReplyMax))
	if err != nil {
		return JoinReply{}, err
	}
	if verdict.Refused != nil {
		return JoinReply{}, verdict.Refused
	}
	if !hs.proves(key, sideServer, verdict.Reply, verdict.Proof) {
		return JoinReply{}, labmesh.Refuse(labmesh.Conflict, "the node that answered does not know the invite: it is not of this mesh")
	}
	var reply JoinReply
	if err := json.Unmarshal(verdict.Reply, &reply); err != nil {
		return JoinReply{}, err
	}
	if reply.Mesh != hs.mesh {
		return JoinReply{}, labmesh.Refuse(labmesh.Conflict, "wrong mesh: the node that answered is of mesh %s", reply.Mesh)
	}
	return reply, nil
}

// welcome takes note of the members that a joined node was told of.
func (h *Host) welcome(server peer.AddrInfo, reply JoinReply) {
	now := time.Now()
	for _, m := range reply.Members {
		if m.Banned || m.Node == h.ID() {
			continue
		}
		h.book.put(m.Node, m.Addrs, now)
		if m.Role != labmesh.RoleWorker {
			h.Trust(m.Node)
		}
	}
	for _, a := range server.Addrs {
		h.book.put(nodeID(server.ID), []string{a.String()}, now)
	}
	h.Trust(nodeID(server.ID))
}
