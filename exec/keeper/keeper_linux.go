package keeper

import (
	"context"
	"errors"
	"fmt"
	"math"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"strconv"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Files that the keeper is started with, after the three standard ones.
const (
	listenFD = 3 + iota
	lockFD
)

const (
	endWait   = 5 * time.Second // for what was killed to be gone
	stayEvery = time.Second     // between looks whether anything still runs for which to stay without an agent
	gcPercent = 50

	// timerSlack is Linux's default, in nanoseconds, which programs are to have: the
	// agent's threads, and with them this process's, have more.
	timerSlack = 50_000
)

// keeper is the process that runs programs.
type keeper struct {
	dir      string
	window   time.Duration
	listener int
	null     int
	own      int64 // peak of its own memory, KiB

	base    []string   // where the thread that starts programs stands: see [Spawn]
	forking sync.Mutex // held from a fork until its child is known

	mu       sync.Mutex
	conn     *conn // the agent's; nil without one
	programs map[uint64]*program
	pids     map[int]*program
	attempts map[string][]*program
	living   int
	started  *sync.Cond // living has grown
	ending   bool
	spools   int
	buffers  []int // of agents, oldest first; only serve touches them
	fence    fence
}

// program is one that an agent asked for.
type program struct {
	Program
	pid      int
	began    time.Time
	outlasts time.Duration // how long it goes on without word from the mesh; 0: as the agent's own, for the window
	mark     string        // in the environment of its processes
	pipes    [2]int        // that we can read; -1 once there is nothing more to read
	drain    *drain        // reads the pipes while no agent does
	reaping  bool          // it has ended, and its process id is no longer its own
	dropped  bool          // its attempt was forgotten while it ran
}

// Main is the whole of the keeper's process: it serves the agents of dir until
// there is none for as long as window and then ends everything it runs. The
// agent starts it; see [Open].
func Main(dir string, window time.Duration) (err error) {
	over := make(chan struct{})
	go apart(func() { // programs are forked by this thread and die with it
		defer close(over)
		err = run(dir, window)
	})
	<-over
	return err
}

// apart runs f on a thread that ends with it, and that is not the first of the
// process: the process's memory counts for the cgroup of that one, and f's is the
// one of the programs.
func apart(f func()) {
	runtime.LockOSThread()
	if unix.Gettid() != unix.Getpid() {
		f()
		return
	}
	over := make(chan struct{})
	go func() {
		defer close(over)
		apart(f)
	}()
	<-over // meanwhile this one is not to be had
	runtime.UnlockOSThread()
}

// run is Main on the thread that starts programs.
func run(dir string, window time.Duration) error {
	debug.SetGCPercent(gcPercent)
	debug.SetTraceback("all")
	signal.Notify(make(chan os.Signal, 1), unix.SIGINT, unix.SIGHUP) // nobody listens; to ignore them would have the programs ignore them
	for _, fd := range []int{listenFD, lockFD} {
		unix.CloseOnExec(fd)
	}
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		fmt.Fprintln(os.Stderr, "not the reaper of orphans, which are found by cgroup and token only:", err)
	}
	_ = unix.Prctl(unix.PR_SET_TIMERSLACK, timerSlack, 0, 0, 0)

	_ = unix.Unshare(unix.CLONE_FS) // a umask of this thread's own; containers may forbid it, and all threads share one then
	null, err := unix.Open(os.DevNull, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	if err := writeLock(lockFD); err != nil {
		return err
	}
	k := &keeper{dir: dir, window: window, listener: listenFD, null: null, programs: make(map[uint64]*program), pids: make(map[int]*program), attempts: make(map[string][]*program)}
	k.started = sync.NewCond(&k.mu)
	if k.fence, err = openFence(); err != nil {
		return err
	}
	var own unix.Rusage
	if unix.Getrusage(unix.RUSAGE_SELF, &own) == nil {
		k.own = own.Maxrss
	}
	term := make(chan os.Signal, 1)
	signal.Notify(term, unix.SIGTERM)
	go func() { // for the life of the process
		<-term
		k.end()
		os.Exit(0)
	}()
	go k.reap()
	go k.guard()
	k.run()
	k.end()
	return nil
}

// writeLock says in the lock who holds it.
func writeLock(fd int) error {
	_, err := unix.Pwrite(fd, []byte(strconv.Itoa(os.Getpid())+"\n"), 0)
	return err
}

// run serves one agent after the other, until none comes.
func (k *keeper) run() {
	for {
		if !k.wanted(k.window) {
			return
		}
		fd, _, err := unix.Accept4(k.listener, unix.SOCK_CLOEXEC)
		if err != nil {
			continue
		}
		if err := trusted(fd); err != nil {
			fmt.Fprintln(os.Stderr, "turned away:", err)
			unix.Close(fd)
			continue
		}
		c, err := newConn(fd, false)
		if err != nil {
			continue
		}
		k.mu.Lock()
		k.conn = c
		k.mu.Unlock()
		quit := k.serve(c)
		k.mu.Lock()
		k.conn = nil
		k.mu.Unlock()
		c.close()
		if quit {
			return
		}
		if k.idle() {
			return
		}
		k.drain()
	}
}

// wanted waits for an agent: for the window, and longer while anything runs that may go on.
func (k *keeper) wanted(window time.Duration) bool {
	for deadline := time.Now().Add(window); ; {
		left := time.Until(deadline)
		if left <= 0 {
			if !k.staying() {
				return false
			}
			left = stayEvery
			deadline = time.Now().Add(left)
		}
		fds := []unix.PollFd{{Fd: int32(k.listener), Events: unix.POLLIN}}
		n, err := unix.Poll(fds, int(min(left.Milliseconds()+1, math.MaxInt32)))
		if n > 0 {
			return true
		}
		if err != nil && !errors.Is(err, unix.EINTR) {
			return false
		}
	}
}

// idle reports whether an agent that comes would find nothing here.
func (k *keeper) idle() bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	return len(k.programs) == 0
}

// serve does what one agent asks for; true when that is to end.
func (k *keeper) serve(c *conn) (quit bool) {
	for {
		m, files, err := c.receive()
		if err != nil {
			if errors.Is(err, errMessage) {
				fmt.Fprintln(os.Stderr, err)
			}
			return false
		}
		switch m.kind {
		case kindHello:
			if m.version != version {
				_ = c.send(&message{kind: kindKnown, version: version, last: true})
				break // it will have us end
			}
			k.tell(c)
		case kindQuit:
			return true
		case kindSpawn:
			k.tidy(&m.tidy)
			if x := k.spawn(&m.spawn, files); x != nil {
				_ = c.send(&message{kind: kindExits, exits: []Exit{*x}})
			}
			continue // which closed the files
		case kindSignal:
			k.signal(m.id, syscall.Signal(m.signal))
		case kindClaim:
			k.claim(c, m.id)
		case kindTidy:
			k.tidy(&m.tidy)
		case kindLease:
			k.share(files)
		case kindBuffers:
			k.buffers = append(k.buffers, files...)
			if over := len(k.buffers) - buffersMax; over > 0 {
				closeAll(k.buffers[:over])
				k.buffers = append(k.buffers[:0], k.buffers[over:]...)
			}
			continue
		}
		closeAll(files)
	}
}

const (
	knownMax   = 64 // programs that one message tells of
	buffersMax = 4  // lives of the agent whose buffers are kept
)

// tell tells a new agent what there is.
func (k *keeper) tell(c *conn) {
	k.mu.Lock()
	all := make([]Program, 0, len(k.programs))
	for _, p := range k.programs {
		if p.Attempt != "" {
			all = append(all, p.now())
		} else if !p.Ended { // nobody will ask for it
			p.dropped = true
			p.kill()
		} else {
			k.remove(p)
		}
	}
	heard := k.heard()
	k.mu.Unlock()
	for {
		n := min(len(all), knownMax)
		m := message{kind: kindKnown, version: version, last: n == len(all), renewed: heard, programs: all[:n]}
		var files []int
		if m.last {
			files = k.buffers
		}
		if c.send(&m, files...) != nil || m.last {
			return
		}
		all = all[n:]
	}
}

// now is what is known of p now.
func (p *program) now() Program {
	s := p.Program
	s.Age = time.Since(p.began)
	s.NoPipes = p.pipes == [2]int{-1, -1}
	s.Spools = append([]string(nil), p.Spools...)
	return s
}

// kill kills p's process group. The caller holds mu.
func (p *program) kill() {
	if !p.reaping { // else it was killed
		_ = unix.Kill(-p.pid, unix.SIGKILL)
	}
}

func (k *keeper) signal(id uint64, sig syscall.Signal) {
	k.mu.Lock()
	defer k.mu.Unlock()
	p := k.programs[id]
	if p == nil || p.reaping {
		return
	}
	p.Exit.Asked = true
	_ = unix.Kill(-p.pid, sig)
}

// claim hands the pipes of a program to the agent.
func (k *keeper) claim(c *conn, id uint64) {
	k.mu.Lock()
	p := k.programs[id]
	if p == nil {
		k.mu.Unlock()
		_ = c.send(&message{kind: kindClaimed, programs: []Program{{ID: id, Ended: true, NoPipes: true, Exit: Exit{ID: id, Lost: true, Errno: int(unix.ESRCH)}}}})
		return
	}
	k.settle(p)
	m := message{kind: kindClaimed, programs: []Program{p.now()}}
	var files []int
	for _, fd := range p.pipes {
		if fd < 0 {
			fd = k.null // at its end at once
		}
		files = append(files, fd)
	}
	k.mu.Unlock()
	_ = c.send(&m, files...) // only this goroutine closes pipes while an agent is here
}

// tidy lets go of what the agent has no more need of.
func (k *keeper) tidy(t *tidy) {
	if t.empty() {
		return
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, id := range t.drained {
		if p := k.programs[id]; p != nil {
			p.closePipes()
			if p.Attempt == "" && p.Ended {
				k.remove(p)
			}
		}
	}
	for _, a := range t.forget {
		for _, p := range k.attempts[a] {
			if p.Ended {
				k.forget(p)
			} else {
				p.dropped = true
				p.kill()
			}
		}
		delete(k.attempts, a)
	}
}

func (p *program) closePipes() {
	for i, fd := range p.pipes {
		if fd >= 0 {
			unix.Close(fd)
			p.pipes[i] = -1
		}
	}
}

// forget lets go of an ended program. The caller holds mu.
func (k *keeper) forget(p *program) {
	k.settle(p)
	p.closePipes()
	for _, s := range p.Spools {
		_ = os.RemoveAll(s)
	}
	delete(k.programs, p.ID)
}

// remove is forget for one program of its attempt.
func (k *keeper) remove(p *program) {
	k.forget(p)
	rest := k.attempts[p.Attempt][:0]
	for _, o := range k.attempts[p.Attempt] {
		if o != p {
			rest = append(rest, o)
		}
	}
	if k.attempts[p.Attempt] = rest; len(rest) == 0 {
		delete(k.attempts, p.Attempt)
	}
}

// end kills everything and writes down how those ended that had ended before.
func (k *keeper) end() {
	_ = unix.Close(k.listener)
	_ = os.Remove(filepath.Join(k.dir, socketName))
	k.mu.Lock()
	if k.ending {
		k.mu.Unlock()
		return
	}
	k.ending = true
	var ended []Program
	for _, p := range k.programs {
		if p.Ended && p.Attempt != "" && !p.Exit.Asked {
			k.settle(p)
			s := p.now()
			s.NoPipes = true
			ended = append(ended, s)
		}
	}
	k.mu.Unlock()
	if len(ended) > 0 {
		if err := writeEnded(k.dir, ended); err != nil {
			fmt.Fprintln(os.Stderr, "write down what ended:", err)
		}
	}
	ctx, cancel := context.WithTimeout(context.Background(), endWait)
	defer cancel()
	killBelow(ctx, os.Getpid())
}

// writeEnded leaves word for an agent that comes when the keeper is gone.
func writeEnded(dir string, ended []Program) error {
	m := message{kind: kindKnown, version: version, last: true, programs: ended}
	path := filepath.Join(dir, endedName)
	if err := os.WriteFile(path+".new", m.appendTo(nil), 0o600); err != nil {
		return err
	}
	return os.Rename(path+".new", path)
}

// readEnded reads such word, once.
func readEnded(dir string) []Program {
	path := filepath.Join(dir, endedName)
	b, err := os.ReadFile(path)
	if err != nil {
		return nil
	}
	_ = os.Remove(path)
	m, err := decode(b)
	if err != nil {
		return nil
	}
	return m.programs
}
