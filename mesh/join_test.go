package mesh_test

import (
	"context"
	"errors"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"labmesh"
	"labmesh/mesh"
	"labmesh/mesh/meshtest"
)

const goodInvite, goneInvite = "i-good", "i-gone"

var secret = []byte("correct horse battery staple")

// doorkeeper lets in who proves the one invite, after a wait.
type doorkeeper struct {
	group interface {
		Add(...labmesh.NodeID)
		Members() []labmesh.NodeID
	}
	wait  time.Duration
	asked atomic.Int64
}

func (d *doorkeeper) InviteKey(_ context.Context, id string) ([]byte, error) {
	switch id {
	case goodInvite:
		return mesh.InviteKey(secret), nil
	case goneInvite:
		return nil, labmesh.Refuse(labmesh.Denied, "the invite has expired: ask for a new one")
	}
	return nil, labmesh.Refuse(labmesh.NotFound, "the invite is unknown")
}

func (d *doorkeeper) Admit(ctx context.Context, req mesh.JoinRequest) (mesh.JoinReply, error) {
	d.asked.Add(1)
	if req.Hostname == "broken" {
		return mesh.JoinReply{}, errors.New("the path /secret/place is broken")
	}
	select {
	case <-time.After(d.wait):
	case <-ctx.Done():
		return mesh.JoinReply{}, ctx.Err()
	}
	reply := mesh.JoinReply{Role: labmesh.RoleNode, Payload: []byte(`{"hello":"` + req.Hostname + `"}`)}
	for _, m := range d.group.Members() {
		reply.Members = append(reply.Members, labmesh.Member{Node: m, Role: labmesh.RoleNode})
	}
	d.group.Add(req.Node)
	return reply, nil
}

// stranger is a host that believes in nobody: what it may do comes from Trust.
func stranger(cfg mesh.Config) mesh.Config {
	cfg.Admit = func(labmesh.NodeID, string) bool { return false }
	cfg.Members = func() []labmesh.NodeID { return nil }
	return cfg
}

func TestNewcomerJoinsAndMeetsAll(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		sim := meshtest.NewSim(t)
		door := &doorkeeper{group: sim, wait: 8 * time.Second} // longer than a stranger may stay
		var nodes []*meshtest.Node
		for i := range 3 {
			cfg := sim.Config(t, i)
			cfg.Join = door
			nodes = append(nodes, meshtest.Start(t, cfg))
		}
		meshtest.WaitFull(t, nodes, time.Minute)
		newcomer := meshtest.Start(t, stranger(sim.Stranger(t, 3)))
		reply, err := newcomer.Join(t.Context(), []string{sim.Addr(t, 0)}, goodInvite, secret, mesh.JoinRequest{Hostname: "box"})
		if err != nil {
			t.Fatal(err)
		}
		if reply.Mesh != meshtest.MeshID || reply.Server != nodes[0].ID() || reply.Role != labmesh.RoleNode ||
			len(reply.Members) != 3 || string(reply.Payload) != `{"hello":"box"}` {
			t.Errorf("reply: %+v", reply)
		}
		began := time.Now()
		meshtest.WaitFull(t, append(nodes, newcomer), 10*time.Second)
		t.Logf("all met %s after the join", time.Since(began))
		if took := time.Since(began); took > 1500*time.Millisecond {
			t.Errorf("the newcomer met all only after %s", took)
		}
		if s := nodes[0].Stats(); s.Joined != 1 || s.JoinsRefused != 0 {
			t.Errorf("stats: %+v", s)
		}
	})
}

func TestJoinIsRefusedAndSaysWhy(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		sim := meshtest.NewSim(t)
		door := &doorkeeper{group: sim}
		cfg := sim.Config(t, 0)
		cfg.Join = door
		server := meshtest.Start(t, cfg)
		nobodyThere := sim.Addr(t, 7)
		for i, c := range []struct {
			name, invite, secret, hostname string
			mesh                           labmesh.MeshID
			addrs                          []string
			reason                         labmesh.Reason
			says                           string
		}{
			{"wrong secret", goodInvite, "wrong", "", meshtest.MeshID, nil, labmesh.Denied, "secret is wrong"},
			{"expired", goneInvite, string(secret), "", meshtest.MeshID, nil, labmesh.Denied, "has expired"},
			{"unknown", "i-none", string(secret), "", meshtest.MeshID, nil, labmesh.NotFound, "unknown"},
			{"wrong mesh", goodInvite, string(secret), "", "m-other", nil, labmesh.Conflict, "wrong mesh"},
			{"a fault of the server", goodInvite, string(secret), "broken", meshtest.MeshID, nil, labmesh.Internal, "has a fault"},
			{"nobody there", goodInvite, string(secret), "", meshtest.MeshID, []string{nobodyThere}, labmesh.Unavailable, "no answer at /ip4/"},
			{"no address", goodInvite, string(secret), "", meshtest.MeshID, []string{}, labmesh.Invalid, "names no address"},
			{"no id", goodInvite, string(secret), "", meshtest.MeshID, []string{"/ip4/1.2.3.4/tcp/1"}, labmesh.Invalid, "/p2p/"},
			{"no multiaddr", goodInvite, string(secret), "", meshtest.MeshID, []string{"1.2.3.4:80"}, labmesh.Invalid, "is no address"},
			{"refusal outweighs silence", goneInvite, string(secret), "", meshtest.MeshID, []string{nobodyThere, sim.Addr(t, 0)}, labmesh.Denied, "has expired"},
		} {
			cfg := stranger(sim.Stranger(t, 10+i))
			cfg.Mesh = c.mesh
			newcomer := meshtest.Start(t, cfg)
			addrs := c.addrs
			if addrs == nil {
				addrs = []string{sim.Addr(t, 0)}
			}
			_, err := newcomer.Join(t.Context(), addrs, c.invite, []byte(c.secret), mesh.JoinRequest{Hostname: c.hostname})
			if labmesh.ReasonOf(err) != c.reason || !strings.Contains(err.Error(), c.says) {
				t.Errorf("%s: %v (%s); want %s, %q", c.name, err, labmesh.ReasonOf(err), c.reason, c.says)
			}
			if strings.Contains(err.Error(), "/secret/place") {
				t.Errorf("%s: the server's insides came out: %v", c.name, err)
			}
			newcomer.Stop()
		}
		if n := door.asked.Load(); n != 1 {
			t.Errorf("Admit was asked %d times, should be once, by the one who proved", n)
		}
		if len(server.Connected()) != 0 || server.Stats().JoinsRefused < 5 {
			t.Errorf("after all: connected %v, stats %+v", server.Connected(), server.Stats())
		}
	})
}

func TestJoinsAreBoundedPerAddress(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		sim := meshtest.NewSim(t)
		cfg := sim.Config(t, 0)
		cfg.Join = &doorkeeper{group: sim}
		meshtest.Start(t, cfg)
		guesser := meshtest.Start(t, stranger(sim.Stranger(t, 1)))
		reasons := map[labmesh.Reason]int{}
		for range 60 {
			_, err := guesser.Join(t.Context(), []string{sim.Addr(t, 0)}, goodInvite, []byte("guess"), mesh.JoinRequest{})
			reasons[labmesh.ReasonOf(err)]++
		}
		if reasons[labmesh.Exhausted] == 0 || reasons[labmesh.Denied] < 10 {
			t.Errorf("60 guesses in a row: %v", reasons)
		}
		time.Sleep(30 * time.Second)
		if _, err := guesser.Join(t.Context(), []string{sim.Addr(t, 0)}, goodInvite, secret, mesh.JoinRequest{}); err != nil {
			t.Errorf("with the right secret, after a rest: %v", err)
		}
	})
}
