package meshtest

import (
	"path/filepath"
	"strconv"
	"testing"

	"labmesh"
	"labmesh/mesh"
)

// Net makes hosts on loopback, each in a directory of its own.
type Net struct {
	Group
	Mesh labmesh.MeshID // [MeshID] unless it is set
	dir  string
}

// NewNet makes a net without hosts.
func NewNet(t testing.TB) *Net {
	t.Helper()
	return &Net{Mesh: MeshID, dir: t.TempDir()}
}

// Config is a Config for the i-th host. It listens on a port that is free, a new
// one each time. mDNS is off: tests that run beside each other would meet.
func (n *Net) Config(t testing.TB, i int) mesh.Config {
	t.Helper()
	cfg := n.Stranger(t, i)
	id, err := mesh.KeyID(cfg.Key)
	if err != nil {
		t.Fatalf("config of node %d: %v", i, err)
	}
	n.Add(id)
	return cfg
}

// Stranger is a Config for a host that is no member.
func (n *Net) Stranger(t testing.TB, i int) mesh.Config {
	t.Helper()
	dir := filepath.Join(n.dir, strconv.Itoa(i))
	key, _, err := mesh.LoadKey(filepath.Join(dir, mesh.KeyFile))
	if err != nil {
		t.Fatalf("config of node %d: %v", i, err)
	}
	return mesh.Config{
		Mesh: n.Mesh, Dir: dir, Key: key,
		Listen: []string{"/ip4/127.0.0.1/tcp/0"},
		Admit:  n.Admit, Members: n.Members,
		NoMDNS: true,
	}
}
