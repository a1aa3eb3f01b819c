package lab_test

import (
	"net"
	"net/url"
	"strings"
	"testing"
	"time"

	"labmesh"
	"labmesh/api"
	"labmesh/lab"
)

func TestWhoMayNotJoinIsToldWhy(t *testing.T) {
	t.Parallel()
	m := start(t, lab.Config{Nodes: 1, Slots: 1, Args: []string{"--max-replicas", "2"}})
	n := m.Nodes[0]
	invite := func(r api.InviteRequest) string {
		reply, err := n.Client().Invite(t.Context(), r)
		if err != nil {
			t.Fatal(err)
		}
		return reply.Invite
	}
	once, brief := invite(api.InviteRequest{Uses: 1}), invite(api.InviteRequest{TTLSeconds: 1})
	expired := time.Now().Add(1100 * time.Millisecond)
	up := func(flags ...string) []string {
		return append([]string{"up", "--port", "0", "--mesh-listen", "/ip4/127.0.0.1/tcp/0"}, flags...)
	}
	refused := func(name string, says []string, args ...string) {
		t.Helper()
		began := time.Now()
		cmd := lab.NewNode(bin, t.TempDir()).Command(within(t, 30*time.Second), args...)
		out, err := cmd.CombinedOutput()
		if err == nil || cmd.ProcessState.ExitCode() < 1 {
			t.Errorf("%s: labmesh up ended with %v: %s", name, err, out)
		}
		for _, s := range says {
			if !strings.Contains(string(out), s) {
				t.Errorf("%s: %q does not say %q", name, last(string(out), 1500), s)
			}
		}
		if took := time.Since(began); took > 15*time.Second {
			t.Errorf("%s: it took %s to say so", name, took.Round(time.Second))
		}
	}
	refused("no invite at all", []string{"invite"}, up("--join", "hello")...)
	cut := m.Invite()[:len(m.Invite())-20]
	refused("a cut invite", []string{"invite"}, up("--join", cut)...)
	refused("a flag that makes no sense", []string{"--slots"}, up("--slots", "many")...)
	refused("an open door without TLS", []string{"--tls-cert"}, up("--host", "0.0.0.0")...)

	second, err := m.Join(t.Context(), "--join", once)
	if err != nil {
		t.Fatal(err)
	}
	refused("a used-up invite", []string{"used"}, up("--join", once)...)
	until(t, 5*time.Second, "the invite expires", func() bool { return time.Now().After(expired) })
	refused("an expired invite", []string{"expired"}, up("--join", brief)...)
	refused("a leaf that founds", []string{"--leaf", "--join"}, up("--leaf")...)

	refused("a data dir in use", []string{"in use", n.Dir}, "up", "--port", "0", "--data-dir", n.Dir)
	u, err := url.Parse(n.URL())
	if err != nil {
		t.Fatal(err)
	}
	_, port, err := net.SplitHostPort(u.Host)
	if err != nil {
		t.Fatal(err)
	}
	refused("a port in use", []string{port, "in use"}, "up", "--port", port, "--mesh-listen", "/ip4/127.0.0.1/tcp/0")

	if d := run(t, second, on(second, program("true"))); d.Status != labmesh.Completed {
		t.Errorf("the mesh is the worse for it: a task is %s", d.Status)
	}
}
