package lab_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"labmesh/lab"
)

// python is a python3 that can run the package of clients/python with its worker.
func python(t *testing.T) string {
	t.Helper()
	for _, name := range []string{os.Getenv("LABMESH_PYTHON"), "python3", "/usr/bin/python3"} {
		if name == "" {
			continue
		}
		if exec.CommandContext(t.Context(), name, "-c", "import sys, websockets; assert sys.version_info >= (3, 9)").Run() == nil {
			return name
		}
	}
	t.Skip("no python3 from 3.9 on with the package websockets (Debian: python3-websockets)")
	return ""
}

// pythonCommand is a command of Python's for a mesh, that finds the package.
func pythonCommand(ctx context.Context, t *testing.T, interpreter, addrs, key string, args ...string) *exec.Cmd {
	t.Helper()
	home, err := filepath.Abs(filepath.Join("..", "clients", "python"))
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(ctx, interpreter, args...)
	cmd.Dir = t.TempDir()
	cmd.Env = append(os.Environ(), "PYTHONPATH="+home, "PYTHONDONTWRITEBYTECODE=1", "LABMESH_ADDR="+addrs, "LABMESH_API_KEY="+key)
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.WaitDelay = 20 * time.Second
	return cmd
}

// pythonClient has the mesh run programs and tests, and tells of them line by line.
const pythonClient = `
import sys
import labmesh

mesh, worker, test = labmesh.Client(), sys.argv[1], sys.argv[2]
on = {"requirements": {"worker_id": worker}}
done = mesh.run({**labmesh.custom("echo", "one"), **on}, 60)
print(done.worker_id, done.status, done.result["stdout"].strip())
failed = mesh.wait(mesh.submit({**labmesh.custom("exit 3", shell=True), **on}), 60)
print(failed.status, failed.cause, failed.result["exit_code"])
tested = mesh.run({**labmesh.test(test), **on}, 60)
print(tested.status, tested.result["runner"])
slow = mesh.submit({**labmesh.custom("sleep", "60"), **on})
while mesh.get(slow).status != "running":
    pass
print("kill", flush=True)
sys.stdin.readline()
mesh.cancel(slow)
print(mesh.wait(slow, 30).status)
ids = mesh.submit_batch([{**labmesh.custom("true"), **on}] * 3)
print([t.status for t in mesh.wait_all(ids, 60)])
while [row["n"] for row in mesh.query("SELECT count(*) AS n FROM distributed_tasks WHERE worker_id = '" + worker + "' AND end_time IS NOT NULL")] != [7]:
    pass
`

// newKey makes an API key.
func newKey(t *testing.T, n *lab.Node, role string) string {
	t.Helper()
	out, err := n.Command(t.Context(), "key", "create", "--role", role).Output()
	if err != nil {
		t.Fatalf("make a key for %s: %v", role, err)
	}
	return strings.TrimSpace(string(out))
}

// onWord calls do once, when word has been written to it.
type onWord struct {
	word string
	do   func()
	seen []byte
}

func (w *onWord) Write(p []byte) (int, error) {
	if w.seen = append(w.seen, p...); w.do != nil && bytes.Contains(w.seen, []byte(w.word)) {
		do := w.do
		w.do = nil
		do()
	}
	return len(p), nil
}

// TestPythonWorkerAndClient: the package of clients/python against real nodes. The node
// to which the worker is attached is killed while it runs a task.
func TestPythonWorkerAndClient(t *testing.T) {
	t.Parallel()
	interpreter := python(t)
	m := start(t, lab.Config{Nodes: 3, Slots: 1})
	first := m.Nodes[0]
	addrs := first.URL() + "," + m.Nodes[1].URL() + "," + m.Nodes[2].URL()

	ctx, stop := context.WithCancel(t.Context())
	worker := pythonCommand(ctx, t, interpreter, addrs, newKey(t, first, "worker"), "-m", "labmesh.worker", "--worker-id", "snake")
	var log bytes.Buffer
	worker.Stderr = &log
	if err := worker.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		stop()
		if err := worker.Wait(); err != nil && !errors.Is(err, context.Canceled) {
			t.Errorf("the worker: %v", err)
		}
		if t.Failed() {
			t.Logf("the worker says:\n%s", last(log.String(), 4000))
		}
	})

	test, err := filepath.Abs(filepath.Join("..", "examples", "pytest", "test_wilson.py"))
	if err != nil {
		t.Fatal(err)
	}
	client := pythonCommand(within(t, 2*time.Minute), t, interpreter, addrs, newKey(t, first, "operator"), "-c", pythonClient, "snake", test)
	in, say := io.Pipe()
	defer say.Close()
	client.Stdin = in
	var out, complaint bytes.Buffer
	killed := make(chan error, 1)
	client.Stdout = io.MultiWriter(&out, &onWord{word: "kill\n", do: func() {
		killed <- first.Kill() // the worker is attached there; its task goes on
		_, _ = io.WriteString(say, "go on\n")
		say.Close()
	}})
	client.Stderr = &complaint
	if err := client.Run(); err != nil {
		t.Fatalf("%v: %s after %q", err, complaint.String(), out.String())
	}
	if err := <-killed; err != nil {
		t.Error(err)
	}
	got := strings.Split(strings.TrimSpace(out.String()), "\n")
	want := []string{"snake completed one", "failed exit 3", "", "kill", "cancelled", "['completed', 'completed', 'completed']"}
	if len(got) != len(want) {
		t.Fatalf("the client said %q", got)
	}
	want[2] = got[2] // by pytest or unittest, as this Python has it
	if strings.Join(got, "\n") != strings.Join(want, "\n") || !strings.HasPrefix(got[2], "completed ") {
		t.Errorf("the client said %q", got)
	}
}
