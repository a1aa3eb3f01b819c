package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"
)

// onHangup calls recheck at each SIGHUP until ctx ends. One that came because the
// terminal was closed ends the process, as it does by default; under nohup there is none.
func onHangup(ctx context.Context, recheck func()) {
	if signal.Ignored(syscall.SIGHUP) {
		return
	}
	inTerminal := hasTerminal()
	hup := make(chan os.Signal, 1)
	signal.Notify(hup, syscall.SIGHUP)
	defer signal.Stop(hup)
	for {
		select {
		case <-hup:
		case <-ctx.Done():
			return
		}
		if inTerminal && !hasTerminal() {
			signal.Reset(syscall.SIGHUP)
			_ = syscall.Kill(os.Getpid(), syscall.SIGHUP) // which ends us here
			return
		}
		recheck()
	}
}

// hasTerminal reports whether this process has a controlling terminal that is still there.
func hasTerminal() bool {
	f, err := os.OpenFile("/dev/tty", os.O_RDWR|syscall.O_NOCTTY, 0)
	if err != nil {
		return false
	}
	return f.Close() == nil
}
