package keeper

import (
	"bytes"
	"context"
	"errors"
	"os"
	"strconv"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// pidOffset is where siginfo_t has the process id: behind three numbers, at a
// place for a pointer.
const pidOffset = 12 + (unsafe.Sizeof(uintptr(0)) - 4)

// reap waits for whatever ends below this process, for as long as it lives.
func (k *keeper) reap() {
	for {
		pid, err := next()
		if err != nil {
			k.mu.Lock()
			for k.living == 0 {
				k.started.Wait()
			}
			k.mu.Unlock()
			continue
		}
		k.mu.Lock()
		p := k.pids[pid]
		k.mu.Unlock()
		if p == nil { // an orphan, or one that was forked just now
			k.forking.Lock()
			k.mu.Lock()
			p = k.pids[pid]
			k.mu.Unlock()
			k.forking.Unlock()
		}
		if p != nil {
			k.ended(p)
			continue
		}
		var ws unix.WaitStatus
		_, _ = unix.Wait4(pid, &ws, 0, nil)
	}
}

// next is the id of a process that has ended and is not reaped: as long as that
// is so nobody else can get its id, or its group's.
func next() (pid int, err error) {
	for {
		var info unix.Siginfo
		err = unix.Waitid(unix.P_ALL, 0, &info, unix.WEXITED|unix.WNOWAIT, nil)
		if !errors.Is(err, unix.EINTR) {
			return int(*(*int32)(unsafe.Add(unsafe.Pointer(&info), pidOffset))), err //nolint:gosec // the package leaves the rest of it nameless
		}
	}
}

// ended kills what is left of a program's group, reaps it, and tells the agent.
func (k *keeper) ended(p *program) {
	var ws unix.WaitStatus
	var ru unix.Rusage
	k.mu.Lock()
	p.reaping = true // from here on nobody else signals it: its id may soon be another's
	delete(k.pids, p.pid)
	k.mu.Unlock() // what follows takes its time, and programs are to be started meanwhile
	_ = unix.Kill(-p.pid, unix.SIGKILL)
	for {
		if _, err := unix.Wait4(p.pid, &ws, 0, &ru); !errors.Is(err, unix.EINTR) {
			break
		}
	}
	k.mu.Lock()
	k.living--
	x := &p.Exit
	x.Status, x.User, x.System = uint32(ws), time.Duration(ru.Utime.Nano()), time.Duration(ru.Stime.Nano())
	if ru.Maxrss > k.own { // a child begins with what its parent had
		x.MaxRSS = ru.Maxrss
	}
	p.Ended = true
	alone := k.living == 0
	if p.dropped {
		k.remove(p)
	}
	c, said := k.conn, *x
	k.mu.Unlock()
	if alone {
		k.clear()
	}
	if c != nil {
		_ = c.send(&message{kind: kindExits, exits: []Exit{said}}) // a new agent asks for it
	}
}

// clear kills what is left below this process when no program runs.
func (k *keeper) clear() {
	err := unix.Waitid(unix.P_ALL, 0, nil, unix.WEXITED|unix.WNOWAIT|unix.WNOHANG, nil)
	if errors.Is(err, unix.ECHILD) {
		return
	}
	k.forking.Lock() // nothing new begins meanwhile
	defer k.forking.Unlock()
	k.mu.Lock()
	alone := k.living == 0
	k.mu.Unlock()
	if alone {
		_ = killChildren(os.Getpid(), nil)
	}
}

// killBelow kills all that descends from pid, until nothing does or ctx ends.
func killBelow(ctx context.Context, pid int) {
	for n := killChildren(pid, nil); n > 0 && ctx.Err() == nil; n = killChildren(pid, nil) {
		time.Sleep(time.Millisecond)
	}
}

// killChildren kills, once, whoever descends from pid, and of those only whom that says, if it is not
// nil. It returns how many there were.
func killChildren(pid int, whom func(id int, parents map[int]int) bool) (n int) {
	parents := make(map[int]int)
	dir, err := os.Open("/proc")
	if err != nil {
		return 0
	}
	names, _ := dir.Readdirnames(-1)
	dir.Close()
	for _, name := range names {
		if id, err := strconv.Atoi(name); err == nil {
			if parent, alive := parentOf(id); alive {
				parents[id] = parent
			}
		}
	}
	for id := range parents {
		if id == pid || !descends(id, pid, parents) || whom != nil && !whom(id, parents) {
			continue
		}
		n++
		_ = unix.Kill(id, unix.SIGKILL) // we reap: its id is its own
	}
	return n
}

func descends(id, from int, parents map[int]int) bool {
	for range len(parents) {
		parent, known := parents[id]
		if !known {
			return false
		}
		if parent == from {
			return true
		}
		id = parent
	}
	return false
}

// parentOf is the parent of a process, which is alive if it is no zombie.
func parentOf(pid int) (parent int, alive bool) {
	data, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return 0, false
	}
	// The second field is a name in brackets and may hold anything.
	fields := bytes.Fields(data[bytes.LastIndexByte(data, ')')+1:])
	if len(fields) < 2 || fields[0][0] == 'Z' || fields[0][0] == 'X' {
		return 0, false
	}
	parent, err = strconv.Atoi(string(fields[1]))
	return parent, err == nil
}
