package lab_test

import (
	"bufio"
	"fmt"
	"net"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"labmesh"
	"labmesh/lab"
)

// lightWorkers is how many light workers attach in the tests of them.
const lightWorkers = 10

// attachWorkers starts light workers that know all nodes of m, and lasts until the test ends.
func attachWorkers(t testing.TB, m *lab.Mesh, n int) (ids []labmesh.WorkerID) {
	t.Helper()
	first := m.Nodes[0]
	key, err := first.Command(t.Context(), "key", "create", "--role", "worker").Output()
	if err != nil {
		t.Fatal(err)
	}
	var all []chan bool
	for i := range n {
		id := fmt.Sprintf("light-%d", i)
		args := []string{"worker", "--worker-id", id, "--hostname", id, "--log-level", "error"}
		for k := range m.Nodes {
			args = append(args, "--coordinator", m.Nodes[(i+k)%len(m.Nodes)].URL())
		}
		cmd := exec.Command(bin, args...)
		cmd.Env = append(cmd.Environ(), "LABMESH_API_KEY="+strings.TrimSpace(string(key)), "TMPDIR="+t.TempDir())
		var said strings.Builder
		cmd.Stderr = &said
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		attached := make(chan bool, 1)
		go func() { // ends with the process
			lines := bufio.NewScanner(out)
			for lines.Scan() {
				select {
				case attached <- true:
				default:
				}
			}
			close(attached)
		}()
		t.Cleanup(func() {
			_ = cmd.Process.Signal(syscall.SIGINT)
			if err := cmd.Wait(); err != nil {
				t.Errorf("%s did not end well: %v\n%s", id, err, said.String())
			}
		})
		ids = append(ids, labmesh.WorkerID(id))
		all = append(all, attached)
	}
	for i, attached := range all {
		select {
		case ok := <-attached:
			if !ok {
				t.Fatalf("%s did not attach", ids[i])
			}
		case <-time.After(60 * time.Second):
			t.Fatalf("%s has not attached", ids[i])
		}
	}
	return ids
}

// freePort is a port that nobody listens on just now.
func freePort(t testing.TB) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return strconv.Itoa(l.Addr().(*net.TCPAddr).Port)
}

// lightMesh is a mesh whose nodes run nothing themselves. Those that join keep their ports.
func lightMesh(t testing.TB) *lab.Mesh {
	t.Helper()
	m := start(t, lab.Config{Nodes: 1, Args: []string{"--no-work"}})
	for range 2 {
		if _, err := m.Join(t.Context(), "--port", freePort(t)); err != nil {
			t.Fatal(err)
		}
	}
	if err := m.Formed(t.Context()); err != nil {
		t.Fatal(err)
	}
	return m
}

// throughKills has light workers run n tasks, while the leader and a node that they are attached to are
// killed by turns, and started again.
func throughKills(t testing.TB, n, kills int) {
	m := lightMesh(t)
	workers := attachWorkers(t, m, lightWorkers)
	specs := make([]labmesh.Spec, n)
	for i := range specs {
		specs[i] = shell(fmt.Sprintf("sleep 0.1; echo task %d", i))
	}
	asks := m.Nodes[0]
	began := time.Now()
	ids := submit(t, asks, specs...)
	ended := func(n *lab.Node) int {
		st, err := n.Client().Status(t.Context())
		if err != nil {
			return 0
		}
		return st.Tasks["completed"]
	}
	for k := range kills {
		want := (k + 1) * n / (kills + 2)
		until(t, 120*time.Second, "work goes on", func() bool {
			for _, r := range m.Running() {
				if ended(r) >= want {
					return true
				}
			}
			return false
		})
		victim := leader(t, m)
		if k%2 == 1 {
			victim = m.Followers(victim)[0] // workers were attached to it too
		}
		if err := victim.Kill(); err != nil {
			t.Fatal(err)
		}
		if err := victim.Start(t.Context()); err != nil {
			t.Fatal(err)
		}
		if err := m.Formed(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	last := leader(t, m)
	if err := last.Client().Wait(within(t, 180*time.Second), ids, nothing); err != nil {
		t.Fatal(err)
	}
	t.Logf("%d tasks by %d light workers through %d kills in %s", n, len(workers), kills, time.Since(began).Round(time.Millisecond))
	if err := m.Identical(within(t, 30*time.Second)); err != nil {
		t.Fatal(err)
	}
	for _, r := range m.Running() {
		tally, err := r.Tally(t.Context(), ids, workers...)
		if err != nil {
			t.Fatal(err)
		}
		if !tally.OK() || tally.Completed != n {
			t.Errorf("%s: %s", r.Name, tally)
		}
	}
}

func TestLightWorkersEndEachTaskOnceThroughKills(t *testing.T) {
	throughKills(t, 150, 2)
}

// BenchmarkLightWorkersThroughKills is the same at length: 1,000 tasks, eight kills.
func BenchmarkLightWorkersThroughKills(b *testing.B) {
	for b.Loop() {
		throughKills(b, 1000, 8)
	}
}
