package mesh_test

import (
	"os"
	"path/filepath"
	"testing"

	"labmesh/mesh"
)

func TestKeyIsMadeOnceAndKeptPrivate(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "new", mesh.KeyFile)
	made, mended, err := mesh.LoadKey(path)
	if err != nil || mended {
		t.Fatalf("make: mended %v, err %v", mended, err)
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Fatalf("mode %v, err %v", info.Mode(), err)
	}
	if err := os.Chmod(path, 0o644); err != nil {
		t.Fatal(err)
	}
	again, mended, err := mesh.LoadKey(path)
	if err != nil || !mended || !again.Equals(made) {
		t.Fatalf("load: same %v, mended %v, err %v", again.Equals(made), mended, err)
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Fatalf("after mending: mode %v, err %v", info.Mode(), err)
	}
	if err := os.WriteFile(path, []byte("nonsense"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, _, err := mesh.LoadKey(path); err == nil {
		t.Error("nonsense was taken for a key")
	}
}
