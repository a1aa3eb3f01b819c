package labmesh

import (
	"fmt"
	"strconv"
	"strings"
)

// LeftOut stands, in output read as text, for n bytes that were printed there
// and are not to be had.
func LeftOut(n int64) string {
	return fmt.Sprintf("\n[labmesh: %d bytes left out here]\n", n)
}

// ParseLeftOut reads what [LeftOut] wrote from the beginning of text: how many
// bytes are left out, and how long the mark is; 0 and 0 when there is none.
func ParseLeftOut(text string) (n int64, size int) {
	rest, ok := strings.CutPrefix(text, "\n[labmesh: ")
	number, _, found := strings.Cut(rest, " bytes left out here]\n")
	if !ok || !found {
		return 0, 0
	}
	n, err := strconv.ParseInt(number, 10, 64)
	if mark := LeftOut(n); err == nil && n > 0 && strings.HasPrefix(text, mark) {
		return n, len(mark)
	}
	return 0, 0
}
