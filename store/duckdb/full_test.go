package duckdb

import (
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"labmesh/store"
	"labmesh/store/storetest"
)

func TestLedgerGoesOnAfterAFullDisk(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size=8m"); err != nil {
		t.Skipf("a small file system cannot be mounted here: %v", err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(dir, syscall.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	ballast := filepath.Join(dir, "ballast")
	if err := os.WriteFile(ballast, make([]byte, 3<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "ledger.duckdb")
	db, _, err := Open(t.Context(), Config{Path: path, Check: checkInChild, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	var m storetest.Mesh
	full := error(nil)
	events := m.FinishBatch(500)
	for ; full == nil && m.Index < 200; events = m.FinishBatch(500) {
		if full = db.Append(t.Context(), m.Index, events); full != nil {
			break
		}
	}
	if full == nil {
		t.Fatal("the disk was never full")
	}
	t.Logf("at entry %d: %v", m.Index, full)
	if err := db.Append(t.Context(), m.Index, events); err == nil {
		t.Fatal("a second try on a full disk succeeded")
	}
	if err := os.Remove(ballast); err != nil {
		t.Fatal(err)
	}
	// The queue before the ledger tries again; so does this.
	for try := 0; ; try++ {
		err := db.Append(t.Context(), m.Index, events)
		if err == nil {
			break
		}
		if try == 3 {
			t.Fatalf("with room on the disk: %v", err)
		}
	}
	result, err := db.Query(t.Context(), store.Query{SQL: "SELECT (SELECT count(*) FROM distributed_tasks), (SELECT max(log_index) FROM events)"})
	if err != nil {
		t.Fatal(err)
	}
	if got := result.Rows[0]; got[0] != int64(500*m.Index) || got[1] != int64(m.Index) {
		t.Errorf("the ledger holds %v at entry %d", got, m.Index)
	}
	if errors.Is(full, errClosed) {
		t.Error("the ledger closed itself")
	}
}
