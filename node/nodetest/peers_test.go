package nodetest_test

import (
	"testing"
	"testing/synctest"
	"time"

	"labmesh"
	"labmesh/exec"
	"labmesh/node/nodetest"
)

// TestPeersSaysWhoIsReached: each node asks the others the time, and says who
// does not answer.
func TestPeersSaysWhoIsReached(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := nodetest.Start(t, 3, map[labmesh.Kind]exec.Runner{labmesh.Custom: &nodetest.Runner{}})
		p := m.Nodes[1].Service().Peers(t.Context())
		if len(p.Peers) != 3 || len(p.Addrs) == 0 {
			t.Fatalf("%+v", p)
		}
		for _, p := range p.Peers {
			if !p.Reached || p.Version != "test" || p.Feature != labmesh.Feature || p.Self != (p.Node == m.Nodes[1].ID()) || !p.Self && (p.Ahead.Abs() > p.RTT/2 || p.RTT <= 0 || p.RTT > time.Second || p.Path != "direct") {
				t.Errorf("%+v", p)
			}
		}
		m.Cut(2)
		time.Sleep(time.Minute)
		for _, p := range m.Nodes[1].Service().Peers(t.Context()).Peers {
			if p.Reached == (p.Node == m.Nodes[2].ID()) || !p.Reached && p.Error == "" {
				t.Errorf("after the cut: %+v", p)
			}
		}
	})
}
