package exec

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"
)

// TestMoveNewReplacesNothing: not even an empty directory, which rename(2) does.
func TestMoveNewReplacesNothing(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	from, to := filepath.Join(dir, "from"), filepath.Join(dir, "to")
	for _, d := range []string{from, to} {
		if err := os.Mkdir(d, dirMode); err != nil {
			t.Fatal(err)
		}
	}
	if err := moveNew(from, to); !errors.Is(err, fs.ErrExist) {
		t.Errorf("onto an empty directory: %v", err)
	}
	if err := moveNew(from, filepath.Join(dir, "new")); err != nil {
		t.Error(err)
	}
	if err := moveNew(from, filepath.Join(dir, "newer")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("what is not there: %v", err)
	}
}
