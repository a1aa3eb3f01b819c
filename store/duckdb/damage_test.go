package duckdb

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"labmesh"
	"labmesh/store"
	"labmesh/store/storetest"
)

// written is the path of a closed ledger with 2,000 tasks.
func written(t *testing.T) string {
	path := filepath.Join(t.TempDir(), "ledger.duckdb")
	db := open(t, Config{Path: path})
	var m storetest.Mesh
	if err := db.Append(t.Context(), 1, m.FinishBatch(2000)); err != nil {
		t.Fatal(err)
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	return path
}

func damage(t *testing.T, path string, change func([]byte) []byte) {
	t.Helper()
	data, err := os.ReadFile(path)
	if err == nil {
		err = os.WriteFile(path, change(data), 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
}

func TestDamagedLedgerIsSetAside(t *testing.T) {
	t.Parallel()
	seeded := func() *rand.Rand { return rand.New(rand.NewPCG(1, 2)) }
	for name, change := range map[string]func([]byte) []byte{
		"cut in half":     func(b []byte) []byte { return b[:len(b)/2] },
		"cut to a header": func(b []byte) []byte { return b[:5000] },
		"emptied":         func(b []byte) []byte { return make([]byte, len(b)) },
		"garbage": func(b []byte) []byte {
			random := seeded()
			for i := range b {
				b[i] = byte(random.Uint32())
			}
			return b
		},
		"text": func([]byte) []byte { return []byte("this is no ledger\n") },
		"bits flipped": func(b []byte) []byte {
			random := seeded()
			for i := 3 << 12; i < len(b); i += 4 << 10 {
				b[i+random.IntN(min(512, len(b)-i))] ^= 1 << random.IntN(8)
			}
			return b
		},
		"another's tables": nil,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			path := written(t)
			if change == nil {
				foreign(t, path)
			} else {
				damage(t, path, change)
			}
			before, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			db, aside, err := Open(t.Context(), Config{Path: path, Check: checkInChild, Logger: slog.New(slog.DiscardHandler)})
			if err != nil {
				t.Fatal(err)
			}
			defer db.Close()
			if !strings.HasPrefix(aside, path+".damaged-") {
				t.Fatalf("set aside to %q", aside)
			}
			if after, err := os.ReadFile(aside); err != nil || len(after) != len(before) {
				t.Errorf("set aside are %d bytes of %d, %v", len(after), len(before), err)
			}
			var m storetest.Mesh
			if err := db.Append(t.Context(), 1, m.FinishBatch(3)); err != nil {
				t.Errorf("append to the fresh ledger: %v", err)
			}
		})
	}
}

// foreign makes a ledger whose tables are not what they should be.
func foreign(t *testing.T, path string) {
	t.Helper()
	db := open(t, Config{Path: path})
	if _, err := db.db.Exec("DROP TABLE ledger.main.events; CREATE TABLE ledger.main.events(x INTEGER)"); err != nil {
		t.Fatal(err)
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
}

func TestOrphanedLogIsSetAside(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "ledger.duckdb")
	if err := os.WriteFile(path+".wal", []byte("what is left of a log"), 0o600); err != nil {
		t.Fatal(err)
	}
	db, aside, err := Open(t.Context(), Config{Path: path, Logger: slog.New(slog.DiscardHandler)})
	if err != nil || aside == "" {
		t.Fatalf("aside %q, %v", aside, err)
	}
	if err := db.Close(); err != nil {
		t.Error(err)
	}
}

func TestCheckThatHangsOrDiesMeansDamage(t *testing.T) {
	t.Parallel()
	path := written(t)
	db, aside, err := Open(t.Context(), Config{Path: path, Logger: slog.New(slog.DiscardHandler),
		Check: func(context.Context, string) error { return errors.New("signal: aborted") }})
	if err != nil || aside == "" {
		t.Fatalf("aside %q, %v", aside, err)
	}
	if err := db.Close(); err != nil {
		t.Error(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	_, aside, err = Open(ctx, Config{Path: path, Logger: slog.New(slog.DiscardHandler),
		Check: func(context.Context, string) error { cancel(); return errors.New("killed with the node") }})
	if !errors.Is(err, context.Canceled) || aside != "" {
		t.Errorf("a node that stops while it checks: aside %q, %v", aside, err)
	}
}

func TestLedgerInUseIsNoDamage(t *testing.T) {
	t.Parallel()
	path := written(t)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	holder := part(ctx, "hold", path)
	out, err := holder.StdoutPipe()
	if err == nil {
		err = holder.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	defer holder.Wait()
	defer cancel()
	if line, _ := bufio.NewReader(out).ReadString('\n'); line != "held <nil>\n" {
		t.Fatalf("the other process says %q", line)
	}
	_, aside, err := Open(t.Context(), Config{Path: path, Check: checkInChild, Logger: slog.New(slog.DiscardHandler)})
	if labmesh.ReasonOf(err) != labmesh.Conflict || !strings.Contains(err.Error(), strconv.Itoa(holder.Process.Pid)) || aside != "" {
		t.Errorf("aside %q, %v; want a refusal that names process %d", aside, err, holder.Process.Pid)
	}
}

func TestNewerFormatIsRefused(t *testing.T) {
	t.Parallel()
	path := written(t)
	db := open(t, Config{Path: path})
	if _, err := db.db.Exec("UPDATE ledger.main.ledger_meta SET format = 99"); err != nil {
		t.Fatal(err)
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	_, aside, err := Open(t.Context(), Config{Path: path, Check: checkInChild, Logger: slog.New(slog.DiscardHandler)})
	if labmesh.ReasonOf(err) != labmesh.Conflict || !strings.Contains(err.Error(), "99") || aside != "" {
		t.Errorf("aside %q, %v", aside, err)
	}
}

func TestPathsThatCannotBe(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	for _, path := range []string{dir, filepath.Join(dir, "what?.duckdb"), filepath.Join(dir, "no", "such", "dir.duckdb")} {
		if _, aside, err := Open(t.Context(), Config{Path: path, Logger: slog.New(slog.DiscardHandler)}); err == nil || aside != "" {
			t.Errorf("%s: aside %q, %v", path, aside, err)
		}
	}
}

func TestKilledWhileAppendingLosesNothing(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "ledger.duckdb")
	for trial := range 4 {
		acked := killWhileAppending(t, path, 20+7*trial)
		db := open(t, Config{Path: path, Check: checkInChild})
		index, err := db.Applied()
		if err != nil {
			t.Fatal(err)
		}
		if index < acked {
			t.Errorf("trial %d: applied %d, but %d was acknowledged", trial, index, acked)
		}
		result, err := db.Query(t.Context(), store.Query{SQL: `SELECT (SELECT count(*) FROM distributed_tasks), (SELECT count(*) FROM events), (SELECT max(log_index) FROM events)`})
		if err != nil {
			t.Fatal(err)
		}
		got, want := fmt.Sprint(result.Rows[0]), fmt.Sprint([]any{50 * index, 100 * index, index})
		if got != want {
			t.Errorf("trial %d: at index %d the ledger holds %s, want %s", trial, index, got, want)
		}
		if err := db.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

// killWhileAppending kills a process that appends with -9 after it has
// acknowledged n entries, and returns the last index that it acknowledged.
func killWhileAppending(t *testing.T, path string, n int) (acked uint64) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	cmd := part(ctx, "append", path)
	out, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	for lines := bufio.NewScanner(out); lines.Scan(); n-- {
		if acked, err = strconv.ParseUint(lines.Text(), 10, 64); err != nil {
			t.Fatal(err)
		}
		if n == 0 {
			cmd.Process.Kill() // and read on: what it had acknowledged before counts
		}
	}
	if err := cmd.Wait(); err == nil || n >= 0 {
		t.Fatalf("the process ended by itself: %v", err)
	}
	return acked
}
