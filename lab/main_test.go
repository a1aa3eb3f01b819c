package lab_test

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"labmesh"
	"labmesh/api"
	"labmesh/client"
	"labmesh/lab"
	"labmesh/lab/labtest"
)

// bin is the labmesh under test, built once for all.
var bin string

func TestMain(m *testing.M) {
	if units, err := strconv.Atoi(os.Getenv(spinEnv)); err == nil {
		if err := spin(units); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	dir, err := os.MkdirTemp("", "labmesh-lab-")
	if err == nil {
		bin, err = lab.Build(context.Background(), dir)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	goleak.VerifyTestMain(m, goleak.Cleanup(func(code int) {
		os.RemoveAll(dir) // the system sweeps temporary directories too
		os.Exit(code)
	}))
}

// start makes a mesh of the labmesh under test that lasts as long as the test.
func start(t testing.TB, cfg lab.Config) *lab.Mesh {
	t.Helper()
	cfg.Bin = bin
	return labtest.Start(t, cfg)
}

// within is the test's context with a bound.
func within(t testing.TB, d time.Duration) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeoutCause(t.Context(), d, fmt.Errorf("not done after %s", d))
	t.Cleanup(cancel)
	return ctx
}

func last(s string, n int) string {
	if len(s) > n {
		return "…" + s[len(s)-n:]
	}
	return s
}

// nothing is what to do with a verdict that is looked at later.
func nothing(client.Verdict) {}

// program is a task that runs a program.
func program(name string, args ...string) labmesh.Spec {
	return labmesh.Spec{Kind: labmesh.Custom, Priority: api.PriorityDefault, Config: mustJSON(map[string]any{"name": name, "args": args}), Name: strings.TrimSpace(name + " " + strings.Join(args, " "))}
}

// shell is a task that runs a script.
func shell(script string) labmesh.Spec {
	return labmesh.Spec{Kind: labmesh.Custom, Priority: api.PriorityDefault, Config: mustJSON(map[string]any{"name": script, "shell": true})}
}

// on has the task run on n and nowhere else.
func on(n *lab.Node, s labmesh.Spec) labmesh.Spec {
	s.Requirements.WorkerID = n.Worker()
	return s
}

// testFile is a task that runs one of the repository's examples.
func testFile(t testing.TB, path string) labmesh.Spec {
	t.Helper()
	abs, err := filepath.Abs(filepath.Join("..", "examples", path))
	if err != nil {
		t.Fatal(err)
	}
	return labmesh.Spec{Kind: labmesh.Test, Priority: api.PriorityDefault, Config: mustJSON(map[string]any{"test_file": abs}), Name: path}
}

func mustJSON(v any) json.RawMessage {
	data, err := json.Marshal(v)
	if err != nil {
		panic(err) // strings and numbers always encode
	}
	return data
}

func submit(t testing.TB, n *lab.Node, specs ...labmesh.Spec) []labmesh.TaskID {
	t.Helper()
	reply, err := n.Client().SubmitBatch(t.Context(), specs)
	if err != nil {
		t.Fatalf("submit to %s: %v", n.Name, err)
	}
	return reply.IDs
}

// run submits a task and waits for its verdict.
func run(t testing.TB, n *lab.Node, spec labmesh.Spec) api.TaskDetail {
	t.Helper()
	ids := submit(t, n, spec)
	if err := n.Client().Wait(within(t, 30*time.Second), ids, nothing); err != nil {
		t.Fatalf("wait for %s: %v", ids[0], err)
	}
	return task(t, n, ids[0])
}

func task(t testing.TB, n *lab.Node, id labmesh.TaskID) api.TaskDetail {
	t.Helper()
	d, err := n.Client().Task(t.Context(), id)
	if err != nil {
		t.Fatalf("ask %s for %s: %v", n.Name, id, err)
	}
	return d
}

// until waits for done, at most d.
func until(t testing.TB, d time.Duration, what string, done func() bool) {
	t.Helper()
	if err := lab.Until(within(t, d), done); err != nil {
		t.Fatalf("%s: %v", what, err)
	}
}

// leader is the node that leads.
func leader(t testing.TB, m *lab.Mesh) *lab.Node {
	t.Helper()
	n, err := m.Leader(within(t, 20*time.Second))
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// running waits until a task runs, and returns its worker.
func running(t testing.TB, n *lab.Node, id labmesh.TaskID) (worker labmesh.WorkerID) {
	t.Helper()
	until(t, 15*time.Second, fmt.Sprintf("%s runs", id), func() bool {
		d, err := n.Client().Task(t.Context(), id)
		worker = labmesh.WorkerID(d.Worker)
		return err == nil && d.Status == labmesh.Running // a follower hears of a submit elsewhere a moment later
	})
	return worker
}
