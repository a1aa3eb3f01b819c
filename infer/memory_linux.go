package infer

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"unsafe"

	"github.com/shirou/gopsutil/v4/mem"
	"golang.org/x/sys/unix"
)

// mapFloats asks the system for memory, in huge pages where it has them.
func mapFloats(bytes int) ([]byte, []float32, error) {
	chunk, err := unix.Mmap(-1, 0, bytes, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_ANON|unix.MAP_PRIVATE)
	if err != nil {
		return nil, nil, err
	}
	_ = unix.Madvise(chunk, unix.MADV_HUGEPAGE) // it is as right, and slower, without
	return chunk, unsafe.Slice((*float32)(unsafe.Pointer(unsafe.SliceData(chunk))), bytes/floatBytes), nil
}

func unmapFloats(chunk []byte) { _ = unix.Munmap(chunk) } // it is a mapping of ours

// freeMemory is how many bytes this process can still get: what the machine has
// available, or what the limits of its control groups leave if that is less.
func freeMemory() (bytes uint64, known bool) {
	if vm, err := mem.VirtualMemory(); err == nil {
		bytes, known = vm.Available, true
	}
	for _, left := range groupsLeave("/") {
		if !known || left < bytes {
			bytes, known = left, true
		}
	}
	return bytes, known
}

// groupsLeave lists what each memory limit on this process's control groups, and those they
// lie in, leaves of it. What the page cache holds of a limit is left to us too: the kernel gives it up first.
func groupsLeave(root string) (out []uint64) {
	data, err := os.ReadFile(filepath.Join(root, "proc/self/cgroup"))
	if err != nil {
		return nil
	}
	for line := range strings.Lines(string(data)) {
		parts := strings.SplitN(strings.TrimSpace(line), ":", 3)
		if len(parts) != 3 {
			continue
		}
		base, limit, usage := filepath.Join(root, "sys/fs/cgroup"), "memory.max", "memory.current"
		switch {
		case parts[1] == "memory":
			base, limit, usage = filepath.Join(base, "memory"), "memory.limit_in_bytes", "memory.usage_in_bytes"
		case parts[1] != "":
			continue
		}
		for dir := filepath.Clean("/" + parts[2]); ; dir = filepath.Dir(dir) {
			if left, ok := leaves(filepath.Join(base, dir), limit, usage); ok {
				out = append(out, left)
			}
			if dir == "/" {
				break
			}
		}
	}
	return out
}

func leaves(dir, limit, usage string) (bytes uint64, limited bool) {
	most, ok := number(filepath.Join(dir, limit))
	used, known := number(filepath.Join(dir, usage))
	if !ok || !known {
		return 0, false
	}
	used -= min(used, cached(filepath.Join(dir, "memory.stat")))
	return most - min(most, used), true
}

// cached is how much of a group's memory is page cache that has not been used lately.
func cached(stat string) (bytes uint64) {
	data, err := os.ReadFile(stat)
	if err != nil {
		return 0
	}
	for line := range strings.Lines(string(data)) {
		f := strings.Fields(line)
		if len(f) == 2 && (f[0] == "inactive_file" || f[0] == "total_inactive_file") {
			n, _ := strconv.ParseUint(f[1], 10, 64)
			bytes = max(bytes, n)
		}
	}
	return bytes
}

func number(file string) (uint64, bool) {
	data, err := os.ReadFile(file)
	if err != nil {
		return 0, false
	}
	n, err := strconv.ParseUint(strings.TrimSpace(string(data)), 10, 64) // "max" is no number, and no limit
	return n, err == nil
}
