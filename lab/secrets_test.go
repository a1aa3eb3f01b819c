package lab_test

import (
	"bytes"
	"encoding/base64"
	"io"
	"io/fs"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"labmesh"
	"labmesh/client"
	"labmesh/lab"
)

// TestASecretIsWhereItIsNeededAndNowhereElse: a program gets it, and nothing that
// anybody can ask or find on disk holds it.
func TestASecretIsWhereItIsNeededAndNowhereElse(t *testing.T) {
	t.Parallel()
	const value = "xyzzy-plugh-4711"
	m := start(t, lab.Config{Nodes: 1, Slots: 2, Args: []string{"--log-level", "debug"}})
	n := m.Nodes[0]
	spec := shell(`printf 'it is xyzzy-'; sleep 0.05; echo plugh-4711; echo "$TOKEN" >&2; printf %s "$TOKEN" | base64; [ "$TOKEN" = xyzzy-"plugh"-4711 ] && tr '\0' '\n' </proc/self/cmdline`)
	spec.Secrets = []string{"TOKEN"}
	if _, err := n.Client().Submit(t.Context(), spec); labmesh.ReasonOf(err) != labmesh.Invalid || !strings.Contains(err.Error(), "TOKEN") {
		t.Errorf("a secret that nobody has set: %v", err)
	}
	set := n.Command(t.Context(), "secret", "set", "TOKEN")
	set.Stdin = strings.NewReader(value + "\n")
	if out, err := set.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	done := run(t, n, spec)
	if done.Status != labmesh.Completed {
		t.Fatalf("%s: %s %s", done.Status, done.Error, done.Result)
	}
	if !strings.Contains(string(done.Result), "it is [secret TOKEN]") {
		t.Errorf("result %s", done.Result)
	}
	without := shell(`echo "${TOKEN-not there}"`)
	if other := run(t, n, without); !strings.Contains(string(other.Result), "not there") {
		t.Errorf("a task that asks for none: %s", other.Result)
	}
	slow := shell("sleep 60")
	slow.Secrets = []string{"TOKEN"}
	id := submit(t, n, slow)[0]
	running(t, n, id)
	if out, err := exec.CommandContext(t.Context(), "ps", "-eo", "args").Output(); err == nil && bytes.Contains(out, []byte(value)) {
		t.Error("a list of processes shows it")
	}
	for _, path := range []string{"/api/tasks", "/api/tasks/" + string(done.ID), "/api/tasks/" + string(done.ID) + "/logs", "/api/tasks/" + string(done.ID) + "/logs?stream=stderr",
		"/api/secrets", "/status", "/metrics", "/api/tasks/" + string(id) + "/why"} {
		if body := get(t, n, path); bytes.Contains(body, []byte(value)) {
			t.Errorf("%s shows it: %s", path, body)
		}
	}
	for _, table := range append(lab.Tables(), "events", "worker_nodes") {
		rows, err := n.Rows(t.Context(), table)
		if err != nil || strings.Contains(strings.Join(rows, "\n"), value) {
			t.Errorf("%s shows it: %v", table, err)
		}
	}
	if _, err := n.Client().Cancel(t.Context(), id, ""); err != nil {
		t.Error(err)
	}
	if err := n.Client().Wait(within(t, 20*time.Second), []labmesh.TaskID{id}, func(client.Verdict) {}); err != nil {
		t.Error(err)
	}
	if out, err := n.Command(t.Context(), "secret", "rm", "TOKEN").CombinedOutput(); err != nil {
		t.Errorf("%v: %s", err, out)
	}
	if err := n.Stop(); err != nil {
		t.Error(err)
	}
	if strings.Contains(n.Log(), value) {
		t.Error("the node's log at level debug shows it")
	}
	search(t, n.Dir, value)
}

// search looks for value in all files of a data dir, where it must not be, and for
// the name of the secret, which must be in the log.
func search(t *testing.T, dir, value string) {
	t.Helper()
	logged := false
	err := filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		data, err := os.ReadFile(path)
		if err != nil {
			return nil // a socket
		}
		in, _ := filepath.Rel(dir, path)
		if bytes.Contains(data, []byte(value)) || bytes.Contains(data, []byte(base64.StdEncoding.EncodeToString([]byte(value)))) {
			t.Errorf("%s holds it", in)
		}
		logged = logged || strings.HasPrefix(in, "raft"+string(filepath.Separator)) && bytes.Contains(data, []byte(`"name":"TOKEN"`))
		return nil
	})
	if err != nil {
		t.Error(err)
	}
	for name, mode := range map[string]fs.FileMode{"raft": 0o700, "seal.keys": 0o600} {
		if info, err := os.Stat(filepath.Join(dir, name)); err != nil || info.Mode().Perm() != mode {
			t.Errorf("%s: %v, %v, want %v", name, info, err, mode)
		}
	}
	if !logged {
		t.Error("the secret is not in raft/ at all: this test does not find what it looks for")
	}
}

// get is what a node answers.
func get(t *testing.T, n *lab.Node, path string) []byte {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, n.URL()+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("X-API-Key", n.Key())
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != http.StatusOK {
		t.Errorf("%s: %s, %v", path, resp.Status, err)
	}
	return body
}
