package cgroup

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
)

const (
	freeMax = 64 // empty leaves kept for the next program

	prefix    = "labmesh-node-" // of the cgroup that holds a pool's leaves
	agentName = "labmesh-agent" // the cgroup of the node itself, beside that
	killFile  = "cgroup.kill"   // of v2, since Linux 5.14
	subtree   = "cgroup.subtree_control"
	procsFile = "cgroup.procs"
	tasksFile = "tasks"
)

// Pool makes leaves, and uses them again: to make and remove a cgroup costs a
// third of what it costs to run a small program.
type Pool struct {
	cfg    Config
	life   string // begins the names of the leaves of this life
	trees  []*tree
	absent map[string]string // by controller, why it cannot be had
	locks  []*os.File        // one in each tree; they tell other nodes that this pool lives
	oom    *os.File          // of all leaves together, says how many were killed when memory ran out
	starts spawner

	mu     sync.Mutex
	made   int
	free   map[Limits][]*Leaf
	idle   int // leaves in free
	closed bool
}

// tree is one hierarchy as a pool uses it. The first of a pool is where the
// processes of a leaf are found and killed.
type tree struct {
	v2    bool
	home  string   // directory of the cgroup of this process
	dir   string   // holds the leaves
	holds []string // the controllers that it holds limits by
}

// Open makes the pool of cfg.Dir, or finds that of an earlier life and ends what
// runs in it. The error says why there can be none on this machine.
func Open(cfg Config) (*Pool, error) {
	if cfg.proc == "" {
		cfg.proc = "/proc/self"
	}
	if cfg.mkdir == nil {
		cfg.mkdir = func(dir string) error { return os.Mkdir(dir, 0o755) }
	}
	mounts, err := os.ReadFile(filepath.Join(cfg.proc, "mountinfo"))
	if err != nil {
		return nil, fmt.Errorf("look for cgroups: %w", err)
	}
	own, err := os.ReadFile(filepath.Join(cfg.proc, "cgroup"))
	if err != nil {
		return nil, fmt.Errorf("look for cgroups: %w", err)
	}
	var id [4]byte
	rand.Read(id[:])
	p := &Pool{cfg: cfg, life: hex.EncodeToString(id[:]), absent: make(map[string]string), free: make(map[Limits][]*Leaf)}
	if err := p.choose(hierarchies(string(mounts), string(own))); err != nil {
		return nil, err
	}
	if err := p.ready(); err != nil {
		return nil, errors.Join(err, p.Close())
	}
	return p, nil
}

func poolName(dir string) string {
	sum := sha256.Sum256([]byte(dir))
	return prefix + hex.EncodeToString(sum[:6])
}

// choose picks the trees of the pool and makes its cgroup in each.
func (p *Pool) choose(all []hierarchy) error {
	var why []string
	var freezer, anyV1 *tree
	for _, c := range Controllers() {
		p.absent[c] = "no cgroup hierarchy that is mounted here has it"
	}
	for _, h := range all {
		if !h.v2 && !useful(h.controllers) {
			continue
		}
		t := &tree{v2: h.v2, home: h.own}
		if err := p.make(t, h.own); err != nil {
			why = append(why, err.Error())
			for _, c := range h.controllers {
				if p.absent[c] != "" {
					p.absent[c] = err.Error()
				}
			}
			continue
		}
		switch {
		case t.v2:
			p.trees = append(p.trees, t)
			p.delegate(t)
			continue
		case slices.Contains(h.controllers, "freezer"):
			freezer = t
		}
		for _, c := range Controllers() {
			if slices.Contains(h.controllers, c) && p.absent[c] != "" {
				t.holds = append(t.holds, c)
				delete(p.absent, c)
			}
		}
		if len(t.holds) > 0 {
			anyV1 = t
			p.trees = append(p.trees, t)
		} else if t != freezer {
			_ = os.Remove(t.dir) // v2 has it all
		}
	}
	switch {
	case len(p.trees) > 0 && p.trees[0].v2:
		if freezer != nil && len(freezer.holds) == 0 {
			_ = os.Remove(freezer.dir)
		}
	case freezer != nil: // it goes first
		p.trees = slices.DeleteFunc(p.trees, func(t *tree) bool { return t == freezer })
		p.trees = append([]*tree{freezer}, p.trees...)
	case anyV1 == nil && len(why) > 0:
		return fmt.Errorf("no cgroup can be made: %s", strings.Join(why, "; "))
	case anyV1 == nil:
		return errors.New("no cgroups are mounted")
	}
	return nil
}

// useful reports whether a hierarchy of v1 holds something that a pool uses.
func useful(controllers []string) bool {
	return slices.ContainsFunc(controllers, func(c string) bool {
		return c == "freezer" || slices.Contains(Controllers(), c)
	})
}

// make makes the cgroup of the pool in t, below that of this process or, where
// this process has one of its own for the purpose, beside it.
func (p *Pool) make(t *tree, own string) error {
	base := own
	if t.v2 && filepath.Base(own) == agentName {
		base = filepath.Dir(own)
	}
	t.dir = filepath.Join(base, poolName(p.cfg.Dir))
	if err := p.cfg.mkdir(t.dir); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	return nil
}

// ready takes the pool into possession, sweeps it, and sets what its leaves may
// have together.
func (p *Pool) ready() (err error) {
	if err := p.possess(); err != nil {
		return err
	}
	if err := p.sweep(); err != nil {
		return err
	}
	p.sweepOthers()
	p.reserve()
	if t := p.treeOf(Memory); t != nil && t != p.trees[0] {
		p.oom = maybe(t.dir, "memory.oom_control", os.O_RDONLY)
	}
	l, err := p.Take(Limits{})
	if err != nil {
		return err
	}
	if err := p.try(l); err != nil {
		return errors.Join(fmt.Errorf("start a program in a cgroup: %w", err), l.Give())
	}
	return l.Give()
}

// reserve sets what all leaves may have together. What cannot be set is not: a
// node without a reserve is better than none.
func (p *Pool) reserve() {
	tasks, agent := weights(p.cfg.CPUs)
	for _, t := range p.trees {
		var set []setting
		if slices.Contains(t.holds, Memory) {
			if !t.v2 {
				set = append(set, setting{file: "memory.use_hierarchy", value: "1"})
			}
			if most := memoryFor(p.cfg.MemoryBytes); most > 0 {
				file := "memory.limit_in_bytes"
				if t.v2 {
					file = "memory.max"
				}
				set = append(set, setting{file: file, value: strconv.FormatInt(most, 10)})
			}
		}
		if slices.Contains(t.holds, CPU) && p.cfg.CPUs > 0 {
			if t.v2 {
				set = append(set, setting{file: "cpu.weight", value: strconv.Itoa(tasks)})
				if filepath.Base(t.home) == agentName {
					_ = write(t.home, setting{file: "cpu.weight", value: strconv.Itoa(agent)})
				}
			} else {
				set = append(set, setting{file: "cpu.shares", value: strconv.Itoa(tasks * shares / 100)})
			}
		}
		for _, s := range set {
			_ = write(t.dir, s)
		}
	}
}

// Holds lists the controllers that leaves of the pool can be held by.
func (p *Pool) Holds() (out []string) {
	for _, c := range Controllers() {
		if p.treeOf(c) != nil {
			out = append(out, c)
		}
	}
	return out
}

// Absent says, by controller, why those that Holds does not list cannot be had.
func (p *Pool) Absent() map[string]string { return p.absent }

// Version says which cgroups the pool is made of, for people.
func (p *Pool) Version() string {
	v1, v2 := false, false
	for _, t := range p.trees {
		v1, v2 = v1 || !t.v2, v2 || t.v2
	}
	switch {
	case v1 && v2:
		return "cgroups v1 and v2"
	case v2:
		return "cgroups v2"
	}
	return "cgroups v1"
}

func (p *Pool) treeOf(controller string) *tree {
	for _, t := range p.trees {
		if slices.Contains(t.holds, controller) {
			return t
		}
	}
	return nil
}

// Take gives an empty leaf that is held to lim. It refuses limits whose
// controller is not among Holds.
func (p *Pool) Take(lim Limits) (*Leaf, error) {
	if _, missing := lim.Without(p.Holds()); len(missing) > 0 {
		return nil, fmt.Errorf("this machine cannot hold a program to a limit on %s: %s", missing[0], p.absent[missing[0]])
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return nil, os.ErrClosed
	}
	if free := p.free[lim]; len(free) > 0 {
		l := free[len(free)-1]
		p.free[lim] = free[:len(free)-1]
		p.idle--
		l.begin()
		return l, nil
	}
	p.made++
	l, err := p.leaf(p.life+"-"+strconv.Itoa(p.made), lim)
	if err == nil {
		l.begin()
	}
	return l, err
}

// give takes a leaf back in which nobody is.
func (p *Pool) give(l *Leaf) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed || p.idle >= freeMax {
		return false
	}
	p.free[l.limits] = append(p.free[l.limits], l)
	p.idle++
	return true
}

// Close removes the leaves that nobody has, and the pool if that was all. It is safe twice.
func (p *Pool) Close() error { return p.close(true) }

// Leave lets go of the pool and leaves all there is of it to its next life,
// because programs are about to be started in it still. It is safe twice.
func (p *Pool) Leave() error { return p.close(false) }

func (p *Pool) close(remove bool) (err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return nil
	}
	p.closed = true
	for _, free := range p.free {
		for _, l := range free {
			if remove {
				err = errors.Join(err, l.remove())
			}
		}
	}
	p.free = nil
	p.starts.close()
	for _, t := range p.trees {
		if !remove {
			break
		}
		_ = os.Remove(t.dir) // not while a leaf is in use, which may outlive this process
	}
	for _, f := range append(p.locks, p.oom) {
		if f != nil {
			err = errors.Join(err, f.Close())
		}
	}
	return err
}

// write sets one file of a cgroup.
func write(dir string, s setting) error {
	f, err := os.OpenFile(filepath.Join(dir, s.file), os.O_WRONLY, 0)
	if err == nil {
		_, err = f.WriteString(s.value)
		err = errors.Join(err, f.Close())
	}
	if err != nil && !s.optional {
		return fmt.Errorf("set %s: %w", s.file, err)
	}
	return nil
}
