package mesh

import (
	"maps"
	"slices"
	"time"

	"labmesh"
)

// Heard is the last word of a node and how long it holds, both by the clock of
// the one who heard it.
type Heard struct {
	Advert  labmesh.Advert
	At      time.Time
	Expires time.Time
}

// stamp orders the adverts of one node.
type stamp struct {
	boot int64
	seq  uint64
}

func (s stamp) before(t stamp) bool {
	return s.boot < t.boot || s.boot == t.boot && s.seq < t.seq
}

// Roster holds the last word of every node until its lease runs out. It reads
// no clock and is not safe for concurrent use. The zero value is empty.
type Roster struct {
	heard map[labmesh.NodeID]Heard
	last  map[labmesh.NodeID]stamp // outlives the lease: an old advert stays old
}

// Hear takes in an advert that arrived at now. It is taken only when it is newer
// than what was heard of the node before. News says whether it tells more than
// that the node is still there, with other metrics.
func (r *Roster) Hear(a labmesh.Advert, now time.Time) (taken, news bool) {
	s := stamp{a.Boot, a.Seq}
	if last, ok := r.last[a.Node]; ok && !last.before(s) {
		return false, false
	}
	if r.heard == nil {
		r.heard = map[labmesh.NodeID]Heard{}
		r.last = map[labmesh.NodeID]stamp{}
	}
	old, there := r.heard[a.Node]
	r.last[a.Node] = s
	r.heard[a.Node] = Heard{Advert: a, At: now, Expires: now.Add(a.Lease)}
	return true, !there || !now.Before(old.Expires) || differs(old.Advert, a)
}

// differs says whether b tells more than a beyond metrics.
func differs(a, b labmesh.Advert) bool {
	return a.Boot != b.Boot || a.Worker != b.Worker || a.API != b.API ||
		a.Version != b.Version || a.Feature != b.Feature ||
		a.Accepts != b.Accepts || a.Reason != b.Reason || !slices.Equal(a.Addrs, b.Addrs)
}

// Expire forgets the words whose lease has run out and names their nodes.
func (r *Roster) Expire(now time.Time) []labmesh.NodeID {
	var gone []labmesh.NodeID
	for node, h := range r.heard {
		if !now.Before(h.Expires) {
			gone = append(gone, node)
			delete(r.heard, node)
		}
	}
	slices.Sort(gone)
	return gone
}

// Forget drops all that was heard of a node, its place in the order included.
func (r *Roster) Forget(node labmesh.NodeID) {
	delete(r.heard, node)
	delete(r.last, node)
}

// Alive says whether the node's word still holds.
func (r *Roster) Alive(node labmesh.NodeID, now time.Time) bool {
	h, ok := r.heard[node]
	return ok && now.Before(h.Expires)
}

// NextExpiry is when the next lease runs out, and false when there is none.
func (r *Roster) NextExpiry() (time.Time, bool) {
	var next time.Time
	for _, h := range r.heard {
		if next.IsZero() || h.Expires.Before(next) {
			next = h.Expires
		}
	}
	return next, !next.IsZero()
}

// Snapshot is a copy of what is held.
func (r *Roster) Snapshot() map[labmesh.NodeID]Heard {
	if r.heard == nil {
		return map[labmesh.NodeID]Heard{}
	}
	return maps.Clone(r.heard)
}
