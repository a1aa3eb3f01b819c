package process

import (
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"labmesh/exec/cgroup"
	"labmesh/exec/keeper"
	"labmesh/exec/output"
)

// kept is how a host runs programs that outlive it.
type kept struct {
	client *keeper.Client
	opened time.Time

	mu        sync.Mutex
	unclaimed map[string][]keeper.Program // by attempt, what an earlier life left
	runs      sync.WaitGroup
	leaving   chan struct{} // closed by Detach
	left      bool
	slots     *slots
	old       [][]byte // the slots of earlier lives
}

// keptProgram is a program as the keeper knows it.
type keptProgram struct {
	id   uint64
	exit <-chan keeper.Exit
}

// openKept takes up what an earlier life left running. It is nil where there is
// to be no keeper.
func openKept(ctx context.Context, cfg Config) (*kept, error) {
	if len(cfg.Keeper) == 0 {
		return nil, nil
	}
	buffers := newSlots()
	c := keeper.Config{Dir: cfg.Dir, Command: cfg.Keeper, Window: cfg.Window}
	if buffers != nil {
		c.Buffers = buffers.file
	}
	client, err := keeper.Open(ctx, c)
	if err != nil {
		buffers.close()
		return nil, err
	}
	k := &kept{client: client, slots: buffers, old: mapOld(client.Buffers()), opened: time.Now(), unclaimed: make(map[string][]keeper.Program), leaving: make(chan struct{})}
	var spools []string
	for _, p := range client.Known() {
		k.unclaimed[p.Attempt] = append(k.unclaimed[p.Attempt], p)
		spools = append(spools, p.Spools...)
	}
	return k, client.Sweep(spools)
}

// living says by which names what an earlier life left running is found: of records, and of cgroups.
func (k *kept) living() (records, groups []string) {
	if k == nil || !k.client.Lives() {
		return nil, nil
	}
	return living(k.client.Known())
}

func living(known []keeper.Program) (records, groups []string) {
	for _, p := range known {
		if p.Ended { // what bears its names is another's by now, or to be ended
			continue
		}
		m := metaOf(p.Meta)
		records, groups = append(records, m.record), append(groups, m.group)
	}
	return records, groups
}

// meta is what the next life has to know of a program.
type meta struct{ token, record, group string }

func (m meta) String() string { return strings.Join([]string{m.token, m.record, m.group}, "\x00") }

func metaOf(s string) (m meta) {
	if f := strings.Split(s, "\x00"); len(f) == 3 {
		m = meta{f[0], f[1], f[2]}
	}
	return m
}

// sum tells one command from another.
func (c *Command) sum() uint64 {
	h := fnv.New64a()
	if c.Label != "" {
		_, _ = h.Write([]byte(c.Label)) // never errs
		return h.Sum64()
	}
	for _, s := range append([]string{c.Path, c.Dir}, c.Args...) {
		_, _ = h.Write([]byte(s)) // never errs
		_, _ = h.Write([]byte{0})
	}
	return h.Sum64()
}

// take finds the program that c is, if an earlier life began it.
func (k *kept) take(c *Command) (p keeper.Program, ok bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	of := k.unclaimed[c.Attempt]
	i := k.find(c)
	if i < 0 {
		return p, false
	}
	p = of[i]
	k.unclaimed[c.Attempt] = append(of[:i:i], of[i+1:]...)
	return p, true
}

// find is where c is among what is left of its attempt, or -1. The caller holds mu.
func (k *kept) find(c *Command) int {
	if c.Attempt == "" {
		return -1
	}
	return slices.IndexFunc(k.unclaimed[c.Attempt], func(p keeper.Program) bool { return p.Ordinal == c.Ordinal })
}

// Knows reports whether Run would take c up in place of starting it.
func (h *Host) Knows(c Command) bool {
	if h.kept == nil {
		return false
	}
	h.kept.mu.Lock()
	defer h.kept.mu.Unlock()
	return h.kept.find(&c) >= 0
}

// begin says that a Run is under way, unless the host is being left.
func (k *kept) begin() bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	if !k.left {
		k.runs.Add(1)
	}
	return !k.left
}

// run is Run by the keeper.
func (h *Host) runKept(ctx context.Context, c Command) (Exit, error) {
	k := h.kept
	if !k.begin() {
		return Exit{}, ErrDetached
	}
	defer k.runs.Done()
	p := &program{h: h, grace: c.Grace, exited: make(chan struct{})}
	if p.grace <= 0 {
		p.grace = h.cfg.Grace
	}
	var err error
	if old, ok := k.take(&c); ok {
		err = p.resume(&c, old)
	} else {
		p.token = h.token()
		err = p.startKept(&c)
	}
	if err != nil {
		return Exit{}, err
	}
	return p.finishKept(ctx, &c)
}

// startKept has the keeper start the program.
func (p *program) startKept(c *Command) (err error) {
	defer func() {
		if err != nil {
			p.closePipes()
			_ = p.tidy() // nothing ran
		}
	}()
	var write [2]int
	for i := range p.pipes {
		var fds [2]int
		if err = unix.Pipe2(fds[:], unix.O_CLOEXEC); err != nil {
			return &StartError{c.Path, err}
		}
		_ = unix.SetNonblock(fds[0], true)
		p.pipes[i], write[i] = os.NewFile(uintptr(fds[0]), "|0"), fds[1]
		defer unix.Close(fds[1])
	}
	files := keeper.Files{Stdout: write[0], Stderr: write[1]}
	if c.Stdin != "" {
		if files.Stdin, err = os.Open(c.Stdin); err != nil {
			return &StartError{c.Path, err}
		}
		defer files.Stdin.Close()
	}
	if err = p.place(c.Limits); err != nil {
		return &StartError{c.Path, err}
	}
	s := keeper.Spawn{
		Attempt: c.Attempt, Ordinal: c.Ordinal, Sum: c.sum(), Path: c.Path, Args: c.Args, Dir: c.Dir,
		Env: append(c.Env[:len(c.Env):len(c.Env)], TokenVar+"="+p.token), Nice: p.h.nice(c), Umask: -1, Rlimits: c.Rlimits, Outlasts: c.Outlasts,
	}
	if c.Umask != nil {
		s.Umask = *c.Umask
	}
	m := meta{token: p.token, record: p.record.name()}
	if p.leaf != nil {
		in := p.leaf.Entry()
		files.Cgroup, m.group = p.leaf.Dir(), p.leaf.Name()
		s.V1Base, s.V1Tasks, s.V1Back = in.Base, in.Tasks, in.Back
	}
	s.Meta = m.String()
	files.ReadStdout, files.ReadStderr = int(rawFD(p.pipes[0])), int(rawFD(p.pipes[1]))
	p.kept.id, p.kept.exit, err = p.h.kept.client.Spawn(&s, files)
	switch {
	case errors.Is(err, keeper.ErrLost):
		return ErrLost
	case err != nil:
		return &StartError{c.Path, err}
	}
	return nil
}

// rawFD is the descriptor of f, which stays as it is: Fd would make it block.
func rawFD(f *os.File) (fd uintptr) {
	if c, err := f.SyscallConn(); err == nil {
		_ = c.Control(func(n uintptr) { fd = n })
	}
	return fd
}

// resume takes up a program that an earlier life began.
func (p *program) resume(c *Command, old keeper.Program) error {
	m := metaOf(old.Meta)
	p.token = m.token
	var err error
	if !old.Ended { // else its record and its cgroup may be another's by now, and what it left is found by its token
		p.record = p.h.records.adopt(m.record)
	}
	if !old.Ended && m.group != "" && p.h.cgroups != nil {
		if p.leaf, err = p.h.cgroups.Adopt(m.group, c.Limits); err != nil {
			p.leaf = nil // what is in it is found by its token
		}
	}
	now, pipes, exit, err := p.h.kept.client.Claim(old.ID)
	if err == nil && old.Sum != c.sum() {
		for _, f := range pipes {
			f.Close()
		}
		p.kept.id = old.ID
		p.h.kept.client.Signal(p.kept.id, syscall.SIGKILL)
		err = ErrLost
	}
	if err != nil {
		p.killAll()
		_ = p.tidy()
		return ErrLost
	}
	p.kept = keptProgram{old.ID, exit}
	copy(p.pipes[:], pipes)
	p.h.kept.rescue(old.ID, c.Output)
	for _, dir := range now.Spools {
		replay(dir, c.Output)
	}
	return nil
}

// finishKept reads what the program prints until it has ended.
func (p *program) finishKept(ctx context.Context, c *Command) (Exit, error) {
	readers := p.listen(c)
	stopped := make(chan struct{})
	unwatch := context.AfterFunc(ctx, func() {
		defer close(stopped)
		p.stop(ctx)
	})
	var x keeper.Exit
	select {
	case x = <-p.kept.exit:
	case <-p.h.kept.leaving:
		p.mu.Lock()
		p.gone = true // for stop
		p.mu.Unlock()
		close(p.exited)
		if !unwatch() {
			<-stopped
		}
		p.hush()
		readers.Wait()
		p.closePipes()
		return Exit{}, ErrDetached
	}
	p.endedKept(x)
	if !unwatch() {
		<-stopped
	}
	p.drain(readers)
	e := p.seen(c.Limits)
	if err := p.tidy(); err != nil {
		p.h.cfg.Logger.WarnContext(ctx, "attempt not ended whole", "program", c.Path, "err", err)
	}
	switch {
	case x.Lost:
		return Exit{}, ErrLost
	case x.Errno != 0:
		return Exit{}, &StartError{c.Path, syscall.Errno(x.Errno)}
	}
	p.h.kept.client.Drained(p.kept.id)
	if x.Cut {
		return Exit{}, ErrCut
	}
	ws := syscall.WaitStatus(x.Status)
	e.Code, e.Stopped = ws.ExitStatus(), x.Asked
	e.User, e.System, e.MaxRSS = x.User, x.System, x.MaxRSS*rssUnit
	if ws.Signaled() {
		e.Signal = ws.Signal()
	}
	return e, nil
}

// endedKept kills what the program left, which the keeper has reaped, and whose
// group it has killed.
func (p *program) endedKept(x keeper.Exit) {
	close(p.exited)
	p.mu.Lock()
	p.gone = true
	stopped := p.stopped
	p.mu.Unlock()
	switch {
	case p.leaf != nil || x.Errno != 0: // its emptiness is seen to by drain
	case stopped || x.Lost || x.Cut:
		killTokens(map[string]bool{p.token: true})
	default:
		p.h.strays.add(p.token)
	}
}

// killAll kills what can be found of the program without the keeper.
func (p *program) killAll() {
	if p.leaf != nil {
		p.leaf.Kill()
	}
	killTokens(map[string]bool{p.token: true})
}

// signalKept signals the program's group by way of the keeper.
func (p *program) signalKept(sig syscall.Signal) { p.h.kept.client.Signal(p.kept.id, sig) }

// Attempts lists the attempts whose programs an earlier life left, running or
// ended, and how long ago the first of each began. They wait for a Run with the
// same Attempt and Ordinal, or for Drop.
func (h *Host) Attempts() map[string]time.Duration {
	if h.kept == nil {
		return nil
	}
	all := make(map[string]time.Duration)
	for _, p := range h.kept.client.Known() {
		all[p.Attempt] = max(all[p.Attempt], p.Age+time.Since(h.kept.opened))
	}
	return all
}

// Renewed says that the mesh has answered what this node sent then, on CLOCK_BOOTTIME. See [Command].Outlasts.
func (h *Host) Renewed(at time.Duration) {
	if h.kept != nil {
		h.kept.client.Renewed(at)
	}
}

// WasRenewed is what an earlier life, of which something is left, was told of last by Renewed; 0 for nothing.
func (h *Host) WasRenewed() time.Duration {
	if h.kept == nil {
		return 0
	}
	return h.kept.client.WasRenewed()
}

// Forget says that nobody will ask for an attempt's programs again.
func (h *Host) Forget(attempt string) {
	if h.kept != nil {
		h.kept.client.Forget(attempt)
	}
}

// Drop kills what an earlier life left of an attempt, and forgets it.
func (h *Host) Drop(attempt string) {
	if h.kept == nil {
		return
	}
	k := h.kept
	k.mu.Lock()
	of := k.unclaimed[attempt]
	delete(k.unclaimed, attempt)
	k.mu.Unlock()
	for _, old := range of {
		m := metaOf(old.Meta)
		p := &program{h: h, token: m.token}
		if !old.Ended { // as in resume
			p.record = h.records.adopt(m.record)
		}
		if !old.Ended && m.group != "" && h.cgroups != nil {
			if leaf, err := h.cgroups.Adopt(m.group, cgroup.Limits{}); err == nil {
				p.leaf = leaf
			}
		}
		if !old.Ended {
			k.client.Signal(old.ID, syscall.SIGKILL)
		}
		p.killAll()
		if err := p.tidy(); err != nil {
			h.cfg.Logger.Warn("attempt of an earlier life not ended whole", "attempt", attempt, "err", err)
		}
	}
	k.client.Forget(attempt)
}

// Detach leaves what runs to the keeper, which lets it go on for its window.
// Every Run returns [ErrDetached]. It reports whether there is a keeper.
func (h *Host) Detach() bool {
	k := h.kept
	if k == nil {
		return false
	}
	k.mu.Lock()
	first := !k.left
	k.left = true
	k.mu.Unlock()
	if first {
		close(k.leaving)
		k.runs.Wait()
		k.client.Detach()
	}
	return true
}

// Keeps reports whether what runs outlives this process.
func (h *Host) Keeps() bool { return h.kept != nil }

func (k *kept) detached() bool {
	if k == nil {
		return false
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.left
}

func (k *kept) close() error {
	if k == nil {
		return nil
	}
	err := k.client.Close()
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, mem := range k.old {
		_ = unix.Munmap(mem)
	}
	k.slots.close()
	k.old, k.slots = nil, nil
	return err
}

// replayMark says, in a directory of output that is being taken over, where in
// the attempt's output it began to be: so that it is not taken over twice.
const (
	replayMark = "from"
	replayDone = "-done" // is added to the name of one that was
)

// replay takes over what a program printed while nobody was there but the keeper.
func replay(dir string, to *output.Output) {
	from, err := output.Load(dir)
	if err != nil {
		return // it was taken over
	}
	base, ok := replayBase(dir)
	if !ok {
		base = [2]int64{to.Size(output.Stdout), to.Size(output.Stderr)}
		mark := filepath.Join(dir, replayMark)
		if err := os.WriteFile(mark+".new", fmt.Appendln(nil, base[0], base[1]), 0o600); err == nil { // a full disk can only have it taken over twice
			_ = os.Rename(mark+".new", mark)
		}
	}
	buf := make([]byte, readBytesMax)
	for i, s := range output.Streams() {
		r := from.Open(context.Background(), output.Query{Stream: s, Offset: max(0, to.Size(s)-base[i])})
		for {
			piece, err := r.Next(buf)
			if err != nil {
				break // the end
			}
			if piece.Gap > 0 {
				to.Skip(s, to.Size(s)+piece.Gap)
			}
			to.Write(s, piece.Data)
		}
		r.Close()
	}
	if err := os.Rename(dir, dir+replayDone); err == nil { // whole or not at all
		dir += replayDone
	}
	_ = os.RemoveAll(dir)
}

// replayBase is how long the output was before dir began to be taken over, if it did.
func replayBase(dir string) (base [2]int64, ok bool) {
	data, err := os.ReadFile(filepath.Join(dir, replayMark))
	if err != nil {
		return base, false
	}
	n, err := fmt.Sscan(string(data), &base[0], &base[1])
	return base, n == len(base) && err == nil
}
