// Package labtest gives tests a mesh of real processes.
package labtest

import (
	"testing"

	"labmesh/lab"
)

// logTail is how many bytes of each node's log a failed test shows.
const logTail = 4000

// Start makes a mesh that lasts as long as the test, in a directory of the test
// unless cfg names one. When the test has failed, it shows what the nodes said last.
func Start(t testing.TB, cfg lab.Config) *lab.Mesh {
	t.Helper()
	if cfg.Dir == "" {
		cfg.Dir = t.TempDir()
	}
	m, err := lab.Start(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := m.Close(); err != nil {
			t.Errorf("close mesh: %v", err)
		}
		if t.Failed() {
			for _, n := range m.Nodes {
				log := n.Log()
				t.Logf("%s says:\n%s", n.Name, log[max(0, len(log)-logTail):])
			}
		}
	})
	return m
}
