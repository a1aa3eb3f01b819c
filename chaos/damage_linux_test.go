package chaos_test

import (
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"
	"time"

	"labmesh/chaos"
	"labmesh/lab"
)

// damages are ways in which the files of a node that is down may be spoilt.
var damages = []struct {
	name, files string
	do          func(path string, chance *rand.Rand) error
}{
	{"ledger-flipped", "ledger.duckdb", func(p string, c *rand.Rand) error { return chaos.Flip(p, c, 64) }},
	{"ledger-torn", "ledger.duckdb", chaos.Tear},
	{"ledger-wal-torn", "ledger.duckdb.wal", chaos.Tear},
	{"log-torn", "raft/*.wal", chaos.Tear},
	{"log-flipped", "raft/*.wal", func(p string, c *rand.Rand) error { return chaos.Flip(p, c, 8) }},
}

// TestADamagedDiskMakesNoNodeDiffer spoils files of a follower that was killed. It
// must come back with the same rows as the others, or refuse to start; then it is
// emptied and joins anew, as its operator would have it do.
func TestADamagedDiskMakesNoNodeDiffer(t *testing.T) {
	if testing.Short() || !*long {
		t.Skip("it is of the long form: -chaos.long")
	}
	chance := rand.New(rand.NewPCG(seed(t), 3))
	for _, d := range damages {
		t.Run(d.name, func(t *testing.T) {
			x := work(t, lab.Config{Nodes: 3, Slots: 2}, 8, 200*time.Millisecond)
			victim := x.m.Followers(leader(t, x.m))[0]
			if err := victim.Kill(); err != nil {
				t.Fatal(err)
			}
			if err := x.l.Aim(x.m.Running()); err != nil {
				t.Fatal(err)
			}
			paths, err := filepath.Glob(filepath.Join(victim.Dir, d.files))
			if err != nil || len(paths) == 0 {
				t.Skipf("the node has no %s to spoil: %v", d.files, err)
			}
			for _, p := range paths {
				if err := d.do(p, chance); err != nil {
					t.Fatal(err)
				}
			}
			if err := victim.Start(t.Context()); err != nil {
				t.Logf("it refuses: %v", err)
				replace(t, x, victim)
			} else {
				t.Log("it came back")
				x.whole()
			}
			x.done()
		})
	}
}

// replace has a node come in place of one whose disk is spoilt.
func replace(t *testing.T, x *loaded, spoilt *lab.Node) {
	t.Helper()
	if err := spoilt.EndKeeper(); err != nil {
		t.Fatal(err)
	}
	if _, err := x.m.Running()[0].Client().Ban(t.Context(), string(spoilt.Worker())); err != nil {
		t.Fatal(err)
	}
	if err := os.RemoveAll(spoilt.Dir); err != nil {
		t.Fatal(err)
	}
	if _, err := x.m.Join(t.Context()); err != nil {
		t.Fatal(err)
	}
	x.whole()
}
