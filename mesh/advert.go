package mesh

import (
	"encoding/json"
	"time"

	"labmesh"
)

// Limits on adverts.
const (
	AdvertBytesMax = 64 << 10
	AdvertAddrsMax = 32
	LeaseMin       = 100 * time.Millisecond
	LeaseMax       = 5 * time.Minute
	textBytesMax   = 1 << 10 // each of an advert's strings
)

// decodeAdvert reads an advert that author is known to have sent, and refuses
// one that is not whole, not sane or speaks for another node. Fields that this
// build does not know are let be: a newer node may have more to say.
func decodeAdvert(data []byte, author labmesh.NodeID) (labmesh.Advert, error) {
	var a labmesh.Advert
	if len(data) > AdvertBytesMax {
		return a, labmesh.Refuse(labmesh.TooLarge, "advert: %d bytes are more than %d", len(data), AdvertBytesMax)
	}
	if err := json.Unmarshal(data, &a); err != nil {
		return labmesh.Advert{}, labmesh.Refuse(labmesh.Invalid, "advert: %v", err)
	}
	if err := checkAdvert(a, author); err != nil {
		return labmesh.Advert{}, err
	}
	return a, nil
}

// checkAdvert says what is wrong with an advert that author sent.
func checkAdvert(a labmesh.Advert, author labmesh.NodeID) error {
	switch {
	case a.Node != author:
		return labmesh.Refuse(labmesh.Denied, "advert: %s speaks for %.80q", author, a.Node)
	case a.Boot <= 0 || a.Seq == 0:
		return labmesh.Refuse(labmesh.Invalid, "advert: it has no boot or no number")
	case a.Lease < LeaseMin || a.Lease > LeaseMax:
		return labmesh.Refuse(labmesh.Invalid, "advert: a lease of %s is not between %s and %s", a.Lease, LeaseMin, LeaseMax)
	case len(a.Addrs) > AdvertAddrsMax:
		return labmesh.Refuse(labmesh.TooLarge, "advert: %d addresses are more than %d", len(a.Addrs), AdvertAddrsMax)
	}
	for _, s := range append([]string{string(a.Worker), a.API, a.Version, a.Reason}, a.Addrs...) {
		if len(s) > textBytesMax {
			return labmesh.Refuse(labmesh.TooLarge, "advert: a text of %d bytes is longer than %d", len(s), textBytesMax)
		}
	}
	return nil
}

// completeAdvert fills in what the host knows of itself.
func completeAdvert(a labmesh.Advert, self labmesh.NodeID, boot int64, seq uint64, lease time.Duration, addrs []string) labmesh.Advert {
	a.Node, a.Seq = self, seq
	if a.Boot == 0 {
		a.Boot = boot
	}
	if a.Lease == 0 {
		a.Lease = lease
	}
	if a.Addrs == nil {
		a.Addrs = addrs
	}
	return a
}
