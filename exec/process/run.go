package process

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"labmesh/exec/cgroup"
	"labmesh/exec/keeper"
	"labmesh/exec/output"
)

// Command is a program to run.
type Command struct {
	Path   string         // of the program; not looked up
	Args   []string       // its arguments, the first of which is its own name
	Dir    string         // where it runs
	Env    []string       // its whole environment, save for TokenVar
	Stdin  string         // a file to read from; "" means nothing to read
	Output *output.Output // takes what it prints
	Stdout io.Writer      // takes what it prints on stdout in place of Output, from one goroutine; nil leaves that to Output. A Write that waits has the program wait
	Grace  time.Duration  // between SIGTERM and SIGKILL; 0 means the host's
	Limits cgroup.Limits  // those that the host cannot hold it to are named in [Exit].NotHeld
	Brisk  bool           // leaves it the priority of the node, whatever the host's Nice: for what is measured

	// Attempt and Ordinal name the program for the host's next life: a Run with
	// the same two takes it up, running or ended, in place of starting it again.
	// Without an Attempt the program ends with this life, as one with a Stdout should:
	// of what that has taken nobody knows.
	Attempt string
	Ordinal int
	// Outlasts is how long the program goes on after [Host.Renewed] was told of last, whatever becomes
	// of this process; 0 has it go on for the host's window once this process is gone.
	Outlasts time.Duration
	// Label tells the program from another, which another version of the runner
	// may have begun in its place; "" means the path, the directory and the arguments.
	Label string

	// What follows needs a host with a keeper.
	Umask   *int     // nil leaves the node's
	Rlimits []Rlimit // set as soon as the program has started
}

// Rlimit is a limit as setrlimit(2) has it.
type Rlimit = keeper.Rlimit

// What a Run of a host with a keeper may return.
var (
	// ErrLost says that the keeper is gone, and with it the program, or word of how it ended.
	ErrLost = errors.New("the process that kept the program running was killed")
	// ErrCut says that the program was killed because nothing was heard of the mesh for longer than
	// it may go on without. It is an ErrLost too.
	ErrCut error = cutError{}
	// ErrDetached says that the host was left; the program goes on.
	ErrDetached = errors.New("the program goes on without this node's process")
)

type cutError struct{}

func (cutError) Error() string {
	return "this worker was cut off from the mesh, or its node was stopped, for longer than the task may go on"
}

func (cutError) Is(target error) bool { return target == ErrLost }

// Exit is how a program ended.
type Exit struct {
	Code    int            // its exit code, -1 when a signal ended it
	Signal  syscall.Signal // what ended it, or 0
	Stopped bool           // whether it was stopped because its context ended, in this life or an earlier one
	User    time.Duration  // CPU time of the program and those children it waited for
	System  time.Duration
	MaxRSS  int64 // bytes, of the largest of them; 0 where it is not known

	OOM        bool     // memory ran out and something of the program's tree was killed for it; false where that is not known
	PeakMemory int64    // bytes, of the whole tree at once; 0 where it is not known
	NotHeld    []string // the limits it was not held to
}

// StartError says that a program could not be started.
type StartError struct {
	Path string
	Err  error
}

func (e *StartError) Error() string { return fmt.Sprintf("start %s: %v", e.Path, e.Err) }

func (e *StartError) Unwrap() error { return e.Err }

// Run runs c until it ends, or ctx does: then it gets SIGTERM, and after a
// grace SIGKILL. When Run returns nothing of the program's tree is running.
func (h *Host) Run(ctx context.Context, c Command) (Exit, error) {
	if h.Keeps() {
		return h.runKept(ctx, c)
	}
	p := &program{h: h, grace: c.Grace, token: h.token(), exited: make(chan struct{})}
	if p.grace <= 0 {
		p.grace = h.cfg.Grace
	}
	readers, err := p.start(c)
	if err != nil {
		return Exit{}, err
	}
	stopped := make(chan struct{})
	unwatch := context.AfterFunc(ctx, func() {
		defer close(stopped)
		p.stop(ctx)
	})
	state, err := p.await()
	if !unwatch() {
		<-stopped
	}
	p.drain(readers)
	exit := p.seen(c.Limits)
	if err := p.tidy(); err != nil {
		h.cfg.Logger.WarnContext(ctx, "attempt not ended whole", "program", c.Path, "err", err)
	}
	if err != nil {
		return Exit{}, fmt.Errorf("wait for %s: %w", c.Path, err)
	}
	return p.exit(exit, state), nil
}

// seen is what the program's cgroup says of it.
func (p *program) seen(asked cgroup.Limits) (e Exit) {
	held, _ := p.h.Holds()
	_, e.NotHeld = asked.Without(held)
	if p.leaf != nil {
		e.OOM, e.PeakMemory = p.leaf.OOM(), p.leaf.Usage().PeakMemory
	}
	return e
}

// program is one run of a program.
type program struct {
	h      *Host
	token  string
	grace  time.Duration
	proc   *os.Process  // nil under a keeper
	leaf   *cgroup.Leaf // nil without a cgroup
	record *record
	pipes  [2]*os.File // the ends we read
	left   atomic.Int32
	eof    chan struct{} // closed when both pipes have been read to their end
	kept   keptProgram

	mu      sync.Mutex
	gone    bool // its group id may belong to another soon
	stopped bool
	exited  chan struct{}
}

// start starts the program and those who read its output.
func (p *program) start(c Command) (readers *sync.WaitGroup, err error) {
	files, err := p.open(c)
	defer func() {
		for _, f := range files {
			f.Close()
		}
		if err != nil {
			p.closePipes()
			_ = p.tidy() // nothing ran
		}
	}()
	if err != nil {
		return nil, &StartError{c.Path, err}
	}
	if p.proc, err = p.spawn(c, files); err != nil {
		return nil, &StartError{c.Path, err}
	}
	if p.leaf == nil { // a cgroup finds its processes without
		p.record.started(p.head(), p.proc.Pid)
	}
	if nice := p.h.nice(&c); nice != 0 {
		_ = unix.Setpriority(unix.PRIO_PGRP, p.proc.Pid, nice) // as good as can be had
	}
	return p.listen(&c), nil
}

// listen begins to read what the program prints.
func (p *program) listen(c *Command) *sync.WaitGroup {
	p.left.Store(int32(len(p.pipes)))
	p.eof = make(chan struct{})
	readers := new(sync.WaitGroup)
	for i, s := range []output.Stream{output.Stdout, output.Stderr} {
		readers.Go(func() { p.read(p.pipes[i], c, s) })
	}
	return readers
}

// nice is what is added to the priority number of c.
func (h *Host) nice(c *Command) int {
	if c.Brisk {
		return 0
	}
	return h.cfg.Nice
}

func (p *program) closePipes() {
	for _, f := range p.pipes {
		if f != nil {
			f.Close()
		}
	}
}

// open makes what the program starts with: its three files, and its place.
func (p *program) open(c Command) (files []*os.File, err error) {
	stdin := c.Stdin
	if stdin == "" {
		stdin = os.DevNull
	}
	in, err := os.Open(stdin)
	if err != nil {
		return nil, err
	}
	files = append(files, in)
	for i := range p.pipes {
		r, w, err := os.Pipe()
		if err != nil {
			return files, err
		}
		p.pipes[i] = r
		files = append(files, w)
	}
	return files, p.place(c.Limits)
}

// place makes the program's cgroup, and the record by which a later life finds it.
func (p *program) place(lim cgroup.Limits) (err error) {
	if p.h.cgroups != nil {
		lim, _ = lim.Without(p.h.cgroups.Holds())
		if p.leaf, err = p.h.cgroups.Take(lim); err != nil {
			return err
		}
	}
	p.record, err = p.h.records.take(p.head())
	return err
}

// head is the first line of the program's record.
func (p *program) head() recordHead { return recordHead{Token: p.token, Boot: p.h.boot} }

func (p *program) spawn(c Command, files []*os.File) (proc *os.Process, err error) {
	start := func(sys *syscall.SysProcAttr) error {
		sys.Setpgid = true
		proc, err = os.StartProcess(c.Path, c.Args, &os.ProcAttr{Dir: c.Dir, Env: append(c.Env[:len(c.Env):len(c.Env)], TokenVar+"="+p.token), Files: files, Sys: sys})
		return err
	}
	if p.leaf != nil {
		err = p.leaf.Start(start)
	} else {
		err = start(&syscall.SysProcAttr{})
	}
	var e *os.PathError
	if errors.As(err, &e) {
		return nil, e.Err // without the words "fork/exec"
	}
	return proc, err
}

func (p *program) read(from *os.File, c *Command, s output.Stream) {
	defer func() {
		if p.left.Add(-1) == 0 {
			close(p.eof)
		}
	}()
	to := io.Writer(c.Output.Writer(s))
	switch {
	case from == nil:
		return
	case c.Stdout != nil && s == output.Stdout:
		to = c.Stdout
	case p.readSafely(from, c.Output, s):
		return
	}
	buf := p.h.buffers.Get().(*[]byte)
	defer p.h.buffers.Put(buf)
	for {
		n, err := from.Read(*buf)
		_, _ = to.Write((*buf)[:n]) // it has its own way to say that it wants no more
		if err != nil {             // the end, or drain's deadline
			return
		}
	}
}

// stop ends the program because its context has: first in peace. The cause of that may
// have a Grace of its own, which is then kept if it is shorter.
func (p *program) stop(ctx context.Context) {
	if !p.signalGroup(syscall.SIGTERM) {
		return
	}
	p.signalGroup(syscall.SIGCONT) // one that is stopped could not act on it
	grace := p.grace
	var hurry interface{ Grace() time.Duration }
	if errors.As(context.Cause(ctx), &hurry) {
		grace = min(grace, hurry.Grace())
	}
	timer := time.NewTimer(grace)
	defer timer.Stop()
	select {
	case <-p.exited:
	case <-timer.C:
		p.killTree()
	}
}

// signalGroup signals the process group, unless it is gone.
func (p *program) signalGroup(sig syscall.Signal) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.gone {
		return false
	}
	p.stopped = true
	p.signal(sig)
	return true
}

// signal signals the process group. The caller holds mu, and p is not gone.
func (p *program) signal(sig syscall.Signal) {
	if p.proc == nil {
		p.signalKept(sig)
		return
	}
	_ = syscall.Kill(-p.proc.Pid, sig) // ESRCH is what we want
}

// killTree kills all of the program's processes that can be found.
func (p *program) killTree() {
	p.mu.Lock()
	if !p.gone {
		p.signal(syscall.SIGKILL)
	}
	p.mu.Unlock()
	if p.leaf != nil {
		p.leaf.Kill()
		return
	}
	killTokens(map[string]bool{p.token: true})
}

// ended kills what the program left running when it ended. Where it can be, it
// is called before the program is reaped: so long nobody else can get its
// process id, or its group's.
func (p *program) ended() {
	close(p.exited)
	p.mu.Lock()
	_ = syscall.Kill(-p.proc.Pid, syscall.SIGKILL)
	p.gone = true
	stopped := p.stopped
	p.mu.Unlock()
	switch {
	case p.leaf != nil: // its emptiness is seen, and seen to, once the program is reaped
	case stopped:
		killTokens(map[string]bool{p.token: true})
	default:
		p.h.strays.add(p.token)
	}
}

// drain waits for the last of the output. Whoever still holds a pipe open does
// not hold the attempt.
func (p *program) drain(readers *sync.WaitGroup) {
	if p.leaf != nil && !p.leaf.Empty() {
		p.leaf.Kill()
	}
	select {
	case <-p.eof: // the most common
	default:
		timer := time.NewTimer(pipeDelay)
		defer timer.Stop()
		select {
		case <-p.eof:
		case <-timer.C:
			if p.leaf == nil {
				killTokens(map[string]bool{p.token: true})
			}
			p.hush()
		}
	}
	readers.Wait()
	p.closePipes()
}

// hush has those who read the output stop.
func (p *program) hush() {
	for _, f := range p.pipes {
		if f != nil {
			_ = f.SetReadDeadline(time.Unix(1, 0))
		}
	}
}

// tidy gives back what the program ran with.
func (p *program) tidy() (err error) {
	if p.leaf != nil {
		err = p.leaf.Give()
	}
	p.h.records.give(p.record)
	return err
}

// ownMaxRSS is the peak of this process, in the units of Rusage. A child begins
// with what its parent had when it was forked, and so says nothing of itself
// until it has had more.
func ownMaxRSS() int64 {
	var own syscall.Rusage
	if syscall.Getrusage(syscall.RUSAGE_SELF, &own) != nil {
		return 0
	}
	return int64(own.Maxrss) //nolint:unconvert // the types differ by system
}

// exit adds to e how the program ended.
func (p *program) exit(e Exit, state *os.ProcessState) Exit {
	p.mu.Lock()
	defer p.mu.Unlock()
	e.Code, e.Stopped, e.User, e.System = state.ExitCode(), p.stopped, state.UserTime(), state.SystemTime()
	if ws, ok := state.Sys().(syscall.WaitStatus); ok && ws.Signaled() {
		e.Signal = ws.Signal()
	}
	if ru, ok := state.SysUsage().(*syscall.Rusage); ok && int64(ru.Maxrss) > ownMaxRSS() {
		e.MaxRSS = int64(ru.Maxrss) * rssUnit //nolint:unconvert // the types differ by system
	}
	return e
}
