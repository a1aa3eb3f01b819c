package cgroup

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

const (
	killWait  = 2 * time.Second      // for a killed tree to be gone
	emptyPoll = 2 * time.Millisecond // between looks at a leaf that is being emptied
	statBytes = 1 << 10              // of a file that says how a cgroup is
)

// Leaf is a cgroup for one program at a time. A program may make cgroups below it.
type Leaf struct {
	pool   *Pool
	name   string
	limits Limits
	places []place  // by tree of the pool
	fd     *os.File // of the first place
	events *os.File // of v2: says whether anybody is in it
	// killed says that cgroup.kill was used. Linux then kills whatever is
	// started in it with CLONE_INTO_CGROUP: it takes the start for a fork that
	// raced with the kill. So it is not used again.
	killed atomic.Bool

	peak, oom, cpu *os.File // nil where they are not known
	oomBefore      int64    // what they showed when the leaf was taken
	cpuBefore      int64
	dirty          bool // peak cannot be reset: it is of all who were in it
}

// place is a leaf's cgroup in one tree: its own, or that of all leaves.
type place struct {
	tree *tree
	dir  string
	own  bool
}

// leaf makes a leaf.
func (p *Pool) leaf(name string, lim Limits) (*Leaf, error) {
	l := &Leaf{pool: p, name: name, limits: lim}
	if err := l.make(); err != nil {
		return nil, errors.Join(fmt.Errorf("make a cgroup: %w", err), l.remove())
	}
	return l, nil
}

// make makes the cgroups of l.
func (l *Leaf) make() error {
	p, needs := l.pool, l.limits.needs()
	for _, t := range p.trees {
		at := place{t, t.dir, false}
		if t == p.trees[0] || slices.ContainsFunc(t.holds, func(c string) bool { return slices.Contains(needs, c) }) {
			at.dir, at.own = filepath.Join(t.dir, l.name), true
			if err := p.cfg.mkdir(at.dir); err != nil {
				return err
			}
		}
		l.places = append(l.places, at)
		for _, c := range t.holds {
			if !slices.Contains(needs, c) {
				continue
			}
			for _, s := range settings(t.v2, c, l.limits) {
				if err := write(at.dir, s); err != nil {
					return err
				}
			}
		}
	}
	return l.open()
}

// open opens the files by which the leaf is looked at.
func (l *Leaf) open() (err error) {
	first := l.places[0]
	if l.fd, err = os.Open(first.dir); err != nil {
		return err
	}
	if first.tree.v2 {
		if l.events, err = os.Open(filepath.Join(first.dir, "cgroup.events")); err != nil {
			return err
		}
	}
	for _, at := range l.places {
		if !at.own {
			continue
		}
		if slices.Contains(at.tree.holds, Memory) {
			peak, oom := "memory.max_usage_in_bytes", "memory.oom_control"
			if at.tree.v2 {
				peak, oom = "memory.peak", "memory.events"
			}
			l.oom = maybe(at.dir, oom, os.O_RDONLY)
			if l.peak = maybe(at.dir, peak, os.O_RDWR); l.peak == nil {
				l.peak, l.dirty = maybe(at.dir, peak, os.O_RDONLY), true
			}
		}
		if l.cpu == nil {
			usage := "cpuacct.usage"
			if at.tree.v2 {
				usage = "cpu.stat"
			}
			l.cpu = maybe(at.dir, usage, os.O_RDONLY)
		}
	}
	return nil
}

// begin notes what a leaf shows before a program is in it.
func (l *Leaf) begin() {
	l.oomBefore = l.ooms()
	l.cpuBefore = l.cpuNanos()
}

// ooms is how often something was killed because memory ran out. Where a leaf
// without limits has no count of its own it is that of all leaves together, which
// is no worse for who knows besides that the program was killed.
func (l *Leaf) ooms() int64 {
	switch {
	case l.oom != nil:
		return field(read(l.oom), "oom_kill")
	case l.pool.oom != nil:
		return field(read(l.pool.oom), "oom_kill")
	}
	return 0
}

// maybe opens a file that not every kernel has.
func maybe(dir, name string, flag int) *os.File {
	f, err := os.OpenFile(filepath.Join(dir, name), flag, 0)
	if err != nil {
		return nil
	}
	return f
}

// Name names the leaf within its pool, also for a later life: see [Pool.Adopt].
func (l *Leaf) Name() string { return l.name }

// Limits are those that the leaf is held to.
func (l *Leaf) Limits() Limits { return l.limits }

// Dir is the opened directory for CLONE_INTO_CGROUP, nil without v2. It is the leaf's.
func (l *Leaf) Dir() *os.File {
	if l.places[0].tree.v2 {
		return l.fd
	}
	return nil
}

// Entry is how a program comes in.
func (l *Leaf) Entry() (e Entry) {
	for _, at := range l.places {
		first := at.tree == l.pool.trees[0]
		all := filepath.Join(at.tree.dir, tasksFile)
		switch {
		case at.tree.v2:
			e.Dir = at.dir
			continue
		case first: // whoever stood in that of all leaves would be taken for one of them
			all = filepath.Join(at.tree.home, tasksFile)
		default:
			e.Base = append(e.Base, all)
		}
		if at.own {
			e.Tasks = append(e.Tasks, filepath.Join(at.dir, tasksFile))
			e.Back = append(e.Back, all)
		}
	}
	return e
}

// Start runs fork, which starts a program with the attributes it is given, so
// that the program starts in the leaf.
func (l *Leaf) Start(fork func(*syscall.SysProcAttr) error) error {
	attr := &syscall.SysProcAttr{}
	if dir := l.Dir(); dir != nil {
		attr.UseCgroupFD, attr.CgroupFD = true, int(dir.Fd())
	}
	e := l.Entry()
	if len(e.Base) == 0 && len(e.Tasks) == 0 {
		return fork(attr)
	}
	return l.pool.starts.start(l.pool.homes(), e, func() error { return fork(attr) })
}

// Empty reports whether nobody runs in l or below it.
func (l *Leaf) Empty() bool {
	first := l.places[0]
	if first.tree.v2 {
		return bytes.Contains(read(l.events), []byte("populated 0"))
	}
	// Opened anew: v1 shows again what it showed before to who reads a second time.
	text, err := os.ReadFile(filepath.Join(first.dir, procsFile))
	return err == nil && len(text) == 0 && (!l.nested() || len(procs(first.dir)) == 0)
}

// Kill sends SIGKILL to everybody in l and below it.
func (l *Leaf) Kill() {
	first := l.places[0]
	if first.tree.v2 {
		l.killed.Store(true)
		if os.WriteFile(filepath.Join(first.dir, killFile), []byte("1"), 0) == nil {
			return
		}
	}
	thaw := freeze(first)
	for _, pid := range procs(first.dir) {
		_ = syscall.Kill(pid, syscall.SIGKILL) // frozen or not, it is killed before it does anything more
	}
	thaw()
}

// Emptied kills whoever is in l and waits, within a bound, until it is empty.
func (l *Leaf) Emptied() bool {
	for deadline := time.Now().Add(killWait); !l.Empty(); {
		l.Kill()
		if time.Now().After(deadline) {
			return false
		}
		var poll []unix.PollFd
		if l.events != nil { // in v1 nothing tells of a change
			poll = []unix.PollFd{{Fd: int32(l.events.Fd()), Events: unix.POLLPRI}}
		}
		_, _ = unix.Poll(poll, int(emptyPoll.Milliseconds()))
	}
	return true
}

// OOM reports whether memory ran out and something in l was killed for it, since
// it was taken: by its limit, by that of all leaves, or because the machine had
// no more.
func (l *Leaf) OOM() bool { return l.ooms() > l.oomBefore }

// Usage is what ran in l used since it was taken.
func (l *Leaf) Usage() (u Usage) {
	if l.peak != nil && !l.dirty {
		u.PeakMemory = number(read(l.peak))
	}
	if n := l.cpuNanos(); n > 0 {
		u.CPU = time.Duration(n - l.cpuBefore)
	}
	return u
}

func (l *Leaf) cpuNanos() int64 {
	if l.cpu == nil {
		return 0
	}
	text := read(l.cpu)
	if n := field(text, "usage_usec"); n > 0 {
		return n * int64(time.Microsecond)
	}
	return number(text)
}

// Give ends whoever is still in l and gives it back. It must not be used afterwards.
func (l *Leaf) Give() error {
	if !l.Emptied() {
		return errors.Join(ErrEscaped, l.remove())
	}
	if l.killed.Load() || l.nested() || l.oom != nil && l.OOM() { // who finds it later could not tell whose it was
		return l.remove()
	}
	l.again()
	if l.pool.give(l) {
		return nil
	}
	return l.remove()
}

// again readies an empty leaf for the next program.
func (l *Leaf) again() {
	if l.peak != nil && !l.dirty {
		_, err := l.peak.WriteAt([]byte("0"), 0) // v2 resets it for this opened file, since Linux 6.12
		l.dirty = err != nil
	}
}

// nested reports whether the program made cgroups below l.
func (l *Leaf) nested() bool {
	var st unix.Stat_t
	return unix.Fstat(int(l.fd.Fd()), &st) != nil || st.Nlink > 2
}

// remove removes l and what is below it.
func (l *Leaf) remove() (err error) {
	for _, f := range []*os.File{l.fd, l.events, l.peak, l.oom, l.cpu} {
		if f != nil {
			f.Close()
		}
	}
	for _, at := range l.places {
		if at.own {
			err = errors.Join(err, removeTree(at.dir))
		}
	}
	return err
}

// read reads a small file of a cgroup anew.
func read(f *os.File) []byte {
	buf := make([]byte, statBytes)
	n, _ := f.ReadAt(buf, 0)
	return buf[:n]
}

// field is the number that follows name at the beginning of a line.
func field(text []byte, name string) int64 {
	for line := range bytes.Lines(text) {
		if key, value, ok := bytes.Cut(line, []byte(" ")); ok && string(key) == name {
			return number(value)
		}
	}
	return 0
}

func number(text []byte) int64 {
	n, _ := strconv.ParseInt(string(bytes.TrimSpace(text)), 10, 64) // 0 claims nothing
	return n
}
