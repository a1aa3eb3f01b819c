package labmesh

import "fmt"

// LeftOut stands, in output read as text, for n bytes that were printed there
// and are not to be had.
func LeftOut(n int64) string {
	return fmt.Sprintf("\n[labmesh: %d bytes left out here]\n", n)
}
