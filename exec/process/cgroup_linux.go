package process

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

const (
	cgroupFreeMax = 64                   // empty cgroups kept for the next program
	emptyPoll     = 2 * time.Millisecond // between looks at a cgroup that is being emptied
)

// cgroups makes cgroups for programs, and uses them again: to make and remove
// one costs a third of what it costs to run a small program.
type cgroups struct {
	parent string

	mu     sync.Mutex
	made   int
	free   []*leaf
	closed bool
}

// leaf is a cgroup for one program at a time. A program may make cgroups below it.
type leaf struct {
	dir    string
	fd     *os.File // of dir
	events *os.File // cgroup.events, which says whether anybody is in it or below
	// killed says that cgroup.kill was used. Linux then kills whatever is
	// started in it with CLONE_INTO_CGROUP: it takes the start for a fork that
	// raced with the kill. So it is not used again.
	killed atomic.Bool
}

// cgroupParent is the cgroup that holds all leaves of the host with this dir.
func cgroupParent(dir string) (string, error) {
	own, err := cgroupMount()
	if err != nil {
		return "", err
	}
	sum := sha256.Sum256([]byte(dir))
	return filepath.Join(own, "labmesh-"+hex.EncodeToString(sum[:6])), nil
}

// openCgroups makes the parent cgroup and tries a program in a leaf of it.
func openCgroups(dir string) (*cgroups, error) {
	parent, err := cgroupParent(dir)
	if err != nil {
		return nil, err
	}
	if err := os.Mkdir(parent, 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
		return nil, err
	}
	g := &cgroups{parent: parent}
	if err := g.try(); err != nil {
		return nil, errors.Join(err, g.close())
	}
	return g, nil
}

func (g *cgroups) try() error {
	l, err := g.take()
	if err != nil {
		return err
	}
	if _, err := os.Stat(filepath.Join(l.dir, "cgroup.kill")); err != nil {
		return errors.Join(err, g.give(l)) // before Linux 5.14
	}
	attr := &os.ProcAttr{Sys: &syscall.SysProcAttr{}}
	l.enter(attr.Sys)
	p, err := os.StartProcess("/bin/true", []string{"true"}, attr)
	if err == nil {
		_, err = p.Wait()
	}
	if err != nil {
		err = fmt.Errorf("start a program in a cgroup: %w", err)
	}
	return errors.Join(err, g.give(l))
}

// take gives an empty leaf.
func (g *cgroups) take() (*leaf, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if n := len(g.free); n > 0 {
		l := g.free[n-1]
		g.free = g.free[:n-1]
		return l, nil
	}
	var l *leaf
	for l == nil {
		g.made++
		dir := filepath.Join(g.parent, strconv.Itoa(g.made))
		if err := os.Mkdir(dir, 0o755); err == nil {
			l = &leaf{dir: dir}
		} else if !errors.Is(err, fs.ErrExist) { // or of an earlier life, and in use
			return nil, err
		}
	}
	return l, l.open()
}

// adopt is a leaf of an earlier life.
func (g *cgroups) adopt(name string) (*leaf, error) {
	l := &leaf{dir: filepath.Join(g.parent, filepath.Base(name))}
	l.killed.Store(true) // of what it has seen nothing is known
	return l, l.open()
}

// name is by what a later life adopts l.
func (l *leaf) name() string { return filepath.Base(l.dir) }

func (l *leaf) open() (err error) {
	if l.fd, err = os.Open(l.dir); err == nil {
		l.events, err = os.Open(filepath.Join(l.dir, "cgroup.events"))
	}
	if err != nil {
		return errors.Join(err, l.remove())
	}
	return nil
}

// give takes a leaf back, once everybody in it is gone.
func (g *cgroups) give(l *leaf) error {
	if !l.emptied() {
		return errors.Join(errEscaped, l.remove())
	}
	if l.killed.Load() || l.nested() {
		return l.remove()
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if len(g.free) < cgroupFreeMax && !g.closed {
		g.free = append(g.free, l)
		return nil
	}
	return l.remove()
}

func (g *cgroups) close() (err error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.closed {
		return nil
	}
	g.closed = true
	for _, l := range g.free {
		err = errors.Join(err, l.remove())
	}
	g.free = nil
	if rerr := os.Remove(g.parent); !errors.Is(rerr, unix.EBUSY) && !errors.Is(rerr, unix.ENOTEMPTY) { // others are in use
		err = errors.Join(err, rerr)
	}
	return err
}

// enter makes a program start in l.
func (l *leaf) enter(attr *syscall.SysProcAttr) {
	attr.UseCgroupFD, attr.CgroupFD = true, int(l.fd.Fd())
}

// empty reports whether nobody runs in l or below it.
func (l *leaf) empty() bool {
	var buf [128]byte
	n, _ := l.events.ReadAt(buf[:], 0)
	return bytes.Contains(buf[:n], []byte("populated 0"))
}

// kill sends SIGKILL to everybody in l and below it.
func (l *leaf) kill() {
	l.killed.Store(true)
	_ = os.WriteFile(filepath.Join(l.dir, "cgroup.kill"), []byte("1"), 0)
}

// emptied kills whoever is in l and waits until it is empty.
func (l *leaf) emptied() bool {
	for deadline := time.Now().Add(killWait); !l.empty(); {
		l.kill()
		if time.Now().After(deadline) {
			return false
		}
		poll := []unix.PollFd{{Fd: int32(l.events.Fd()), Events: unix.POLLPRI}}
		_, _ = unix.Poll(poll, int(emptyPoll.Milliseconds())) // woken when cgroup.events changes
	}
	return true
}

// nested reports whether the program made cgroups below l.
func (l *leaf) nested() bool {
	var st unix.Stat_t
	return unix.Fstat(int(l.fd.Fd()), &st) != nil || st.Nlink > 2
}

// remove removes l and what is below it.
func (l *leaf) remove() error {
	for _, f := range []*os.File{l.fd, l.events} {
		if f != nil {
			f.Close()
		}
	}
	return removeCgroup(l.dir)
}

// removeCgroup removes an empty cgroup and those below it.
func removeCgroup(dir string) error {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	for _, e := range entries {
		if e.IsDir() {
			err = errors.Join(err, removeCgroup(filepath.Join(dir, e.Name())))
		}
	}
	return errors.Join(err, os.Remove(dir))
}

// sweepCgroups ends everybody in the cgroups of an earlier life, but for those named.
func sweepCgroups(dir string, keep []string) error {
	parent, err := cgroupParent(dir)
	if err != nil {
		return nil //nolint:nilerr // no cgroups here, then or now
	}
	entries, err := os.ReadDir(parent)
	if err != nil {
		return nil //nolint:nilerr // there were none
	}
	for _, e := range entries {
		if !e.IsDir() || slices.Contains(keep, e.Name()) {
			continue
		}
		l := &leaf{dir: filepath.Join(parent, e.Name())}
		if err := l.open(); err != nil {
			return err
		}
		if !l.emptied() {
			return fmt.Errorf("empty the cgroup %s: %w", l.dir, errEscaped)
		}
		if err := l.remove(); err != nil {
			return err
		}
	}
	return nil
}
