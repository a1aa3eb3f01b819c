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
// nobody has locked and nobody is in. It does so tree by tree, since another
// node may use other trees than this one.
func (p *Pool) sweepOthers() {
	for _, t := range p.trees {
		base := filepath.Dir(t.dir)
		for _, name := range below(base) {
			if !strings.HasPrefix(name, prefix) || name == filepath.Base(t.dir) {
				continue
			}
			dir := filepath.Join(base, name)
			f, err := os.Open(dir)
			if err != nil {
				continue
			}
			if unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB) == nil && isAt(f, dir) && len(procs(dir)) == 0 {
				_ = removeTree(dir)
			}
			f.Close()
		}
	}
}

// possess locks the pool's cgroup in each tree, so that other nodes leave it alone.
func (p *Pool) possess() error {
	for _, t := range p.trees {
		f, err := t.possess(p.cfg.mkdir)
		if err != nil {
			return fmt.Errorf("take the cgroup %s: %w", t.dir, err)
		}
		p.locks = append(p.locks, f)
	}
	return nil
}

// possess makes the pool's cgroup where it is not there and locks it. Another
// node may have removed it just before.
func (t *tree) possess(mkdir func(string) error) (*os.File, error) {
	const tries = 10
	for range tries {
		if err := t.found(mkdir); err != nil {
			return nil, err
		}
		f, err := os.Open(t.dir)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		} else if err != nil {
			return nil, err
		}
		if err := unix.Flock(int(f.Fd()), unix.LOCK_SH); err != nil {
			f.Close()
			return nil, err
		}
		if isAt(f, t.dir) {
			return f, nil
		}
		f.Close()
	}
	return nil, errors.New("other nodes remove it again and again")
}

// found makes the pool's cgroup in t where it is not there.
func (t *tree) found(mkdir func(string) error) error {
	if err := mkdir(t.dir); errors.Is(err, fs.ErrExist) {
		return nil
	} else if err != nil {
		return err
	}
	if t.v2 {
		for _, c := range t.holds {
			if err := write(t.dir, setting{file: subtree, value: "+" + c}); err != nil {
				return err
			}
		}
	}
	return nil
}

// isAt reports whether f is what is at path now. A lock on it means something
// only then: it may have been removed, and made anew, since it was opened.
func isAt(f *os.File, path string) bool {
	mine, err := f.Stat()
	now, err2 := os.Stat(path)
	return err == nil && err2 == nil && os.SameFile(mine, now)
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
