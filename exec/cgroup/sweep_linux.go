package cgroup

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

const (
	freezeWait = 100 * time.Millisecond // for a tree to stand still
	freezePoll = time.Millisecond
)

// Adopt takes a leaf of an earlier life, which Open was told to keep, with
// whoever is in it. lim are the limits that it was made with.
func (p *Pool) Adopt(name string, lim Limits) (*Leaf, error) {
	if !plainName(name) {
		return nil, fmt.Errorf("adopt the cgroup %q: that is no name of one", name)
	}
	l := &Leaf{pool: p, name: name, limits: lim, dirty: true}
	for _, t := range p.trees {
		at := place{t, filepath.Join(t.dir, name), true}
		if _, err := os.Stat(at.dir); err != nil {
			at.dir, at.own = t.dir, false
		}
		l.places = append(l.places, at)
	}
	if !l.places[0].own {
		return nil, fmt.Errorf("adopt the cgroup %s: %w", name, fs.ErrNotExist)
	}
	if err := l.open(); err != nil {
		return nil, fmt.Errorf("adopt the cgroup %s: %w", name, err)
	}
	// What others before used is not known any more. Only v1 sets a peak back for all.
	if mem := p.treeOf(Memory); l.peak != nil && mem != nil {
		l.dirty = mem.v2
	}
	if l.cpu != nil {
		l.cpu.Close()
		l.cpu = nil
	}
	if l.oom == nil {
		l.oomBefore = l.ooms()
	}
	l.killed.Store(true) // it is not used again
	return l, nil
}

func plainName(name string) bool {
	return name != "" && !strings.ContainsAny(name, "/\x00") && name[0] != '.'
}

// sweep ends everybody in the leaves of an earlier life that are not kept, and
// removes them.
func (p *Pool) sweep() error {
	for _, t := range p.trees {
		for _, name := range below(t.dir) {
			if slices.Contains(p.cfg.Keep, name) {
				continue
			}
			dir := filepath.Join(t.dir, name)
			if !emptied(t, dir) {
				return fmt.Errorf("empty the cgroup %s: %w", dir, ErrEscaped)
			}
			if err := removeTree(dir); err != nil {
				return fmt.Errorf("remove a cgroup of an earlier life: %w", err)
			}
		}
	}
	return nil
}

// sweepOthers removes the pools of nodes that are gone for ever: those that
// nobody has locked and nobody is in.
func (p *Pool) sweepOthers() {
	first := p.trees[0]
	base := filepath.Dir(first.dir)
	for _, name := range below(base) {
		if !strings.HasPrefix(name, prefix) || name == filepath.Base(first.dir) {
			continue
		}
		dir := filepath.Join(base, name)
		f, err := os.Open(dir)
		if err != nil {
			continue
		}
		if unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB) == nil && len(procs(dir)) == 0 {
			for _, t := range slices.Backward(p.trees) { // the one with the lock last: who waits for it makes all anew
				_ = removeTree(filepath.Join(filepath.Dir(t.dir), name))
			}
		}
		f.Close()
	}
}

// possess locks the pool's cgroup, so that other nodes leave it alone. One of
// them may have removed it just before.
func (p *Pool) possess() error {
	const tries = 10
	for range tries {
		for _, t := range p.trees {
			if err := p.cfg.mkdir(t.dir); errors.Is(err, fs.ErrExist) {
				continue
			} else if err != nil {
				return err
			}
			for _, c := range t.holds {
				if !t.v2 {
					continue
				}
				if err := write(t.dir, setting{file: subtree, value: "+" + c}); err != nil {
					return err
				}
			}
		}
		f, err := os.Open(p.trees[0].dir)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		} else if err != nil {
			return err
		}
		if err := unix.Flock(int(f.Fd()), unix.LOCK_SH); err != nil {
			f.Close()
			return err
		}
		mine, err := f.Stat()
		now, err2 := os.Stat(p.trees[0].dir)
		if err == nil && err2 == nil && os.SameFile(mine, now) {
			p.lock = f
			return nil
		}
		f.Close()
	}
	return errors.New("other nodes remove it again and again")
}

// emptied kills whoever is below dir and waits until nobody is.
func emptied(t *tree, dir string) bool {
	at := place{tree: t, dir: dir}
	for deadline := time.Now().Add(killWait); ; time.Sleep(emptyPoll) {
		pids := procs(dir)
		if len(pids) == 0 {
			return true
		}
		if time.Now().After(deadline) {
			return false
		}
		thaw := freeze(at)
		for _, pid := range procs(dir) {
			_ = syscall.Kill(pid, syscall.SIGKILL)
		}
		thaw()
	}
}

// freeze has everybody below a place stand still, where that can be had, so that
// nobody forks while they are killed. What it returns undoes it.
func freeze(at place) (thaw func()) {
	on, off := setting{file: "freezer.state", value: "FROZEN"}, setting{file: "freezer.state", value: "THAWED"}
	state, still := "freezer.state", "FROZEN"
	if at.tree.v2 {
		on, off = setting{file: "cgroup.freeze", value: "1"}, setting{file: "cgroup.freeze", value: "0"}
		state, still = "cgroup.events", "frozen 1"
	}
	if write(at.dir, on) != nil {
		return func() {} // a tree that forks meanwhile is killed in the next round
	}
	for deadline := time.Now().Add(freezeWait); time.Now().Before(deadline); time.Sleep(freezePoll) {
		if text, err := os.ReadFile(filepath.Join(at.dir, state)); err != nil || strings.Contains(string(text), still) {
			break
		}
	}
	return func() { _ = write(at.dir, off) }
}

// procs lists the processes in a cgroup and below it.
func procs(dir string) (pids []int) {
	_ = filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.IsDir() {
			return nil //nolint:nilerr // gone meanwhile
		}
		text, _ := os.ReadFile(filepath.Join(path, procsFile))
		for _, word := range strings.Fields(string(text)) {
			// 0 is a process that cannot be seen from here; to signal it would hit our own group.
			if pid, err := strconv.Atoi(word); err == nil && pid > 1 && pid != os.Getpid() {
				pids = append(pids, pid)
			}
		}
		return nil
	})
	return pids
}

// below lists the cgroups right below dir.
func below(dir string) (names []string) {
	entries, _ := os.ReadDir(dir)
	for _, e := range entries {
		if e.IsDir() {
			names = append(names, e.Name())
		}
	}
	return names
}

// removeTree removes an empty cgroup and those below it.
func removeTree(dir string) error {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	for _, e := range entries {
		if e.IsDir() {
			err = errors.Join(err, removeTree(filepath.Join(dir, e.Name())))
		}
	}
	if e := os.Remove(dir); !errors.Is(e, fs.ErrNotExist) {
		err = errors.Join(err, e)
	}
	return err
}

// try runs a program in a leaf of the pool.
func (p *Pool) try(l *Leaf) error {
	return l.Start(func(attr *syscall.SysProcAttr) error {
		proc, err := os.StartProcess("/bin/true", []string{"true"}, &os.ProcAttr{Sys: attr})
		if err == nil {
			_, err = proc.Wait()
		}
		return err
	})
}
