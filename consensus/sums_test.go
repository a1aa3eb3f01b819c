package consensus

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/raft"

	"labmesh"
)

func TestVerdictOnAState(t *testing.T) {
	t.Parallel()
	three := []labmesh.NodeID{"a", "b", "c"}
	say := func(sums ...string) map[labmesh.NodeID]labmesh.ReportState { // "b=y", "c=z/other form"
		said := map[labmesh.NodeID]labmesh.ReportState{}
		for _, s := range sums {
			sum, form, ok := strings.Cut(s[2:], "/")
			if !ok {
				form = "f"
			}
			said[labmesh.NodeID(s[:1])] = labmesh.ReportState{Sum: []byte(sum), Form: form}
		}
		return said
	}
	for _, c := range []struct {
		name   string
		id     labmesh.NodeID
		said   map[labmesh.NodeID]labmesh.ReportState
		voters []labmesh.NodeID
		want   sumVerdict
	}{
		{"nobody has spoken", "a", say(), three, sumsOpen},
		{"one agrees", "a", say("b=x"), three, sumsAgree},
		{"one differs", "a", say("b=y"), three, sumsOpen},
		{"both others differ alike", "a", say("b=y", "c=y"), three, sumsOdd},
		{"one agrees, one differs", "a", say("b=y", "c=x"), three, sumsAgree},
		{"all differ", "a", say("b=y", "c=z"), three, sumsDiffer},
		{"others write it otherwise", "a", say("b=y/g", "c=y/g"), three, sumsOpen},
		{"a learner against the only voter", "l", say("a=y"), []labmesh.NodeID{"a"}, sumsOdd},
		{"the only voter against a learner", "a", say("l=y"), []labmesh.NodeID{"a"}, sumsAgree},
		{"a learner against one voter of three", "l", say("a=y"), three, sumsOpen},
		{"no configuration is known", "a", say("b=y"), nil, sumsOpen},
	} {
		if got := verdict(c.id, "f", []byte("x"), c.said, c.voters); got != c.want {
			t.Errorf("%s: verdict %d, want %d", c.name, got, c.want)
		}
	}
}

// spoiled changes one letter of what enters the log, as faulty memory would.
func spoiled(data []byte) []byte {
	return bytes.Replace(data, []byte(`"by":"test"`), []byte(`"by":"tesT"`), 1)
}

func TestTheReplicaWhoseStateDiffersStops(t *testing.T) {
	for _, who := range []string{"leader", "follower"} {
		t.Run(who, func(t *testing.T) {
			dirs := map[labmesh.NodeID]string{}
			for i := range 3 {
				dirs[name(i)] = t.TempDir()
			}
			synctest.Test(t, func(t *testing.T) {
				g := startGroup(t, 3, func(c *Config) { c.Dir, c.SumEvery = dirs[c.ID], 16 })
				leader := g.leader(t, "")
				if _, err := leader.Propose(t.Context(), labmesh.RaiseLevel{Level: labmesh.Feature}); err != nil {
					t.Fatal(err)
				}
				hurt := g.follower(t) // a leader applies what it proposed, not what it wrote
				propose := func(n int) {
					for i := range n {
						if _, err := g.leader(t, "").Propose(t.Context(), submit(strings.Repeat("x", i+1))); err != nil {
							t.Logf("propose: %v", err) // the leader may be the one that stops
						}
					}
					time.Sleep(3 * time.Second)
				}
				propose(40)
				for id, r := range g.replicas {
					if err := r.machine.Failure(); err != nil {
						t.Fatalf("%s: equal states are taken for different: %v", id, err)
					}
					r.machine.sums.mu.Lock()
					if own := r.machine.sums.own; len(own) == 0 || own[len(own)-1].view.Index() != 0 {
						t.Errorf("%s: the replicas have not agreed on %d marks", id, len(own))
					}
					r.machine.sums.mu.Unlock()
				}
				hurt.memory.Spoil(spoiled)
				if _, err := leader.Propose(t.Context(), submit("spoiled")); err != nil {
					t.Fatal(err)
				}
				time.Sleep(time.Second)
				hurt.memory.Spoil(nil)
				if who == "leader" {
					id := hurt.cfg.ID
					if err := leader.node.Load().LeadershipTransferToServer(raft.ServerID(id), raft.ServerAddress(id)).Error(); err != nil {
						t.Error(err)
					}
					time.Sleep(time.Second)
					if hurt.Status().Role != "leader" {
						t.Error("the one that is wrong does not lead")
					}
				}
				propose(60)
				var err error
				select {
				case err = <-hurt.ended:
				case <-time.After(time.Minute):
					t.Fatal("it goes on")
				}
				if err == nil || !strings.Contains(err.Error(), "differs") || !strings.Contains(err.Error(), "labmesh ban") {
					t.Errorf("it ended with: %v", err)
				}
				dumps, _ := filepath.Glob(filepath.Join(dirs[hurt.cfg.ID], divergedPat))
				if len(dumps) != 1 {
					t.Fatalf("dumps: %q", dumps)
				}
				if info, err := os.Stat(dumps[0]); err != nil || info.Mode().Perm() != 0o600 || info.Size() == 0 {
					t.Errorf("the dump: %v, %v", info, err)
				}
				if err := hurt.Close(); err != nil {
					t.Error(err)
				}
				if _, err := Open(t.Context(), hurt.cfg); labmesh.ReasonOf(err) != labmesh.Conflict {
					t.Errorf("it starts again: %v", err)
				}
				delete(g.replicas, hurt.cfg.ID)
				if _, err := g.leader(t, "").Propose(t.Context(), submit("others")); err != nil {
					t.Errorf("the others: %v", err)
				}
				g.haltAll(t)
			})
		})
	}
}
