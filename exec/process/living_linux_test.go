package process

import (
	"slices"
	"testing"

	"labmesh/exec/keeper"
)

// TestOnlyWhatRunsKeepsItsNames: the record and the cgroup of a program that has
// ended may be another's, and what it left in them is to be ended.
func TestOnlyWhatRunsKeepsItsNames(t *testing.T) {
	t.Parallel()
	records, groups := living([]keeper.Program{
		{Meta: meta{token: "a", record: "1", group: "g1"}.String()},
		{Meta: meta{token: "b", record: "2", group: "g2"}.String(), Ended: true},
		{Meta: meta{token: "c", record: "3", group: "g3"}.String()},
		{Meta: meta{token: "d", record: "3", group: "g3"}.String(), Ended: true}, // which had them before
	})
	if !slices.Equal(records, []string{"1", "3"}) || !slices.Equal(groups, []string{"g1", "g3"}) {
		t.Errorf("records %q and groups %q are to stay", records, groups)
	}
}
