package lab_test

import (
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"labmesh"
	"labmesh/api"
	"labmesh/client"
	"labmesh/lab"
)

// project is a directory to ship: a script, something of some size, and what is ignored.
func project(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	for name, text := range map[string]string{
		"job.sh":     "#!/bin/sh\nset -e\ntest ! -e scratch.tmp\nmkdir out\nwc -c < data/big > out/size.txt\necho made\n",
		"data/big":   strings.Repeat("0123456789abcdef", 100_000),
		"ignored":    "",
		".gitignore": "*.tmp\n", "scratch.tmp": "not to be shipped",
	} {
		path := filepath.Join(dir, name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o700), os.WriteFile(path, []byte(text), 0o700)); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

var received = regexp.MustCompile(`(?m)^labmesh_content_received_bytes_total (\S+)$`)

// moved is how many bytes of files went between the nodes so far.
func moved(t *testing.T, nodes ...*lab.Node) (sum float64) {
	t.Helper()
	for _, n := range nodes {
		req, err := http.NewRequestWithContext(within(t, 10*time.Second), http.MethodGet, n.URL()+"/metrics", nil)
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("X-API-Key", n.Key())
		req.Close = true
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		data, err := io.ReadAll(resp.Body)
		resp.Body.Close()
		m := received.FindSubmatch(data)
		if err != nil || m == nil {
			t.Fatalf("no such figure of %s: %v", n.Name, err)
		}
		f, err := strconv.ParseFloat(string(m[1]), 64)
		if err != nil {
			t.Fatal(err)
		}
		sum += f
	}
	return sum
}

// settled waits until no more files go between the nodes.
func settled(t *testing.T, nodes ...*lab.Node) (sum float64) {
	t.Helper()
	since := time.Now()
	until(t, 20*time.Second, "files to be where they should", func() bool {
		if now := moved(t, nodes...); now != sum {
			sum, since = now, time.Now()
		}
		return time.Since(since) > time.Second
	})
	return sum
}

func TestABundleIsShippedOnceAndFilesComeBackFromAnyNode(t *testing.T) {
	t.Parallel()
	m := start(t, lab.Config{Nodes: 3, Slots: 2})
	from, worker, other := m.Nodes[0], m.Nodes[1], m.Nodes[2]
	dir := project(t)
	ship := func() (id string) {
		code, stdout, stderr := labmeshCLI(t, from, "", "run", "--json", "--bundle", dir, "--artifact", "out/**", "--worker", string(worker.Worker()), "--", "./job.sh")
		var d api.TaskDetail
		if err := json.Unmarshal([]byte(stdout), &d); code != 0 || err != nil || d.Outputs == nil {
			t.Fatalf("run --bundle: exit code %d, %v, %s, %s", code, err, stdout, stderr)
		}
		return string(d.ID)
	}
	id := ship()
	before := settled(t, m.Nodes...)
	if before < 1000 {
		t.Errorf("only %g bytes went between the nodes", before)
	}
	again := ship()
	if now := settled(t, m.Nodes...); now != before {
		t.Errorf("the same again moved %g bytes", now-before)
	}
	if err := worker.Kill(); err != nil {
		t.Fatal(err)
	}
	for _, id := range []string{id, again} {
		to := t.TempDir()
		if code, _, stderr := labmeshCLI(t, other, "", "artifacts", id, "-o", to); code != 0 {
			t.Fatalf("artifacts: exit code %d, %s", code, stderr)
		}
		for name, want := range map[string]string{"out/size.txt": "1600000\n", ".labmesh/stdout": "made\n"} {
			if data, err := os.ReadFile(filepath.Join(to, name)); strings.TrimLeft(string(data), " ") != want || err != nil {
				t.Errorf("%s is %q, %v", name, data, err)
			}
		}
	}
	if code, stdout, stderr := labmeshCLI(t, other, "", "artifacts", id, "out/size.txt", "-o", "-"); code != 0 || strings.TrimSpace(stdout) != "1600000" {
		t.Errorf("one file to stdout: exit code %d, %q, %s", code, stdout, stderr)
	}
	if code, stdout, _ := labmeshCLI(t, other, "", "artifacts", id); code != 0 || !strings.Contains(stdout, "out/size.txt") {
		t.Errorf("the list: exit code %d, %q", code, stdout)
	}
	code, stdout, stderr := labmeshCLI(t, from, "type: custom\nbundle: "+dir+"\nconfig: {name: ./job.sh}\n", "submit", "--wait")
	if code != 0 || stdout == "" {
		t.Errorf("submit of a directory: exit code %d, %q, %s", code, stdout, stderr)
	}
}

func TestBadFilesAreRefusedAndSayWhy(t *testing.T) {
	t.Parallel()
	m := start(t, lab.Config{Nodes: 1, Slots: 2})
	n := m.Nodes[0]
	for _, c := range []struct {
		path, body string
		status     int
		says       string
	}{
		{"/api/bundles", "junk", 400, "manifest"},
		{"/api/bundles/chunks", "\x7f\xff\xff\xff", 400, "chunk"},
		{"/api/bundles/missing", `{"chunks":["../../x"]}`, 400, "chunks[0]"},
		{"/api/tasks", `{"type":"custom","config":{"name":"true"},"bundle":"` + strings.Repeat("0", 64) + `"}`, 400, "bundle"},
		{"/api/tasks", `{"type":"custom","config":{"name":"true"},"artifacts":["../x"]}`, 400, "artifacts"},
	} {
		if status, e := post(t, n, c.path, c.body); status != c.status || !strings.Contains(e.Field+" "+e.Message, c.says) {
			t.Errorf("%s %.60q: %d %q (field %q), want %d %q", c.path, c.body, status, e.Message, e.Field, c.status, c.says)
		}
	}
	bad := t.TempDir()
	if err := os.Symlink("../../etc", filepath.Join(bad, "out")); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		args []string
		says string
	}{
		{[]string{"run", "--bundle", bad, "--", "true"}, "leads out"},
		{[]string{"run", "--bundle", "/nonexistent", "--", "true"}, "/nonexistent"},
		{[]string{"run", "--bundle", "/etc/hostname", "--", "true"}, "file"},
		{[]string{"run", "--artifact", "../x", "--", "true"}, "artifacts"},
		{[]string{"artifacts", "nothing"}, "nothing"},
		{[]string{"artifacts"}, "task id"},
	} {
		if code, stdout, stderr := labmeshCLI(t, n, "", c.args...); code != 2 || stdout != "" || !strings.Contains(stderr, c.says) {
			t.Errorf("labmesh %v: exit code %d, %q, %q; want one that says %q", c.args, code, stdout, stderr, c.says)
		}
	}
	// A program of the bundle that is not there is the task's own fault.
	dir := project(t)
	id, _, err := n.Client().UploadBundle(t.Context(), dir, client.BundleOptions{})
	if err != nil {
		t.Fatal(err)
	}
	spec := program("./none.sh")
	spec.Bundle = id
	if d := run(t, n, spec); d.Status != labmesh.Failed || labmesh.Cause(d.Cause) != labmesh.CauseProgram || !strings.Contains(string(d.Error), "none.sh") {
		t.Errorf("a program that is not in the bundle: %s (%s): %s", d.Status, d.Cause, d.Error)
	}
}
