package mesh

import (
	"slices"
	"testing"
	"time"

	"labmesh"
)

func TestDuePicksMembersThatAreNotMet(t *testing.T) {
	t.Parallel()
	now := time.Unix(1000, 0)
	links := map[labmesh.NodeID]link{
		"met":     {met: true},
		"busy":    {busy: true},
		"waiting": {tries: 2, next: now.Add(time.Second)},
		"due":     {tries: 2, next: now},
		"other":   {}, // no member
	}
	members := []labmesh.NodeID{"met", "busy", "waiting", "due", "new", "newer"}
	for _, c := range []struct {
		room int
		want []labmesh.NodeID
	}{
		{10, []labmesh.NodeID{"due", "new", "newer"}},
		{2, []labmesh.NodeID{"due", "new"}},
		{0, nil},
	} {
		if got := due(links, members, now, c.room); !slices.Equal(got, c.want) {
			t.Errorf("room for %d: %v, want %v", c.room, got, c.want)
		}
	}
}

func TestRetriesAreShortAndBounded(t *testing.T) {
	t.Parallel()
	if w := retryAfter(0, 0); w != retryMin {
		t.Errorf("first wait: %s", w)
	}
	for tries := range 1000 {
		if w := retryAfter(tries, 0.999); w < retryMin || w > 2*time.Second {
			t.Fatalf("wait after %d tries: %s", tries, w)
		}
	}
}
