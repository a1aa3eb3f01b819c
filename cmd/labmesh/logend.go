package main

import (
	"bytes"
	"strconv"
	"strings"
)

// logEnd is how much of the end of a stream is wanted: lines, or bytes.
type logEnd struct {
	lines, bytes int
}

const logEndMax = 1 << 30

// parseEnd reads the value of --tail; "" wants everything.
func parseEnd(s string) (*logEnd, error) {
	if s == "" {
		return nil, nil
	}
	digits := strings.TrimRight(strings.ToUpper(s), "KMB")
	unit, known := map[string]int{"": 0, "B": 1, "K": 1 << 10, "KB": 1 << 10, "M": 1 << 20, "MB": 1 << 20}[strings.ToUpper(s[len(digits):])]
	n, err := strconv.Atoi(digits)
	if err != nil || !known || n < 0 || n > logEndMax/max(unit, 1) {
		return nil, usagef("--tail %s: it is a number of lines, as in 10, or of bytes, as in 4K or 1M", s)
	}
	if unit == 0 {
		return &logEnd{lines: n}, nil
	}
	return &logEnd{bytes: n * unit}, nil
}

// lastOf keeps the end of what is written to it.
type lastOf struct {
	end logEnd
	buf []byte
}

func (l *lastOf) Write(p []byte) (int, error) {
	l.buf = append(l.buf, p...)
	if kept := l.bytes(); len(kept) < len(l.buf)/2 {
		l.buf = append(l.buf[:0], kept...)
	}
	return len(p), nil
}

// bytes is the end that is wanted of what was written so far.
func (l *lastOf) bytes() []byte {
	if l.end.lines == 0 {
		return l.buf[max(len(l.buf)-l.end.bytes, 0):]
	}
	at := len(bytes.TrimSuffix(l.buf, []byte("\n")))
	for range l.end.lines {
		if at = bytes.LastIndexByte(l.buf[:at], '\n'); at < 0 {
			return l.buf
		}
	}
	return l.buf[at+1:]
}
