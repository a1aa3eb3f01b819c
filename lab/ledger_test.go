package lab_test

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"labmesh"
	"labmesh/lab"
)

func TestADamagedLedgerIsSetAsideAndRebuilt(t *testing.T) {
	t.Parallel()
	m := start(t, lab.Config{Nodes: 3, Slots: 2})
	hurt := m.Followers(leader(t, m))[0]
	var ids []labmesh.TaskID
	work := func(n *lab.Node) {
		t.Helper()
		specs := load(t, 20)
		for i := range specs {
			specs[i] = on(n, specs[i])
		}
		more := submit(t, n, specs...)
		if err := n.Client().Wait(within(t, 30*time.Second), more, nothing); err != nil {
			t.Fatal(err)
		}
		ids = append(ids, more...)
	}
	work(hurt)
	for _, c := range []struct {
		name   string
		damage func(path string) error
	}{
		{"overwritten", func(path string) error {
			return os.WriteFile(path, bytes.Repeat([]byte("this is no ledger "), 1000), 0o644)
		}},
		{"truncated", func(path string) error { return os.Truncate(path, 5000) }},
		{"its log overwritten", func(path string) error {
			return os.WriteFile(path+".wal", bytes.Repeat([]byte{0xa5, 0, 0x17}, 5000), 0o644)
		}},
		{"gone", os.Remove},
	} {
		t.Run(c.name, func(t *testing.T) {
			if err := m.Identical(within(t, 30*time.Second)); err != nil {
				t.Fatal(err)
			}
			if err := hurt.Stop(); err != nil {
				t.Fatal(err)
			}
			if err := c.damage(hurt.Ledger()); err != nil {
				t.Fatal(err)
			}
			work(m.Running()[0]) // and it has missed something
			if err := hurt.Start(t.Context()); err != nil {
				t.Fatal(err)
			}
			if err := m.Identical(within(t, 30*time.Second)); err != nil {
				t.Fatal(err)
			}
			tally, err := hurt.Tally(t.Context(), ids)
			if err != nil || !tally.OK() {
				t.Errorf("%s, %v", tally, err)
			}
		})
	}
	aside, err := filepath.Glob(hurt.Ledger() + "*")
	if err != nil || len(aside) < 3 || !strings.Contains(hurt.Log(), "ledger") {
		t.Errorf("nothing was set aside, or nobody was told: %q, %v", aside, err)
	}
}
