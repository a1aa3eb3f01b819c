package stats

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"strings"

	"labmesh"
)

// keyBytes is how much of the hash a key shows: enough for any lab's history.
const keyBytes = 12

// Keys are the keys of what was run: equal series may be compared over time,
// equal compare between machines, devices and engines.
func Keys(w labmesh.BenchWork) (series, compare string) {
	what := w
	what.EngineWhy, what.DeviceUUID, what.Kernel = "", "", w.Kernel
	what.Iterations, what.Warmup = 0, 0 // how long one looked, not at what
	what.FLOPs = 0                      // follows from the rest, and not every engine says it
	what.EngineVersion = majorMinor(w.EngineVersion)
	series = keyOf(what)
	what.Engine, what.EngineVersion, what.Kernel, what.Source, what.Attention = "", "", "", "", ""
	what.DeviceClass, what.DeviceName, what.DriverMajor, what.Threads = "", "", "", 0
	return series, keyOf(what)
}

func keyOf(w labmesh.BenchWork) string {
	data, err := json.Marshal(w) // fields in their order, maps in order of their keys
	if err != nil {
		return "" // it is made of texts and numbers that came from JSON: it cannot be
	}
	sum := sha256.Sum256(data)
	return hex.EncodeToString(sum[:keyBytes])
}

func majorMinor(version string) string {
	parts := strings.SplitN(version, ".", 3)
	return strings.Join(parts[:min(len(parts), 2)], ".")
}
