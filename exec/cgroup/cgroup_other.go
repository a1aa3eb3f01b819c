//go:build !linux

package cgroup

import (
	"errors"
	"os"
	"syscall"
	"time"
)

// Pool is of Linux; elsewhere there is none.
type Pool struct{}

// Leaf is of Linux; elsewhere there is none.
type Leaf struct{}

// Open says that there are no cgroups.
func Open(Config) (*Pool, error) { return nil, errors.New("this system has no cgroups") }

// Holds is nothing.
func (*Pool) Holds() []string { return nil }

// Absent is nothing.
func (*Pool) Absent() map[string]string { return nil }

// Version is nothing.
func (*Pool) Version() string { return "" }

// Take gives none.
func (*Pool) Take(Limits) (*Leaf, error) { return nil, errors.ErrUnsupported }

// Adopt gives none.
func (*Pool) Adopt(string, Limits) (*Leaf, error) { return nil, errors.ErrUnsupported }

// Leave does nothing.
func (*Pool) Leave() error { return nil }

// Close does nothing.
func (*Pool) Close() error { return nil }

// Name is nothing.
func (*Leaf) Name() string { return "" }

// Limits are none.
func (*Leaf) Limits() Limits { return Limits{} }

// Dir is nil.
func (*Leaf) Dir() *os.File { return nil }

// Entry is nothing.
func (*Leaf) Entry() Entry { return Entry{} }

// Start runs fork.
func (*Leaf) Start(fork func(*syscall.SysProcAttr) error) error { return fork(&syscall.SysProcAttr{}) }

// Empty is true.
func (*Leaf) Empty() bool { return true }

// Kill does nothing.
func (*Leaf) Kill() {}

// Emptied is true.
func (*Leaf) Emptied() bool { return true }

// OOM is false.
func (*Leaf) OOM() bool { return false }

// Usage is nothing.
func (*Leaf) Usage() Usage { return Usage{} }

// Give does nothing.
func (*Leaf) Give() error { return nil }

// CPUTime is not known.
func (*Pool) CPUTime() (time.Duration, bool) { return 0, false }

// Holding is false.
func (*Pool) Holding(int) bool { return false }
