package lab_test

import (
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"labmesh"
	"labmesh/client"
	"labmesh/lab"
)

const (
	killsTested   = 20
	killsMeasured = 500

	trunkLines  = 120                    // that each tree prints
	trunkPause  = 0.01                   // seconds between them, besides what sleep takes
	trunkCode   = 3                      // that it ends with
	treesAtOnce = 4                      // and slots
	killEvery   = 600 * time.Millisecond // at most that long after a start
	orphanWait  = 5 * time.Second        // after a restart
)

// forest keeps a node busy with trees of processes, and remembers them all.
type forest struct {
	dir   string
	ids   []labmesh.TaskID
	final map[labmesh.TaskID]bool
}

// trunk is a script that says that it begins, leaves children that left its group
// and session, prints for a while and says that it ends.
func (f *forest) trunk() labmesh.Spec {
	s := shell(fmt.Sprintf(`echo $LABMESH_TASK_ID >>%[1]s/starts
(setsid sh -c 'trap "" TERM HUP; sleep 300 & sleep 300' >/dev/null 2>&1 &)
(sleep 300 >/dev/null 2>&1 &)
i=0; while [ $i -lt %[2]d ]; do i=$((i+1)); echo "line $i"; sleep %[3]g; done
echo $LABMESH_TASK_ID >>%[1]s/ends
exit %[4]d`, f.dir, trunkLines, trunkPause, trunkCode))
	s.Name = "tree"
	return s
}

// grow submits trees until enough are on their way.
func (f *forest) grow(t testing.TB, n *lab.Node) {
	t.Helper()
	open := 0
	for _, id := range f.ids {
		if !f.final[id] {
			f.final[id] = task(t, n, id).Status.Final()
		}
		if !f.final[id] {
			open++
		}
	}
	for ; open < 2*treesAtOnce; open++ {
		f.ids = append(f.ids, submit(t, n, f.trunk())...)
	}
}

// count is how often each line is in a file that the trees write.
func (f *forest) count(t testing.TB, name string) map[string]int {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(f.dir, name))
	if err != nil {
		t.Fatal(err)
	}
	times := map[string]int{}
	for l := range strings.FieldsSeq(string(data)) {
		times[l]++
	}
	return times
}

// orphans are processes of attempts that the mesh does not know to be under way.
func (f *forest) orphans(t testing.TB, m *lab.Mesh) (found []lab.Process) {
	t.Helper()
	all, err := m.Attempts()
	if err != nil {
		t.Fatal(err)
	}
	final := map[labmesh.TaskID]bool{}
	for _, p := range all {
		if _, asked := final[p.Task]; !asked {
			final[p.Task] = task(t, m.Nodes[0], p.Task).Status.Final()
		}
		if final[p.Task] {
			found = append(found, p)
		}
	}
	return found
}

// kills kills a node again and again while it runs trees, and checks that nothing
// comes of it. It returns how long the restarts took.
func kills(t testing.TB, n int) (restarts []time.Duration) {
	m := start(t, lab.Config{Nodes: 1, Slots: treesAtOnce})
	node, f := m.Nodes[0], &forest{dir: t.TempDir(), final: map[labmesh.TaskID]bool{}}
	for range n {
		f.grow(t, node)
		within := rand.N(killEvery)
		_ = lab.Until(t.Context(), func() func() bool {
			at := time.Now().Add(within)
			return func() bool { return time.Now().After(at) }
		}())
		if err := node.Kill(); err != nil {
			t.Fatal(err)
		}
		began := time.Now()
		if err := node.Start(t.Context()); err != nil {
			t.Fatal(err)
		}
		restarts = append(restarts, time.Since(began))
		until(t, orphanWait, "no process runs on unknown to the mesh", func() bool { return len(f.orphans(t, m)) == 0 })
	}
	f.check(t, m)
	return restarts
}

// check waits for all trees, and checks what became of them.
func (f *forest) check(t testing.TB, m *lab.Mesh) {
	t.Helper()
	node := m.Nodes[0]
	if err := node.Client().Wait(within(t, 2*time.Minute), f.ids, nothing); err != nil {
		t.Fatal(err)
	}
	starts, ends := f.count(t, "starts"), f.count(t, "ends")
	var want strings.Builder
	for i := range trunkLines {
		fmt.Fprintf(&want, "line %d\n", i+1)
	}
	again := 0
	for _, id := range f.ids {
		d := task(t, node, id)
		again += d.Attempts - 1
		if starts[string(id)] != 1 || ends[string(id)] != 1 {
			t.Errorf("%s was begun %d times and ended %d times, in %d attempts", id, starts[string(id)], ends[string(id)], d.Attempts)
		}
		if d.Status != labmesh.Failed || string(d.Cause) != string(labmesh.CauseExit) || !strings.Contains(string(d.Error), fmt.Sprint("exit code ", trunkCode)) {
			t.Errorf("%s is %s (%s: %s)", id, d.Status, d.Cause, d.Error)
		}
		r, err := node.Client().Logs(t.Context(), id, client.LogQuery{Stream: client.Stdout})
		if err != nil {
			t.Errorf("the output of %s: %v", id, err)
			continue
		}
		out, err := io.ReadAll(r)
		r.Close()
		if err != nil || string(out) != want.String() {
			t.Errorf("%s printed %d bytes of %d, %v", id, len(out), want.Len(), err)
		}
	}
	until(t, orphanWait, "nothing is left", func() bool {
		left, err := m.Attempts()
		return err == nil && len(left) == 0
	})
	t.Logf("%d trees; %d attempts were lost before they began anything", len(f.ids), again)
}

func TestRunningTasksOutliveTheirAgent(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("it kills a node many times")
	}
	kills(t, killsTested)
}

// BenchmarkKills kills an agent 500 times while it runs trees of processes. It
// takes some minutes: -run XXX -bench Kills -benchtime 1x -timeout 1h.
func BenchmarkKills(b *testing.B) {
	for b.Loop() {
		figures(b, "restart-", kills(b, killsMeasured))
	}
	busy(b)
}

func TestAStoppedNodeKeepsWhatRuns(t *testing.T) {
	t.Parallel()
	m := start(t, lab.Config{Nodes: 1, Slots: 1, Args: []string{"--on-stop", "auto"}})
	n := m.Nodes[0]
	id := submit(t, n, shell(`echo one; sleep 3; echo two; exit 4`))[0]
	running(t, n, id)
	if err := n.Stop(); err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(n.Log(), "go on for 6s") {
		t.Errorf("it said: %s", last(n.Log(), 500))
	}
	if err := n.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := n.Client().Wait(within(t, 30*time.Second), []labmesh.TaskID{id}, nothing); err != nil {
		t.Fatal(err)
	}
	if d := task(t, n, id); d.Attempts != 1 || !strings.Contains(string(d.Error), "exit code 4") || !strings.Contains(string(d.Result), `"one\ntwo\n"`) {
		t.Errorf("it is %s after %d attempts: %s, %s", d.Status, d.Attempts, d.Error, d.Result)
	}
}
