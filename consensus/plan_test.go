package consensus

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"labmesh"
)

var planNow = time.Date(2030, 1, 1, 12, 0, 0, 0, time.UTC)

// situation reads a mesh from a line: each word is a node's name, then letters:
// V voter, L learner, - no replica; d silent for 2 minutes, s silent for 30
// seconds, n heard for a second only, b behind, w worker, f leaf, x banned, a digit its zone.
func situation(line string) MembershipInput {
	in := MembershipInput{Self: "a", Now: planNow, Heard: map[labmesh.NodeID]Heard{}, Zones: map[labmesh.NodeID]string{}, Leaves: map[labmesh.NodeID]bool{}}
	for i, word := range strings.Fields(line) {
		id := labmesh.NodeID(word[:1])
		m := labmesh.Member{Node: id, Role: labmesh.RoleNode}
		h := Heard{Since: planNow.Add(time.Duration(i-100) * time.Minute), Last: planNow, CaughtUp: true}
		for _, letter := range word[1:] {
			switch letter {
			case 'V', 'L':
				in.Servers = append(in.Servers, Server{ID: id, Voter: letter == 'V'})
			case 'd':
				h.Last = planNow.Add(-2 * time.Minute)
			case 's':
				h.Last = planNow.Add(-30 * time.Second)
			case 'n':
				h.Since = planNow.Add(-time.Second)
			case 'b':
				h.CaughtUp = false
			case 'w':
				m.Role = labmesh.RoleWorker
			case 'f':
				in.Leaves[id] = true
			case 'x':
				m.Banned = true
			case '1', '2', '3':
				in.Zones[id] = string(letter)
			}
		}
		in.Members = append(in.Members, m)
		in.Heard[id] = h
	}
	return in
}

func TestPlanMembership(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ name, mesh, want string }{
		{"one node", "aV", ""},
		{"a second node gets the log", "aV b-", "add_learner b"},
		{"two nodes: one voter, one learner", "aV bL", ""},
		{"a leaf does not get the log", "aV b-f", ""},
		{"the one that is no leaf gets it", "aV b-f c-", "add_learner c"},
		{"a third gets the log", "aV bL c-", "add_learner c"},
		{"three can vote: the first of two", "aV bL cL", "promote b"},
		{"three can vote: the second", "aV bV cL", "promote c"},
		{"not while one is behind", "aV bL cLb", ""},
		{"nor while one is new", "aV bL cLn", ""},
		{"three voters", "aV bV cV", ""},
		{"a fourth learns", "aV bV cV dL", ""},
		{"five can vote", "aV bV cV dL eL", "promote d"},
		{"five vote", "aV bV cV dV eL", "promote e"},
		{"a sixth learns", "aV bV cV dV eV fL", ""},
		{"workers never vote", "aV bLw cLw", ""},
		{"voters come first", "aV b-w c-", "add_learner c"},
		{"a silent voter is waited for", "aV bV cVs dL", ""},
		{"a dead voter: its heir first", "aV bV cVd dL", "promote d"},
		{"a dead voter: then it goes", "aV bV cVd dV", "remove c"},
		{"a dead voter and nobody to follow", "aV bV cVd", ""},
		{"three left of five: the dead go", "aV bV cV dVd eVd", "remove d"},
		{"three left of five: the other, too", "aV bV cV eVd", "remove e"},
		{"one of three is banned: one voter is left", "aV bV cVx", "remove c"},
		{"of two voters one goes", "aV bV", "demote b"},
		{"no majority: nothing can be done", "aV bVd cVd dL", ""},
		{"a banned voter goes at once", "aV bV cVx dL", "remove c"},
		{"unless it takes the majority along", "aV bVs cVx", ""},
		{"a banned learner goes at once", "aV bLx", "remove b"},
		{"a banned node gets nothing", "aV b-x", ""},
		{"another zone votes first", "aV1 bL1 cL2 dL3", "promote c"},
		{"and then the third", "aV1 bL1 cV2 dL3", "promote d"},
		{"two voters in one zone, and nobody elsewhere", "aV1 bV1 cV2 dL2", ""},
		{"two voters in one zone, and one elsewhere", "aV1 bV1 cV2 dL3", "promote d"},
		{"then the newest of the crowded zone goes", "aV1 bV1 cV2 dV3", "demote b"},
		{"the leader stays where it is crowded", "bV1 aV1 cV2 dV3", "demote b"},
		{"no exchange while a voter is silent", "aV1 bV1 cV2s dL3", ""},
		{"an unknown zone is no reason", "aV1 bV1 cV2 dL", ""},
		{"a dead node gets nothing", "aV b-d", ""},
		{"a dead learner is kept for a day", "aV bLd", ""},
		{"seven hold the log", "aV bV cV dV eV fL gL h-", ""},
	} {
		got := ""
		if plan := PlanMembership(situation(tt.mesh)); len(plan) == 1 {
			got = fmt.Sprintf("%s %s", plan[0].Do, plan[0].Node)
		} else if len(plan) > 1 {
			t.Errorf("%s: %d changes", tt.name, len(plan))
		}
		if got != tt.want {
			t.Errorf("%s (%s): %q, want %q", tt.name, tt.mesh, got, tt.want)
		}
	}
}

func TestALearnerLongGoneIsForgotten(t *testing.T) {
	t.Parallel()
	in := situation("aV bLd")
	in.Now = in.Now.Add(LearnerGone)
	if plan := PlanMembership(in); len(plan) != 1 || plan[0].Do != Remove || plan[0].Node != "b" {
		t.Errorf("plan: %v", plan)
	}
}

// drawMesh draws any mesh that a can lead.
func drawMesh(t *rapid.T) MembershipInput {
	var words []string
	for i := range rapid.IntRange(1, 9).Draw(t, "nodes") {
		word := string(rune('a'+i)) + rapid.SampledFrom([]string{"V", "V", "L", "-"}).Draw(t, "place")
		word += rapid.SampledFrom([]string{"", "", "d", "s", "n", "b", "w", "x", "xd"}).Draw(t, "fault")
		word += rapid.SampledFrom([]string{"", "1", "2", "3"}).Draw(t, "zone")
		if i == 0 {
			word = "aV"
		}
		words = append(words, word)
	}
	return situation(strings.Join(words, " "))
}

// carryOut is the configuration after a change.
func carryOut(in MembershipInput, c Change) MembershipInput {
	in.Servers = slices.Clone(in.Servers)
	at := slices.IndexFunc(in.Servers, func(s Server) bool { return s.ID == c.Node })
	switch c.Do {
	case AddLearner:
		in.Servers = append(in.Servers, Server{ID: c.Node})
	case Promote, Demote:
		in.Servers[at].Voter = c.Do == Promote
	case Remove:
		in.Servers = slices.Delete(in.Servers, at, at+1)
	}
	return in
}

func quorum(in MembershipInput) bool {
	voters, alive := 0, 0
	for _, s := range in.Servers {
		if s.Voter {
			voters++
			if s.ID == in.Self || in.Now.Sub(in.Heard[s.ID].Last) <= aliveWithin {
				alive++
			}
		}
	}
	return 2*alive > voters
}

func TestNoPlanLosesTheQuorum(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		in := drawMesh(t)
		had := quorum(in)
		for step := 0; ; step++ {
			plan := PlanMembership(in)
			if len(plan) == 0 {
				break
			}
			if len(plan) > 1 || step > 30 {
				t.Fatalf("step %d: %v", step, plan)
			}
			in = carryOut(in, plan[0])
			if had && !quorum(in) {
				t.Fatalf("%v loses the quorum: %v", plan[0], in.Servers)
			}
			if !slices.Contains(in.Servers, Server{ID: "a", Voter: true}) {
				t.Fatalf("%v takes the leader's own vote", plan[0])
			}
		}
		voters := 0
		for _, s := range in.Servers {
			if s.Voter {
				voters++
				m := in.Members[slices.IndexFunc(in.Members, func(m labmesh.Member) bool { return m.Node == s.ID })]
				if had && m.Banned && m.Node != "a" && quorum(carryOut(in, Change{Do: Remove, Node: s.ID})) {
					t.Fatalf("banned %s still votes: %v", s.ID, in.Servers)
				}
			}
		}
	})
}

func TestAHealthyMeshEndsWithAnOddNumberOfVoters(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		n := rapid.IntRange(1, 9).Draw(t, "nodes")
		words := []string{"aV"}
		for i := 1; i < n; i++ {
			words = append(words, string(rune('a'+i))+rapid.SampledFrom([]string{"V", "L", "-"}).Draw(t, "place")+rapid.SampledFrom([]string{"", "1", "2", "3"}).Draw(t, "zone"))
		}
		in := situation(strings.Join(words, " "))
		for range 30 {
			plan := PlanMembership(in)
			if len(plan) == 0 {
				break
			}
			in = carryOut(in, plan[0])
		}
		voters := 0
		for _, s := range in.Servers {
			if s.Voter {
				voters++
			}
		}
		if want := votersFor(n); voters != want {
			t.Fatalf("%d nodes: %d voters, want %d: %v", n, voters, want, in.Servers)
		}
	})
}
