package junit

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"regexp"
	"strconv"
	"strings"
	"unicode/utf16"
	"unicode/utf8"
)

// cleaner makes XML that a parser takes of what tools write: valid UTF-8 without
// characters that XML forbids, and no run of text longer than textMax, so that
// the parser, which holds one in memory, is bounded too.
type cleaner struct {
	next func() (rune, error) // the next character, decoded
	out  []byte               // clean, not handed out yet
	err  error

	state state
	quote rune   // in a tag: the quote that is open
	last  uint64 // the low bytes of the last eight characters
	run   int    // bytes of the text, attribute, comment or the like at hand
}

// state is what the characters at hand belong to.
type state int

const (
	inText state = iota
	inTag
	inCDATA
	inComment
)

// ends are what ends a state, besides those of text and tags.
var ends = map[state]string{inCDATA: "]]>", inComment: "-->"}

var declared = regexp.MustCompile(`^\s*<\?xml[^>]*encoding\s*=\s*["']([A-Za-z0-9._-]+)["']`)

func newCleaner(r io.Reader) (*cleaner, error) {
	b := bufio.NewReaderSize(r, 64<<10)
	head, err := b.Peek(sampleMax)
	if err != nil && err != io.EOF && !errors.Is(err, bufio.ErrBufferFull) {
		return nil, err
	}
	c := &cleaner{}
	switch {
	case bytes.HasPrefix(head, []byte{0xFF, 0xFE}) || len(head) > 3 && head[0] == '<' && head[1] == 0:
		c.next = utf16Reader(b, 0)
	case bytes.HasPrefix(head, []byte{0xFE, 0xFF}) || len(head) > 3 && head[0] == 0 && head[1] == '<':
		c.next = utf16Reader(b, 1)
	case latin(head):
		c.next = func() (rune, error) { x, err := b.ReadByte(); return rune(x), err }
	default:
		c.next = func() (rune, error) { x, _, err := b.ReadRune(); return x, err }
	}
	return c, nil
}

// latin reports whether a document says that it is in Latin-1 or close to it.
func latin(head []byte) bool {
	m := declared.FindSubmatch(head)
	if m == nil {
		return false
	}
	switch strings.ToLower(string(m[1])) {
	case "iso-8859-1", "iso-8859-15", "latin1", "latin-1", "windows-1252", "cp1252":
		return true
	}
	return false
}

// utf16Reader reads characters of UTF-16; high is which byte of two is the higher.
func utf16Reader(b *bufio.Reader, high int) func() (rune, error) {
	unit := func() (rune, error) {
		var two [2]byte
		if _, err := io.ReadFull(b, two[:]); err != nil {
			return 0, io.EOF
		}
		if high == 1 {
			return rune(two[0])<<8 | rune(two[1]), nil
		}
		return rune(two[1])<<8 | rune(two[0]), nil
	}
	return func() (rune, error) {
		r, err := unit()
		if err != nil || !utf16.IsSurrogate(r) {
			return r, err
		}
		low, err := unit()
		if err != nil {
			return utf8.RuneError, nil //nolint:nilerr // the end comes with the next
		}
		return utf16.DecodeRune(r, low), nil
	}
}

func (c *cleaner) Read(p []byte) (int, error) {
	for len(c.out) < 4<<10 && c.err == nil {
		r, err := c.next()
		if err != nil {
			c.err = err
			break
		}
		c.take(r)
	}
	n := copy(p, c.out)
	c.out = c.out[:copy(c.out, c.out[n:])]
	if n == 0 && c.err != nil {
		return 0, c.err
	}
	return n, nil
}

// take takes one character on.
func (c *cleaner) take(r rune) {
	if r == 0xFEFF || !legal(r) {
		if r = utf8.RuneError; c.state == inTag && c.quote == 0 {
			return // between the words of a tag
		}
	}
	if r == '&' && c.state != inCDATA && c.state != inComment {
		c.reference()
		return
	}
	c.put(r)
}

// reference takes a reference such as &#27; on, which has begun: one to a
// forbidden character as U+FFFD.
func (c *cleaner) reference() {
	var name []rune
	for len(name) < 12 {
		r, err := c.next()
		if err != nil {
			c.err = err
			break
		}
		if name = append(name, r); r == ';' || r == '<' || r == '&' || r == '"' || r == ' ' {
			break
		}
	}
	if s := string(name); strings.HasPrefix(s, "#") && strings.HasSuffix(s, ";") {
		digits, base := s[1:len(s)-1], 10
		if strings.HasPrefix(digits, "x") || strings.HasPrefix(digits, "X") {
			digits, base = digits[1:], 16
		}
		if n, err := strconv.ParseUint(digits, base, 32); err != nil || !legal(rune(n)) {
			c.put(utf8.RuneError)
			return
		}
	}
	if n := len(name); n == 0 || name[n-1] != ';' { // a plain & that should not be
		for _, r := range "&amp;" {
			c.put(r)
		}
		for _, r := range name {
			c.take(r)
		}
		return
	}
	c.put('&')
	for _, r := range name {
		c.put(r)
	}
}

func legal(r rune) bool {
	return r == '\t' || r == '\n' || r == '\r' || r >= 0x20 && r <= 0xD7FF || r >= 0xE000 && r <= 0xFFFD || r >= 0x10000 && r <= 0x10FFFF
}

// put writes a character, unless its run is too long, and follows the state.
func (c *cleaner) put(r rune) {
	c.last = c.last<<8 | uint64(min(r, 0xFF))
	c.run++
	mark := false // whether r belongs to the markup, which is kept whole
	switch c.state {
	case inText:
		if mark = r == '<'; mark {
			c.enter(inTag)
		}
	case inTag:
		mark = c.inTag(r)
	default:
		if end := ends[c.state]; c.ended(end) {
			if c.run > textMax {
				c.out = append(c.out, end[:2]...) // they were left out with the rest
			}
			mark = true
			c.enter(inText)
		}
	}
	if mark || c.run <= textMax {
		c.out = utf8.AppendRune(c.out, r)
	}
}

// inTag follows a tag, and reports whether r must be kept.
func (c *cleaner) inTag(r rune) bool {
	switch {
	case c.quote != 0:
		if r == c.quote {
			c.quote, c.run = 0, 0
			return true
		}
	case r == '"' || r == '\'':
		c.quote, c.run = r, 0
		return true
	case r == '>':
		c.enter(inText)
		return true
	case c.ended("<![CDATA["[1:]):
		c.enter(inCDATA)
		return true
	case c.run == 3 && c.ended("!--"):
		c.enter(inComment)
		return true
	}
	return false
}

func (c *cleaner) enter(s state) { c.state, c.run, c.quote = s, 0, 0 }

// ended reports whether the characters at hand end with s, of at most eight.
func (c *cleaner) ended(s string) bool {
	want := uint64(0)
	for i := range len(s) {
		want = want<<8 | uint64(s[i])
	}
	return c.last&(1<<(8*len(s))-1) == want
}
