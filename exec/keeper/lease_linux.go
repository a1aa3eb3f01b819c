package keeper

import (
	"fmt"
	"math"
	"os"
	"slices"
	"strconv"
	"sync/atomic"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// fenceAfter is how long after the time that a program outlasts the keeper kills it.
// An agent that lives looks four times a second, sends SIGTERM, and kills half a second later: it comes first.
const fenceAfter = 750 * time.Millisecond

// fenceRounds bounds the looks for processes that fork while they are killed.
const fenceRounds = 20

// leasePage is memory that the agent shares with its keeper: when the agent sent
// the newest word that the mesh has answered, on CLOCK_BOOTTIME. An agent that is stopped writes nothing,
// and to write costs no call.
type leasePage struct {
	file *os.File // nil in the keeper
	mem  []byte
}

const leaseBytes = 8

func newLeasePage() (*leasePage, error) {
	fd, err := unix.MemfdCreate("labmesh-lease", unix.MFD_CLOEXEC)
	if err != nil {
		return nil, err
	}
	l := &leasePage{file: os.NewFile(uintptr(fd), "lease")}
	if err = unix.Ftruncate(fd, leaseBytes); err == nil {
		l.mem, err = unix.Mmap(fd, 0, leaseBytes, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	}
	if err != nil {
		l.file.Close()
		return nil, err
	}
	return l, nil
}

// mapLease maps the page that an agent has made. The descriptor stays the caller's.
func mapLease(fd int) (*leasePage, error) {
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil || st.Size != leaseBytes {
		return nil, errMessage // to read behind the end of a file is fatal
	}
	mem, err := unix.Mmap(fd, 0, leaseBytes, unix.PROT_READ, unix.MAP_SHARED)
	if err != nil {
		return nil, err
	}
	return &leasePage{mem: mem}, nil
}

func (l *leasePage) word() *int64 { return (*int64)(unsafe.Pointer(&l.mem[0])) } //nolint:gosec // a page is aligned

// read is 0 where nothing was ever answered.
func (l *leasePage) read() time.Duration { return time.Duration(atomic.LoadInt64(l.word())) }

func (l *leasePage) write(at time.Duration) { atomic.StoreInt64(l.word(), int64(at)) }

func (l *leasePage) close() {
	_ = unix.Munmap(l.mem)
	if l.file != nil {
		l.file.Close()
	}
}

// fence is what the keeper ends programs by that must not go on. Its timer is on a
// clock that nobody sets and that goes on while the machine sleeps.
type fence struct {
	timer   int           // a timerfd
	at      time.Duration // when it rings; 0 while it does not
	page    *leasePage    // of the agent; nil before one gave it
	renewed time.Duration // newest that any agent had
}

func openFence() (f fence, err error) {
	f.timer, err = unix.TimerfdCreate(unix.CLOCK_BOOTTIME, unix.TFD_CLOEXEC)
	return f, err
}

// share takes the page of a new agent. What it says counts from when it is newer than what others said.
func (k *keeper) share(files []int) {
	if len(files) != 1 {
		return
	}
	page, err := mapLease(files[0])
	if err != nil {
		fmt.Fprintln(os.Stderr, "the agent's lease:", err)
		return
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	k.heard()
	if k.fence.page != nil {
		k.fence.page.close()
	}
	k.fence.page = page
}

// heard is when an agent sent the newest word that the mesh has answered; 0 where none
// ever did. The caller holds mu.
func (k *keeper) heard() time.Duration {
	if k.fence.page != nil {
		k.fence.renewed = max(k.fence.renewed, k.fence.page.read())
	}
	return k.fence.renewed
}

// until is when p must end if nothing more is heard; never is not ok. The caller holds mu.
func (k *keeper) until(p *program) (at time.Duration, ok bool) {
	heard := k.heard()
	if heard == 0 || p.outlasts == 0 || p.outlasts > math.MaxInt64-heard-fenceAfter {
		return 0, false
	}
	return heard + p.outlasts + fenceAfter, true
}

// watch has the timer ring when p must end, unless it rings before. The caller holds mu.
func (k *keeper) watch(p *program) {
	at, ok := k.until(p)
	if !ok || k.fence.at != 0 && k.fence.at <= at {
		return
	}
	k.fence.at = at
	spec := unix.ItimerSpec{Value: unix.NsecToTimespec(int64(at))}
	if err := unix.TimerfdSettime(k.fence.timer, unix.TFD_TIMER_ABSTIME, &spec, nil); err != nil {
		fmt.Fprintln(os.Stderr, "watch the lease:", err)
	}
}

// guard ends what must not go on, for as long as this process lives. While no
// program runs that could have to end, it does not wake.
func (k *keeper) guard() {
	var rings [8]byte
	for {
		if _, err := unix.Read(k.fence.timer, rings[:]); err != nil {
			if err == unix.EINTR {
				continue
			}
			fmt.Fprintln(os.Stderr, "watch the lease:", err)
			return
		}
		k.forking.Lock() // nothing new begins meanwhile
		k.mu.Lock()
		k.fence.at = 0
		now := boottime()
		var over []*program
		for _, p := range k.pids {
			switch at, ok := k.until(p); {
			case !ok || p.Exit.Cut:
			case at <= now:
				fmt.Fprintf(os.Stderr, "%s: ended %s: nothing was heard of the mesh for %s\n", time.Now().Format(time.RFC3339), p.Attempt, (now - k.heard()).Round(time.Millisecond))
				over = append(over, p)
			default:
				k.watch(p)
			}
		}
		k.cut(over)
		k.mu.Unlock()
		k.forking.Unlock()
	}
}

// cut kills programs, whole trees. The caller holds forking and mu.
func (k *keeper) cut(over []*program) {
	if len(over) == 0 {
		return
	}
	for _, p := range over {
		p.Exit.Cut = true
		for range fenceRounds { // before its head is dead and orphans are nobody's
			if killChildren(os.Getpid(), p.owns) == 0 {
				break
			}
		}
		p.kill()
	}
}

// owns reports whether a process is one of p's, but not its head: below it, or with its mark.
func (p *program) owns(id int, parents map[int]int) bool {
	if id == p.pid {
		return false
	}
	return descends(id, p.pid, parents) || p.mark != "" && marked(id, p.mark)
}

// marked reports whether a process was started with mark in its environment.
func marked(pid int, mark string) bool {
	env, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/environ")
	return err == nil && slices.Contains(splitNul(env), mark)
}

func splitNul(env []byte) (out []string) {
	for len(env) > 0 {
		n := slices.Index(env, 0)
		if n < 0 {
			n = len(env)
		}
		out = append(out, string(env[:n]))
		env = env[min(n+1, len(env)):]
	}
	return out
}

// boottime is the time since this machine was booted, with what it slept.
func boottime() time.Duration {
	var ts unix.Timespec
	_ = unix.ClockGettime(unix.CLOCK_BOOTTIME, &ts) // there is one: the timer is of it
	return time.Duration(ts.Nano())
}

// staying reports whether anything runs that may go on though no agent came for
// the window, and ends the rest.
func (k *keeper) staying() bool {
	k.forking.Lock()
	defer k.forking.Unlock()
	k.mu.Lock()
	defer k.mu.Unlock()
	now, stay := boottime(), false
	var over []*program
	for _, p := range k.pids {
		at, ends := k.until(p)
		if p.Attempt != "" && p.outlasts > 0 && k.heard() > 0 && (!ends || at > now) {
			stay = true
		} else if !p.Exit.Cut {
			over = append(over, p)
		}
	}
	if stay { // else all there is below this process is ended with it
		k.cut(over)
	}
	return stay
}
