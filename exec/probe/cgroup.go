package probe

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// cgroupMemory is the tightest limit on memory that the cgroups of this process
// set, v1 or v2, and what is used of it.
func cgroupMemory(root string) (limit, used uint64, ok bool) {
	own, err := os.ReadFile(filepath.Join("/", root, "proc/self/cgroup"))
	if err != nil {
		return 0, 0, false
	}
	for line := range strings.Lines(string(own)) {
		parts := strings.SplitN(strings.TrimSpace(line), ":", 3)
		if len(parts) != 3 {
			continue
		}
		var l, u uint64
		var found bool
		switch {
		case parts[0] == "0" && parts[1] == "":
			l, u, found = tightest(filepath.Join("/", root, "sys/fs/cgroup"), parts[2], "memory.max", "memory.current")
		case parts[1] == "memory":
			l, u, found = tightest(filepath.Join("/", root, "sys/fs/cgroup/memory"), parts[2], "memory.limit_in_bytes", "memory.usage_in_bytes")
		}
		if found && (!ok || l < limit) {
			limit, used, ok = l, u, true
		}
	}
	return limit, used, ok
}

// tightest looks from a cgroup up to its root for the smallest limit.
func tightest(mount, path, limitFile, usedFile string) (limit, used uint64, ok bool) {
	for {
		dir := filepath.Join(mount, path)
		if l, err := numberIn(filepath.Join(dir, limitFile)); err == nil && (!ok || l < limit) {
			limit, ok = l, true
			used, _ = numberIn(filepath.Join(dir, usedFile)) // 0 claims no less than there is
		}
		if path == "/" || path == "." || path == "" {
			return limit, used, ok
		}
		path = filepath.Dir(path)
	}
}

// numberIn reads a file with one number; "max" is none.
func numberIn(file string) (uint64, error) {
	data, err := os.ReadFile(file)
	if err != nil {
		return 0, err
	}
	return strconv.ParseUint(strings.TrimSpace(string(data)), 10, 64)
}
