package exec_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"labmesh"
	"labmesh/exec"
	"labmesh/exec/exectest"
)

// runnerFunc is a runner.
type runnerFunc func(context.Context, exec.Attempt) labmesh.Outcome

func (f runnerFunc) Run(ctx context.Context, a exec.Attempt) labmesh.Outcome { return f(ctx, a) }

// work starts a worker in dir that runs attempts by run. It ends with the test.
func work(t *testing.T, cfg exec.Config, run runnerFunc) *exectest.Desk {
	t.Helper()
	desk := &exectest.Desk{}
	cfg.Worker, cfg.Desk, cfg.Runners = "w", desk, map[labmesh.Kind]exec.Runner{labmesh.Custom: run}
	w, err := exec.Open(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	done := make(chan error, 1)
	go func() { done <- w.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := errors.Join(<-done, w.Close()); err != nil {
			t.Error(err)
		}
	})
	return desk
}

func limited(id string, diskGB float64) labmesh.Task {
	return labmesh.Task{ID: labmesh.TaskID(id), Attempt: 1, Phase: labmesh.Assigned,
		Spec: labmesh.Spec{Kind: labmesh.Custom, Limits: &labmesh.Limits{DiskGB: diskGB}}}
}

func await(t *testing.T, d *exectest.Desk, id string) labmesh.Outcome {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	o, err := d.Await(ctx, labmesh.TaskID(id))
	if err != nil {
		t.Fatal(err)
	}
	return o
}

func TestWhoTakesTooMuchDiskIsStopped(t *testing.T) {
	t.Parallel()
	const limitGB = 4.0 / 1024
	desk := work(t, exec.Config{Dir: t.TempDir(), Slots: 2}, func(ctx context.Context, a exec.Attempt) labmesh.Outcome {
		if a.Task.ID == "sparse" { // holes and second names take nothing
			deep := filepath.Join(a.Work(), "a", "b")
			file := filepath.Join(deep, "file")
			err := errors.Join(os.MkdirAll(deep, 0o700), os.WriteFile(file, make([]byte, 3<<20), 0o600), os.Link(file, file+"2"), os.Truncate(file, 1<<40), os.Symlink("/", filepath.Join(deep, "all")))
			if err != nil {
				return labmesh.Outcome{Error: err.Error()}
			}
			select {
			case <-ctx.Done():
			case <-time.After(2500 * time.Millisecond): // longer than between two looks
				return labmesh.Outcome{OK: true}
			}
			return labmesh.Outcome{}
		}
		for i := 0; ctx.Err() == nil; i++ {
			if err := os.WriteFile(filepath.Join(a.Tmp(), fmt.Sprint(i)), make([]byte, 1<<20), 0o600); err != nil {
				return labmesh.Outcome{Error: err.Error()}
			}
			select {
			case <-ctx.Done():
			case <-time.After(10 * time.Millisecond):
			}
		}
		return labmesh.Outcome{}
	})
	desk.Put(limited("greedy", limitGB))
	desk.Put(limited("sparse", limitGB))
	if o := await(t, desk, "greedy"); o.Cause != labmesh.CauseQuota || !strings.Contains(o.Error, "limits.disk_gb") {
		t.Errorf("%+v", o)
	}
	if o := await(t, desk, "sparse"); !o.OK {
		t.Errorf("%+v", o)
	}
}

// smallDisk mounts a disk of so many bytes, or skips the test.
func smallDisk(t *testing.T, bytes int) string {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("only root can mount a small disk")
	}
	dir := t.TempDir()
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, fmt.Sprintf("size=%d", bytes)); err != nil {
		t.Skip(err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(dir, 0); err != nil {
			t.Error(err)
		}
	})
	return dir
}

func TestAFullDiskIsNobodysFaultButHisWhoFilledIt(t *testing.T) {
	t.Parallel()
	dir := smallDisk(t, 16<<20)
	ballast := filepath.Join(dir, "..", filepath.Base(dir), "ballast")
	desk := work(t, exec.Config{Dir: filepath.Join(dir, "attempts"), Floor: 4 << 20}, func(_ context.Context, a exec.Attempt) labmesh.Outcome {
		file := ballast
		if a.Task.ID == "filler" {
			file = filepath.Join(a.Work(), "much")
		}
		if err := os.WriteFile(file, make([]byte, 13<<20), 0o600); err != nil {
			return labmesh.Outcome{Error: err.Error()}
		}
		return labmesh.Outcome{Cause: labmesh.CauseExit, Error: "the program ended with exit code 1"}
	})
	desk.Put(limited("victim", 0))
	if o := await(t, desk, "victim"); o.Cause != labmesh.CauseDisk || !strings.Contains(o.Error, "exit code 1") || !strings.Contains(o.Error, "KiB left") {
		t.Errorf("%+v", o)
	}
	if err := os.Remove(ballast); err != nil {
		t.Fatal(err)
	}
	desk.Put(limited("filler", 0))
	if o := await(t, desk, "filler"); o.Cause != labmesh.CauseQuota || !strings.Contains(o.Error, "filled the disk") {
		t.Errorf("%+v", o)
	}
}

func TestAFullDiskIsSweptAtOnce(t *testing.T) {
	t.Parallel()
	dir := smallDisk(t, 32<<20)
	attempts := filepath.Join(dir, "attempts")
	desk := work(t, exec.Config{Dir: attempts, Floor: 8 << 20}, func(_ context.Context, a exec.Attempt) labmesh.Outcome {
		return labmesh.Outcome{OK: true}
	})
	old := func(i int) string { return filepath.Join(attempts, fmt.Sprintf("old%d", i), "1") }
	for i := range 6 {
		at := time.Now().Add(time.Duration(i-10) * time.Minute)
		if err := errors.Join(os.MkdirAll(old(i), 0o700), os.WriteFile(filepath.Join(old(i), "stdout"), make([]byte, 2<<20), 0o600), os.Chtimes(old(i), at, at)); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(dir, "ballast"), make([]byte, 13<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(15 * time.Second); ; <-time.After(20 * time.Millisecond) {
		if _, err := os.Stat(old(1)); errors.Is(err, os.ErrNotExist) {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("nothing was swept within 15 s")
		}
	}
	desk.Put(limited("next", 0))
	if o := await(t, desk, "next"); !o.OK {
		t.Errorf("%+v", o)
	}
	if _, err := os.Stat(old(5)); err != nil {
		t.Errorf("more was swept than had to be: %v", err)
	}
}
