package node

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestTheStampOfADataDirIsLookedAtFirst: a directory of this build or an older one is taken up, one of a
// newer build or one that cannot be read is refused with what is wrong, and none is changed by the look.
func TestTheStampOfADataDirIsLookedAtFirst(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		file   string // mesh.json; "" for none
		resume bool
		format int
		wrong  string // in the error
	}{
		"missing":         {"", false, 0, ""},
		"older":           {`{"format":1,"mesh_id":"m-1","role":"node"}`, true, 1, ""},
		"without a stamp": {`{"mesh_id":"m-1","role":"node"}`, true, 0, ""},
		"same":            {`{"format":2,"mesh_id":"m-1","role":"node"}`, true, formatVersion, ""},
		"newer":           {`{"format":99,"mesh_id":"m-1","role":"node"}`, false, 0, "newer labmesh (format 99"},
		"garbage":         {"\x00\x01\x02", false, 0, meshFile},
		"torn":            {`{"format":2,"mesh_`, false, 0, meshFile},
		"empty":           {" ", false, 0, meshFile},
		"of another kind": {`["format"]`, false, 0, meshFile},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			file := filepath.Join(dir, meshFile)
			if c.file != "" {
				if err := os.WriteFile(file, []byte(c.file), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			d, err := openDataDir(dir)
			if err != nil {
				t.Fatal(err)
			}
			defer d.Close()
			id, resume, err := d.loadIdentity()
			if resume != c.resume || id.Format != c.format || (err == nil) != (c.wrong == "") || err != nil && !strings.Contains(err.Error(), c.wrong) {
				t.Errorf("%+v, %t, %v", id, resume, err)
			}
			if data, _ := os.ReadFile(file); string(data) != c.file {
				t.Errorf("the look has left %q", data)
			}
			if !resume {
				return
			}
			if err := d.saveIdentity(id); err != nil {
				t.Fatal(err)
			}
			if id, _, err = d.loadIdentity(); err != nil || id.Format != formatVersion || id.Mesh != "m-1" {
				t.Errorf("taken up it is %+v, %v", id, err)
			}
		})
	}
}
