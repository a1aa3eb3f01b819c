package storetest

import (
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"labmesh"
)

// Epoch is when the history of a Mesh begins.
var Epoch = time.Date(2026, 3, 4, 5, 6, 7, 891_234_000, time.UTC)

// Mesh makes the events of a mesh that runs tasks, for tests and benchmarks:
// the same ones each time.
type Mesh struct {
	Index uint64 // of the newest entry
	seq   uint64
	ids   int64
}

// NewMesh is a mesh that goes on after index, with tasks tasks behind it.
func NewMesh(index, tasks uint64) *Mesh {
	return &Mesh{Index: index, seq: tasks, ids: int64(tasks)}
}

// Finish is the events of an entry in which one more task finishes: the end of
// its attempt and its verdict.
func (m *Mesh) Finish() (labmesh.Task, []labmesh.Event) {
	m.Index++
	m.seq++
	t := m.task()
	a := m.attempt(&t, "completed", "")
	t.History = []labmesh.Attempt{a}
	return t, m.events(
		labmesh.Event{Type: labmesh.AttemptEnded, Task: &t, Attempt: &a},
		labmesh.Event{Type: labmesh.TaskEnded, Task: &t, Actor: "n1"},
	)
}

// FinishBatch is Finish for n tasks in one entry.
func (m *Mesh) FinishBatch(n int) []labmesh.Event {
	m.Index++
	events := make([]labmesh.Event, 0, 2*n)
	for range n {
		m.seq++
		t := m.task()
		a := m.attempt(&t, "completed", "")
		t.History = []labmesh.Attempt{a}
		events = append(events,
			labmesh.Event{Type: labmesh.AttemptEnded, Task: &t, Attempt: &a},
			labmesh.Event{Type: labmesh.TaskEnded, Task: &t})
	}
	return m.events(events...)
}

// Tests is an entry in which an attempt under way records cases, in two commands.
func (m *Mesh) Tests(cases ...labmesh.TestCase) []labmesh.Event {
	m.Index++
	half := len(cases) / 2
	t := labmesh.Tests{Task: labmesh.TaskID(fmt.Sprintf("01T%020d", m.Index)), Attempt: 1, Worker: "w1", From: 3, ID: int64(m.Index) << 20}
	first, second := t, t
	first.Cases = cases[:half]
	second.Cases, second.From, second.ID = cases[half:], t.From+half, t.ID+int64(half)
	task := labmesh.Task{ID: t.Task, Attempt: t.Attempt, Worker: t.Worker, Phase: labmesh.Running, Created: m.now()}
	return m.events(
		labmesh.Event{Type: labmesh.TestsRecorded, Task: &task, Tests: &first},
		labmesh.Event{Type: labmesh.TestsRecorded, Task: &task, Tests: &second})
}

// Bench is an entry in which a benchmark under way records rows, in two commands.
func (m *Mesh) Bench(rows ...labmesh.BenchRow) []labmesh.Event {
	m.Index++
	half := len(rows) / 2
	b := labmesh.Bench{Task: labmesh.TaskID(fmt.Sprintf("01B%020d", m.Index)), Attempt: 1, Worker: "w1", From: 3, ID: int64(m.Index) << 20}
	first, second := b, b
	first.Rows = rows[:half]
	second.Rows, second.From, second.ID = rows[half:], b.From+half, b.ID+int64(half)
	task := labmesh.Task{ID: b.Task, Attempt: b.Attempt, Worker: b.Worker, Phase: labmesh.Running, Created: m.now(),
		Spec: labmesh.Spec{Kind: labmesh.Benchmark, Labels: map[string]string{"git_sha": "abc", "branch": "größe"}}}
	return m.events(
		labmesh.Event{Type: labmesh.BenchRecorded, Task: &task, Bench: &first},
		labmesh.Event{Type: labmesh.BenchRecorded, Task: &task, Bench: &second})
}

// BenchRows are n rows of a benchmark: full ones, some that lack all that may be
// unknown, and some that failed.
func BenchRows(n int) []labmesh.BenchRow {
	rows := make([]labmesh.BenchRow, n)
	for i := range rows {
		at := Epoch.Add(time.Duration(i) * time.Minute)
		r := labmesh.BenchRow{
			Run: fmt.Sprint("run-", i/2), Repeat: 1 + i/2, Started: at, Finished: at.Add(30 * time.Second), Series: fmt.Sprint("series-", i%2), Compare: "compare",
			Work: labmesh.BenchWork{Model: "bert-base-uncased", Batch: 1 + i%2, Requested: "fp32", Iterations: 100, Engine: "labmesh-go", DeviceClass: "cpu", Protocol: 1},
		}
		switch i % 3 {
		case 0:
			fillRow(&r, float64(i))
		case 1:
			r.Status, r.N, r.Comparable = labmesh.BenchOK, 1, true
			r.Wall = &labmesh.BenchTiming{P50: 2, Min: 2, Max: 2, Mean: 2}
		default:
			r.Status, r.Reason = labmesh.BenchOOM, "out of memory\nat batch 2"
		}
		rows[i] = r
	}
	return rows
}

// fillRow sets everything that may be unknown.
func fillRow(r *labmesh.BenchRow, x float64) {
	f, i := new(x/3+1), new(int64(1)<<40)
	r.Arm, r.Status, r.N, r.Comparable = "a", labmesh.BenchTruncated, 100, false
	r.Reason = "60 s were over"
	r.Work = labmesh.BenchWork{Model: "gpt2", Source: "hf", Weights: "pretrained", Seed: -7, Params: 124_439_808, FLOPs: 1e15 / 3, Shape: map[string]int{"sequence_length": 128}, Batch: r.Work.Batch,
		Requested: "fp16", Effective: "fp32", Cast: "autocast", Iterations: 100, Warmup: 10, Threads: 2, Compile: true, TF32: true, Attention: "sdpa", Devices: 1,
		Engine: "torch", EngineVersion: "2.1.0", EngineWhy: "the first that works", Kernel: "avx2", DeviceClass: "cuda", DeviceName: "a GPU", DeviceUUID: "GPU-1", DriverMajor: "550", Protocol: 1}
	r.Wall = &labmesh.BenchTiming{P50: x + 1.0/3, P90: f, P95: f, P99: f, Min: 0.5, Max: 9, Mean: 1.1, SD: f, MAD: 0.1, CV: f, CI95: &[2]float64{0.9, 1.1}}
	r.Device = &labmesh.BenchTiming{P50: 0.25, P90: f, Min: 0.125, Max: 3, Mean: 1}
	r.FirstMS, r.LoadS, r.Throughput, r.GFLOPS, r.Samples = f, new(0.0), f, f, ".labmesh/samples.json.gz"
	r.Stability = &labmesh.BenchStable{Verdict: "unstable", WindowSpread: f, Autocorr: new(-0.5), Drift: f}
	r.Finite, r.Checksum = new(false), "c0ffee"
	r.Resources = labmesh.BenchResources{CPUMS: f, CPUUtil: f, HostPeak: i, DevicePeak: i, DeviceReserved: i, DeviceTotal: i, EnergyJ: f, EnergySource: "nvml", PowerW: f}
	r.Env = json.RawMessage(`{"os":"linux","gpu":{"clocks":[1,2]},"name":"größe"}`)
	r.Flags, r.Doubts = []labmesh.BenchFlag{labmesh.FlagTruncated, labmesh.FlagNoisy}, []string{"60 s were over", "load was 2.1 on 2 processors"}
}

// Cases are n test cases, with every field set in turn.
func Cases(n int) []labmesh.TestCase {
	verdicts := []labmesh.TestVerdict{
		labmesh.TestPassed, labmesh.TestFailed, labmesh.TestError, labmesh.TestSkipped,
		labmesh.TestXFailed, labmesh.TestXPassed, labmesh.TestCrashed, labmesh.TestTimeout,
	}
	cases := make([]labmesh.TestCase, n)
	for i := range cases {
		c := labmesh.TestCase{
			Suite: fmt.Sprint("suite-", i%3), Framework: "pytest", File: fmt.Sprintf("tests/test_%d.py", i%7), Name: fmt.Sprint("TestIt::test_", i),
			Verdict: verdicts[i%len(verdicts)], Seconds: float64(i) / 3, Try: 1 + i%2,
		}
		if i%5 == 1 {
			c.Params, c.Quarantined, c.Log = "größe-1", true, "stdout:10-90"
		}
		if c.Verdict.Bad() {
			c.Message = "assert 1 == 2\nwhere 1 = one()"
		}
		cases[i] = c
	}
	return cases
}

// Late is word of an attempt of t that does not count any more.
func (m *Mesh) Late(t labmesh.Task) []labmesh.Event {
	m.Index++
	a := m.attempt(&t, "completed", "")
	return m.events(labmesh.Event{Type: labmesh.AttemptLate, Attempt: &a, Detail: "attempt 1 counts no more"})
}

// Worker is a worker that comes or changes.
func (m *Mesh) Worker(id labmesh.WorkerID, kind labmesh.EventType, status labmesh.WorkerStatus) []labmesh.Event {
	m.Index++
	w := labmesh.Worker{
		ID: id, Node: "n1", Hostname: "host-" + string(id), Slots: 4, Kinds: []labmesh.Kind{labmesh.Custom},
		Capabilities: labmesh.Capabilities{Hostname: "host-" + string(id), Platform: "linux/amd64", Hardware: []string{"cpu"}},
		Tags:         map[string]string{"rack": "7"}, Status: status, Registered: Epoch, Changed: m.now(), Index: m.Index,
	}
	return m.events(labmesh.Event{Type: kind, Worker: &w})
}

func (m *Mesh) now() time.Time { return Epoch.Add(time.Duration(m.Index) * time.Second) }

func (m *Mesh) events(events ...labmesh.Event) []labmesh.Event {
	for n := range events {
		events[n].Index, events[n].N, events[n].At = m.Index, n, m.now()
	}
	return events
}

func (m *Mesh) attempt(t *labmesh.Task, status string, cause labmesh.Cause) labmesh.Attempt {
	m.ids++
	return labmesh.Attempt{
		ID: m.ids, Task: t.ID, Number: t.Attempt, Worker: t.Worker, Status: status, Cause: cause,
		Started: t.Started, Ended: m.now(), Seconds: 1.0 / 3, Metrics: json.RawMessage(`{"max_rss_mb":12.5}`), Outputs: t.Outputs,
	}
}

// task is a task that has just ended, with every field set in turn.
func (m *Mesh) task() labmesh.Task {
	n, now := m.seq, m.now()
	t := labmesh.Task{
		ID: labmesh.TaskID(fmt.Sprintf("01J%020d", n)), Seq: n, By: "key:admin",
		Spec: labmesh.Spec{
			Kind: labmesh.Custom, Priority: int(n % 7), Config: json.RawMessage(fmt.Sprintf(`{"args":["-n","%d"],"program":"/bin/echo"}`, n)),
			Requirements: labmesh.Requirements{Hardware: []string{"cpu"}, MinMemoryGB: 0.5},
		},
		Phase: labmesh.Completed, Attempt: 1, Worker: labmesh.WorkerID(fmt.Sprintf("w%d", n%5)),
		Created: now.Add(-time.Minute), Assigned: now.Add(-2 * time.Second), Started: now.Add(-time.Second), Ended: now,
		Result: json.RawMessage(`{"exit_code":0,"output":"größe \"x\""}`), Index: m.Index,
	}
	switch n % 4 {
	case 1:
		t.Spec.Name, t.Spec.Labels = "night's run", map[string]string{"commit": "abc", "branch": "main"}
		t.Spec.IdempotencyKey = fmt.Sprintf("key-%d", n)
	case 2:
		t.Spec.Env, t.Spec.TimeoutSeconds = map[string]string{"A": "b"}, 2.5
		t.Spec.Retry, t.Spec.MaxAttempts = &labmesh.RetryPolicy{MaxRetries: 3, BackoffSeconds: 0.25}, 4
		t.Failed, t.Lost, t.NotBefore = 1, 2, now.Add(-time.Hour)
	case 3:
		t.Outputs = &labmesh.Outputs{Tree: strings.Repeat("ab", 32), Files: 3, Bytes: 1 << 33}
		t.Phase, t.Error, t.Cause, t.Result = labmesh.Failed, "exit status 7\nline \u2028 two", labmesh.CauseExit, nil
	}
	return t
}
