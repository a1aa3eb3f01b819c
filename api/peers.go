package api

import "labmesh"

// PeerList is the reply to GET /api/peers: the members of the mesh as the node that
// answers reaches them.
type PeerList struct {
	Addrs []string `json:"addrs"` // where that node can be reached
	Peers []Peer   `json:"peers"`
}

// Peer is one member of the mesh.
type Peer struct {
	Node      labmesh.NodeID `json:"node_id"`
	Hostname  string         `json:"hostname"`
	Role      labmesh.Role   `json:"role"`
	Self      bool           `json:"self"` // it is the node that answers
	Addrs     []string       `json:"addrs"`
	LastHeard Time           `json:"last_heard"`
	Version   Text           `json:"version"`
	Feature   int            `json:"feature"`
	Reached   bool           `json:"reached"` // it answered just now
	Error     Text           `json:"error"`   // why it did not
	Path      Text           `json:"path"`    // direct or relayed
	RTT       *float64       `json:"rtt_seconds"`
	Ahead     *float64       `json:"clock_ahead_seconds"` // its clock against that of the node that answers, give or take half of rtt_seconds
}
