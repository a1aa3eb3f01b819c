package main

import (
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestDevicesAreDeclaredByFlagEnvironmentAndFile: the same devices in three ways.
func TestDevicesAreDeclaredByFlagEnvironmentAndFile(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "up.yaml")
	if err := os.WriteFile(file, []byte("declare: [\"cuda:name=NVIDIA T4,memory_gb=16\", rocm]\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		args []string
		env  string
		want string // what is wrong
	}{
		"flags":       {[]string{"--declare", "cuda:name=NVIDIA T4,memory_gb=16", "--declare", "rocm"}, "", ""},
		"environment": {nil, "cuda:name=NVIDIA T4,memory_gb=16;rocm", ""},
		"file":        {[]string{"--config", file}, "", ""},
		"bad flag":    {[]string{"--declare", "tpu"}, "", "none of cuda, rocm"},
	} {
		lookup := func(name string) (string, bool) { return c.env, c.env != "" && name == "LABMESH_DECLARE" }
		a := newApp(strings.NewReader(""), io.Discard, io.Discard, lookup)
		cmd := newUpCommand(a)
		err := cmd.ParseFlags(c.args)
		if c.want != "" {
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("%s: %v", name, err)
			}
			continue
		}
		declared, _ := cmd.Flags().Lookup("declare").Value.(*declaredFlag)
		if err == nil {
			err = flagsFromEnv(cmd, lookup)
		}
		if err == nil && len(c.args) > 0 && c.args[0] == "--config" {
			err = flagsFromFile(cmd, file)
		}
		if err != nil || len(*declared) != 2 || (*declared)[0].MemoryGB != 16 || (*declared)[0].Name != "NVIDIA T4" || (*declared)[1].Class != "rocm" {
			t.Errorf("%s: %+v, %v", name, *declared, err)
		}
	}
}
