package lab

import "syscall"

// attributes put a node into a process group of its own, out of reach of the
// terminal's Ctrl-C, and have the system ask it to end when its maker dies.
func attributes() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGTERM}
}
