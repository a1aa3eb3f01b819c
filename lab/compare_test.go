package lab_test

import (
	"encoding/json"
	"encoding/xml"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"labmesh"
	"labmesh/bench/report"
	"labmesh/lab"
)

// steady is a shell script that speaks as a runner does: thirty iterations of the
// milliseconds that $MS says, and a little more in each run.
const steady = `
s=0; say() { s=$((s+1)); echo "{\"v\":1,\"seq\":$s,\"t\":$s,$1}"; }
say '"event":"hello","runner":"steady","runner_version":"1"'
say '"event":"model","source":"file","precision_effective":"fp32","device_class":"cpu","threads":1'
say '"event":"batch_start","batch":1'
i=0; ms="[$MS.$(($$ % 9))]"; all=$ms; while [ $i -lt 29 ]; do all="$all,$ms"; i=$((i+1)); done
say "\"event\":\"samples\",\"batch\":1,\"i0\":0,\"ms\":[$all]"
say '"event":"batch_end","batch":1,"status":"ok","n":30'
say '"event":"done"'`

func TestBenchmarksAreComparedOverRealNodes(t *testing.T) {
	t.Parallel()
	m := start(t, lab.Config{Nodes: 1})
	n := m.Nodes[0]
	submit := func(ms int, commit string, more map[string]any) string {
		t.Helper()
		c := map[string]any{"model": "steady", "runner": []string{"/bin/sh", "-c", steady}, "env": map[string]string{"MS": fmt.Sprint(ms)}, "iterations": 30, "min_seconds": 0.001, "quiet_seconds": -1, "repeats": 9}
		for k, v := range more {
			c[k] = v
		}
		data, err := json.Marshal(map[string]any{"type": "benchmark", "config": c, "labels": map[string]string{"git_sha": commit, "branch": "main"}})
		if err != nil {
			t.Fatal(err)
		}
		code, out, errs := labmeshCLI(t, n, string(data), "submit")
		if code != 0 {
			t.Fatalf("exit code %d: %s%s", code, out, errs)
		}
		id := strings.TrimSpace(out)
		if err := n.Client().Wait(within(t, time.Minute), []labmesh.TaskID{labmesh.TaskID(id)}, nothing); err != nil {
			t.Fatal(err)
		}
		return id
	}
	first, second := submit(100, "aaaa111", nil), submit(120, "bbbb222", nil)
	arms := submit(100, "cccc333", map[string]any{"candidate": map[string]any{"env": map[string]string{"MS": "80"}}})

	dir := t.TempDir()
	drawing, junit := filepath.Join(dir, "compare.svg"), filepath.Join(dir, "junit.xml")
	code, out, errs := labmeshCLI(t, n, "", "compare", first, "bbbb", "--gate", "--plot", drawing, "--junit", junit)
	if code != 1 || !strings.Contains(out, "regression: slower by 1") || !strings.Contains(errs, "gate: 1 regression") {
		t.Errorf("exit code %d: %s%s", code, out, errs)
	}
	if data, err := os.ReadFile(drawing); err != nil || xml.Unmarshal(data, new(struct{})) != nil {
		t.Errorf("%v: %.200s", err, data)
	}
	if data, err := os.ReadFile(junit); err != nil || !strings.Contains(string(data), `failures="1"`) {
		t.Errorf("%v: %s", err, data)
	}
	if code, out, errs := labmeshCLI(t, n, "", "compare", second, first, "--gate"); code != 0 || !strings.Contains(out, "improvement") {
		t.Errorf("exit code %d: %s%s", code, out, errs)
	}
	code, out, errs = labmeshCLI(t, n, "", "compare", arms, "--json")
	var rep report.Comparisons
	if err := json.Unmarshal([]byte(out), &rep); code != 0 || err != nil || rep.Improvements != 1 || rep.Comparisons[0].Kind != report.Paired || rep.Comparisons[0].RunsA != 9 {
		t.Errorf("exit code %d, %v: %s%s", code, err, out, errs)
	}
	if code, out, errs := labmeshCLI(t, n, "", "compare", first, "dddd"); code != 2 || !strings.Contains(errs, "commits aaaa111, bbbb222, cccc333") {
		t.Errorf("exit code %d: %s%s", code, out, errs)
	}
	code, out, errs = labmeshCLI(t, n, "", "trend", "steady", "--format", "csv", "--where", "branch=main")
	if lines := strings.Split(strings.TrimSpace(out), "\n"); code != 0 || len(lines) != 4 || !strings.Contains(lines[2], ",bbbb222,main,"+second) {
		t.Errorf("exit code %d: %s%s", code, out, errs)
	}
}
