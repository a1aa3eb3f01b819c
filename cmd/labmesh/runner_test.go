package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"os"
	"os/exec"
	"slices"
	"strings"
	"syscall"
	"testing"

	"labmesh"
	"labmesh/bench"
)

// asRunner is set where this test binary is to be the runner of the built-in engine.
const asRunner = "LABMESH_TEST_AS_RUNNER"

// TestMain is the runner when it is asked to: the process that a node starts.
func TestMain(m *testing.M) {
	if what := os.Getenv(asRunner); what != "" {
		code, _ := measure([]string{"labmesh", internalCommand, runnerCommand, what}, os.Stdin, os.Stdout, os.Stderr)
		os.Exit(code)
	}
	os.Exit(m.Run())
}

func runnerProcess(t *testing.T, what, spec string) *exec.Cmd {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), self)
	cmd.Env, cmd.Stdin = append(os.Environ(), asRunner+"="+what), strings.NewReader(spec)
	return cmd
}

func TestTheRunnerFinishesItsIterationWhenItIsAskedToStop(t *testing.T) {
	t.Parallel()
	cmd := runnerProcess(t, "run", `{"v":1,"model":"mlp","precision":"fp32","batch_sizes":[1,2],"iterations":1000000,"warmup_iterations":1,"threads":1}`)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	var said []bench.EventKind
	var end bench.Event
	for lines := bufio.NewScanner(out); lines.Scan(); {
		var e bench.Event
		if err := json.Unmarshal(lines.Bytes(), &e); err != nil {
			t.Fatalf("%s: %v", lines.Bytes(), err)
		}
		switch said = append(said, e.Kind); {
		case e.Kind == bench.EventBatchEnd:
			end = e
		case e.Kind == bench.EventSamples && !slices.Contains(said[:len(said)-1], bench.EventSamples):
			if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := cmd.Wait(); err != nil {
		t.Error(err)
	}
	if end.Status != labmesh.BenchCancelled || end.N == 0 || end.Checksum == "" || said[len(said)-1] != bench.EventDone {
		t.Errorf("%v, %+v", said, end)
	}
}

func TestTheRunnerSaysOnBothOutputsWhatIsWrong(t *testing.T) {
	t.Parallel()
	cmd := runnerProcess(t, "run", `{"v":1,"model":"bort","precision":"fp32","batch_sizes":[1]}`)
	var out, errw bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errw
	if err := cmd.Run(); err == nil || cmd.ProcessState.ExitCode() != exitFailed {
		t.Error(err)
	}
	if !strings.Contains(out.String(), `"event":"fatal","code":"unknown_model"`) || !strings.Contains(errw.String(), "bort") {
		t.Errorf("out: %s\nerr: %s", out.String(), errw.String())
	}
}

func TestTheRunnerProbes(t *testing.T) {
	t.Parallel()
	out, err := runnerProcess(t, "probe", `{"v":1}`).Output()
	if err != nil || bytes.Count(out, []byte("\n")) != 1 || !bytes.Contains(out, []byte(`"event":"hello"`)) {
		t.Errorf("%s, %v", out, err)
	}
}

func TestOnlyTheRunnersCommandLinesAreTaken(t *testing.T) {
	t.Parallel()
	for _, args := range [][]string{{"labmesh"}, {"labmesh", internalCommand, runnerCommand}, {"labmesh", internalCommand, runnerCommand, "rum"}, {"labmesh", internalCommand, keeperCommand, "run"}} {
		if _, asked := measure(args, nil, nil, nil); asked {
			t.Errorf("%v is taken", args)
		}
	}
}
