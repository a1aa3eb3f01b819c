package consensus

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/raft"

	"labmesh"
)

// badDisk refuses writes once it is broken, and is fine again after the first
// refusal, as a disk is whose failed fsync is asked for a second time.
type badDisk struct {
	entryStore
	broken chan struct{} // one refusal for each element
}

var errDisk = errors.New("input/output error")

func (d badDisk) refuse() error {
	select {
	case <-d.broken:
		return errDisk
	default:
		return nil
	}
}

func (d badDisk) StoreLogs(l []*raft.Log) error {
	if err := d.refuse(); err != nil {
		return err
	}
	return d.entryStore.StoreLogs(l)
}

func (d badDisk) SetUint64(key []byte, val uint64) error {
	if err := d.refuse(); err != nil {
		return err
	}
	return d.entryStore.SetUint64(key, val)
}

// badDisks are the disks of a group.
type badDisks map[labmesh.NodeID]badDisk

func (d badDisks) fit(c *Config) {
	d[c.ID] = badDisk{c.Memory.log, make(chan struct{}, 1)}
	c.Memory.log = d[c.ID]
}

func TestADiskThatRefusedAWriteIsWrittenNoMore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		disks := badDisks{}
		g := startGroup(t, 3, disks.fit)
		leader := g.leader(t, "")
		disks[leader.cfg.ID].broken <- struct{}{}
		_, err := leader.ProposeHere(t.Context(), submit("unwritten"))
		if labmesh.ReasonOf(err) != labmesh.Unavailable {
			t.Errorf("propose: %v", err)
		}
		err = <-leader.ended
		if !errors.Is(err, errDisk) || !strings.Contains(err.Error(), "write log") {
			t.Errorf("the replica ended with: %v", err)
		}
		if err := leader.storage.StoreLogs(nil); !errors.Is(err, errDisk) {
			t.Errorf("a second write: %v", err)
		}
		if err := leader.Close(); err != nil {
			t.Error(err)
		}
		delete(g.replicas, leader.cfg.ID)
		if _, err := g.leader(t, "").Propose(t.Context(), submit("elsewhere")); err != nil {
			t.Errorf("the others: %v", err)
		}
		g.haltAll(t)
	})
}

func TestATermThatCannotBeWrittenStopsTheReplicaWithoutAPanic(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		disks := badDisks{}
		g := startGroup(t, 3, disks.fit)
		f := g.follower(t)
		disks[f.cfg.ID].broken <- struct{}{}
		if err := g.leader(t, "").TransferLeadership(t.Context()); err != nil { // a new term for all
			t.Logf("the term may be all that came of it: %v", err)
		}
		err := <-f.ended
		if !errors.Is(err, errDisk) {
			t.Errorf("the replica ended with: %v", err)
		}
		if err := f.Close(); err != nil {
			t.Error(err)
		}
		delete(g.replicas, f.cfg.ID)
		g.haltAll(t)
	})
}

func TestTheLogIsOnDisk(t *testing.T) {
	t.Parallel()
	dirs := map[labmesh.NodeID]string{}
	tcp := onDisk(t)
	g := newGroup(func(c *Config) {
		tcp(c)
		if dirs[c.ID] == "" {
			dirs[c.ID] = c.Dir
		}
		c.Dir = dirs[c.ID]
	})
	r := g.start(t, name(0), true)
	rc, err := r.Propose(t.Context(), submit("kept"))
	if err != nil {
		t.Fatal(err)
	}
	g.halt(t, name(0))
	<-r.ended
	if _, err := os.Stat(filepath.Join(dirs[name(0)], "raft", metaName)); err != nil {
		t.Error(err)
	}
	r = g.start(t, name(0), false)
	defer g.haltAll(t)
	if err := r.Await(t.Context(), rc.Index); err != nil {
		t.Fatal(err)
	}
	if !r.View().Known("kept") {
		t.Error("it was forgotten")
	}
}

func TestOpenSaysWhatIsMissing(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	net := newMemnet()
	full := Config{ID: "a", Dir: file, Raft: net.streams("a", "raft"), Forward: net.streams("a", "forward"),
		Ledger: discard{}, Logger: logger()}
	for want, change := range map[string]func(*Config){
		"no id":           func(c *Config) { c.ID = "" },
		"no directory":    func(c *Config) { c.Dir = "" },
		"no streams":      func(c *Config) { c.Forward = nil },
		"no ledger":       func(c *Config) { c.Ledger = nil },
		"no logger":       func(c *Config) { c.Logger = nil },
		"not a directory": func(*Config) {},
	} {
		cfg := full
		change(&cfg)
		if _, err := Open(t.Context(), cfg); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", want, err)
		}
	}
}

func TestCloseWithoutRunReleasesAll(t *testing.T) {
	t.Parallel()
	net := newMemnet()
	r, err := Open(t.Context(), Config{ID: "a", Dir: t.TempDir(), Raft: net.streams("a", "raft"),
		Forward: net.streams("a", "forward"), Ledger: discard{}, Logger: logger()})
	if err != nil {
		t.Fatal(err)
	}
	if s := r.Status(); s.Role != "stopped" {
		t.Errorf("role %s", s.Role)
	}
	for range 2 {
		if err := r.Close(); err != nil {
			t.Error(err)
		}
	}
	begun := time.Now()
	if _, err := r.Propose(t.Context(), submit("a")); labmesh.ReasonOf(err) != labmesh.Unavailable {
		t.Errorf("propose at a closed replica: %v", err)
	}
	if time.Since(begun) > time.Second {
		t.Error("a closed replica waited for a leader")
	}
}
