package keeper

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// spawnFiles is how many files come with a program: the ends of its stdout and
// stderr that it writes, those that we read, then its cgroup and its stdin if
// they are said to be there.
const spawnFiles = 4

// spawn starts a program, closes files, and returns an exit if it could not.
func (k *keeper) spawn(s *Spawn, files []int) *Exit {
	want := spawnFiles
	if s.Cgroup {
		want++
	}
	if s.Stdin {
		want++
	}
	if len(files) != want {
		closeAll(files)
		return &Exit{ID: s.ID, Errno: int(unix.EBADF)}
	}
	p := &program{Program: Program{ID: s.ID, Attempt: strings.Clone(s.Attempt), Ordinal: s.Ordinal, Sum: s.Sum, Meta: strings.Clone(s.Meta)}, began: time.Now(), outlasts: s.Outlasts, pipes: [2]int{files[2], files[3]}}
	p.Exit.ID = s.ID
	if n := len(s.Env); n > 0 {
		p.mark = strings.Clone(s.Env[n-1])
	}
	stdin := k.null
	if s.Stdin {
		stdin = files[want-1]
	}
	attr := &syscall.ProcAttr{Dir: s.Dir, Env: s.Env, Files: []uintptr{uintptr(stdin), uintptr(files[0]), uintptr(files[1])},
		Sys: &syscall.SysProcAttr{Setpgid: true, Pdeathsig: unix.SIGKILL}}
	if s.Cgroup {
		attr.Sys.UseCgroupFD, attr.Sys.CgroupFD = true, files[spawnFiles]
	}
	k.forking.Lock()
	pid, err := k.fork(s, attr)
	if err == nil {
		k.mu.Lock()
		p.pid = pid
		k.programs[p.ID], k.pids[pid] = p, p
		k.attempts[p.Attempt] = append(k.attempts[p.Attempt], p)
		k.living++
		k.watch(p)
		k.mu.Unlock()
		k.started.Signal()
	}
	k.forking.Unlock()
	closeAll(files[:2])
	closeAll(files[spawnFiles:])
	if err == nil {
		return nil
	}
	closeAll(files[2:spawnFiles])
	var errno syscall.Errno
	if !errors.As(err, &errno) {
		errno = unix.EINVAL // a NUL byte, as from syscall.BytePtrFromString
	}
	return &Exit{ID: s.ID, Errno: int(errno)}
}

// fork starts the program with what only the thread that starts it can give.
func (k *keeper) fork(s *Spawn, attr *syscall.ProcAttr) (pid int, err error) {
	if !slices.Equal(s.V1Base, k.base) {
		for _, tasks := range s.V1Base {
			if err := writeZero(tasks); err != nil {
				return 0, gone(err)
			}
		}
		k.base = nil
		for _, tasks := range s.V1Base {
			k.base = append(k.base, strings.Clone(tasks))
		}
	}
	if s.Umask >= 0 {
		old := unix.Umask(s.Umask)
		defer unix.Umask(old)
	}
	for i, tasks := range s.V1Tasks {
		if err := writeZero(tasks); err != nil {
			leave(s.V1Back[:min(i, len(s.V1Back))])
			return 0, gone(err)
		}
	}
	defer leave(s.V1Back)
	if pid, err = syscall.ForkExec(s.Path, s.Args, attr); err != nil {
		return 0, err
	}
	if s.Nice != 0 {
		_ = unix.Setpriority(unix.PRIO_PGRP, pid, s.Nice) // as good as can be had
	}
	for _, l := range s.Rlimits {
		_ = unix.Prlimit(pid, l.Resource, &unix.Rlimit{Cur: l.Soft, Max: l.Max}, nil) // it may be over already
	}
	return pid, nil
}

// gone says of a cgroup that it is not there in a way that is not taken for a
// program that is not there.
func gone(err error) error {
	if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENODEV) {
		return unix.ESTALE
	}
	return err
}

// leave moves this thread back to where it was.
func leave(tasks []string) {
	for _, t := range tasks {
		if err := writeZero(t); err != nil {
			fmt.Fprintln(os.Stderr, "leave a program's cgroup:", err)
		}
	}
}

// writeZero moves the calling thread to where tasks stands.
func writeZero(path string) error {
	fd, err := unix.Open(path, unix.O_WRONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	_, err = unix.Write(fd, []byte("0"))
	return err
}
