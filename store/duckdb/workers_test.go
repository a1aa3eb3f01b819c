package duckdb

import (
	"fmt"
	"strings"
	"testing"

	"labmesh"
	"labmesh/store/storetest"
)

// As many workers as attach to one node when it starts again come in one transaction.
func TestAThousandWorkersAtOnce(t *testing.T) {
	t.Parallel()
	db := open(t, Config{})
	caps := labmesh.Capabilities{Hardware: []string{"cpu"}, Platform: strings.Repeat("x", 1000)}
	for round := range 2 {
		var events []labmesh.Event
		index := uint64(round + 1)
		for i := range 1000 {
			w := &labmesh.Worker{ID: labmesh.WorkerID(fmt.Sprintf("w%d", i)), Hostname: fmt.Sprint(round), Capabilities: caps, Registered: storetest.Epoch, Index: index}
			events = append(events, labmesh.Event{Index: index, N: i, At: storetest.Epoch, Type: labmesh.WorkerJoined, Worker: w})
		}
		if err := db.Append(t.Context(), index, events); err != nil {
			t.Fatal(err)
		}
	}
}
