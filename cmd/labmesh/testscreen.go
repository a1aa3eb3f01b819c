package main

import (
	"fmt"
	"strings"
	"sync"
	"time"

	suiterun "labmesh/suite/run"
)

// How progress is shown.
const (
	screenBarWidth  = 24
	screenLineEvery = 10 * time.Second // where it is no terminal
	screenFailures  = 100              // named while the suite runs
)

// screen shows how far a suite is: one line on a terminal that is drawn anew,
// elsewhere a line now and then. Failures are named as they come.
type screen struct {
	a     *app
	live  bool
	began time.Time

	mu     sync.Mutex
	drawn  bool
	last   time.Time // of a plain line
	named  int
	before string
}

func (a *app) newScreen() *screen {
	return &screen{a: a, live: isTerminal(a.err), began: a.now(), last: a.now()}
}

// show is told how far the suite is.
func (s *screen) show(p suiterun.Progress) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, id := range p.Failed {
		s.name(red, "FAILED", id)
	}
	for _, id := range p.Flaky {
		s.name(yellow, "FLAKY", id)
	}
	for _, id := range p.Quarantined {
		s.name(yellow, "FAILED, in quarantine", id)
	}
	switch {
	case p.Final:
		s.wipe()
	case s.live:
		fmt.Fprint(s.a.err, "\r\x1b[K", s.line(p))
		s.drawn = true
	case s.a.now().Sub(s.last) >= screenLineEvery:
		s.last = s.a.now()
		if text := s.plainLine(p); text != s.before {
			s.before = text
			s.a.note("labmesh: %s", text)
		}
	}
}

func (s *screen) name(colour, what, id string) {
	if s.named++; s.named > screenFailures {
		return
	}
	s.wipe()
	s.a.note("%s %s", s.a.paint(s.a.err, colour, what), printable(id))
}

// note says something between two drawings.
func (s *screen) note(format string, args ...any) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.wipe()
	s.a.note("%s", printable(fmt.Sprintf(format, args...)))
}

func (s *screen) end() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.wipe()
}

func (s *screen) wipe() {
	if s.drawn {
		fmt.Fprint(s.a.err, "\r\x1b[K")
		s.drawn = false
	}
}

// line is the line on a terminal.
func (s *screen) line(p suiterun.Progress) string {
	if p.Collecting {
		return s.a.paint(s.a.err, dim, "collecting") + " " + shorten(p.Waiting, cellCharsMax)
	}
	full := 0
	if p.Counts.Total > 0 {
		full = screenBarWidth * p.Counts.Done() / p.Counts.Total
	}
	return "[" + strings.Repeat("█", full) + strings.Repeat("·", screenBarWidth-full) + "] " + s.plainLine(p)
}

func (s *screen) plainLine(p suiterun.Progress) string {
	if p.Collecting {
		return "collecting"
	}
	parts := []string{fmt.Sprintf("%d/%d", p.Counts.Done(), p.Counts.Total)}
	if p.Counts.Bad > 0 {
		parts = append(parts, s.a.paint(s.a.err, red, fmt.Sprintf("%d failed", p.Counts.Bad)))
	}
	if p.Counts.Flaky > 0 {
		parts = append(parts, s.a.paint(s.a.err, yellow, fmt.Sprintf("%d flaky", p.Counts.Flaky)))
	}
	switch {
	case p.Waiting != "":
		parts = append(parts, "waiting: "+shorten(p.Waiting, cellCharsMax))
	case p.Workers == 1:
		parts = append(parts, "1 worker busy")
	default:
		parts = append(parts, fmt.Sprintf("%d workers busy", p.Workers))
	}
	if p.ETA > 0 {
		parts = append(parts, "about "+short(p.ETA.Round(time.Second))+" left")
	}
	return strings.Join(parts, ", ")
}
