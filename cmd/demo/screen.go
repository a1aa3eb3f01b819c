package main

import (
	"fmt"
	"os"
	"sync"
	"time"

	"golang.org/x/term"
)

// How often progress is shown: on a terminal in one line that changes, elsewhere
// in lines of its own.
const (
	terminalEvery = 100 * time.Millisecond
	logEvery      = 2 * time.Second
)

// screen shows what happens, each line behind the seconds since the start.
type screen struct {
	out      *os.File
	terminal bool
	began    time.Time

	mu      sync.Mutex
	partial bool // the line on the terminal will change
}

func newScreen(out *os.File) *screen {
	return &screen{out: out, terminal: term.IsTerminal(int(out.Fd())), began: time.Now()}
}

// say shows a line.
func (s *screen) say(format string, args ...any) {
	s.plain("%6.2fs  %s", time.Since(s.began).Seconds(), fmt.Sprintf(format, args...))
}

// plain shows a line without the time.
func (s *screen) plain(format string, args ...any) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.clear()
	fmt.Fprintf(s.out, format+"\n", args...)
}

// progress shows a line that the next takes the place of, on a terminal.
func (s *screen) progress(format string, args ...any) {
	if !s.terminal {
		s.say(format, args...)
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.clear()
	fmt.Fprintf(s.out, "%6.2fs  %s", time.Since(s.began).Seconds(), fmt.Sprintf(format, args...))
	s.partial = true
}

func (s *screen) clear() {
	if s.partial {
		fmt.Fprint(s.out, "\r\x1b[K")
	}
	s.partial = false
}

// every is how often to call progress.
func (s *screen) every() time.Duration {
	if s.terminal {
		return terminalEvery
	}
	return logEvery
}
