package cgroup

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// kinds are the cgroups that this machine has, as pools that use only some of them.
var kinds = []string{"all", "v1", "v2"}

// open opens a pool that uses kind alone, or skips the test.
func open(t testing.TB, kind string, with ...func(*Config)) *Pool {
	t.Helper()
	cfg := Config{Dir: t.TempDir()}
	only(t, &cfg, kind)
	for _, f := range with {
		f(&cfg)
	}
	p, err := Open(cfg)
	if err != nil {
		t.Skipf("no cgroups of this kind: %v", err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			_ = p.sweep() // nothing may run on
		}
		if err := p.Close(); err != nil {
			t.Error(err)
		}
	})
	return p
}

// only hides the hierarchies of the other version.
func only(t testing.TB, cfg *Config, kind string) {
	t.Helper()
	if kind == "all" {
		return
	}
	cfg.proc = t.TempDir()
	for _, name := range []string{"mountinfo", "cgroup"} {
		data, err := os.ReadFile("/proc/self/" + name)
		if err != nil {
			t.Skip(err)
		}
		var kept []byte
		for line := range bytes.Lines(data) {
			if name == "cgroup" || bytes.Contains(line, []byte(" - cgroup2 ")) == (kind == "v2") {
				kept = append(kept, line...)
			}
		}
		if err := os.WriteFile(filepath.Join(cfg.proc, name), kept, 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

func each(t *testing.T, test func(t *testing.T, kind string)) {
	t.Parallel()
	for _, kind := range kinds {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			test(t, kind)
		})
	}
}

// start starts a shell in l. What it returns waits for its end.
func start(t testing.TB, l *Leaf, script string) (wait func() *os.ProcessState) {
	t.Helper()
	cmd := exec.Command("/bin/sh", "-c", script)
	if err := l.Start(func(attr *syscall.SysProcAttr) error {
		cmd.SysProcAttr = attr
		return cmd.Start()
	}); err != nil {
		t.Fatal(err)
	}
	return func() *os.ProcessState {
		if err := cmd.Wait(); err != nil && cmd.ProcessState == nil {
			t.Error(err)
		}
		return cmd.ProcessState
	}
}

func take(t testing.TB, p *Pool, lim Limits) *Leaf {
	t.Helper()
	if _, missing := lim.Without(p.Holds()); len(missing) > 0 {
		t.Skipf("no %q here: %v", missing, p.Absent())
	}
	l, err := p.Take(lim)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// gone lets go of p as if its process had been killed.
func gone(t *testing.T, p *Pool) {
	t.Helper()
	for _, lock := range p.locks {
		if err := lock.Close(); err != nil {
			t.Fatal(err)
		}
	}
	p.locks = nil
	p.starts.close()
}

func until(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); !ok(); {
		if time.Now().After(deadline) {
			t.Fatalf("after 10 s still not: %s", what)
		}
		syscall.Select(0, nil, nil, nil, &syscall.Timeval{Usec: 2000}) //nolint:errcheck // a short wait
	}
}

func TestNothingLeavesALeaf(t *testing.T) {
	each(t, func(t *testing.T, kind string) {
		p := open(t, kind)
		l := take(t, p, Limits{})
		// Forked twice, in sessions of their own, without an environment, and some that fork on.
		wait := start(t, l, `for i in 1 2 3; do (setsid env -i /bin/sh -c 'for i in $(seq 300); do sleep 20 & sleep 0.01; done' >/dev/null 2>&1 &); done; exit 7`)
		if code := wait().ExitCode(); code != 7 {
			t.Errorf("the program ended with %d", code)
		}
		until(t, "something runs in the leaf", func() bool { return !l.Empty() && len(procs(l.places[0].dir)) > 5 })
		pids := procs(l.places[0].dir)
		if !l.Emptied() {
			t.Fatal("the tree could not be ended")
		}
		for _, pid := range pids {
			stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
			if err == nil && !strings.Contains(string(stat), ") Z ") && bytes.Contains(stat, []byte("(sh)")) {
				t.Errorf("process %d is still there: %s", pid, stat)
			}
		}
		if err := l.Give(); err != nil {
			t.Error(err)
		}
	})
}

func TestALeafIsUsedAgain(t *testing.T) {
	each(t, func(t *testing.T, kind string) {
		p := open(t, kind)
		l := take(t, p, Limits{})
		start(t, l, "exit 0")()
		name := l.Name()
		if err := l.Give(); err != nil {
			t.Fatal(err)
		}
		again := take(t, p, Limits{})
		if again.Name() != name {
			t.Errorf("the leaf %s was not used again", name)
		}
		start(t, again, "mkdir -p "+filepath.Join(again.places[0].dir, "own")+"; exit 0")()
		dir := again.places[0].dir
		if err := again.Give(); err != nil {
			t.Error(err)
		}
		if _, err := os.Stat(dir); !errors.Is(err, fs.ErrNotExist) {
			t.Error("a leaf with cgroups of the program's own below it was kept")
		}
	})
}

func TestWhoTakesTooMuchMemoryIsKilledAndItIsSeen(t *testing.T) {
	each(t, func(t *testing.T, kind string) {
		p := open(t, kind)
		lim := Limits{Memory: 24 << 20}
		for range 2 {
			l := take(t, p, lim)
			state := start(t, l, `x=$(head -c 60000000 /dev/zero | tr '\0' x); exit 0`)()
			ws, _ := state.Sys().(syscall.WaitStatus)
			if !ws.Signaled() || ws.Signal() != syscall.SIGKILL || !l.OOM() {
				t.Errorf("it ended with %v, out of memory: %v", state, l.OOM())
			}
			if peak := l.Usage().PeakMemory; peak < 12<<20 || peak > lim.Memory {
				t.Errorf("its peak was %d MiB", peak>>20)
			}
			if err := l.Give(); err != nil {
				t.Error(err)
			}
		}
		l := take(t, p, lim)
		if state := start(t, l, "exit 0")(); !state.Success() || l.OOM() {
			t.Errorf("the next ended with %v, out of memory: %v", state, l.OOM())
		}
		if peak := l.Usage().PeakMemory; peak > 8<<20 {
			t.Errorf("the peak of the next is %d MiB", peak>>20)
		}
		if err := l.Give(); err != nil {
			t.Error(err)
		}
	})
}

func TestWhoForksTooMuchIsHeld(t *testing.T) {
	each(t, func(t *testing.T, kind string) {
		p := open(t, kind)
		l := take(t, p, Limits{Pids: 5})
		if state := start(t, l, `for i in 1 2 3 4 5 6 7 8; do sleep 100 & done; exit 0`)(); state.Success() {
			t.Error("9 processes ran where 5 may")
		}
		if n := len(procs(l.places[0].dir)); n == 0 || n > 5 {
			t.Errorf("%d processes are there", n)
		}
		if err := l.Give(); err != nil {
			t.Error(err)
		}
	})
}

func TestWhoComputesTooMuchIsHeld(t *testing.T) {
	each(t, func(t *testing.T, kind string) {
		p := open(t, kind)
		l := take(t, p, Limits{CPUs: 0.1})
		began := time.Now()
		wait := start(t, l, `i=0; while [ $i -lt 200000 ]; do i=$((i+1)); done; exit 0`)
		state := wait()
		cpu, wall := state.UserTime()+state.SystemTime(), time.Since(began)
		if cpu > 50*time.Millisecond && float64(cpu) > 0.4*float64(wall) {
			t.Errorf("it had %v of CPU in %v", cpu, wall)
		}
		if got := l.Usage().CPU; got != 0 && (got < cpu/2 || got > 3*cpu+50*time.Millisecond) {
			t.Errorf("the leaf says %v, the program %v", got, cpu)
		}
		if err := l.Give(); err != nil {
			t.Error(err)
		}
	})
}

func TestALaterLifeSweepsAndAdopts(t *testing.T) {
	each(t, func(t *testing.T, kind string) {
		p := open(t, kind)
		lost, kept := take(t, p, Limits{}), take(t, p, Limits{})
		waitLost := start(t, lost, "sleep 100")
		waitKept := start(t, kept, "while :; do sleep 0.01; done")
		gone(t, p)

		cfg := p.cfg
		cfg.Keep = []string{kept.Name()}
		next, err := Open(cfg)
		if err != nil {
			t.Fatal(err)
		}
		if ws, _ := waitLost().Sys().(syscall.WaitStatus); ws.Signal() != syscall.SIGKILL {
			t.Errorf("what nobody keeps ended with %v", ws)
		}
		if kept.Empty() {
			t.Error("what is kept was ended")
		}
		l, err := next.Adopt(kept.Name(), Limits{})
		if err != nil {
			t.Fatal(err)
		}
		if l.Empty() {
			t.Error("the adopted leaf says that it is empty")
		}
		l.Kill()
		waitKept()
		if err := l.Give(); err != nil {
			t.Error(err)
		}
		if _, err := next.Adopt("../x", Limits{}); err == nil {
			t.Error("a leaf outside of the pool was adopted")
		}
		if _, err := next.Adopt("none", Limits{}); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("a leaf that is not there: %v", err)
		}
		if err := next.Close(); err != nil {
			t.Error(err)
		}
		for _, tr := range next.trees {
			if _, err := os.Stat(tr.dir); !errors.Is(err, fs.ErrNotExist) {
				t.Errorf("%s is still there", tr.dir)
			}
		}
	})
}

func TestThePoolsOfDeadNodesGo(t *testing.T) {
	each(t, func(t *testing.T, kind string) {
		living := open(t, kind)
		dead := open(t, kind)
		gone(t, dead)
		open(t, kind)
		until(t, "the pool of a node that is gone is not there", func() bool { // another test's pool may be at it
			_, err := os.Stat(dead.trees[0].dir)
			return errors.Is(err, fs.ErrNotExist)
		})
		if _, err := os.Stat(living.trees[0].dir); err != nil {
			t.Error(err)
		}
	})
}

func TestPoolsAreOpenedSideBySide(t *testing.T) {
	each(t, func(t *testing.T, kind string) {
		open(t, kind)
		var all sync.WaitGroup
		for i := range 4 {
			cfg := Config{Dir: fmt.Sprint(t.TempDir(), i)}
			only(t, &cfg, kind)
			all.Go(func() {
				for range 10 {
					p, err := Open(cfg)
					if err != nil {
						t.Error(err)
						return
					}
					if err := p.Close(); err != nil {
						t.Error(err)
					}
				}
			})
		}
		all.Wait()
	})
}

// TestV2Delegation uses a tree of plain files in place of one of the kernel,
// which here has its controllers in v1.
func TestV2Delegation(t *testing.T) {
	t.Parallel()
	root := t.TempDir()
	mkdir := func(dir string) error {
		err := os.Mkdir(dir, 0o755)
		for name, text := range map[string]string{"cgroup.controllers": "cpu io memory pids\n", "cgroup.subtree_control": "", "cgroup.procs": "", "cgroup.events": "populated 0\n",
			"memory.max": "max\n", "memory.swap.max": "max\n", "memory.oom.group": "0\n", "memory.peak": "0\n", "memory.events": "oom_kill 0\n", "pids.max": "max\n", "cpu.max": "max 100000\n", "cpu.weight": "100\n", "cpu.stat": "usage_usec 0\n"} {
			err = errors.Join(err, os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600))
		}
		return err
	}
	own := filepath.Join(root, "labmesh.service")
	if err := mkdir(own); err != nil {
		t.Fatal(err)
	}
	p := &Pool{cfg: Config{Dir: "x", MemoryBytes: 8 << 30, CPUs: 2, mkdir: mkdir}, life: "a", absent: map[string]string{}, free: map[Limits][]*Leaf{}}
	if err := p.choose([]hierarchy{{v2: true, own: filepath.Join(own, agentName)}}); err != nil {
		t.Fatal(err)
	}
	p.reserve()
	if got := p.Holds(); !slices.Equal(got, Controllers()) {
		t.Fatalf("it holds %q: %v", got, p.Absent())
	}
	l, err := p.Take(Limits{CPUs: 0.5, Memory: 1 << 30, Pids: 10})
	if err != nil {
		t.Fatal(err)
	}
	pool := filepath.Join(own, poolName("x"))
	if e := l.Entry(); e.Dir != filepath.Join(pool, "a-1") || len(e.Tasks) > 0 {
		t.Errorf("one comes in by %+v", e)
	}
	for file, want := range map[string]string{pool + "/memory.max": fmt.Sprint(8<<30 - 8<<30/10), pool + "/cpu.weight": "200", pool + "/cgroup.subtree_control": "+cpu",
		pool + "/a-1/memory.max": "1073741824", pool + "/a-1/pids.max": "10\n", pool + "/a-1/cpu.max": "50000 100000", pool + "/a-1/memory.oom.group": "1\n"} {
		got, err := os.ReadFile(file)
		if err != nil || !strings.HasPrefix(string(got), strings.TrimSpace(want)) {
			t.Errorf("%s holds %q, want %q (%v)", file, got, want, err)
		}
	}
	for text, want := range map[string]bool{"low 0\noom 3\noom_kill 0\n": false, "oom 3\noom_kill 2\n": true} {
		if err := os.WriteFile(pool+"/a-1/memory.events", []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if l.OOM() != want {
			t.Errorf("%q means out of memory: %v", text, !want)
		}
	}
}

func TestNoCgroupsIsSaid(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	for name, text := range map[string]string{"mountinfo": "1 0 0:1 / / rw - ext4 /dev/sda rw\n", "cgroup": "0::/\n"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := Open(Config{Dir: "x", proc: dir}); err == nil || !strings.Contains(err.Error(), "no cgroups are mounted") {
		t.Error(err)
	}
}

// BenchmarkTrue starts /bin/true in leaves, and without.
func BenchmarkTrue(b *testing.B) {
	run := func(attr *syscall.SysProcAttr) error {
		p, err := os.StartProcess("/bin/true", []string{"true"}, &os.ProcAttr{Sys: attr})
		if err == nil {
			_, err = p.Wait()
		}
		return err
	}
	at2 := func(b *testing.B, one func() error) {
		var running sync.WaitGroup
		todo := make(chan struct{})
		for range 2 {
			running.Go(func() {
				for range todo {
					if err := one(); err != nil {
						b.Error(err)
					}
				}
			})
		}
		for b.Loop() {
			todo <- struct{}{}
		}
		close(todo)
		running.Wait()
		b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "programs/s")
	}
	b.Run("without", func(b *testing.B) { at2(b, func() error { return run(&syscall.SysProcAttr{}) }) })
	for _, kind := range kinds {
		for name, lim := range map[string]Limits{"": {}, "/limits": {CPUs: 2, Memory: 1 << 30, Pids: 100}} {
			b.Run(kind+name, func(b *testing.B) {
				p := open(b, kind)
				if _, missing := lim.Without(p.Holds()); len(missing) > 0 {
					b.Skip(missing)
				}
				at2(b, func() error {
					l, err := p.Take(lim)
					if err != nil {
						return err
					}
					return errors.Join(l.Start(run), l.Give())
				})
			})
		}
	}
}
