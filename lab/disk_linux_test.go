package lab_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"labmesh/lab"
)

// smallDiskBytes is what a node's data dir may take in the test of a full disk.
const smallDiskBytes = 96 << 20

func TestAFullDiskLosesNothing(t *testing.T) {
	if testing.Short() {
		t.Skip("it fills a disk")
	}
	if os.Geteuid() != 0 {
		t.Skip("only root can mount a small disk")
	}
	m := start(t, lab.Config{Nodes: 2, Slots: 2})
	small := m.NewNode()
	if err := os.Mkdir(small.Dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Mount("tmpfs", small.Dir, "tmpfs", 0, fmt.Sprintf("size=%d", smallDiskBytes)); err != nil {
		t.Skipf("no small disk can be mounted: %v", err)
	}
	t.Cleanup(func() {
		if err := errors.Join(m.Close(), syscall.Unmount(small.Dir, 0)); err != nil {
			t.Error(err)
		}
	})
	if err := small.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := m.Formed(within(t, 30*time.Second)); err != nil {
		t.Fatal(err)
	}
	ids := submit(t, small, load(t, 20)...)
	ballast := filepath.Join(small.Dir, "ballast")
	fill(t, ballast)
	others := m.Nodes[:2]
	ids = append(ids, submit(t, others[0], load(t, 40)...)...)
	if err := others[1].Client().Wait(within(t, 60*time.Second), ids, nothing); err != nil {
		t.Fatal(err)
	}
	until(t, 20*time.Second, "the node says that its disk is full", func() bool {
		why := small.Log()
		if st, err := others[0].Client().Worker(t.Context(), small.Worker()); err == nil {
			why += string(st.Reason)
		}
		return strings.Contains(why, "disk") || strings.Contains(why, "no space left")
	})

	if err := os.Remove(ballast); err != nil {
		t.Fatal(err)
	}
	if !small.Running() { // a node that cannot write its log stops rather than lie
		if err := small.Start(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if err := m.Formed(within(t, 40*time.Second)); err != nil {
		t.Fatal(err)
	}
	if err := m.Identical(within(t, 40*time.Second)); err != nil {
		t.Fatal(err)
	}
	tally, err := small.Tally(t.Context(), ids, small.Worker())
	if err != nil || tally.Lost+tally.Twice+tally.Restarted > 0 {
		t.Errorf("%s, %v", tally, err)
	}
}

// fill writes a file until its disk holds no more.
func fill(t *testing.T, path string) {
	t.Helper()
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for block := make([]byte, 64<<10); ; {
		if _, err := f.Write(block); errors.Is(err, syscall.ENOSPC) {
			if len(block) == 1 {
				return
			}
			block = block[:len(block)/2]
		} else if err != nil {
			t.Fatal(err)
		}
	}
}
