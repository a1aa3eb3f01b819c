package consensus

import (
	"cmp"
	"slices"
	"time"

	"labmesh"
)

// Limits of the membership policy.
const (
	DeadAfter       = 60 * time.Second // silence after which a voter is replaced
	LearnerGone     = 24 * time.Hour   // silence after which a learner is dropped
	StableAfter     = 5 * time.Second  // how long a learner has been heard before it may vote
	MaxReplicas     = 7                // replicas at most, unless told otherwise
	votersSmall     = 3
	votersLarge     = 5
	aliveWithin     = 3 * time.Second // silence that counts as none
	CaughtUpEntries = 1024            // a replica that lacks fewer entries than this is caught up
)

// Heard is what the leader has heard of a node.
type Heard struct {
	Since    time.Time // since when it has been heard without a gap
	Last     time.Time // when it was last heard
	CaughtUp bool      // its log lacks little of the leader's
}

// MembershipInput is what the policy goes by.
type MembershipInput struct {
	Self    labmesh.NodeID // the leader, which decides
	Servers []Server       // the raft configuration
	Members []labmesh.Member
	Heard   map[labmesh.NodeID]Heard
	Now     time.Time
	// Zones says where nodes are, of those of whom it is known: what one mishap may
	// take down together, such as a rack or a room. Voters are spread over them.
	Zones map[labmesh.NodeID]string
	// Leaves are nodes that want no copy of the log.
	Leaves map[labmesh.NodeID]bool

	MaxReplicas int           // 0 means MaxReplicas
	DeadAfter   time.Duration // 0 means DeadAfter
}

// Step is one kind of change of the configuration.
type Step string

// The steps.
const (
	AddLearner Step = "add_learner"
	Promote    Step = "promote"
	Demote     Step = "demote"
	Remove     Step = "remove"
)

// Change is one step, and why it is taken.
type Change struct {
	Do   Step           `json:"do"`
	Node labmesh.NodeID `json:"node_id"`
	Why  string         `json:"why"`
}

// PlanMembership decides what to change about who holds the log and who votes:
// at most one change, the most urgent one. Carry it out and ask again.
//
// The aim is an odd number of voters that are alive: 1 while fewer than three
// replicas can vote, 3 with three or four, 5 with five and more. A voter that
// has been silent for DeadAfter is replaced: a learner is promoted first, then
// the dead one leaves; with nobody to follow it stays, unless it is one of five
// and three are left. No change is made after which fewer than a majority of
// the voters would be alive, if a majority is alive before it.
//
// Nodes that may vote are members with the role node; other members become
// learners at most, while there is room under MaxReplicas. The leader never
// removes or demotes itself.
//
// Of those who could be promoted, one in the zone with the fewest voters is; of voters too
// many one in the zone with the most goes. A sound mesh with two voters in one zone, and a
// replica that could vote in a zone with at least two fewer, exchanges one for the other.
func PlanMembership(in MembershipInput) []Change {
	p := newPlanner(in)
	for _, rule := range []func() *Change{
		p.expel, p.admitVoter, p.retireVoter, p.spreadVoters, p.dropLearner, p.addLearner,
	} {
		if c := rule(); c != nil {
			return []Change{*c}
		}
	}
	return nil
}

// planner is the input, sorted out.
type planner struct {
	in       MembershipInput
	members  map[labmesh.NodeID]labmesh.Member
	voters   []labmesh.NodeID
	learners []labmesh.NodeID
	want     int // voters to have
}

func newPlanner(in MembershipInput) *planner {
	if in.MaxReplicas == 0 {
		in.MaxReplicas = MaxReplicas
	}
	if in.DeadAfter == 0 {
		in.DeadAfter = DeadAfter
	}
	p := &planner{in: in, members: map[labmesh.NodeID]labmesh.Member{}}
	for _, m := range in.Members {
		p.members[m.Node] = m
	}
	healthy, dead := 0, 0 // replicas that could vote, and voters that are dead
	for _, s := range in.Servers {
		if s.Voter {
			p.voters = append(p.voters, s.ID)
		} else {
			p.learners = append(p.learners, s.ID)
		}
		switch {
		case s.Voter && p.eligible(s.ID) && p.dead(s.ID):
			dead++
		case s.Voter && p.eligible(s.ID), p.ready(s.ID):
			healthy++
		}
	}
	slices.Sort(p.voters)
	p.want = votersFor(min(healthy, in.MaxReplicas))
	if healthy+dead >= votersSmall {
		// Two that are left of three go on as a majority of three: with one
		// voter what is acknowledged would be on one disk.
		p.want = max(p.want, votersSmall)
	}
	return p
}

// votersFor is how many of n replicas vote.
func votersFor(n int) int {
	switch {
	case n >= votersLarge:
		return votersLarge
	case n >= votersSmall:
		return votersSmall
	}
	return 1
}

func (p *planner) banned(id labmesh.NodeID) bool { return p.members[id].Banned }

// eligible tells whether a node may vote at all.
func (p *planner) eligible(id labmesh.NodeID) bool {
	m, ok := p.members[id]
	return ok && !m.Banned && m.Role == labmesh.RoleNode
}

// silence is how long a node has not been heard; that of the leader is 0, and
// that of a node never heard is longer than any limit.
func (p *planner) silence(id labmesh.NodeID) time.Duration {
	h, ok := p.in.Heard[id]
	switch {
	case id == p.in.Self:
		return 0
	case !ok:
		return 1<<63 - 1
	}
	return p.in.Now.Sub(h.Last)
}

func (p *planner) alive(id labmesh.NodeID) bool { return p.silence(id) <= aliveWithin }
func (p *planner) dead(id labmesh.NodeID) bool  { return p.silence(id) > p.in.DeadAfter }

// ready tells whether a node could vote at once and be relied on.
func (p *planner) ready(id labmesh.NodeID) bool {
	h := p.in.Heard[id]
	return p.eligible(id) && p.alive(id) && (id == p.in.Self ||
		h.CaughtUp && p.in.Now.Sub(h.Since) >= StableAfter)
}

// holds tells whether the voters, with one more or one fewer, have a majority
// alive. What has none anyway may be changed: it cannot get worse, and raft
// will not commit it.
func (p *planner) holds(without, with labmesh.NodeID) bool {
	voters, alive := 0, 0
	for _, id := range p.voters {
		if id == without {
			continue
		}
		voters++
		if p.alive(id) {
			alive++
		}
	}
	if with != "" {
		voters++
		if p.alive(with) {
			alive++
		}
	}
	return voters > 0 && 2*alive > voters
}

// expel removes replicas whose nodes are banned, or are members no more.
func (p *planner) expel() *Change {
	for _, id := range p.learners {
		if p.banned(id) {
			return &Change{Remove, id, "banned"}
		}
	}
	for _, id := range p.voters {
		if p.banned(id) && id != p.in.Self && p.holds(id, "") {
			return &Change{Remove, id, "banned"}
		}
	}
	return nil
}

// admitVoter promotes a learner where one is wanted: to reach the number
// wanted, or to take the place of a dead voter. The number of voters becomes
// even for the moment between two changes only: either the second one is at
// hand, or a dead voter leaves next.
func (p *planner) admitVoter() *Change {
	var sound, dead int
	for _, id := range p.voters {
		if p.dead(id) || !p.eligible(id) {
			dead++
		} else {
			sound++
		}
	}
	ready := p.candidates()
	missing := p.want - sound
	if missing <= 0 || len(ready) == 0 {
		return nil
	}
	if dead == 0 && len(p.voters)%2 == 1 && len(ready) < 2 {
		return nil // alone it would make the number even
	}
	id := ready[0]
	if !p.holds("", id) {
		return nil
	}
	why := "to reach the number of voters wanted"
	if dead > 0 {
		why = "to take the place of a voter that is dead or may not vote"
	}
	return &Change{Promote, id, why}
}

// candidates are the learners that could vote at once: those in the zones with
// the fewest voters first, and of these the steadiest.
func (p *planner) candidates() (ready []labmesh.NodeID) {
	for _, id := range p.learners {
		if p.ready(id) {
			ready = append(ready, id)
		}
	}
	slices.SortFunc(ready, func(a, b labmesh.NodeID) int {
		return cmp.Or(cmp.Compare(p.crowd(a), p.crowd(b)), p.steadier(a, b))
	})
	return ready
}

// crowd is how many voters, not dead ones, are in the zone of a node, the node itself
// included if it votes. A node of which no zone is known is in one of its own.
func (p *planner) crowd(id labmesh.NodeID) (n int) {
	zone := p.in.Zones[id]
	for _, v := range p.voters {
		if v == id || zone != "" && p.in.Zones[v] == zone && !p.dead(v) {
			n++
		}
	}
	return n
}

// spreadVoters promotes a learner of a zone with fewer voters than another has. Then
// there is a voter too many, and retireVoter takes the vote from one in the zone with the most.
func (p *planner) spreadVoters() *Change {
	if len(p.voters) != p.want || p.want < votersSmall || !p.each(p.voters, p.alive) {
		return nil
	}
	ready := p.candidates()
	if len(ready) == 0 {
		return nil
	}
	most := 0
	for _, v := range p.voters {
		most = max(most, p.crowd(v))
	}
	if id := ready[0]; p.in.Zones[id] != "" && p.crowd(id)+1 < most && p.holds("", id) {
		return &Change{Promote, id, "to spread the voters over zones"}
	}
	return nil
}

func (p *planner) each(ids []labmesh.NodeID, is func(labmesh.NodeID) bool) bool {
	return !slices.ContainsFunc(ids, func(id labmesh.NodeID) bool { return !is(id) })
}

// steadier orders nodes by how long they have been there.
func (p *planner) steadier(a, b labmesh.NodeID) int {
	return cmp.Or(p.in.Heard[a].Since.Compare(p.in.Heard[b].Since), cmp.Compare(a, b))
}

// retireVoter takes the vote from a voter too many: from one that is dead or
// may not vote, and from a live one when there are more than wanted.
func (p *planner) retireVoter() *Change {
	surplus := len(p.voters) - p.want
	if surplus <= 0 {
		return nil
	}
	for _, id := range p.voters {
		if id == p.in.Self || !p.holds(id, "") {
			continue
		}
		if p.dead(id) {
			return &Change{Remove, id, "dead, and replaced or not needed"}
		}
		if !p.eligible(id) {
			return &Change{Demote, id, "it may not vote"}
		}
	}
	dearest := slices.Clone(p.voters)
	slices.SortFunc(dearest, func(a, b labmesh.NodeID) int {
		return cmp.Or(cmp.Compare(p.crowd(b), p.crowd(a)), p.steadier(b, a))
	})
	for _, id := range dearest {
		if id != p.in.Self && p.alive(id) && p.holds(id, "") {
			return &Change{Demote, id, "more voters than wanted"}
		}
	}
	return nil
}

// dropLearner forgets learners that are gone for good.
func (p *planner) dropLearner() *Change {
	for _, id := range p.learners {
		if _, ok := p.in.Heard[id]; ok && p.silence(id) > LearnerGone {
			return &Change{Remove, id, "gone"}
		}
	}
	return nil
}

// addLearner gives the log to a member that is there, does not have it and is no leaf.
// Those that may vote come first.
func (p *planner) addLearner() *Change {
	if len(p.in.Servers) >= p.in.MaxReplicas {
		return nil
	}
	var out []labmesh.NodeID
	for id, m := range p.members {
		replica := slices.ContainsFunc(p.in.Servers, func(s Server) bool { return s.ID == id })
		if !replica && !m.Banned && !p.in.Leaves[id] && p.alive(id) {
			out = append(out, id)
		}
	}
	if len(out) == 0 {
		return nil
	}
	id := slices.MinFunc(out, func(a, b labmesh.NodeID) int {
		if p.eligible(a) != p.eligible(b) {
			if p.eligible(a) {
				return -1
			}
			return 1
		}
		return p.steadier(a, b)
	})
	return &Change{AddLearner, id, "a member without the log"}
}
