package serve

import (
	"os"
	"strconv"
	"strings"
)

// resetPeak lets the kernel begin anew with the most memory this process has had. It
// returns whether it did; only Linux can.
func resetPeak() bool { return os.WriteFile("/proc/self/clear_refs", []byte("5"), 0) == nil }

// peak is the most memory, in bytes, that this process has had since; nil where it is not known.
func peak() *int64 {
	data, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return nil
	}
	for line := range strings.Lines(string(data)) {
		f := strings.Fields(line)
		if len(f) == 3 && f[0] == "VmHWM:" && f[2] == "kB" {
			if kb, err := strconv.ParseInt(f[1], 10, 64); err == nil {
				return new(kb << 10)
			}
		}
	}
	return nil
}
