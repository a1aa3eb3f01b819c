package mesh_test

import (
	"strings"
	"testing"

	"labmesh"
	"labmesh/mesh"
	"labmesh/mesh/meshtest"
)

func TestQUICListensBesideTCP(t *testing.T) {
	t.Parallel()
	lan := meshtest.NewNet(t)
	addrs := meshtest.Start(t, lan.Config(t, 0)).Addrs()
	if len(addrs) != 2 || !strings.Contains(addrs[0], "/tcp/") || !strings.Contains(addrs[1], "/quic-v1/") {
		t.Fatalf("addresses: %v", addrs)
	}
	tcp, udp := strings.Split(addrs[0], "/")[4], strings.Split(addrs[1], "/")[4]
	if tcp == "0" || tcp != udp {
		t.Errorf("TCP port %s, QUIC port %s", tcp, udp)
	}
	cfg := lan.Config(t, 1)
	cfg.NoQUIC = true
	if addrs := meshtest.Start(t, cfg).Addrs(); len(addrs) != 1 {
		t.Errorf("addresses without QUIC: %v", addrs)
	}
}

func TestAPortInUseIsSaidPlainly(t *testing.T) {
	t.Parallel()
	lan := meshtest.NewNet(t)
	addr := meshtest.Start(t, lan.Config(t, 0)).Addrs()[0]
	cfg := lan.Config(t, 1)
	cfg.Listen = []string{addr[:strings.Index(addr, "/p2p/")]}
	_, err := mesh.Open(t.Context(), cfg)
	if labmesh.ReasonOf(err) != labmesh.Unavailable || !strings.Contains(err.Error(), "another process has this port") {
		t.Errorf("open on a port in use: %v", err)
	}
}

func TestConfigIsChecked(t *testing.T) {
	t.Parallel()
	lan := meshtest.NewNet(t)
	for field, spoil := range map[string]func(*mesh.Config){
		"mesh_id": func(c *mesh.Config) { c.Mesh = "" },
		"admit":   func(c *mesh.Config) { c.Admit = nil },
		"members": func(c *mesh.Config) { c.Members = nil },
		"dir":     func(c *mesh.Config) { c.Dir, c.Key = "", nil },
		"lease":   func(c *mesh.Config) { c.Lease = 1 },
		"listen":  func(c *mesh.Config) { c.Listen = []string{"0.0.0.0:4080"} },
		"known":   func(c *mesh.Config) { c.Known = []string{"/ip4/127.0.0.1/tcp/1"} },
	} {
		cfg := lan.Stranger(t, 0)
		spoil(&cfg)
		_, err := mesh.Open(t.Context(), cfg)
		if labmesh.ReasonOf(err) != labmesh.Invalid || !strings.Contains(err.Error(), "mesh") && !strings.Contains(err.Error(), "listen") {
			t.Errorf("%s: %v", field, err)
		}
	}
}
