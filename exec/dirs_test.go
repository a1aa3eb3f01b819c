package exec

import (
	"os"
	"path/filepath"
	"strconv"
	"testing"

	"labmesh"
)

// TestDirsServeAgainOnlyAsTheyWere: what an attempt left must never be found by the next.
func TestDirsServeAgainOnlyAsTheyWere(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		touch func(dir string) error
		again bool
	}{
		"untouched":        {func(string) error { return nil }, true},
		"a file in work":   {func(dir string) error { return os.WriteFile(filepath.Join(dir, workName, "f"), nil, 0o600) }, false},
		"a file in tmp":    {func(dir string) error { return os.WriteFile(filepath.Join(dir, tmpName, "f"), nil, 0o600) }, false},
		"output":           {func(dir string) error { return os.WriteFile(filepath.Join(dir, "stdout"), nil, 0o600) }, false},
		"beside it":        {func(dir string) error { return os.Mkdir(filepath.Join(filepath.Dir(dir), "2"), 0o700) }, false},
		"another mode":     {func(dir string) error { return os.Chmod(filepath.Join(dir, workName), 0o777) }, false},
		"work is gone":     {func(dir string) error { return os.Remove(filepath.Join(dir, workName)) }, false},
		"made and removed": {func(dir string) error { return os.Remove(mustMake(t, filepath.Join(dir, workName, "f"))) }, false},
		"a link in its place": {func(dir string) error {
			work := filepath.Join(dir, workName)
			return os.Symlink(filepath.Dir(dir), mustRename(t, work))
		}, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			d, err := openDirs(t.TempDir())
			if err != nil {
				t.Fatal(err)
			}
			for n := range 3 { // the second and third are given what was used before
				k := key{labmesh.TaskID("t" + strconv.Itoa(n)), 1}
				if err := d.take(k); err != nil {
					t.Fatal(err)
				}
				dir := attemptDir(d.root, k)
				for _, sub := range []string{workName, tmpName} {
					if left, err := os.ReadDir(filepath.Join(dir, sub)); err != nil || len(left) > 0 {
						t.Fatalf("attempt %d finds %v in %s (%v)", n, left, sub, err)
					}
				}
				if err := c.touch(dir); err != nil {
					t.Fatal(err)
				}
				if again := d.give(k); again != c.again {
					t.Fatalf("attempt %d: serves again: %v, want %v", n, again, c.again)
				}
			}
		})
	}
}

func mustMake(t *testing.T, path string) string {
	t.Helper()
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func mustRename(t *testing.T, path string) string {
	t.Helper()
	if err := os.Rename(path, path+".old"); err != nil {
		t.Fatal(err)
	}
	return path
}
