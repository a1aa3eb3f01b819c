package httpapi

import (
	"net/http"
	"time"

	"labmesh"
	"labmesh/api"
)

// Peers are the members of the mesh as this node reaches them.
type Peers struct {
	Addrs []string // where this node can be reached
	Peers []*Peer  // itself among them
}

// Peer is one member.
type Peer struct {
	Node     labmesh.NodeID
	Hostname string
	Role     labmesh.Role
	Self     bool
	Addrs    []string
	Heard    time.Time // zero when never
	Version  string    // "" when it was not heard of
	Feature  int
	Reached  bool          // it answered just now
	Error    string        // why it did not
	Path     string        // direct, relayed or ""
	RTT      time.Duration // until its answer
	Ahead    time.Duration // its clock against that of this node, give or take half of RTT
}

func (a *API) peers(w http.ResponseWriter, r *http.Request, _ Caller) error {
	p := a.svc.Peers(r.Context())
	reply := api.PeerList{Addrs: orNone(p.Addrs), Peers: make([]api.Peer, len(p.Peers))}
	for i, m := range p.Peers {
		reply.Peers[i] = api.Peer{
			Node: m.Node, Hostname: m.Hostname, Role: m.Role, Self: m.Self, Addrs: orNone(m.Addrs), LastHeard: api.Time{Time: m.Heard},
			Version: api.Text(m.Version), Feature: m.Feature, Reached: m.Reached, Error: api.Text(m.Error), Path: api.Text(m.Path),
		}
		if m.Reached && !m.Self {
			rtt, ahead := m.RTT.Seconds(), m.Ahead.Seconds()
			reply.Peers[i].RTT, reply.Peers[i].Ahead = &rtt, &ahead
		}
	}
	return a.reply(w, r, reply)
}
