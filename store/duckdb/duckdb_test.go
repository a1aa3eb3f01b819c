package duckdb

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"labmesh/store"
	"labmesh/store/storetest"
)

// The test binary plays the parts of other processes.
const (
	partEnv  = "LABMESH_TEST_PART"
	partPath = "LABMESH_TEST_PATH"
)

func TestMain(m *testing.M) {
	switch os.Getenv(partEnv) {
	case "":
		os.Exit(m.Run())
	case "check":
		if err := CheckFile(os.Getenv(partPath)); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
	case "append":
		appendForEver(os.Getenv(partPath))
	case "hold":
		hold(os.Getenv(partPath))
	}
}

// part is this binary as another process.
func part(ctx context.Context, name, path string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, os.Args[0])
	cmd.Env = append(os.Environ(), partEnv+"="+name, partPath+"="+path)
	return cmd
}

// checkInChild is the Check of these tests, as a node has it.
func checkInChild(ctx context.Context, path string) error {
	if out, err := part(ctx, "check", path).CombinedOutput(); err != nil {
		return fmt.Errorf("%w: %.300s", err, out)
	}
	return nil
}

func open(t testing.TB, cfg Config) *DB {
	t.Helper()
	if cfg.Path == "" {
		cfg.Path = filepath.Join(t.TempDir(), "ledger.duckdb")
	}
	cfg.Logger = slog.New(slog.DiscardHandler)
	db, aside, err := Open(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	if aside != "" {
		t.Fatalf("a good ledger was set aside to %s", aside)
	}
	t.Cleanup(func() {
		if err := db.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
	})
	return db
}

func TestLedgerInDuckDB(t *testing.T) {
	t.Parallel()
	storetest.Run(t, func(t *testing.T) store.Backend { return open(t, Config{}) })
}

func TestLedgerOutlivesItsProcess(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "it's a ledger 100%.duckdb")
	var m storetest.Mesh
	for want := uint64(1); want <= 3; want++ {
		db := open(t, Config{Path: path, Check: checkInChild})
		if got, err := db.Applied(); err != nil || got != want-1 {
			t.Fatalf("applied %d, %v; want %d", got, err, want-1)
		}
		_, events := m.Finish()
		if err := db.Append(t.Context(), want, events); err != nil {
			t.Fatal(err)
		}
		if err := db.Close(); err != nil {
			t.Fatal(err)
		}
	}
	db := open(t, Config{Path: path})
	if tasks, err := db.Tasks(t.Context(), store.Filter{}); err != nil || len(tasks) != 3 {
		t.Errorf("%d tasks, %v", len(tasks), err)
	}
}

func TestWriteThatFailsLeavesNothing(t *testing.T) {
	t.Parallel()
	db := open(t, Config{})
	var m storetest.Mesh
	_, events := m.Finish()
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	if err := db.Append(gone, 1, events); !errors.Is(err, context.Canceled) {
		t.Fatalf("append under a context that has ended: %v", err)
	}
	if err := db.Append(t.Context(), 1, events); err != nil {
		t.Fatal(err)
	}
	if got, err := db.Events(t.Context(), store.Position{}, 0); err != nil || len(got) != len(events) {
		t.Errorf("%d events, %v", len(got), err)
	}
}
