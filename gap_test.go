package labmesh_test

import (
	"testing"

	"labmesh"
)

func TestWhatIsLeftOutIsReadBack(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]int64{
		labmesh.LeftOut(17): 17, labmesh.LeftOut(1<<40) + "and more": 1 << 40, "": 0, "x" + labmesh.LeftOut(17): 0, labmesh.LeftOut(17)[:20]: 0,
		labmesh.LeftOut(-1): 0, "\n[labmesh: 017 bytes left out here]\n": 0, "\n[labmesh: 1x bytes left out here]\n": 0,
	} {
		n, size := labmesh.ParseLeftOut(text)
		if n != want || (want > 0) != (size > 0) || want > 0 && text[:size] != labmesh.LeftOut(n) {
			t.Errorf("%q: %d in %d bytes", text, n, size)
		}
	}
}
