//go:build !linux

package lab

import "syscall"

// attributes put a node into a process group of its own, out of reach of the
// terminal's Ctrl-C.
func attributes() *syscall.SysProcAttr { return &syscall.SysProcAttr{Setpgid: true} }
