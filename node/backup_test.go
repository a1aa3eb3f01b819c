package node

import (
	"archive/tar"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/klauspost/compress/zstd"

	"labmesh"
)

// TestADamagedBackupIsRefused: whatever byte of it is wrong, wherever it ends, a backup that is not whole is
// refused, by name, and nothing is restored of it.
func TestADamagedBackupIsRefused(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	whole := filepath.Join(dir, "whole")
	if err := writeParts(whole, fmt.Sprintf(`{"format":%d,"mesh_id":"m-1"}`, backupFormat), strings.Repeat("of the state ", 500)); err != nil {
		t.Fatal(err)
	}
	if info, err := CheckBackup(whole); err != nil || info.Mesh != "m-1" {
		t.Fatalf("the whole one: %+v, %v", info, err)
	}
	data, err := os.ReadFile(whole)
	if err != nil {
		t.Fatal(err)
	}
	refused := func(what string, data []byte) {
		t.Helper()
		file := filepath.Join(dir, "damaged")
		if err := os.WriteFile(file, data, 0o600); err != nil {
			t.Fatal(err)
		}
		_, err := CheckBackup(file)
		if labmesh.ReasonOf(err) != labmesh.Invalid || !strings.Contains(err.Error(), file) {
			t.Errorf("%s: %v", what, err)
		}
		to := filepath.Join(dir, "restored")
		if _, _, err := Restore(t.Context(), RestoreConfig{File: file, DataDir: to}); err == nil {
			t.Errorf("%s: it was restored", what)
		}
		if _, err := os.Stat(to); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("%s: something was restored: %v", what, err)
		}
	}
	for _, n := range []int{0, 1, len(data) / 2, len(data) - 8} {
		refused(fmt.Sprintf("torn after %d bytes", n), data[:n])
	}
	for _, at := range []int{0, 20, len(data) / 2} {
		flipped := append([]byte(nil), data...)
		flipped[at] ^= 0x10
		refused(fmt.Sprintf("byte %d flipped", at), flipped)
	}
	refused("something else", []byte("no backup at all"))
	newer := filepath.Join(dir, "newer")
	if err := writeParts(newer, fmt.Sprintf(`{"format":%d}`, backupFormat+1), "x"); err != nil {
		t.Fatal(err)
	}
	if _, err := CheckBackup(newer); err == nil || !strings.Contains(err.Error(), "newer labmesh") {
		t.Errorf("of a newer build: %v", err)
	}
}

func writeParts(file, head, state string) error {
	f, err := os.Create(file)
	if err != nil {
		return err
	}
	z, err := zstd.NewWriter(f)
	if err != nil {
		return errors.Join(err, f.Close())
	}
	a := &archive{tar: tar.NewWriter(z)}
	err = errors.Join(a.put(backupHead, []byte(head)), a.put(backupState, []byte(state)))
	err = errors.Join(err, a.put(backupSums, []byte(a.sums.String())))
	return errors.Join(err, a.tar.Close(), z.Close(), f.Close())
}
