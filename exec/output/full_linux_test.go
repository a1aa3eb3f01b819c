package output_test

import (
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"labmesh/exec/output"
)

// It needs a small file system, and so root.
func TestFullDiskCostsOutputAndNothingElse(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "small")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size=256k"); err != nil {
		t.Skipf("mount a small tmpfs: %v", err)
	}
	defer func() {
		if err := syscall.Unmount(dir, 0); err != nil {
			t.Error(err)
		}
	}()
	o, all := output.New(dir), count(600<<10)
	o.Write(output.Stdout, all)
	o.Close()
	got := read(t, o, output.Query{})
	lost := o.Dropped(output.Stdout)
	if lost == 0 || !strings.HasSuffix(got, output.Marker(lost)) || !strings.HasPrefix(got, string(all[:100<<10])) {
		t.Errorf("%d bytes lost, %d read", lost, len(got))
	}
}
