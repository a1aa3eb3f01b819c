package cgroup

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"sync"

	"golang.org/x/sys/unix"
)

// spawner is the thread that starts the programs of a pool in this process: it
// stands where they start.
type spawner struct {
	mu   sync.Mutex
	jobs chan job // nil until the first
	end  chan struct{}
}

// job is something to do in the cgroups of an entry.
type job struct {
	entry Entry
	do    func() error
	done  chan error
}

// start does do in the cgroups of e. homes are where a thread of this process is by itself.
func (s *spawner) start(homes []string, e Entry, do func() error) error {
	j := job{e, do, make(chan error, 1)}
	s.mu.Lock()
	if s.jobs == nil {
		s.jobs, s.end = make(chan job), make(chan struct{})
		jobs, end := s.jobs, s.end
		go apart(func() {
			defer close(end)
			serve(jobs, homes)
		})
	}
	jobs := s.jobs
	s.mu.Unlock()
	jobs <- j
	return <-j.done
}

// close ends the thread, if there is one. No start may be under way.
func (s *spawner) close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.jobs != nil {
		close(s.jobs)
		<-s.end
		s.jobs = nil
	}
}

// apart runs f on a thread that ends with it, and that is not the first of the process.
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

func serve(jobs <-chan job, homes []string) {
	stands := false
	for j := range jobs {
		var err error
		if !stands {
			err = goTo(j.entry.Base)
			stands = err == nil
		}
		if err == nil {
			err = goTo(j.entry.Tasks)
		}
		if err == nil {
			err = j.do()
		}
		if goTo(j.entry.Back) != nil {
			stands = false
		}
		j.done <- err
	}
	_ = goTo(homes) // so that the pool can be removed before the thread is gone
}

// goTo brings the calling thread into the cgroups of tasks files.
func goTo(files []string) (err error) {
	for _, f := range files {
		if e := enter(f); e != nil {
			err = errors.Join(err, fmt.Errorf("go into a cgroup: %w", e))
		}
	}
	return err
}

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

// homes are the cgroups of v1 that this process is in by itself.
func (p *Pool) homes() (files []string) {
	for _, t := range p.trees {
		if !t.v2 {
			files = append(files, filepath.Join(t.home, tasksFile))
		}
	}
	return files
}
