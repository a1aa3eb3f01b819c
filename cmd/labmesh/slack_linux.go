package main

import (
	"os"
	"runtime"

	"golang.org/x/sys/unix"
)

// timerSlack is how much later than asked the kernel may wake a node's threads, in
// nanoseconds; its default is 50,000. One thread of the Go runtime asks to be woken
// 20 µs later, again and again, as long as anything runs: with the default that is a third of
// what an idle leader takes of a core, and a tenth of what one takes under load. At a
// millisecond and more, processors wait for system calls to return.
const timerSlack = 200_000

// slacken starts this program anew, in the same process, if it is to be a node and
// its threads are woken more exactly than a node needs. The slack of a thread is its
// creator's: only a new program's runtime has it in all of them. Without it a node
// works as well.
func slacken(args []string) {
	if len(args) < 2 || args[1] != "up" {
		return
	}
	path, err := os.Executable()
	if err != nil {
		return
	}
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	if now, err := unix.PrctlRetInt(unix.PR_GET_TIMERSLACK, 0, 0, 0, 0); err != nil || now >= timerSlack {
		return
	}
	if err := unix.Prctl(unix.PR_SET_TIMERSLACK, timerSlack, 0, 0, 0); err == nil {
		_ = unix.Exec(path, args, os.Environ()) // returns if it cannot be
	}
}
