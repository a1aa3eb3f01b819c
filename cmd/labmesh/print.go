package main

import (
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"
	"unicode/utf8"

	"labmesh"
)

// cellCharsMax bounds what one cell of a table shows; --json shows all.
const cellCharsMax = 60

// table prints aligned columns.
type table struct {
	w *tabwriter.Writer
}

func newTable(out io.Writer, head ...string) table {
	t := table{tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)}
	if len(head) > 0 {
		t.line(head)
	}
	return t
}

func (t table) row(cells ...any) {
	words := make([]string, len(cells))
	for i, c := range cells {
		words[i] = cell(fmt.Sprint(c))
	}
	t.line(words)
}

func (t table) line(words []string) { fmt.Fprintln(t.w, strings.Join(words, "\t")) }

func (t table) flush() error { return t.w.Flush() }

// cell is s as one line of text that a table can hold.
func cell(s string) string {
	if s == "" {
		return "-"
	}
	return shorten(printable(s), cellCharsMax)
}

// printable is s without what would move a terminal's cursor or break a line.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		switch {
		case r == '\n' || r == '\t' || r == '\r':
			return ' '
		case r < ' ' || r >= 0x7f && r < 0xa0 || r == utf8.RuneError:
			return '?'
		}
		return r
	}, s)
}

func shorten(s string, most int) string {
	if utf8.RuneCountInString(s) <= most {
		return s
	}
	runes := []rune(s)
	return string(runes[:most-1]) + "…"
}

// ago says how long before now t was, e.g. "3m ago".
func ago(now, t time.Time) string {
	if t.IsZero() {
		return "-"
	}
	d := now.Sub(t)
	if d < 0 && d > -time.Second {
		d = 0
	}
	if d < 0 {
		return "in " + short(-d)
	}
	return short(d) + " ago"
}

// short is d in one or two units.
func short(d time.Duration) string {
	switch {
	case d < time.Second:
		return fmt.Sprintf("%dms", d.Milliseconds())
	case d < time.Minute:
		return fmt.Sprintf("%.3gs", d.Truncate(100*time.Millisecond).Seconds())
	case d < time.Hour:
		return strings.TrimSuffix(d.Truncate(time.Second).String(), "0s")
	case d < 48*time.Hour:
		return strings.TrimSuffix(d.Truncate(time.Minute).String(), "0s")
	}
	return fmt.Sprintf("%dd", int(d.Hours()/24))
}

// local is a moment as a person at this machine reads it.
func local(now, t time.Time) string {
	if t.IsZero() {
		return "-"
	}
	return t.Local().Format("2006-01-02 15:04:05") + " (" + ago(now, t) + ")"
}

// lasted is how long something took that may not have started or ended yet.
func lasted(now, start, end time.Time) string {
	switch {
	case start.IsZero():
		return "-"
	case end.IsZero():
		end = now
	}
	return short(max(end.Sub(start), 0))
}

// phaseColour is the colour of a task's status.
func phaseColour(p labmesh.Phase) string {
	switch p {
	case labmesh.Completed:
		return green
	case labmesh.Failed, labmesh.TimedOut:
		return red
	case labmesh.Cancelled, labmesh.Cancelling:
		return yellow
	}
	return plain
}
