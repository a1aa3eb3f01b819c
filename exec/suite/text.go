package suite

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"strings"
	"unicode/utf8"

	"labmesh"
)

// clip is text as valid UTF-8 of at most so many bytes: its beginning and its
// end, with a mark between them where something was left out.
func clip(text string, most int) string {
	text = strings.ToValidUTF8(text, "\uFFFD")
	if len(text) <= most {
		return text
	}
	const mark = "\n[labmesh: %d bytes left out here]\n"
	room := most - len(mark) - 20
	if room < 0 {
		return strings.ToValidUTF8(text[:most], "")
	}
	head := text[:room/3]
	tail := text[len(text)-(room-room/3):]
	for len(head) > 0 && !utf8.ValidString(head) {
		head = head[:len(head)-1]
	}
	for len(tail) > 0 && !utf8.RuneStart(tail[0]) {
		tail = tail[1:]
	}
	return head + fmt.Sprintf(mark, len(text)-len(head)-len(tail)) + tail
}

// clipName makes a name fit; one that was too long stays unlike all others.
func clipName(name string) string {
	name = strings.ToValidUTF8(name, "\uFFFD")
	if len(name) <= labmesh.CaseNameBytesMax {
		return name
	}
	sum := sha256.Sum256([]byte(name))
	end := "…" + hex.EncodeToString(sum[:8])
	return strings.ToValidUTF8(name[:labmesh.CaseNameBytesMax-len(end)], "") + end
}

// parts splits the id of a Python test, as in tests/test_a.py::TestX::test_y[1-a],
// into its file, its name there and its parameters.
func parts(id string) (file, name, params string) {
	file, name, _ = strings.Cut(id, "::")
	if i := strings.IndexByte(name, '['); i > 0 && strings.HasSuffix(name, "]") {
		name, params = name[:i], name[i+1:len(name)-1]
	}
	return clipName(file), clipName(name), clipName(params)
}

// keepEnds gathers text and keeps its beginning and its end.
type keepEnds struct {
	head, tail []byte
	left       int // bytes left out between them
}

// endsBytesMax is the most that is kept of each end.
const endsBytesMax = 4 << 10

func (k *keepEnds) add(s string) {
	if room := endsBytesMax - len(k.head); room > 0 && k.left == 0 && len(k.tail) == 0 {
		n := min(room, len(s))
		k.head = append(k.head, s[:n]...)
		s = s[n:]
	}
	k.tail = append(k.tail, s...)
	if over := len(k.tail) - endsBytesMax; over > endsBytesMax {
		k.left += over
		k.tail = append(k.tail[:0], k.tail[over:]...)
	}
}

func (k *keepEnds) String() string {
	if k.left == 0 {
		return string(k.head) + string(k.tail)
	}
	return fmt.Sprintf("%s\n[labmesh: %d bytes left out here]\n%s", k.head, k.left, k.tail)
}
