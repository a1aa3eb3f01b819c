package cgroup

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"syscall"

	"golang.org/x/sys/unix"
)

// Start runs fork, which starts a program with the attributes it is given, so
// that the program starts inside. dir is the opened e.Dir, if there is one.
func (e Entry) Start(dir *os.File, fork func(*syscall.SysProcAttr) error) error {
	attr := &syscall.SysProcAttr{}
	if dir != nil {
		attr.UseCgroupFD, attr.CgroupFD = true, int(dir.Fd())
	}
	if len(e.Tasks) == 0 {
		return fork(attr)
	}
	// A thread that cannot come back must not run anything else: it ends with its
	// goroutine, which is why it has one of its own.
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		err := e.in()
		if err == nil {
			err = fork(attr)
		}
		if back := e.back(); back != nil {
			done <- err // the program, if it was started, is where it should be
			return
		}
		runtime.UnlockOSThread()
		done <- err
	}()
	return <-done
}

func (e Entry) in() error {
	for _, f := range e.Tasks {
		if err := enter(f); err != nil {
			return fmt.Errorf("go into a cgroup: %w", err)
		}
	}
	return nil
}

func (e Entry) back() (err error) {
	for _, f := range e.Home {
		err = errors.Join(err, enter(f))
	}
	return err
}

// enter brings the calling thread into the cgroup of a tasks file.
func enter(tasks string) error {
	fd, err := unix.Open(tasks, unix.O_WRONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return &os.PathError{Op: "open", Path: tasks, Err: err}
	}
	defer unix.Close(fd)
	if _, err := unix.Write(fd, []byte("0")); err != nil {
		return &os.PathError{Op: "write", Path: tasks, Err: err}
	}
	return nil
}
