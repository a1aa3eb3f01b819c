package infer

import (
	"os"
	"path/filepath"
	"slices"
	"testing"
)

func TestLimitsOfControlGroups(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		files map[string]string
		want  []uint64
	}{
		"none": {nil, nil},
		"version 2, the group and the one it lies in": {map[string]string{
			"proc/self/cgroup":                       "0::/jobs/a\n",
			"sys/fs/cgroup/jobs/a/memory.max":        "1000\n",
			"sys/fs/cgroup/jobs/a/memory.current":    "400\n",
			"sys/fs/cgroup/jobs/a/memory.stat":       "anon 1\ninactive_file 100\n",
			"sys/fs/cgroup/jobs/memory.max":          "500\n",
			"sys/fs/cgroup/jobs/memory.current":      "600\n",
			"sys/fs/cgroup/jobs/other/memory.max":    "1\n",
			"sys/fs/cgroup/memory.max":               "max\n",
			"sys/fs/cgroup/memory.current":           "700\n",
			"sys/fs/cgroup/jobs/memory.not_a_number": "",
		}, []uint64{700, 0}},
		"version 1": {map[string]string{
			"proc/self/cgroup": "4:cpu,cpuacct:/x\n3:memory:/jobs\n0::/jobs\nrubbish\n",
			"sys/fs/cgroup/memory/jobs/memory.limit_in_bytes": "900\n",
			"sys/fs/cgroup/memory/jobs/memory.usage_in_bytes": "100\n",
			"sys/fs/cgroup/memory/jobs/memory.stat":           "total_inactive_file 1000\n",
		}, []uint64{900}},
		"no number": {map[string]string{
			"proc/self/cgroup":             "0::/\n",
			"sys/fs/cgroup/memory.max":     "many\n",
			"sys/fs/cgroup/memory.current": "1\n",
		}, nil},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			root := t.TempDir()
			for file, text := range c.files {
				path := filepath.Join(root, file)
				if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
					t.Fatal(err)
				}
				if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			if got := groupsLeave(root); !slices.Equal(got, c.want) {
				t.Errorf("%v, not %v", got, c.want)
			}
		})
	}
}
