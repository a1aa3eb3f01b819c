package lab_test

import (
	"bytes"
	"encoding/json"
	"encoding/xml"
	"fmt"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"labmesh/api"
	"labmesh/lab"
)

// suiteReport is what `labmesh test --json` prints, as far as it is looked at here.
type suiteReport struct {
	Suite   string
	Seconds float64
	OK      bool
	Chunks  int
	Counts  struct{ Total, Passed, Failed, Crashed, Flaky, NotRun int }
	Cases   []struct {
		ID, Verdict string
		Runs        []struct {
			Verdict, Message string
			Worker           string `json:"worker_id"`
		}
	}
	Workers map[string]struct {
		Chunks, Cases int
		Seconds       float64
	}
}

// pythonFor skips the test where no Python has pytest.
func pythonFor(t testing.TB, modules ...string) {
	t.Helper()
	for _, m := range modules {
		if out, err := exec.CommandContext(t.Context(), "/usr/bin/python3", "-c", "import "+m).CombinedOutput(); err != nil {
			t.Skipf("/usr/bin/python3 has no %s: %s", m, last(string(out), 200))
		}
	}
}

// sleepers writes a suite of tests in uneven files, which sleep for so many
// seconds in all, and returns what they sleep in truth and the longest of them.
func sleepers(t testing.TB, dir string, files, tests int, total float64, extra map[string]string) {
	t.Helper()
	seconds := make([]float64, tests)
	of := make([]int, tests)
	sum := 0.0
	for i := range tests {
		of[i] = int(float64(files) * math.Pow(float64(i)/float64(tests), 1.7))
		seconds[i] = math.Pow(1.25, float64(of[i]%11)) * (1 + float64(i*7919%13)/4)
		if i%50 == 7 {
			seconds[i] *= 6
		}
		sum += seconds[i]
	}
	texts := make([]strings.Builder, files)
	for i, f := range of {
		fmt.Fprintf(&texts[f], "def test_%03d():\n    time.sleep(%.4f)\n\n", i, seconds[i]*total/sum)
	}
	for f := range texts {
		text := "import time\n\n" + texts[f].String()
		if err := os.WriteFile(filepath.Join(dir, fmt.Sprintf("test_%02d.py", f)), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for name, text := range extra {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

// suiteRun runs `labmesh test` by a node and returns its report.
func suiteRun(t testing.TB, n *lab.Node, dir string, code int, args ...string) (rep suiteReport) {
	t.Helper()
	cmd := n.Command(t.Context(), append([]string{"test", "--json"}, append(args, dir)...)...)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	err := cmd.Run()
	if got := cmd.ProcessState.ExitCode(); got != code {
		t.Fatalf("labmesh test ended with %d (%v), want %d:\n%s\n%s", got, err, code, last(errs.String(), 3000), last(out.String(), 3000))
	}
	if err := json.Unmarshal(out.Bytes(), &rep); err != nil {
		t.Fatalf("%v:\n%s", err, last(out.String(), 3000))
	}
	return rep
}

// oneVerdict checks that the ledger has each case once, and each with the
// verdict that the report has.
func oneVerdict(t testing.TB, n *lab.Node, rep suiteReport, tests int) {
	t.Helper()
	if len(rep.Cases) != tests {
		t.Errorf("the report has %d cases of %d", len(rep.Cases), tests)
	}
	seen := map[string]string{}
	for _, c := range rep.Cases {
		if seen[c.ID] != "" {
			t.Errorf("%s is in the report twice", c.ID)
		}
		seen[c.ID] = c.Verdict
		if len(c.Runs) != 1 {
			t.Errorf("%s has %d runs: %+v", c.ID, len(c.Runs), c.Runs)
		}
	}
	ctx := within(t, 30*time.Second)
	var got [][]any
	err := lab.Until(ctx, func() bool { // the ledger comes after the log
		reply, err := n.Client().Query(ctx, api.QueryRequest{MaxRows: 10_000, SQL: fmt.Sprintf("SELECT file || '::' || name, count(*), any_value(verdict) FROM test_results WHERE suite = '%s' GROUP BY 1", rep.Suite)})
		got = reply.Rows
		return err == nil && len(got) >= tests
	})
	if err != nil {
		t.Fatalf("%d cases in the ledger: %v", len(got), err)
	}
	for _, row := range got {
		id := fmt.Sprint(row[0])
		known := seen[id]
		for full, v := range seen { // ids are from the root of what was shipped
			if known == "" && strings.HasSuffix(full, id) {
				known = v
			}
		}
		if fmt.Sprint(row[1]) != "1" || fmt.Sprint(row[2]) != known {
			t.Errorf("%s is in the ledger %v times, as %v; the report says %q", id, row[1], row[2], known)
		}
	}
}

const segfault = "import os, signal\n\ndef test_before():\n    pass\n\ndef test_dies():\n    os.kill(os.getpid(), signal.SIGSEGV)\n\ndef test_after():\n    pass\n"

// A suite with a test that takes its interpreter with it, while a worker is
// killed: each test has exactly one verdict, and the guilty one is named.
func TestEachTestOfASuiteHasOneVerdict(t *testing.T) {
	t.Parallel()
	pythonFor(t, "pytest")
	m := start(t, lab.Config{Nodes: 3, Slots: 1})
	dir := t.TempDir()
	sleepers(t, dir, 8, 40, 6, map[string]string{"test_zz.py": segfault})
	report := filepath.Join(t.TempDir(), "junit.xml")
	victim := m.Nodes[2]
	killed := make(chan error, 1)
	go func() {
		killed <- lab.Until(within(t, 30*time.Second), func() bool { // it has recorded something, and has more to do
			reply, err := m.Nodes[0].Client().Query(t.Context(), api.QueryRequest{SQL: "SELECT count(*) FROM test_results WHERE worker_id = '" + string(victim.Worker()) + "'"})
			return err == nil && len(reply.Rows) == 1 && fmt.Sprint(reply.Rows[0][0]) != "0" && victim.Kill() == nil
		})
	}()
	rep := suiteRun(t, m.Nodes[0], dir, 1, "--junit", report)
	if err := <-killed; err != nil {
		t.Fatal(err)
	}
	oneVerdict(t, m.Nodes[0], rep, 43)
	if rep.Counts.Passed != 42 || rep.Counts.Crashed != 1 {
		t.Errorf("counts %+v", rep.Counts)
	}
	for _, c := range rep.Cases {
		if c.Verdict == "crashed" && (!strings.HasSuffix(c.ID, "::test_dies") || !strings.Contains(c.Runs[0].Message, "SIGSEGV")) {
			t.Errorf("%s crashed: %+v", c.ID, c.Runs)
		}
	}
	text, err := os.ReadFile(report)
	if err != nil {
		t.Fatal(err)
	}
	var doc struct {
		Tests  int `xml:"tests,attr"`
		Errors int `xml:"errors,attr"`
	}
	if err := xml.Unmarshal(text, &doc); err != nil || doc.Tests != 43 || doc.Errors != 1 {
		t.Errorf("the JUnit file has %d tests and %d errors (%v)", doc.Tests, doc.Errors, err)
	}
}
