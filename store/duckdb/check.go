package duckdb

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"
	"syscall"
	"time"

	"labmesh"
	"labmesh/store"
)

// readTime bounds how long CheckFile reads rows; a large file is read in part.
const readTime = 5 * time.Second

// checkOrSetAside checks the file at cfg.Path, if there is one, and moves it
// away if it is damaged. It returns where to.
func checkOrSetAside(ctx context.Context, cfg Config) (aside string, err error) {
	if err := usable(cfg.Path); errors.Is(err, fs.ErrNotExist) {
		// A write-ahead log without its file would be replayed into a fresh one.
		if _, err := os.Stat(cfg.Path + ".wal"); err == nil {
			return setAside(cfg.Path)
		}
		return "", nil
	} else if err != nil {
		return "", err
	}
	if cfg.Check == nil {
		return "", nil
	}
	checking, cancel := context.WithTimeout(ctx, CheckTimeout)
	defer cancel()
	damage := cfg.Check(checking, cfg.Path)
	if damage == nil {
		return "", nil
	}
	if ctx.Err() != nil {
		return "", fmt.Errorf("check ledger %s: %w", cfg.Path, ctx.Err())
	}
	if err := usable(cfg.Path); err != nil { // it came into use meanwhile
		return "", err
	}
	if aside, err = setAside(cfg.Path); err != nil {
		return "", err
	}
	cfg.Logger.WarnContext(ctx, "ledger damaged, set aside; its rows come back from a peer", "path", cfg.Path, "aside", aside, "err", damage)
	return aside, nil
}

// usable says why nobody could open the file, which is no damage: it is not
// there, it may not be read, or another process has it open.
func usable(path string) error {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return fmt.Errorf("open ledger: %w", err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return fmt.Errorf("open ledger: %w", err)
	}
	if !info.Mode().IsRegular() {
		return labmesh.Refuse(labmesh.Invalid, "open ledger %s: it is not a file", path)
	}
	lock := syscall.Flock_t{Type: syscall.F_WRLCK}
	if err := syscall.FcntlFlock(f.Fd(), syscall.F_GETLK, &lock); err == nil && lock.Type != syscall.F_UNLCK {
		return labmesh.Refuse(labmesh.Conflict, "open ledger %s: process %d has it open; stop that one first, or choose another --db-path", path, lock.Pid)
	}
	return nil
}

// setAside moves the file and its write-ahead log away. The log goes first: it
// must never be found beside a fresh file.
func setAside(path string) (string, error) {
	aside := fmt.Sprintf("%s.damaged-%s", path, time.Now().UTC().Format("20060102T150405.000000Z"))
	for _, suffix := range []string{".wal", ".wal.checkpoint", ".wal.recovery", ""} {
		if err := os.Rename(path+suffix, aside+suffix); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return "", fmt.Errorf("set the damaged ledger aside: %w", err)
		}
	}
	return aside, nil
}

// CheckFile opens the ledger at path, reads it, and has DuckDB write its log
// into it. It must be called in a process of its own, which a damaged file can
// abort or hang: an error, a crash and silence all mean damage. A file without
// room on its disk, or of a newer format, is not damaged.
func CheckFile(path string) error {
	ctx := context.Background()
	db := &DB{cfg: Config{Path: path, MemoryLimitMB: MemoryLimitMB, Threads: Threads}, live: newLiveTable()}
	sdb, err := db.attach(ctx)
	if err != nil {
		if labmesh.ReasonOf(err) == labmesh.Conflict || noSpace(err) {
			return nil
		}
		return fmt.Errorf("check ledger %s: %w", path, err)
	}
	defer sdb.Close()
	if _, err := applied(ctx, sdb); err != nil {
		return fmt.Errorf("check ledger %s: %w", path, err)
	}
	if _, err := sdb.ExecContext(ctx, "CHECKPOINT "+catalog); err != nil && !noSpace(err) {
		return fmt.Errorf("check ledger %s: %w", path, err)
	}
	reading, cancel := context.WithTimeout(ctx, readTime)
	defer cancel()
	for _, t := range store.Tables() {
		var rows, sum any
		err := sdb.QueryRowContext(reading, "SELECT count(*), bit_xor(hash(t)) FROM "+full(t)+" t").Scan(&rows, &sum)
		if err != nil && reading.Err() == nil {
			return fmt.Errorf("check ledger %s: read %s: %w", path, t.Name, err)
		}
	}
	if err := sdb.Close(); err != nil {
		return fmt.Errorf("check ledger %s: %w", path, err)
	}
	return nil
}

func noSpace(err error) bool {
	return errors.Is(err, syscall.ENOSPC) || strings.Contains(err.Error(), "No space left")
}
