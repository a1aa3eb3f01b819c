package probe_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"labmesh/bench"
	"labmesh/exec/probe"
)

// playStates is what the test binary does as the child of probe.GPUs.
func playStates(how string) {
	for n := 1; ; n++ {
		var asked int
		if _, err := fmt.Scanln(&asked); err != nil {
			return
		}
		switch how {
		case "late": // the answer to the first question comes with the second
			if n == 1 {
				continue
			}
			fmt.Printf(`{"n":%d,"gpus":[{"index":0,"uuid":"GPU-old"}]}`+"\n", asked-1)
		case "dies":
			os.Exit(127)
		case "endless":
			fmt.Print(strings.Repeat("x", 2<<20))
			return
		}
		fmt.Printf(`{"n":%d,"gpus":[{"index":0,"uuid":"GPU-%d"}]}`+"\n", asked, n)
	}
}

// smi is a directory with an nvidia-smi of an older driver: it does not know one
// of the fields. It counts how often it is called.
func smi(t *testing.T) string {
	t.Helper()
	dir := root(t, nil)
	script := `#!/bin/sh
echo x >>` + dir + `/calls
case $1 in
*clocks_throttle_reasons*) echo 'Field "clocks_throttle_reasons.active" is not a valid field to query.'; exit 2;;
--query-gpu*) echo '0, GPU-a1, NVIDIA T4, 00000000:00:1E.0, 535.1, 7.5, 15360, 3, [N/A], Enabled, Disabled, P8, 33, 9.5, 70.00, 300, 1590, 405, [Not Supported]';;
--query-compute*) echo 'GPU-a1, 4711, /usr/bin/python3, -c, 120'; echo 'GPU-zz, 1, other, 1'; echo 'nonsense';;
esac
`
	if err := os.WriteFile(filepath.Join(dir, "nvidia-smi"), []byte(script), 0o700); err != nil {
		t.Fatal(err)
	}
	return dir
}

func openGPUs(t *testing.T, how, path string) *probe.GPUs {
	t.Helper()
	g := probe.OpenGPUs([]string{"PATH=" + path + ":/usr/bin:/bin", childVar + "=states", "PROBE_TEST_STATES=" + how}, []string{os.Args[0]})
	t.Cleanup(func() {
		if err := g.Close(); err != nil {
			t.Error(err)
		}
		if _, err := g.Sample(context.Background()); err == nil {
			t.Error("it answers though it is closed")
		}
	})
	return g
}

func TestAsksOneChildAgainAndAgain(t *testing.T) {
	t.Parallel()
	g := openGPUs(t, "well", "")
	for n := 1; n < 4; n++ {
		all, err := g.Sample(t.Context())
		if want := fmt.Sprintf("GPU-%d", n); err != nil || len(all) != 1 || all[0].UUID != want {
			t.Fatalf("%+v, %v, want %s of one child", all, err, want)
		}
	}
}

func TestALateAnswerIsPassedOver(t *testing.T) {
	t.Parallel()
	g := openGPUs(t, "late", "")
	short, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if all, err := g.Sample(short); err == nil {
		t.Fatalf("%+v, though there was no answer", all)
	}
	if all, err := g.Sample(t.Context()); err != nil || len(all) != 1 || all[0].UUID != "GPU-2" {
		t.Fatalf("%+v, %v", all, err)
	}
}

func TestAsksNvidiaSMIWhereTheChildDies(t *testing.T) {
	t.Parallel()
	for _, how := range []string{"dies", "endless"} {
		dir := smi(t)
		g := openGPUs(t, how, dir)
		for range 3 { // the answer serves for a while
			all, err := g.Sample(t.Context())
			if err != nil || len(all) != 1 {
				t.Fatalf("%s: %+v, %v", how, all, err)
			}
			s := all[0]
			if s.UUID != "GPU-a1" || *s.PowerW != 9.5 || *s.SMMHz != 300 || *s.Memory != 15360<<20 || s.MIG != nil || !*s.ECC || *s.Persists || s.Utilization != nil || s.Throttle != nil || s.EnergyJ != nil {
				t.Errorf("%+v", s)
			}
			if len(s.Processes) != 1 || s.Processes[0].PID != 4711 || s.Processes[0].Name != "/usr/bin/python3,-c" || *s.Processes[0].Bytes != 120<<20 {
				t.Errorf("%+v", s.Processes)
			}
		}
		if calls, err := os.ReadFile(filepath.Join(dir, "calls")); err != nil || strings.Count(string(calls), "x") != 3 {
			t.Errorf("nvidia-smi was called %d times, want 3: refused, asked again, and what computes; %v", strings.Count(string(calls), "x"), err)
		}
	}
}

func TestNobodyCanSayHowGPUsAre(t *testing.T) {
	t.Parallel()
	if all, err := openGPUs(t, "dies", "").Sample(t.Context()); err == nil {
		t.Errorf("%+v", all)
	}
	if all, err := probe.OpenGPUs([]string{"PATH=/nowhere"}, nil).Sample(t.Context()); err == nil {
		t.Errorf("%+v", all)
	}
}

func TestStatesChildWithoutADriver(t *testing.T) {
	t.Parallel()
	var out strings.Builder
	if err := probe.GPUStatesChild(strings.NewReader(""), &out); err != nil {
		t.Error(err)
	}
	if out.Len() > 0 && !strings.Contains(out.String(), "reason") {
		t.Errorf("unasked it says %s", out.String())
	}
}

func TestThrottleWords(t *testing.T) {
	t.Parallel()
	if got := bench.ThrottleWords(bench.ThrottleIdle | bench.ThrottleThermal | 1<<40); len(got) != 2 || got[0] != "idle" || got[1] != "heat" {
		t.Errorf("%q", got)
	}
}
