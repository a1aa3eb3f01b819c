package mesh

import "sync/atomic"

// counters count since Open.
type counters struct {
	joined, joinsRefused         atomic.Uint64
	advertsHeard, advertsRefused atomic.Uint64
	hungUp                       atomic.Uint64
}

// Stats say what is so now and what has happened since Open.
type Stats struct {
	Connected      int `json:"connected"`        // members there is a connection to
	Conns          int `json:"conns"`            // connections, strangers' included
	Strangers      int `json:"strangers"`        // connections of strangers
	DHT            int `json:"dht"`              // members in the DHT's table
	TrustedOnFaith int `json:"trusted_on_faith"` // nodes trusted by [Host.Trust]

	StrangersSeen   uint64 `json:"strangers_seen"`   // connections from those who were not members
	StrangersClosed uint64 `json:"strangers_closed"` // that outstayed their grace or were too many
	RefusedIn       uint64 `json:"refused_in"`       // streams that others may not open
	RefusedOut      uint64 `json:"refused_out"`      // streams and connections that this node may not open
	Joined          uint64 `json:"joined"`           // strangers this node let in
	JoinsRefused    uint64 `json:"joins_refused"`
	AdvertsHeard    uint64 `json:"adverts_heard"`
	AdvertsRefused  uint64 `json:"adverts_refused"` // forged, malformed, or of a stranger
	HungUp          uint64 `json:"hung_up"`         // nodes disconnected for silence or by Drop
}

// Stats says what is so now and what has happened since Open.
func (h *Host) Stats() Stats {
	seen, closed, here := h.strangers.counts()
	return Stats{
		Connected:       len(h.peers()),
		Conns:           len(h.guard.Network().Conns()),
		Strangers:       here,
		DHT:             h.dht.size(),
		TrustedOnFaith:  len(h.guard.trustedPeers()),
		StrangersSeen:   seen,
		StrangersClosed: closed,
		RefusedIn:       h.guard.refusedIn.Load(),
		RefusedOut:      h.guard.refusedOut.Load(),
		Joined:          h.count.joined.Load(),
		JoinsRefused:    h.count.joinsRefused.Load(),
		AdvertsHeard:    h.count.advertsHeard.Load(),
		AdvertsRefused:  h.count.advertsRefused.Load(),
		HungUp:          h.count.hungUp.Load(),
	}
}
