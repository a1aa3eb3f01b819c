package main

import (
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"labmesh"
	"labmesh/api"
	"labmesh/client"
)

// about is the findings about one thing, as "grade: found".
func about(f findings, name string) (out []string) {
	for _, x := range f {
		if x.About == name {
			out = append(out, string(x.Grade)+": "+x.Found)
		}
	}
	return out
}

// wantFinding reports unless there is one finding of that name and it has that beginning.
func wantFinding(t *testing.T, f findings, name, begins, holds string) {
	t.Helper()
	got := about(f, name)
	if !slices.ContainsFunc(got, func(s string) bool { return strings.HasPrefix(s, begins) && strings.Contains(s, holds) }) {
		t.Errorf("%s: %q, want one that begins %q and holds %q", name, got, begins, holds)
	}
}

func TestDoctorLooksAtTheDataDir(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	if err := os.Chmod(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	look := func(dir string) findings {
		var f findings
		m := machine{dir: dir}
		m.examineDir(&f)
		m.examineDisk(&f)
		return f
	}
	wantFinding(t, look(dir), "data dir", "ok: "+dir, "")
	wantFinding(t, look(dir), "disk", "", "takes no work below")
	wantFinding(t, look(filepath.Join(dir, "a", "b")), "data dir", "ok: ", "will be made")
	if err := os.WriteFile(filepath.Join(dir, "node.key"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	wantFinding(t, look(dir), "data dir", "bad: ", "node.key may be read by others (mode 0644)")
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	wantFinding(t, look(dir), "data dir", "warn: ", "mode 0755")
	if os.Geteuid() != 0 { // root may write anywhere
		wantFinding(t, look("/nonesuch/labmesh"), "data dir", "bad: ", "cannot make it")
	}
}

func TestDoctorSaysWhyADeviceIsNotUsable(t *testing.T) {
	t.Parallel()
	c := labmesh.Capabilities{Hardware: []string{"cpu", "cuda"}, Absent: map[string]string{"rocm": "no AMD GPU", "cgroup": "memory: not delegated"}, Sandboxes: []labmesh.Sandbox{"no_network"},
		Tools: map[string]string{"go": "1.26"}, Engines: []labmesh.Engine{{Name: "torch", Reason: "it is built without CUDA"}, {Name: "labmesh-go", Version: "1"}},
		Devices: []labmesh.Device{
			{Class: "cpu", Name: "x86", Level: labmesh.DeviceUsable},
			{Class: "cuda", Name: "T4", Level: labmesh.DeviceDriver, Reason: "no engine can use it: torch: it is built without CUDA"},
			{Class: "openvino", Name: "NPU", Level: labmesh.DevicePresent, Reason: "no driver"},
		}, Calibration: &labmesh.Calibration{Slower: "30 % slower than its own median"}}
	var f findings
	examineHeld(&f, c)
	examineDevices(&f, c)
	examineEngines(&f, c)
	examineSpeed(&f, c)
	examineTools(&f, c)
	wantFinding(t, f, "cgroups", "warn: ", "memory: not delegated")
	wantFinding(t, f, "sandbox no_network", "ok", "")
	wantFinding(t, f, "sandbox bubblewrap", "warn", "")
	wantFinding(t, f, "device cpu", "ok", "x86")
	wantFinding(t, f, "device cuda", "warn: driver: cuda:0 T4", "torch: it is built without CUDA")
	wantFinding(t, f, "device openvino", "warn: present", "no driver")
	wantFinding(t, f, "no rocm", "ok", "no AMD GPU")
	wantFinding(t, f, "engine torch", "warn", "without CUDA")
	wantFinding(t, f, "engine labmesh-go", "ok", "")
	wantFinding(t, f, "speed", "warn", "30 %")
	wantFinding(t, f, "tools", "ok", "go 1.26")

	var since findings
	examineSince(&since, c, labmesh.Capabilities{Hardware: []string{"cpu", "rocm"}, Absent: map[string]string{"cuda": "fell off the bus"}})
	wantFinding(t, since, "device cuda", "bad", "fell off the bus")
	wantFinding(t, since, "device rocm", "warn", "answers now")
}

func TestDoctorLooksAtTheMesh(t *testing.T) {
	t.Parallel()
	n := newFakeNode(t)
	f := func(x float64) *float64 { return &x }
	replies := map[string]any{
		"/status": api.Status{Node: "n1", Role: "leader", Leader: "n1", Voters: []labmesh.NodeID{"n1", "n2", "n3"}, VotersAlive: 3, Quorum: 2, Version: "v1", Warnings: []string{"one thing"}},
		"/api/peers": api.PeerList{Addrs: []string{"/ip4/127.0.0.1/tcp/4080"}, Peers: []api.Peer{
			{Node: "n1", Self: true, Reached: true, Version: "v1", Feature: 2}, {Node: "n2", Hostname: "two", Reached: true, Version: "v2", Feature: 3, RTT: f(0.002), Ahead: f(-90), Path: "relayed"},
			{Node: "n3", Error: "no route"}, {Node: "n4", Error: "gone"}, {Node: "n5", Reached: true, RTT: f(6), Ahead: f(2)}}},
		"/api/workers": api.WorkerList{Workers: []api.WorkerSummary{{ID: "w1"}, {ID: "w2"}}},
		"/api/workers/w1": api.Worker{WorkerSummary: api.WorkerSummary{ID: "w1", Node: "n1", Status: "active"},
			Full: labmesh.Capabilities{Calibration: &labmesh.Calibration{Slower: "40 % slower"}}},
		"/api/workers/w2": api.Worker{WorkerSummary: api.WorkerSummary{ID: "w2", Hostname: "two", Status: "offline", Reason: "silent"}},
	}
	n.override = func(w http.ResponseWriter, r *http.Request) bool {
		answer(w, 200, replies[r.URL.Path])
		return true
	}
	c, err := client.New(client.Config{URL: n.URL, Key: fakeKey})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	m := askMesh(t.Context(), c, nil)
	var found findings
	m.examine(&found)
	wantFinding(t, found, "leader", "ok: n1", "survives")
	wantFinding(t, found, "mesh", "warn: one thing", "")
	wantFinding(t, found, "mesh-listen", "warn: only this machine", "127.0.0.1")
	wantFinding(t, found, "peer two n2", "warn", "through another node, in 2.0 ms")
	wantFinding(t, found, "clock of two n2", "bad: it is 1m30s behind ours", "1.0 ms")
	wantFinding(t, found, "peer n3", "bad", "no route")
	wantFinding(t, found, "peer n4", "warn", "gone")
	wantFinding(t, found, "clock of n5", "ok: it is 2s ahead of ours", "give or take 3000.0 ms")
	wantFinding(t, found, "versions", "warn: nodes of different feature levels", "v2 (two n2)")
	wantFinding(t, found, "worker w1", "warn", "40 % slower")
	wantFinding(t, found, "worker w2 (two)", "warn", "offline: silent")
	if _, bad := found.worst(); bad != 2 {
		t.Errorf("%d are bad: %+v", bad, found)
	}

	dir := t.TempDir()
	if m.local(dir) != nil {
		t.Error("a worker is local without a node here")
	}
	if err := os.WriteFile(filepath.Join(dir, "api.json"), []byte(`{"node_id":"n1"}`), 0o600); err != nil {
		t.Fatal(err)
	}
	if w := m.local(dir); w == nil || w.ID != "w1" {
		t.Errorf("the worker of the node here: %+v", w)
	}
}

// TestDoctorWithoutANode: what keeps it from a node is a finding, not an error.
func TestDoctorWithoutANode(t *testing.T) {
	t.Parallel()
	for want, err := range map[string]error{"warn": labmesh.Refuse(labmesh.Unavailable, "no node found"), "bad": labmesh.Refuse(labmesh.Internal, "it broke")} {
		m := askMesh(t.Context(), nil, err)
		var f findings
		m.examine(&f)
		wantFinding(t, f, "node", want, "")
	}
	var f findings
	machine{dir: t.TempDir(), environ: []string{}}.examine(t.Context(), &f)
	wantFinding(t, f, "device cpu", "ok", "")
	var b strings.Builder
	a := newApp(strings.NewReader(""), &b, &b, func(string) (string, bool) { return "", false })
	if err := a.printFindings(f); err != nil || !strings.Contains(b.String(), "ok   device cpu: usable") || !strings.HasSuffix(b.String(), " ok\n") {
		t.Errorf("%v\n%s", err, b.String())
	}
}
