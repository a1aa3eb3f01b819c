package bench_test

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"labmesh"
	benches "labmesh/bench"
	"labmesh/exec"
	"labmesh/exec/bench"
	"labmesh/exec/bench/engines"
	"labmesh/exec/exectest"
	"labmesh/exec/output"
	"labmesh/exec/process"
	"labmesh/exec/runner"
)

// lab is a worker with the real runners, on a machine that is always quiet.
type lab struct {
	t     *testing.T
	desk  *exectest.Desk
	w     *exec.Worker
	host  *process.Host
	files *shelf
	stop  func()
	n     int
}

// quiet is a machine that nothing disturbs.
type quiet struct{ noisy bool }

func (q quiet) Wait(context.Context, benches.Device, time.Duration) benches.Quiet {
	if q.noisy {
		return benches.Quiet{WaitedS: 0.1, Reasons: []string{"load is 9"}}
	}
	return benches.Quiet{OK: true}
}

func (quiet) Env(context.Context, benches.Device) json.RawMessage {
	return json.RawMessage(`{"kernel":"6.1","gpu":{"before":{"driver":"535.104"}}}`)
}

func (q quiet) Watch(context.Context, benches.Device) func() benches.Observed {
	return func() benches.Observed {
		if q.noisy {
			return benches.Observed{Flags: []labmesh.BenchFlag{labmesh.FlagContended}, Reasons: []string{"others took 40 %"}, EnergyJ: new(3.0), EnergySource: "rapl"}
		}
		return benches.Observed{}
	}
}

// shelf keeps the files of attempts in memory.
type shelf struct {
	mu   sync.Mutex
	kept map[string][]byte
}

func (s *shelf) Unpack(_ context.Context, _, dir string) error {
	return os.WriteFile(filepath.Join(dir, "net.onnx"), []byte("a net"), 0o600)
}

func (s *shelf) Keep(_ context.Context, _ string, _ []string, extra string) (*labmesh.Outputs, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	entries, _ := os.ReadDir(extra)
	for _, e := range entries {
		data, err := os.ReadFile(filepath.Join(extra, e.Name()))
		if err != nil {
			return nil, err
		}
		s.kept[e.Name()] = data
	}
	return nil, nil
}

func open(t *testing.T, m bench.Machine, found ...engines.Found) *lab {
	t.Helper()
	return openIn(t, t.TempDir(), process.Config{}, m, found...)
}

func openIn(t *testing.T, dir string, cfg process.Config, m bench.Machine, found ...engines.Found) *lab {
	t.Helper()
	cfg.Dir, cfg.Grace = filepath.Join(dir, "running"), 300*time.Millisecond
	host, err := process.Open(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	runners, err := runner.New(host, os.Environ(), runner.Benchmarks(func(context.Context) []engines.Found { return found }, m))
	if err != nil {
		t.Fatal(err)
	}
	l := &lab{t: t, desk: &exectest.Desk{}, host: host, files: &shelf{kept: map[string][]byte{}}}
	l.w, err = exec.Open(t.Context(), exec.Config{Worker: "w1", Dir: filepath.Join(dir, "attempts"), Slots: 1, Desk: l.desk, Runners: runners, Files: l.files, Floor: 1, Programs: host})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- l.w.Run(ctx) }()
	l.stop = sync.OnceFunc(func() {
		cancel()
		if err := errors.Join(<-done, l.w.Close(), host.Close()); err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(l.stop)
	return l
}

// task is a benchmark by the fake runner in a mode; config adds to its config.
func (l *lab) task(mode, config string) labmesh.Task {
	l.t.Helper()
	l.n++
	c := map[string]any{"model": "mine", "runner": []string{os.Args[0], fakeArg, mode}, "batch_sizes": []int{1, 2, 4}, "iterations": 20, "repeats": 1}
	if err := json.Unmarshal([]byte("{"+config+"}"), &c); err != nil {
		l.t.Fatal(err)
	}
	data, err := json.Marshal(c)
	if err != nil {
		l.t.Fatal(err)
	}
	return labmesh.Task{ID: labmesh.TaskID(fmt.Sprintf("%s-%d", mode, l.n)), Attempt: 1, Phase: labmesh.Assigned, Spec: labmesh.Spec{Kind: labmesh.Benchmark, Config: data}}
}

// run runs a task to its end.
func (l *lab) run(task labmesh.Task) (labmesh.Outcome, []labmesh.BenchRow) {
	l.t.Helper()
	ctx, cancel := context.WithTimeout(l.t.Context(), 30*time.Second)
	defer cancel()
	l.desk.Put(task)
	o, err := l.desk.Await(ctx, task.ID)
	if err != nil {
		l.t.Fatalf("%s did not end: %v", task.ID, err)
	}
	return o, l.desk.Rows(task.ID)
}

// log is what a task printed.
func (l *lab) log(id labmesh.TaskID, s output.Stream) string {
	l.t.Helper()
	r, err := l.w.Logs(l.t.Context(), id, 1, output.Query{Stream: s})
	if err != nil {
		return "" // it has not begun
	}
	defer r.Close()
	data, err := io.ReadAll(r)
	if err != nil {
		l.t.Fatal(err)
	}
	return string(data)
}

// statuses are those of rows, in their order, with their batch sizes.
func statuses(rows []labmesh.BenchRow) string {
	var s []string
	for _, r := range rows {
		s = append(s, fmt.Sprintf("%s%d:%s", r.Arm, r.Work.Batch, r.Status))
	}
	return strings.Join(s, " ")
}

func TestBenchmarkRunsFromEndToEnd(t *testing.T) {
	t.Parallel()
	l := open(t, quiet{})
	task := l.task("good", `"repeats":3,"threads":2,"env":{"OF_CONFIG":"c","OF_BOTH":"c"}`)
	task.Spec.Env = map[string]string{"OF_TASK": "t", "OF_BOTH": "t"}
	o, rows := l.run(task)
	if !o.OK {
		t.Fatalf("%+v\n%s", o, l.log(task.ID, output.Stderr))
	}
	if got, want := statuses(rows), strings.TrimSpace(strings.Repeat("1:ok 2:ok 4:ok ", 3)); got != want {
		t.Fatalf("rows %s, want %s", got, want)
	}
	runs := map[string]bool{}
	for i, r := range rows {
		runs[r.Run] = true
		if r.Repeat != i/3+1 || r.N != 20 || r.Wall == nil || r.Stability == nil || !r.Comparable || len(r.Flags) > 0 || r.Series == "" || r.Samples == "" || r.Started.After(r.Finished) {
			t.Errorf("row %d: %+v", i, r)
		}
		if want := 1000.0 / 1.045; math.Abs(*r.Throughput-want) > 1 || math.Abs(*r.GFLOPS-want/1000) > 0.01 {
			t.Errorf("row %d: throughput %v, %v GFLOPS", i, *r.Throughput, *r.GFLOPS)
		}
		if u := r.Resources.CPUUtil; u == nil || math.Abs(*u-0.45) > 0.01 || *r.FirstMS != 50 || *r.LoadS != 0.5 {
			t.Errorf("row %d: CPU %v, first %v, load %v", i, u, *r.FirstMS, *r.LoadS)
		}
		w := r.Work
		if w.Engine != "command:fake" || w.EngineVersion != "1.2.3" || w.Threads != 2 || w.DeviceClass != "cpu" || w.DriverMajor != "535" || w.EngineWhy == "" || w.Warmup != 10 {
			t.Errorf("row %d: %+v", i, w)
		}
	}
	if len(runs) != 3 {
		t.Errorf("the runs are %v", runs)
	}
	if got, want := string(rows[0].Env), `{"gpu":{"before":{"driver":"535.104"}},"kernel":"6.1","runner":{"both":"c","config":"c","cuda":"","hf":"1","omp":"2","task":"t"}}`; got != want {
		t.Errorf("env %s, want %s", got, want)
	}
	l.checkSamples(rows)
	l.checkLog(task.ID, rows)
	var sum struct {
		Arms []struct {
			Engine  string
			Batches []struct {
				Batch, Runs, Comparable int
				Status                  string
				P50                     float64 `json:"p50_ms"`
				Throughput              float64
			}
		}
	}
	if err := json.Unmarshal(o.Result, &sum); err != nil || len(sum.Arms) != 1 || len(sum.Arms[0].Batches) != 3 {
		t.Fatalf("%s: %v", o.Result, err)
	}
	if sum.Arms[0].Engine != "command:fake 1.2.3" {
		t.Errorf("the engine is %s", sum.Arms[0].Engine)
	}
	if b := sum.Arms[0].Batches[2]; b.Batch != 4 || b.Runs != 3 || b.Comparable != 3 || b.Status != "ok" || b.P50 != rows[2].Wall.P50 || b.Throughput != *rows[2].Throughput {
		t.Errorf("summary %+v", b)
	}
}

// checkSamples reads the file with the raw times.
func (l *lab) checkSamples(rows []labmesh.BenchRow) {
	l.t.Helper()
	l.files.mu.Lock()
	data := l.files.kept["samples.json.gz"]
	l.files.mu.Unlock()
	z, err := gzip.NewReader(bytes.NewReader(data))
	if err != nil {
		l.t.Fatal(err)
	}
	lines := bufio.NewScanner(z)
	n := 0
	for ; lines.Scan(); n++ {
		var s struct {
			Run   string    `json:"run_id"`
			Batch int       `json:"batch"`
			Wall  []float64 `json:"wall_ms"`
		}
		if err := json.Unmarshal(lines.Bytes(), &s); err != nil || n >= len(rows) || s.Run != rows[n].Run || s.Batch != rows[n].Work.Batch || len(s.Wall) != rows[n].N {
			l.t.Fatalf("line %d: %+v, %v", n, s, err)
		}
	}
	if lines.Err() != nil || n != len(rows) {
		l.t.Errorf("%d lines for %d rows: %v", n, len(rows), lines.Err())
	}
}

// checkLog reads the progress from the log.
func (l *lab) checkLog(id labmesh.TaskID, rows []labmesh.BenchRow) {
	l.t.Helper()
	ended := 0
	for line := range strings.Lines(l.log(id, output.Stdout)) {
		p, ok := benches.ParseProgress(strings.TrimSuffix(line, "\n"))
		if ok && p.Status != "" {
			if r := rows[ended]; p.Batch != r.Work.Batch || p.Run != r.Repeat || p.N != r.N || p.Runs != 3 || p.Status != r.Status {
				l.t.Errorf("%q of row %d", line, ended)
			}
			ended++
		}
	}
	if ended != len(rows) {
		l.t.Errorf("the log tells of %d ends, there are %d rows", ended, len(rows))
	}
	if said := l.log(id, output.Stderr); !strings.Contains(said, "the fake runner was here") {
		l.t.Errorf("stderr is %q", said)
	}
}

func TestWhateverARunnerDoesIsSurvived(t *testing.T) {
	t.Parallel()
	const all = "1:ok 2:ok 4:ok"
	for _, c := range []struct {
		mode, config string
		rows         string
		cause        labmesh.Cause // "" for a task that completes
		says         string        // in the error of the task, or else in the reason of the row of batch size 2
		flagged      string        // batch sizes with protocol errors
	}{
		{"garbage", "", all, "", "", ""},
		{"junk", "", all, "", "", "2"},
		{"gap", "", all, "", "", "2"},
		{"endless", "", all, "", "", "2"},
		{"absurd", `"batch_sizes":[2]`, "2:ok", "", "", "2"},
		{"wrongstatus", `"batch_sizes":[2]`, "2:error", labmesh.CauseExit, "splendid", "2"},
		{"skips", "", "1:ok 4:ok 2:ok", "", "", ""},
		{"nodone", "", all, "", "", ""},
		{"escape", "", all, "", "", ""},
		{"segfault", "", "1:ok 2:crashed 4:ok", labmesh.CauseSignal, "SIGSEGV", ""},
		{"mute", `"silence_seconds":0.5`, "1:ok 2:timeout 4:ok", labmesh.CauseTimeout, "said nothing", ""},
		{"lost", "", "1:ok 2:error 4:ok", labmesh.CauseExit, "illegal memory access", ""},
		{"oom", "", "1:ok 2:ok 4:oom", "", "", ""},
		{"half", "", "1:ok 2:unsupported 4:ok", "", "no fp16", ""},
		{"unsupported", `"precision":"fp16","repeats":4`, "1:unsupported 2:unsupported 4:unsupported", labmesh.CauseConfig, "on_unsupported_precision", ""},
		{"unknown", `"repeats":4`, "", labmesh.CauseConfig, "there is no such model", ""},
		{"nomem", `"repeats":4`, "", labmesh.CauseOOM, "does not fit", ""},
		{"elsewhere", "", "", labmesh.CauseProgram, "runs on tpu, not on cpu", ""},
		{"barren", "", "", labmesh.CauseExit, "ImportError: libgarbage", ""},
		{"hang", `"silence_seconds":0.2`, "", labmesh.CauseTimeout, "said nothing", ""},
	} {
		t.Run(c.mode, func(t *testing.T) {
			t.Parallel()
			l := open(t, quiet{})
			task := l.task(c.mode, c.config)
			dir := t.TempDir()
			task.Spec.Env = map[string]string{"OF_TASK": dir}
			o, rows := l.run(task)
			if got := statuses(rows); got != c.rows || o.Cause != c.cause || o.OK != (c.cause == "") {
				t.Errorf("rows %q, want %q; %v %s: %s\n%s", got, c.rows, o.OK, o.Cause, o.Error, l.log(task.ID, output.Stdout))
			}
			said, flagged := o.Error, ""
			for _, r := range rows {
				if r.Work.Batch == 2 {
					said += r.Reason
				}
				if strings.Contains(fmt.Sprint(r.Flags), "protocol_errors") {
					flagged += strconv.Itoa(r.Work.Batch)
					if r.Comparable {
						t.Errorf("batch size %d is comparable", r.Work.Batch)
					}
				}
				if (r.Wall != nil) != (r.Status == labmesh.BenchOK) || r.Wall != nil && r.Wall.Min <= 0 {
					t.Errorf("%s: times %+v", r.Status, r.Wall)
				}
			}
			if !strings.Contains(said, c.says) || flagged != c.flagged {
				t.Errorf("said %q; flagged %q", said, flagged)
			}
			if c.mode == "escape" {
				data, err := os.ReadFile(filepath.Join(dir, "escaped"))
				pid, convErr := strconv.Atoi(string(data))
				if err != nil || convErr != nil {
					t.Fatal(err, convErr)
				}
				l.stop() // strays are ended a moment later, or with the node
				if err := syscall.Kill(pid, 0); !errors.Is(err, syscall.ESRCH) && !zombie(pid) {
					t.Errorf("process %d is still there: %v", pid, err)
				}
			}
		})
	}
}

// zombie reports whether a process has ended and waits for its parent, which may be slow to look.
func zombie(pid int) bool {
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	_, rest, _ := strings.Cut(string(data), ") ")
	return err != nil || strings.HasPrefix(rest, "Z")
}

func TestRunnerKilledForMemoryCostsOneBatchSize(t *testing.T) {
	t.Parallel()
	l := open(t, quiet{})
	if _, absent := l.host.Holds(); absent["memory"] != "" {
		t.Skip("memory cannot be held here: ", absent["memory"])
	}
	task := l.task("killed", `"repeats":3`)
	task.Spec.Limits = &labmesh.Limits{MemoryGB: 256.0 / 1024} // the fake takes some itself under the race detector
	o, rows := l.run(task)
	if got := statuses(rows); got != "1:ok 2:oom_killed 4:ok 1:ok 4:ok 1:ok 4:ok" || !o.OK {
		t.Errorf("rows %s; %v %s", got, o.OK, o.Error)
	}
	if r := rows[1]; r.Resources.HostPeak == nil || *r.Resources.HostPeak < 200<<20 || !strings.Contains(r.Reason, "memory ran out") || r.Run == rows[2].Run || r.Run != rows[0].Run {
		t.Errorf("%+v", r)
	}
}

func TestComparisonOnOneMachineAlternates(t *testing.T) {
	t.Parallel()
	l := open(t, quiet{})
	o, rows := l.run(l.task("good", `"repeats":2,"batch_sizes":[1],"candidate":{"threads":3}`))
	if got := statuses(rows); got != "a1:ok b1:ok b1:ok a1:ok" || !o.OK {
		t.Fatalf("rows %s; %v %s", got, o.OK, o.Error)
	}
	if rows[1].Repeat != 1 || rows[2].Repeat != 2 || rows[1].Work.Threads != 3 || rows[0].Work.Threads != 1 || rows[0].Series == rows[1].Series || rows[0].Series != rows[3].Series {
		t.Errorf("%+v", rows)
	}
}

func TestWhatFailsOnceIsTriedAgainButNotForEver(t *testing.T) {
	t.Parallel()
	l := open(t, quiet{})
	o, rows := l.run(l.task("segfault", `"repeats":4,"batch_sizes":[2,4]`))
	if got := statuses(rows); got != "2:crashed 4:ok 2:crashed 4:ok 4:ok 4:ok" || o.OK || o.Cause != labmesh.CauseSignal {
		t.Errorf("rows %s; %v %s", got, o.OK, o.Error)
	}
}

func TestMachineThatIsNotQuietIsNoSecret(t *testing.T) {
	t.Parallel()
	for name, m := range map[string]bench.Machine{"noisy": quiet{noisy: true}, "nobody watches": nil} {
		l := open(t, m)
		o, rows := l.run(l.task("good", `"batch_sizes":[1]`))
		if !o.OK || len(rows) != 1 || rows[0].Comparable || rows[0].Flags[0] != labmesh.FlagNoisy || len(rows[0].Doubts) != len(rows[0].Flags) {
			t.Fatalf("%s: %v %s, %+v", name, o.OK, o.Error, rows)
		}
		if r := rows[0]; m != nil && (len(r.Flags) != 2 || r.Flags[1] != labmesh.FlagContended || r.Doubts[1] != "others took 40 %" || *r.Resources.EnergyJ != 3 || r.Resources.EnergySource != "rapl" || !strings.Contains(r.Doubts[0], "load is 9")) {
			t.Errorf("%s: %+v", name, r)
		}
		l.stop()
	}
}

func TestRawTimesThatCannotBeKeptCostNothingElse(t *testing.T) {
	t.Parallel()
	l := open(t, quiet{})
	task := l.task("nospace", "")
	o, rows := l.run(task)
	if got := statuses(rows); got != "1:ok 2:ok 4:ok" || !o.OK {
		t.Fatalf("rows %s; %v %s", got, o.OK, o.Error)
	}
	if rows[0].Samples != "" || !rows[0].Comparable || strings.Contains(string(o.Result), "samples_ref") || !strings.Contains(l.log(task.ID, output.Stderr), "raw times of batch size 1 are not kept") {
		t.Errorf("%+v; %s", rows[0], o.Result)
	}
}

func TestCancelEndsTheRunnerAndKeepsItsRows(t *testing.T) {
	t.Parallel()
	l := open(t, quiet{})
	task := l.task("slow", `"batch_sizes":[1,4],"iterations":40`)
	l.desk.Put(task)
	l.await(func() bool { return len(l.desk.Rows(task.ID)) > 0 }) // which is said a moment after it is so
	l.desk.Cancel(task.ID)
	o, err := l.desk.Await(t.Context(), task.ID)
	rows := l.desk.Rows(task.ID)
	if err != nil || o.OK || o.Cause != labmesh.CauseCancelled || len(o.Result) == 0 {
		t.Errorf("%v; %v %s: %s %s", err, o.OK, o.Cause, o.Error, o.Result)
	}
	last := rows[len(rows)-1]
	if len(rows) < 2 || last.Status != labmesh.BenchCancelled || last.Wall != nil || rows[0].Status != labmesh.BenchOK {
		t.Errorf("rows %s", statuses(rows))
	}
}

func TestNodeThatStopsLosesTheBenchmark(t *testing.T) {
	t.Parallel()
	for name, cfg := range map[string]process.Config{"without a keeper": {}, "with a keeper": {Keeper: []string{os.Args[0], "keeper"}, Window: 10 * time.Second}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			l := openIn(t, t.TempDir(), cfg, quiet{})
			task := l.task("slow", `"batch_sizes":[1],"iterations":1000`)
			l.desk.Put(task)
			l.await(func() bool { return strings.Contains(l.log(task.ID, output.Stdout), "batch 1: ") })
			l.stop()
			o, ok := l.desk.Outcome(task.ID)
			if rows := l.desk.Rows(task.ID); !ok || o.Cause != labmesh.CauseWorkerLost || !o.Cause.Infra() || statuses(rows) != "1:cancelled" {
				t.Errorf("%v %s: %s; rows %s", ok, o.Cause, o.Error, statuses(rows))
			}
		})
	}
}

// await waits until something is so.
func (l *lab) await(so func() bool) {
	l.t.Helper()
	for end := time.Now().Add(20 * time.Second); !so(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			l.t.Fatal("it did not come to pass")
		}
	}
}

func TestBadTasksAreRefused(t *testing.T) {
	t.Parallel()
	l := open(t, quiet{}, engines.Found{Engine: labmesh.Engine{Name: "onnxruntime"}, Command: []string{os.Args[0], fakeArg, "good"}, Devices: []benches.Device{{Class: "cpu"}}})
	for config, c := range map[string]struct {
		cause labmesh.Cause
		says  string
	}{
		`{"model":"bert-bas-uncased"}`:                            {labmesh.CauseConfig, "did you mean bert-base-uncased"},
		`{"model":"mlp"}`:                                         {labmesh.CauseConfig, "no engine of this worker can run mlp on cpu"},
		`{"model":"none.onnx"}`:                                   {labmesh.CauseConfig, "there is no file none.onnx"},
		`{"model":"../../etc/x.onnx"}`:                            {labmesh.CauseConfig, "leads out"},
		`{"model":"x","runner":["no-such-runner"]}`:               {labmesh.CauseProgram, "no-such-runner"},
		`{"model":"x","runner":["true"],"env":{"LABMESH_X":"1"}}`: {labmesh.CauseConfig, "LABMESH_X"},
		`{"model":"x","runner":["true"]}`:                         {labmesh.CauseExit, "exit code 0 before it was done"},
		`{"model":"x","runner":["yes"],"silence_seconds":0.3}`:    {labmesh.CauseTimeout, "said nothing"},
	} {
		task := l.task("bad", "")
		task.Spec.Config = json.RawMessage(config)
		if o, rows := l.run(task); o.OK || o.Cause != c.cause || !strings.Contains(o.Error, c.says) || len(rows) > 0 {
			t.Errorf("%s: %s: %s; %d rows", config, o.Cause, o.Error, len(rows))
		}
	}
	task := l.task("bundle", "")
	task.Spec.Config, task.Spec.Bundle = json.RawMessage(`{"model":"net.onnx","repeats":1,"iterations":10}`), strings.Repeat("0", 64)
	if o, rows := l.run(task); !o.OK || statuses(rows) != "1:ok" || rows[0].Work.Engine != "onnxruntime" {
		t.Errorf("a net of the bundle: %s: %s; %+v", o.Cause, o.Error, rows)
	}
}
