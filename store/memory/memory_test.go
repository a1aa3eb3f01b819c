package memory_test

import (
	"testing"

	"labmesh"
	"labmesh/store"
	"labmesh/store/memory"
	"labmesh/store/storetest"
)

func TestLedgerInMemory(t *testing.T) {
	t.Parallel()
	storetest.Run(t, func(*testing.T) store.Backend { return memory.New() })
}

func TestMemorySpeaksNoSQL(t *testing.T) {
	t.Parallel()
	if _, err := memory.New().Query(t.Context(), store.Query{SQL: "SELECT 1"}); labmesh.ReasonOf(err) != labmesh.Unavailable {
		t.Errorf("query: %v", err)
	}
}
