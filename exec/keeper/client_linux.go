package keeper

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

const (
	helloWait = 3 * time.Second        // for a keeper that lives to answer
	leaveWait = 10 * time.Second       // for one that ends to be gone
	leavePoll = 5 * time.Millisecond   // between looks whether it is
	tidyEvery = 100 * time.Millisecond // what nobody needs any more is said that often, if no program is started meanwhile
	tidyMax   = 1000                   // or when there is so much of it
)

// Config says how to reach the keeper of a data dir, and to make one.
type Config struct {
	Dir     string        // of running programs; must be there, and this user's alone
	Command []string      // starts a process that calls [Main]
	Window  time.Duration // how long what runs goes on when the agent is gone
	Buffers *os.File      // what the keeper is to hold for the agent's next lives; may be nil
}

// Client is an agent's end. It is safe for use by many goroutines.
type Client struct {
	cfg   Config
	known []Program // what an earlier life left
	old   []*os.File
	lease *leasePage
	left  time.Duration // when an earlier life renewed its lease

	next    sync.Mutex // held while a keeper is started
	mu      sync.Mutex
	conn    *conn // nil while there is no keeper
	proc    *os.Process
	id      uint64
	waits   map[uint64]chan Exit
	early   map[uint64]Exit // of programs that nobody has claimed yet
	claims  map[uint64]chan claimed
	tidy    tidy
	timer   *time.Timer
	closed  bool
	readers sync.WaitGroup
}

type claimed struct {
	program Program
	files   []int
}

// ErrLost says that the keeper is gone, and what it ran with it.
var ErrLost = errors.New("the process that keeps programs running is gone")

// Open takes up what an earlier life of this agent left with its keeper. It
// starts none: the first Spawn does.
func Open(ctx context.Context, cfg Config) (*Client, error) {
	c := &Client{cfg: cfg, id: uint64(rand.Uint32()) << 32, waits: make(map[uint64]chan Exit), early: make(map[uint64]Exit), claims: make(map[uint64]chan claimed)}
	var err error
	if c.lease, err = newLeasePage(); err != nil {
		return nil, err
	}
	lock, err := tryLock(cfg.Dir)
	if err == nil && lock == nil { // one lives
		if err = c.meet(); err == nil {
			return c, nil
		}
		lock, err = c.outlive(ctx, err)
	}
	if err != nil {
		c.lease.close()
		return nil, err
	}
	defer lock.Close()
	c.known = readEnded(cfg.Dir)
	return c, nil
}

// Lives reports whether a keeper runs what Known lists: else it has all ended.
func (c *Client) Lives() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.conn != nil
}

// Known is what an earlier life of this agent left.
func (c *Client) Known() []Program { return c.known }

// Sweep removes what a keeper that is gone has read and nobody wants.
func (c *Client) Sweep(wanted []string) error {
	if c.Lives() {
		return nil
	}
	all, err := filepath.Glob(filepath.Join(c.cfg.Dir, spoolPrefix+"*"))
	for _, dir := range all {
		if !slices.Contains(wanted, dir) {
			err = errors.Join(err, os.RemoveAll(dir))
		}
	}
	return err
}

// tryLock takes the lock that a living keeper holds; nil when one does.
func tryLock(dir string) (*os.File, error) {
	f, err := os.OpenFile(filepath.Join(dir, lockName), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	err = unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
	if err == nil {
		return f, nil
	}
	f.Close()
	if errors.Is(err, unix.EWOULDBLOCK) {
		return nil, nil
	}
	return nil, err
}

// meet connects to the keeper that lives and asks it what it has.
func (c *Client) meet() error {
	conn, err := dial(c.cfg.Dir)
	if err != nil {
		return err
	}
	defer time.AfterFunc(helloWait, func() { _ = conn.file.SetDeadline(time.Unix(1, 0)) }).Stop()
	err = conn.send(&message{kind: kindHello, version: version})
	for last := false; err == nil && !last; {
		var m message
		var files []int
		if m, files, err = conn.receive(); err != nil {
			break
		}
		for _, fd := range files {
			c.old = append(c.old, os.NewFile(uintptr(fd), "buffers of an earlier life"))
		}
		switch {
		case m.kind == kindKnown && m.version != version:
			_ = conn.send(&message{kind: kindQuit})
			err = fmt.Errorf("it speaks version %d of the protocol, not %d", m.version, version)
		case m.kind == kindKnown:
			c.known, last, c.left = append(c.known, m.programs...), m.last, m.renewed
		case m.kind == kindExits:
			for _, x := range m.exits {
				c.early[x.ID] = x
			}
		}
	}
	if err != nil {
		conn.close()
		c.known = nil
		return err
	}
	_ = conn.file.SetDeadline(time.Time{})
	c.take(conn)
	return nil
}

// Renewed says that the mesh has answered what this agent sent then, on CLOCK_BOOTTIME: programs
// that may not go on without it have their time from there.
func (c *Client) Renewed(at time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.closed {
		c.lease.write(at)
	}
}

// WasRenewed is when an earlier life renewed its lease last; 0 where the keeper knows of none.
func (c *Client) WasRenewed() time.Duration { return c.left }

// Buffers are what earlier lives gave the keeper to hold, oldest first. They are
// the caller's to close.
func (c *Client) Buffers() []*os.File { return c.old }

// take makes conn the way to the keeper.
func (c *Client) take(conn *conn) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.conn = conn
	c.readers.Go(func() { c.read(conn) })
	_ = conn.send(&message{kind: kindLease}, int(c.lease.file.Fd())) // as with the buffers
	if c.cfg.Buffers != nil {
		_ = conn.send(&message{kind: kindBuffers}, int(c.cfg.Buffers.Fd())) // without a keeper it is of no use
	}
}

// outlive waits until a keeper that does not answer is gone, and kills it if it
// does not go by itself.
func (c *Client) outlive(ctx context.Context, why error) (*os.File, error) {
	deadline := time.Now().Add(leaveWait)
	killed := false
	for {
		lock, err := tryLock(c.cfg.Dir)
		if err != nil || lock != nil {
			return lock, err
		}
		if left := time.Until(deadline); left < 0 {
			return nil, fmt.Errorf("the keeper of %s does not answer, and does not end: %w", c.cfg.Dir, why)
		} else if left < leaveWait/2 && !killed {
			killed = true
			if pid := holder(c.cfg.Dir); pid > 1 {
				_ = unix.Kill(pid, unix.SIGKILL) // it holds the lock: the id is its own
			}
		}
		select {
		case <-time.After(leavePoll):
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// holder is the process that wrote itself into the lock.
func holder(dir string) int {
	data, err := os.ReadFile(filepath.Join(dir, lockName))
	if err != nil {
		return 0
	}
	pid, _ := strconv.Atoi(strings.TrimSpace(string(data))) // 0 is nobody
	return pid
}

// reach is the way to the keeper, which is started if there is none.
func (c *Client) reach() (*conn, error) {
	c.mu.Lock()
	conn, closed := c.conn, c.closed
	c.mu.Unlock()
	if closed {
		return nil, os.ErrClosed
	}
	if conn != nil {
		return conn, nil
	}
	c.next.Lock()
	defer c.next.Unlock()
	c.mu.Lock()
	conn = c.conn
	c.mu.Unlock()
	if conn != nil {
		return conn, nil
	}
	conn, err := c.start()
	if err != nil {
		return nil, fmt.Errorf("start the process that keeps programs running: %w", err)
	}
	c.take(conn)
	return conn, nil
}

// start starts a keeper. It does not wait until that listens: what is sent waits for it.
func (c *Client) start() (*conn, error) {
	lock, err := c.outlive(context.Background(), ErrLost)
	if err != nil {
		return nil, err
	}
	defer lock.Close() // the keeper's copy holds it
	fd, err := listen(c.cfg.Dir)
	if err != nil {
		return nil, err
	}
	listener := os.NewFile(uintptr(fd), socketName)
	defer listener.Close()
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	defer null.Close()
	log, err := os.OpenFile(filepath.Join(c.cfg.Dir, logName), os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return nil, err
	}
	defer log.Close()
	// With spare processors the runtime leaves those to their threads that wait in
	// system calls, as the keeper's do most of the time. With 1 or 2 of them a program
	// was measured to cost 30 to 80 µs of CPU time more, of some 1100.
	env := append(os.Environ(), "GOMAXPROCS=4")
	args := append(append([]string(nil), c.cfg.Command...), c.cfg.Dir, c.cfg.Window.String())
	proc, err := os.StartProcess(args[0], args, &os.ProcAttr{Dir: "/", Env: env, Files: []*os.File{null, null, log, listener, lock},
		Sys: &syscall.SysProcAttr{Setsid: true}})
	if err != nil {
		return nil, err
	}
	conn, err := dial(c.cfg.Dir)
	if err != nil {
		_ = proc.Kill()
		_, _ = proc.Wait()
		return nil, err
	}
	c.mu.Lock()
	old := c.proc
	c.proc = proc
	c.mu.Unlock()
	if old != nil {
		_, _ = old.Wait() // it is gone: its lock was free
	}
	return conn, nil
}

// read takes what the keeper says until the connection ends.
func (c *Client) read(conn *conn) {
	for {
		m, files, err := conn.receive()
		if err != nil {
			break
		}
		c.mu.Lock()
		for _, x := range m.exits {
			if w := c.waits[x.ID]; w != nil {
				w <- x
				delete(c.waits, x.ID)
			} else {
				c.early[x.ID] = x
			}
		}
		if m.kind == kindClaimed {
			if w := c.claims[m.programs[0].ID]; w != nil {
				w <- claimed{m.programs[0], files}
				delete(c.claims, m.programs[0].ID)
				files = nil
			}
		}
		c.mu.Unlock()
		closeAll(files)
	}
	conn.close()
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.conn == conn {
		c.conn = nil
	}
	for id, w := range c.waits {
		w <- Exit{ID: id, Lost: true}
		delete(c.waits, id)
	}
	for id, w := range c.claims {
		close(w)
		delete(c.claims, id)
	}
}

// Files are what a program is started with. The caller closes them afterwards.
type Files struct {
	Stdout, Stderr         int      // the ends that it writes
	ReadStdout, ReadStderr int      // the ends that we read
	Cgroup                 *os.File // the directory of a version 2 cgroup to start in; may be nil
	Stdin                  *os.File // nil means nothing to read
}

// Spawn has a program started. Its exit, or why it could not be started, comes
// by the channel, once. The id is for Signal and Drained.
func (c *Client) Spawn(s *Spawn, f Files) (id uint64, exit <-chan Exit, err error) {
	files := []int{f.Stdout, f.Stderr, f.ReadStdout, f.ReadStderr}
	s.Cgroup, s.Stdin = f.Cgroup != nil, f.Stdin != nil
	for _, more := range []*os.File{f.Cgroup, f.Stdin} {
		if more != nil {
			files = append(files, int(more.Fd()))
		}
	}
	for range 2 { // a keeper that died meanwhile never saw it: the next does
		if id, exit, err = c.spawn(s, files); !errors.Is(err, ErrLost) {
			break
		}
	}
	return id, exit, err
}

func (c *Client) spawn(s *Spawn, files []int) (uint64, <-chan Exit, error) {
	conn, err := c.reach()
	if err != nil {
		return 0, nil, err
	}
	w := make(chan Exit, 1)
	c.mu.Lock()
	c.id++
	s.ID = c.id
	m := message{kind: kindSpawn, spawn: *s, tidy: c.tidy}
	c.waits[s.ID], c.tidy = w, tidy{}
	c.mu.Unlock()
	err = conn.send(&m, files...)
	if err == nil {
		return s.ID, w, nil
	}
	c.mu.Lock()
	delete(c.waits, s.ID)
	if c.conn == conn {
		c.conn = nil
	}
	c.mu.Unlock()
	if errors.Is(err, unix.EPIPE) || errors.Is(err, unix.ECONNRESET) || errors.Is(err, os.ErrClosed) {
		conn.close()
		err = ErrLost
	}
	return 0, nil, err
}

// Claim takes up a program that Known lists: the pipes to read, nil where there
// is nothing more to read, and the channel by which its exit comes.
func (c *Client) Claim(id uint64) (p Program, pipes []*os.File, exit <-chan Exit, err error) {
	w := make(chan Exit, 1)
	var found *Program
	for i := range c.known {
		if c.known[i].ID == id {
			found = &c.known[i]
		}
	}
	if found == nil {
		return p, nil, nil, fmt.Errorf("claim program %x: %w", id, ErrLost)
	}
	c.mu.Lock()
	conn := c.conn
	if conn == nil { // it ended, and its keeper after it
		c.mu.Unlock()
		if !found.Ended {
			return p, nil, nil, ErrLost
		}
		w <- found.Exit
		return *found, nil, w, nil
	}
	answer := make(chan claimed, 1)
	c.claims[id] = answer
	c.mu.Unlock()
	if err := conn.send(&message{kind: kindClaim, id: id}); err != nil {
		return p, nil, nil, ErrLost
	}
	got, ok := <-answer
	if !ok {
		return p, nil, nil, ErrLost
	}
	p = got.program
	for i, fd := range got.files {
		_ = unix.SetNonblock(fd, true)
		pipes = append(pipes, os.NewFile(uintptr(fd), [2]string{"stdout", "stderr"}[i%2]))
	}
	if len(pipes) != 2 || p.Exit.Lost {
		for _, f := range pipes {
			f.Close()
		}
		return p, nil, nil, ErrLost
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	x, early := c.early[id]
	switch {
	case p.Ended:
		w <- p.Exit
	case early:
		w <- x
	case c.conn != conn:
		w <- Exit{ID: id, Lost: true}
	default:
		c.waits[id] = w
	}
	delete(c.early, id)
	return p, pipes, w, nil
}

// Signal signals a program's process group, if the program has not ended.
func (c *Client) Signal(id uint64, sig syscall.Signal) {
	c.mu.Lock()
	conn := c.conn
	c.mu.Unlock()
	if conn != nil {
		_ = conn.send(&message{kind: kindSignal, id: id, signal: int(sig)}) // without a keeper it is dead
	}
}

// Drained says that the program has ended and its output was read to its end.
func (c *Client) Drained(id uint64) { c.later(func(t *tidy) { t.drained = append(t.drained, id) }) }

// Forget says that nobody will ask for the attempts again. What still runs of them is killed.
func (c *Client) Forget(attempts ...string) {
	c.later(func(t *tidy) { t.forget = append(t.forget, attempts...) })
}

// later has the keeper hear of something with the next program, or soon.
func (c *Client) later(add func(*tidy)) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.conn == nil || c.closed {
		return
	}
	add(&c.tidy)
	wait := tidyEvery
	if len(c.tidy.drained)+len(c.tidy.forget) >= tidyMax {
		wait = 0
	}
	switch {
	case c.timer == nil:
		c.timer = time.AfterFunc(wait, c.flush)
	case wait == 0:
		c.timer.Reset(0)
	}
}

// flush says what is to be said.
func (c *Client) flush() {
	c.mu.Lock()
	m, conn := message{kind: kindTidy, tidy: c.tidy}, c.conn
	c.tidy, c.timer = tidy{}, nil
	c.mu.Unlock()
	if conn != nil && !m.tidy.empty() {
		_ = conn.send(&m) // without a keeper nobody needs to hear it
	}
}

// Detach leaves the keeper to itself: what runs goes on for the window.
func (c *Client) Detach() { _, _ = c.leave(false) }

// Close has the keeper end whatever runs and end, and waits for that. It is safe twice.
func (c *Client) Close() error {
	proc, lived := c.leave(true)
	if proc != nil {
		deadline := time.AfterFunc(leaveWait, func() { _ = proc.Kill() })
		defer deadline.Stop()
		_, err := proc.Wait()
		return err
	}
	if !lived {
		return nil
	}
	lock, err := c.outlive(context.Background(), ErrLost) // it is another's child
	if lock != nil {
		lock.Close()
	}
	return err
}

// leave ends the connection; lived says whether there was one.
func (c *Client) leave(quit bool) (proc *os.Process, lived bool) {
	c.flush()
	c.mu.Lock()
	proc, conn := c.proc, c.conn
	if c.timer != nil {
		c.timer.Stop()
	}
	if !c.closed {
		c.lease.close()
	}
	c.closed, c.proc, c.conn = true, nil, nil
	c.mu.Unlock()
	if conn != nil {
		if quit {
			_ = conn.send(&message{kind: kindQuit})
		}
		conn.close()
	}
	c.readers.Wait()
	if !quit && proc != nil {
		_ = proc.Release()
		proc = nil
	}
	return proc, conn != nil
}
