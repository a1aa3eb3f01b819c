package lab_test

import (
	"bytes"
	"fmt"
	"os/exec"
	"testing"
	"time"

	"labmesh/api"
	"labmesh/lab"
)

// The suite of the figures: 400 tests in 20 uneven files, about 60 s of sleeping, on 3 workers.
const (
	suiteFiles   = 20
	suiteTests   = 400
	suiteSeconds = 60.0
	suiteWorkers = 3
	suiteMost    = 1.15 // times the ideal
)

// BenchmarkSuite runs the suite with labmesh, first as nobody has run it before,
// then with that history, and with pytest-xdist beside them on the same machine.
// Each figure is the time from the command to its end over the ideal.
func BenchmarkSuite(b *testing.B) {
	pythonFor(b, "pytest")
	dir := b.TempDir()
	sleepers(b, dir, suiteFiles, suiteTests, suiteSeconds, nil)
	m := start(b, lab.Config{Nodes: suiteWorkers, Slots: 1})
	ideal := suiteSeconds / suiteWorkers
	for range b.N {
		for _, what := range []string{"first", "known"} {
			began := time.Now()
			rep := suiteRun(b, m.Nodes[0], dir, 0)
			took := time.Since(began).Seconds()
			b.Logf("labmesh, %s run: %.2f s (%.2f s in the mesh, %d chunks), %.3f of the ideal; %+v", what, took, rep.Seconds, rep.Chunks, took/ideal, rep.Workers)
			b.ReportMetric(took/ideal, what+"/ideal")
			if took/ideal > suiteMost {
				b.Errorf("the %s run took %.3f of the ideal, more than %g", what, took/ideal, suiteMost)
			}
		}
		b.ReportMetric(xdist(b, dir)/ideal, "xdist/ideal")
	}
}

// xdist runs the suite by pytest -n, and returns the seconds it took.
func xdist(b *testing.B, dir string) float64 {
	if err := exec.CommandContext(b.Context(), "/usr/bin/python3", "-c", "import xdist").Run(); err != nil {
		b.Logf("no comparison: /usr/bin/python3 has no xdist (Debian: python3-pytest-xdist): %v", err)
		return 0
	}
	cmd := exec.CommandContext(b.Context(), "/usr/bin/python3", "-m", "pytest", "-q", "-p", "no:cacheprovider", "-n", fmt.Sprint(suiteWorkers), "--dist", "load", dir)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	began := time.Now()
	if err := cmd.Run(); err != nil {
		b.Fatalf("pytest -n: %v\n%s", err, last(out.String(), 2000))
	}
	took := time.Since(began).Seconds()
	b.Logf("pytest -n %d --dist load: %.2f s", suiteWorkers, took)
	return took
}

// BenchmarkSuiteWithLosses runs the suite with a test that segfaults, and kills
// a worker in its middle: exactly one verdict for each test.
func BenchmarkSuiteWithLosses(b *testing.B) {
	pythonFor(b, "pytest")
	for range b.N {
		dir := b.TempDir()
		sleepers(b, dir, suiteFiles, suiteTests, suiteSeconds, map[string]string{"test_zz.py": segfault})
		m := start(b, lab.Config{Nodes: suiteWorkers, Slots: 1})
		victim := m.Nodes[2]
		killed := make(chan error, 1)
		go func() {
			killed <- lab.Until(within(b, time.Minute), func() bool {
				reply, err := m.Nodes[0].Client().Query(b.Context(), api.QueryRequest{SQL: "SELECT count(*) >= 20 FROM test_results WHERE worker_id = '" + string(victim.Worker()) + "'"})
				return err == nil && len(reply.Rows) == 1 && reply.Rows[0][0] == true && victim.Kill() == nil
			})
		}()
		rep := suiteRun(b, m.Nodes[0], dir, 1)
		if err := <-killed; err != nil {
			b.Fatal(err)
		}
		oneVerdict(b, m.Nodes[0], rep, suiteTests+3)
		if rep.Counts.Crashed != 1 || rep.Counts.Passed != suiteTests+2 {
			b.Errorf("counts %+v", rep.Counts)
		}
		b.Logf("with a crash and a lost worker: %.2f s", rep.Seconds)
		b.ReportMetric(rep.Seconds, "s/suite")
		if err := m.Close(); err != nil {
			b.Error(err)
		}
	}
}
