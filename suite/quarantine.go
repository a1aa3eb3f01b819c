package suite

import (
	"fmt"
	"strings"
	"time"
)

// Limits on a quarantine list.
const (
	quarantineLinesMax = 10_000
	quarantineLineMax  = 4 << 10 // bytes
	dateForm           = "2006-01-02"
)

// Quarantine is a list of cases whose failures are shown, and not counted.
type Quarantine struct {
	entries []entry
}

type entry struct {
	pattern string
	until   time.Time // the last day, zero for ever
}

// ParseQuarantine reads a list: on each line the id of a case, or a pattern of ids in
// which * stands for anything and ? for one character, and if wanted the word
// "until" and the last day on which it counts. What follows " #", and lines that begin with #, are comments.
func ParseQuarantine(text string) (*Quarantine, error) {
	q := &Quarantine{}
	n := 0
	for line := range strings.Lines(text) {
		n++
		if len(line) > quarantineLineMax {
			return nil, fmt.Errorf("line %d: it is over %d bytes", n, quarantineLineMax)
		}
		if i := strings.Index(" "+line, " #"); i >= 0 {
			line = line[:i]
		}
		line = strings.TrimSpace(line)
		if line == "" {
			continue
		}
		if len(q.entries) == quarantineLinesMax {
			return nil, fmt.Errorf("line %d: a list has at most %d entries", n, quarantineLinesMax)
		}
		e := entry{pattern: line}
		if i := strings.LastIndex(line, " until "); i > 0 {
			day, err := time.Parse(dateForm, strings.TrimSpace(line[i+len(" until "):]))
			if err != nil {
				return nil, fmt.Errorf("line %d: %q is no date: write it as in `%s until 2030-12-31`", n, strings.TrimSpace(line[i+len(" until "):]), strings.TrimSpace(line[:i]))
			}
			e.pattern, e.until = strings.TrimSpace(line[:i]), day
		}
		q.entries = append(q.entries, e)
	}
	return q, nil
}

// Holds reports whether the case with an id is in quarantine at a moment. A
// nil list holds none.
func (q *Quarantine) Holds(id string, now time.Time) bool {
	if q == nil {
		return false
	}
	for _, e := range q.entries {
		if !e.over(now) && matches(e.pattern, id) {
			return true
		}
	}
	return false
}

// Expired lists the entries that count no more, for people to remove.
func (q *Quarantine) Expired(now time.Time) (patterns []string) {
	if q == nil {
		return nil
	}
	for _, e := range q.entries {
		if e.over(now) {
			patterns = append(patterns, e.pattern)
		}
	}
	return patterns
}

func (e entry) over(now time.Time) bool {
	return !e.until.IsZero() && !now.Before(e.until.AddDate(0, 0, 1))
}

// matches reports whether all of s is what pattern describes. Brackets mean
// themselves: ids of parametrised cases have them.
func matches(pattern, s string) bool {
	star, mark, i := -1, 0, 0
	p := 0
	for i < len(s) {
		switch {
		case p < len(pattern) && pattern[p] == '*':
			star, mark = p, i
			p++
		case p < len(pattern) && (pattern[p] == '?' || pattern[p] == s[i]):
			p++
			i++
		case star >= 0:
			mark++
			p, i = star+1, mark
		default:
			return false
		}
	}
	return strings.Trim(pattern[p:], "*") == ""
}
