package quiet

import (
	"path/filepath"
	"strings"
)

// zone is a counter of energy: a processor package, or its memory (RAPL).
type zone struct {
	path string // of energy_uj
	wrap uint64 // where the counter begins again, µJ; 0 where that is not known
}

// zones finds the counters whose sum is what the processors and their memory
// take. Cores and the uncore are parts of their package, and psys of the whole board
// is not there on most; so neither is counted.
func (f files) zones() (out []zone) {
	all, _ := filepath.Glob(f.path("sys/class/powercap/intel-rapl:*"))
	for _, dir := range all {
		name := f.text(strings.TrimPrefix(filepath.Join(dir, "name"), f.path("")))
		if !strings.HasPrefix(name, "package") && name != "dram" {
			continue
		}
		z := zone{path: filepath.Join(dir, "energy_uj")}
		if _, ok := readNumber(z.path); !ok {
			continue // root may read it, since Linux 5.10
		}
		z.wrap, _ = readNumber(filepath.Join(dir, "max_energy_range_uj"))
		out = append(out, z)
	}
	return out
}

// meter adds up what zones count. It must be read more often than a counter
// wraps: at 100 W that takes 43 minutes.
type meter struct {
	zones  []zone
	last   []uint64
	sum    float64 // µJ
	read   bool    // since the start
	behind bool    // at the last look a counter could not be read
	lost   bool    // a counter went back, nobody knows how far
}

// take reads all counters.
func (m *meter) take() {
	m.behind = true
	now := make([]uint64, len(m.zones))
	for i, z := range m.zones {
		n, ok := readNumber(z.path)
		if !ok {
			return
		}
		now[i] = n
	}
	m.behind = false
	m.add(now)
}

// add takes up the counters as they are now.
func (m *meter) add(now []uint64) {
	for i := range now {
		if m.last == nil {
			break
		}
		m.read = true
		switch {
		case now[i] >= m.last[i]:
			m.sum += float64(now[i] - m.last[i])
		case m.zones[i].wrap >= m.last[i] && m.zones[i].wrap > 0:
			m.sum += float64(m.zones[i].wrap - m.last[i] + now[i])
		default:
			m.lost = true
		}
	}
	m.last = now
}

// joules is what was taken since the first take, or nil.
func (m *meter) joules() *float64 {
	if !m.read || m.behind || m.lost || len(m.zones) == 0 {
		return nil
	}
	j := m.sum / 1e6
	return &j
}
