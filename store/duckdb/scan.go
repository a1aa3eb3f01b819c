package duckdb

import "strings"

// kind says what a word of SQL is.
type kind int

const (
	name    kind = iota + 1 // also quoted, in lower case
	number                  // as written, without underscores
	literal                 // a text, without its quotes
	symbol                  // one character
)

// word is one word of a statement.
type word struct {
	kind kind
	text string
}

// scan takes SQL apart into words, without comments. What it cannot make sense
// of it takes as symbols: DuckDB refuses it later.
func scan(sql string) []word {
	var words []word
	for len(sql) > 0 {
		var w word
		w, sql = next(sql)
		if w.kind != 0 {
			words = append(words, w)
		}
	}
	return words
}

// next is the first word of sql, if there is one, and the rest.
func next(sql string) (word, string) {
	c := sql[0]
	switch {
	case strings.HasPrefix(sql, "--"):
		_, rest, _ := strings.Cut(sql, "\n")
		return word{}, rest
	case strings.HasPrefix(sql, "/*"):
		return word{}, comment(sql)
	case (c == 'e' || c == 'E') && len(sql) > 1 && sql[1] == '\'':
		return quoted(sql[1:], literal, true)
	case c == '\'':
		return quoted(sql, literal, false)
	case c == '"':
		return quoted(sql, name, false)
	case c == '$':
		return dollar(sql)
	case letter(c):
		n := 1
		for n < len(sql) && (letter(sql[n]) || digit(sql[n]) || sql[n] == '$') {
			n++
		}
		return word{name, strings.ToLower(sql[:n])}, sql[n:]
	case digit(c):
		n := 1
		for n < len(sql) && (digit(sql[n]) || letter(sql[n]) || sql[n] == '.') {
			n++
		}
		return word{number, strings.ReplaceAll(sql[:n], "_", "")}, sql[n:]
	case c <= ' ':
		return word{}, sql[1:]
	}
	return word{symbol, sql[:1]}, sql[1:]
}

func letter(c byte) bool {
	return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c == '_' || c >= 0x80
}

func digit(c byte) bool { return c >= '0' && c <= '9' }

// comment is what follows the comment that sql begins with; comments nest.
func comment(sql string) string {
	depth := 0
	for i := 0; i+1 < len(sql); i++ {
		switch sql[i : i+2] {
		case "/*":
			depth++
			i++
		case "*/":
			depth--
			i++
			if depth == 0 {
				return sql[i+1:]
			}
		}
	}
	return ""
}

// quoted reads a text or name in quotes; two quotes stand for one.
func quoted(sql string, k kind, escapes bool) (word, string) {
	var b strings.Builder
	for i := 1; i < len(sql); i++ {
		switch {
		case escapes && sql[i] == '\\' && i+1 < len(sql):
			i++
		case sql[i] == sql[0] && i+1 < len(sql) && sql[i+1] == sql[0]:
			i++
		case sql[i] == sql[0]:
			s := b.String()
			if k == name {
				s = strings.ToLower(s)
			}
			return word{k, s}, sql[i+1:]
		}
		b.WriteByte(sql[i])
	}
	return word{k, b.String()}, ""
}

// dollar reads a text between $tag$ and $tag$.
func dollar(sql string) (word, string) {
	n := strings.IndexByte(sql[1:], '$')
	if n < 0 || strings.IndexFunc(sql[1:1+n], func(r rune) bool { return r < 0x80 && !letter(byte(r)) && !digit(byte(r)) }) >= 0 {
		return word{symbol, "$"}, sql[1:]
	}
	tag := sql[:n+2]
	text, rest, _ := strings.Cut(sql[len(tag):], tag)
	return word{literal, text}, rest
}
