package mesh

import (
	"testing"
	"time"

	"pgregory.net/rapid"

	"labmesh"
)

func TestRosterTakesOnlyNewerWords(t *testing.T) {
	t.Parallel()
	at := time.Unix(1000, 0)
	word := func(boot int64, seq uint64) labmesh.Advert {
		return labmesh.Advert{Node: "n", Boot: boot, Seq: seq, Lease: 6 * time.Second}
	}
	for _, c := range []struct {
		name         string
		first, then  labmesh.Advert
		after        time.Duration
		taken, news  bool
		stillAliveAt time.Duration
	}{
		{"the next word renews the lease", word(1, 1), word(1, 2), 2 * time.Second, true, false, 7 * time.Second},
		{"a repeat is ignored", word(1, 2), word(1, 2), 2 * time.Second, false, false, 5 * time.Second},
		{"an older word is ignored", word(1, 2), word(1, 1), 2 * time.Second, false, false, 5 * time.Second},
		{"a later boot wins with a smaller number", word(1, 9), word(2, 1), 2 * time.Second, true, true, 7 * time.Second},
		{"an earlier boot loses with a greater number", word(2, 1), word(1, 9), 2 * time.Second, false, false, 5 * time.Second},
		{"a word after the lease is news", word(1, 1), word(1, 2), 6 * time.Second, true, true, 11 * time.Second},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			var r Roster
			if taken, news := r.Hear(c.first, at); !taken || !news {
				t.Fatalf("first word: taken %v, news %v", taken, news)
			}
			taken, news := r.Hear(c.then, at.Add(c.after))
			if taken != c.taken || news != c.news {
				t.Errorf("taken %v, news %v; want %v, %v", taken, news, c.taken, c.news)
			}
			if !r.Alive("n", at.Add(c.stillAliveAt)) {
				t.Errorf("not alive after %s", c.stillAliveAt)
			}
			if r.Alive("n", at.Add(c.stillAliveAt+2*time.Second)) {
				t.Errorf("alive after %s", c.stillAliveAt+2*time.Second)
			}
		})
	}
}

func TestRosterTellsNewsFromRenewals(t *testing.T) {
	t.Parallel()
	var r Roster
	at := time.Unix(1000, 0)
	a := labmesh.Advert{Node: "n", Boot: 1, Seq: 1, Lease: time.Second, Addrs: []string{"x"}}
	r.Hear(a, at)
	a.Seq, a.Metrics.CPUPercent = 2, 50
	if _, news := r.Hear(a, at); news {
		t.Error("metrics alone are news")
	}
	a.Seq, a.Accepts = 3, true
	if _, news := r.Hear(a, at); !news {
		t.Error("that a node accepts work is no news")
	}
}

func TestRosterForgetsNoOrderWhenALeaseRunsOut(t *testing.T) {
	t.Parallel()
	var r Roster
	at := time.Unix(1000, 0)
	r.Hear(labmesh.Advert{Node: "n", Boot: 1, Seq: 5, Lease: time.Second}, at)
	if gone := r.Expire(at.Add(time.Second)); len(gone) != 1 {
		t.Fatalf("gone: %v", gone)
	}
	if taken, _ := r.Hear(labmesh.Advert{Node: "n", Boot: 1, Seq: 4, Lease: time.Second}, at.Add(2*time.Second)); taken {
		t.Error("an old word came back to life after the lease")
	}
	if len(r.Snapshot()) != 0 {
		t.Error("the roster holds a word whose lease ran out")
	}
}

// Whatever the order in which words arrive, the roster ends with the newest, and
// what it holds is what is alive.
func TestRosterEndsWithTheNewestWord(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		var r Roster
		now := time.Unix(1000, 0)
		newest := map[labmesh.NodeID]stamp{}
		for range rapid.IntRange(1, 60).Draw(t, "words") {
			now = now.Add(time.Duration(rapid.IntRange(0, 3000).Draw(t, "ms")) * time.Millisecond)
			a := labmesh.Advert{
				Node: labmesh.NodeID(rapid.SampledFrom([]string{"a", "b", "c"}).Draw(t, "node")),
				Boot: rapid.Int64Range(1, 3).Draw(t, "boot"), Seq: rapid.Uint64Range(1, 20).Draw(t, "seq"),
				Lease: time.Duration(rapid.IntRange(1, 6).Draw(t, "lease")) * time.Second,
			}
			s := stamp{a.Boot, a.Seq}
			last, known := newest[a.Node]
			taken, _ := r.Hear(a, now)
			if taken != (!known || last.before(s)) {
				t.Fatalf("word %v after %v: taken %v", s, last, taken)
			}
			if taken {
				newest[a.Node] = s
			}
			r.Expire(now)
			for node, h := range r.Snapshot() {
				if !r.Alive(node, now) || (stamp{h.Advert.Boot, h.Advert.Seq}) != newest[node] {
					t.Fatalf("%s: held %v, newest %v", node, h, newest[node])
				}
			}
			if next, ok := r.NextExpiry(); ok && !next.After(now) {
				t.Fatal("the next expiry is in the past")
			}
		}
	})
}
