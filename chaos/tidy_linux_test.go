package chaos_test

import (
	"os"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// interrupted is the exit code of a program that Ctrl-C ended; tidyWait is how long
// nodes have to end what they run.
const (
	interrupted = 130
	tidyWait    = 20 * time.Second
)

// tidy has Ctrl-C end every node in order, wait for them, and remove the files of
// all tests. Without it the system would end the nodes too, but leave the files.
func tidy(dir string) {
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM)
	go func() {
		<-signals
		asked := map[int]bool{}
		for end := time.Now().Add(tidyWait); time.Now().Before(end); time.Sleep(50 * time.Millisecond) {
			left := children()
			for _, pid := range left {
				if !asked[pid] { // a second time would be an order to hurry
					asked[pid] = true
					_ = syscall.Kill(pid, syscall.SIGCONT) // it may be paused
					_ = syscall.Kill(pid, syscall.SIGTERM) // it may have ended
				}
			}
			if len(left) == 0 {
				break
			}
		}
		os.RemoveAll(dir) // the system sweeps temporary directories too
		os.Exit(interrupted)
	}()
}

// children are the processes that this one has started and not reaped.
func children() (pids []int) {
	dirs, _ := filepath.Glob("/proc/[0-9]*") // the pattern is well formed
	for _, dir := range dirs {
		stat, _ := os.ReadFile(filepath.Join(dir, "stat")) // none of one that has ended
		_, after, _ := strings.Cut(string(stat), ") ")     // behind the name: state, parent, …
		if f := strings.Fields(after); len(f) > 1 && f[1] == strconv.Itoa(os.Getpid()) {
			if pid, err := strconv.Atoi(filepath.Base(dir)); err == nil {
				pids = append(pids, pid)
			}
		}
	}
	return pids
}
