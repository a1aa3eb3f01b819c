package labmesh_test

import (
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"labmesh"
)

var update = flag.Bool("update", false, "write golden files that do not exist yet")

var at = time.Date(2026, 1, 2, 3, 4, 5, 678_000_000, time.UTC)

// samples has one of each command, with every field set.
func samples() []labmesh.Command {
	return []labmesh.Command{
		labmesh.FoundMesh{Mesh: "m1", Founder: labmesh.Member{Node: "n1", Role: "node", Hostname: "h", Addrs: []string{"/ip4/127.0.0.1/tcp/4080"}, Joined: at}, Key: labmesh.Key{ID: "k1", Hash: []byte{1, 2}, Role: "admin", Name: "ada"}},
		labmesh.SubmitTask{ID: "t1", By: "k1", Spec: labmesh.Spec{Kind: "custom", Priority: 3, Config: json.RawMessage(`{"name":"/bin/true","args":["<a>"]}`),
			Requirements: labmesh.Requirements{Hardware: []string{"cuda"}, MinMemoryGB: 8, MinCUDACompute: 7.5, CPUs: 2, GPUs: 1, Exclusive: true, Tags: map[string]string{"site": "lab-2"}, WorkerID: "w1"},
			TaskID:       "t1", IdempotencyKey: "i1", Name: "n", Labels: map[string]string{"a": "b"}, Env: map[string]string{"X": "y"}, TimeoutSeconds: 600, QueueTimeoutSeconds: 3600, MaxAttempts: 4,
			Retry: &labmesh.RetryPolicy{MaxRetries: 2, BackoffSeconds: 1.5}}},
		labmesh.PlaceTask{ID: "t1", Attempt: 2, Worker: "w1", Ahead: true},
		labmesh.StartTask{ID: "t1", Attempt: 2, Worker: "w1"},
		labmesh.FinishTask{ID: "t1", Attempt: 2, Worker: "w1", Outcome: labmesh.Outcome{OK: false, Cause: "exit", Error: "exit code 3", Result: json.RawMessage(`{"exit_code":3}`), Seconds: 1.25, Metrics: json.RawMessage(`{"max_rss_mb":5}`)}},
		labmesh.CancelTask{ID: "t1", By: "k1", Reason: "no more"},
		labmesh.ExpireTask{ID: "t1", Attempt: 1, Cause: "queue"},
		labmesh.WakeTasks{},
		labmesh.PutWorker{Worker: labmesh.Worker{ID: "w1", Node: "n1", Hostname: "h", Slots: 2, Kinds: []labmesh.Kind{"custom", "test"}, Tags: map[string]string{"a": "b"}, Status: "active", Reason: "", Registered: at, Changed: at, Index: 7,
			Capabilities: labmesh.Capabilities{Hostname: "h", Platform: "linux/amd64", Hardware: []string{"cpu"}, CPU: labmesh.CPU{Model: "m", Cores: 2, Threads: 4, FreqMHz: 3000}, Memory: labmesh.Memory{TotalGB: 24, AvailableGB: 20},
				Disk: &labmesh.Disk{TotalGB: 100, FreeGB: 50}, GPU: &labmesh.GPU{Count: 1, Devices: []labmesh.GPUDevice{{Index: 0, UUID: "GPU-1", Name: "g", MemoryGB: 8, ComputeCapability: "8.6"}}, CUDAVersion: "12.4", Driver: "550", Name: "g", MemoryGB: 8, CUDACompute: 8.6},
				Absent: map[string]string{"rocm": "no driver"}, Tools: map[string]string{"go": "1.26"}}}},
		labmesh.LoseWorker{ID: "w1", Reason: "silent"},
		labmesh.RaiseLevel{Level: 3},
		labmesh.ReportState{Node: "n1", Index: 8192, Form: "f1", Sum: []byte{1, 2}},
		labmesh.HoldWorker{ID: "w1", Status: labmesh.WorkerDraining, Reason: "new disk", By: "k1"},
		labmesh.PutMember{Member: labmesh.Member{Node: "n2", Role: "worker", Hostname: "h2", Addrs: []string{"/ip4/10.0.0.1/tcp/4080"}, Joined: at}, Invite: "i1"},
		labmesh.BanMember{Node: "n2", By: "k1"},
		labmesh.PutInvite{Invite: labmesh.Invite{ID: "i1", Key: []byte{3, 4}, Role: "node", Expires: at, Uses: 2, By: "k1"}},
		labmesh.PutKey{Key: labmesh.Key{ID: "k2", Hash: []byte{5}, Role: "admin", Name: "bob", Created: at}},
		labmesh.RecordTests{ID: "t1", Attempt: 2, Worker: "w1", From: 3, Cases: []labmesh.TestCase{{Suite: "s1", Framework: "pytest", File: "a/test_b.py", Name: "TestC::test_d",
			Params: "1-x", Verdict: "failed", Seconds: 0.25, Try: 2, Message: "assert 1 == 2", Log: "stdout:10-90", Quarantined: true}}},
		labmesh.RecordBench{ID: "t1", Attempt: 1, Worker: "w1", From: 2, Rows: []labmesh.BenchRow{benchSample()}},
		labmesh.PutSecret{Secret: labmesh.Secret{Name: "TOKEN", Value: "v", By: "k1", Put: at}},
		labmesh.DropSecret{Name: "TOKEN", By: "k1"},
		labmesh.RevokeKey{ID: "k2", By: "k1"},
		labmesh.UseKeys{Used: []labmesh.KeyUse{{ID: "k1", At: at}}},
		labmesh.DropInvite{ID: "i1", By: "k1"},
		labmesh.PutTokenKey{Key: labmesh.TokenKey{ID: "j1", Secret: labmesh.Sealed{Key: "s1", Data: []byte{1}}, From: at, Until: at, Created: at}},
		labmesh.PutSealKey{ID: "s1", By: "k1"},
		labmesh.RecordAudit{Records: []labmesh.AuditRecord{{At: at, Actor: "k1", Name: "ada", Role: "admin", Remote: "127.0.0.1", Node: "n1", Action: "POST /api/tasks", Target: "t1", Outcome: "ok", Detail: "d", Count: 2}}},
	}
}

func benchSample() labmesh.BenchRow {
	f, i, yes := new(1.5), new(int64(7)), new(true)
	timing := &labmesh.BenchTiming{P50: 1, P90: f, P95: f, P99: f, Min: 0.5, Max: 3, Mean: 1.1, SD: f, MAD: 0.1, CV: f, CI95: &[2]float64{0.9, 1.1}}
	return labmesh.BenchRow{Run: "r1", Repeat: 2, Started: at, Finished: at, Series: "s", Compare: "c",
		Work: labmesh.BenchWork{Model: "bert-base-uncased", Source: "builtin", Weights: "random", Seed: 1, Params: 2, FLOPs: 3, Shape: map[string]int{"sequence_length": 128}, Batch: 4,
			Requested: "fp16", Effective: "fp32", Cast: "native", Iterations: 100, Warmup: 10, Threads: 1, Compile: true, TF32: true, Engine: "torch", EngineVersion: "2.1", EngineWhy: "first", Kernel: "avx2",
			DeviceClass: "cuda", DeviceName: "g", DeviceUUID: "GPU-1", DriverMajor: "550", Protocol: 1},
		Status: "ok", Reason: "x", N: 100, Wall: timing, Device: timing, FirstMS: f, LoadS: f, Throughput: f, GFLOPS: f, Samples: ".labmesh/samples.json.gz",
		Stability: &labmesh.BenchStable{Verdict: "stable", WindowSpread: f, Autocorr: f, Drift: f}, Finite: yes, Checksum: "ab",
		Resources: labmesh.BenchResources{CPUMS: f, CPUUtil: f, HostPeak: i, DevicePeak: i, DeviceReserved: i, DeviceTotal: i, EnergyJ: f, EnergySource: "nvml", PowerW: f},
		Env:       json.RawMessage(`{"os":"linux"}`), Flags: []labmesh.BenchFlag{"contended"}, Comparable: true}
}

// grown has commands with the fields that came after their golden file, by the name of its further one.
func grown() map[string]labmesh.Command {
	return map[string]labmesh.Command{
		"found_mesh.v1-2": labmesh.FoundMesh{Mesh: "m1", Level: 3},
		"submit_task.v1-2": labmesh.SubmitTask{ID: "t1", Spec: labmesh.Spec{Kind: "custom", Secrets: []string{"TOKEN"}, Bundle: "b1", Artifacts: []string{"out/**"},
			Limits:       &labmesh.Limits{CPUs: 1.5, MemoryGB: 2, Pids: 64, DiskGB: 10},
			Requirements: labmesh.Requirements{Tools: []string{"pytest"}, Sandbox: "no_network"}}},
		"submit_task.v1-3": labmesh.SubmitTask{ID: "t1", Spec: labmesh.Spec{Kind: "custom", OnDisconnect: "10m"}},
		"submit_task.v1-4": labmesh.SubmitTask{ID: "t1", Spec: labmesh.Spec{Kind: "custom"}, Project: "vision"},
		"put_key.v1-2":     labmesh.PutKey{Key: labmesh.Key{ID: "k2", Hash: []byte{5}, Role: "submitter", Project: "vision", By: "k1", Expires: at, Revoked: at, LastUsed: at, Signing: &labmesh.Sealed{Key: "s1", Data: []byte{1}}, RequireSigned: true}},
		"put_secret.v1-2":  labmesh.PutSecret{Secret: labmesh.Secret{Name: "TOKEN", Sealed: &labmesh.Sealed{Key: "s1", Data: []byte{1}}}},
		"put_secret.v1-3":  labmesh.PutSecret{Secret: labmesh.Secret{Name: "TOKEN", Projects: []string{"vision"}}},
		"put_worker.v1-3":  labmesh.PutWorker{Worker: labmesh.Worker{ID: "w1", Light: true}},
		"lose_worker.v1-2": labmesh.LoseWorker{ID: "w1", Reason: "its node was stopped", Stopped: true},
		"finish_task.v1-2": labmesh.FinishTask{ID: "t1", Attempt: 2, Worker: "w1", Outcome: labmesh.Outcome{OK: true, Seconds: 1, Outputs: &labmesh.Outputs{Tree: "b2", Files: 3, Bytes: 77}}},
		"put_worker.v1-2":  labmesh.PutWorker{Worker: labmesh.Worker{ID: "w1", Capabilities: labmesh.Capabilities{Sandboxes: []labmesh.Sandbox{"no_network"}}}},
	}
}

// TestCommandsInTheLogAreForEver: a golden file is never changed, only added to.
func TestCommandsInTheLogAreForEver(t *testing.T) {
	t.Parallel()
	seen := map[string]bool{}
	all := grown()
	for _, cmd := range samples() {
		all[cmd.CommandName()] = cmd
	}
	for name, cmd := range all {
		seen[name+".json"] = true
		path := filepath.Join("testdata", "commands", name+".json")
		line, err := labmesh.EncodeCommand(cmd)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := os.Stat(path); *update && os.IsNotExist(err) {
			if err := os.WriteFile(path, append(line, '\n'), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		golden, err := os.ReadFile(path)
		if err != nil {
			t.Fatalf("%s has no golden file; make it with: go test . -update", name)
		}
		golden = bytes.TrimSuffix(golden, []byte("\n"))
		if string(golden) != string(line) {
			t.Errorf("%s is written otherwise than it was:\nwas %s\nis  %s", name, golden, line)
		}
		got, err := labmesh.DecodeCommand(golden)
		if err != nil || !reflect.DeepEqual(got, cmd) {
			t.Errorf("%s reads back as %+v (%v), want %+v", name, got, err, cmd)
		}
	}
	files, err := os.ReadDir(filepath.Join("testdata", "commands"))
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		if !seen[f.Name()] {
			t.Errorf("%s was in the log once and is no sample any more", f.Name())
		}
	}
}

func TestEntryComesBackAsItWas(t *testing.T) {
	t.Parallel()
	want := labmesh.Entry{At: at, Commands: samples()}
	data, err := want.Encode()
	if err != nil {
		t.Fatal(err)
	}
	got, err := labmesh.DecodeEntry(data)
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Fatalf("got %+v (%v), want %+v", got, err, want)
	}
	for _, bad := range []string{"", "x", "labmesh-entry-1", "labmesh-entry-1 \n", "labmesh-entry-2 2026-01-02T03:04:05Z\n", string(data[:len(data)-1]), string(data) + "fly_away.v1 {}\n", string(data) + "place_task.v1 {\n"} {
		if _, err := labmesh.DecodeEntry([]byte(bad)); err == nil {
			t.Errorf("%.60q is taken for an entry", bad)
		}
	}
}

// TestTheLifeOfATaskIsDrawn keeps the table in docs/task-life.md true.
func TestTheLifeOfATaskIsDrawn(t *testing.T) {
	t.Parallel()
	var b strings.Builder
	fmt.Fprintf(&b, "%-11s", "")
	for _, s := range labmesh.Signals() {
		fmt.Fprintf(&b, "%-11s", s)
	}
	for _, p := range labmesh.Phases() {
		fmt.Fprintf(&b, "\n%-11s", p)
		if p.Final() {
			b.WriteString("final")
			continue
		}
		for _, s := range labmesh.Signals() {
			to, ok := p.Next(s)
			if !ok {
				to = "-"
			}
			fmt.Fprintf(&b, "%-11s", to)
		}
	}
	var lines []string
	for l := range strings.Lines(b.String()) {
		lines = append(lines, strings.TrimRight(l, " \n"))
	}
	want := strings.Join(lines, "\n")
	doc, err := os.ReadFile(filepath.Join("docs", "task-life.md"))
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(doc), want) {
		t.Errorf("docs/task-life.md does not hold the table as it is:\n%s", want)
	}
}

func TestFinalIsFinal(t *testing.T) {
	t.Parallel()
	for _, p := range labmesh.Phases() {
		for _, s := range labmesh.Signals() {
			if to, ok := p.Next(s); ok && (p.Final() || !to.Known()) {
				t.Errorf("%s goes to %q on %s", p, to, s)
			}
		}
	}
	if labmesh.Phase("lost").Final() || labmesh.Phase("lost").Known() {
		t.Error("an unknown phase counts as final")
	}
}

func TestFits(t *testing.T) {
	t.Parallel()
	w := labmesh.Worker{ID: "w1", Slots: 4, Kinds: []labmesh.Kind{labmesh.Custom}, Tags: map[string]string{"site": "lab-2"}, Capabilities: labmesh.Capabilities{
		Hardware: []string{"cpu", "cuda"}, Memory: labmesh.Memory{TotalGB: 16}, Absent: map[string]string{"rocm": "no driver"},
		GPU: &labmesh.GPU{Count: 1, Devices: []labmesh.GPUDevice{{ComputeCapability: "10.0"}}}}}
	type R = labmesh.Requirements
	for name, c := range map[string]struct {
		kind  labmesh.Kind
		needs R
		want  string // what the one misfit says; "" when it fits
	}{
		"nothing asked":          {labmesh.Custom, R{}, ""},
		"every hardware word":    {labmesh.Custom, R{Hardware: []string{"cpu", "CUDA"}}, ""},
		"one word missing":       {labmesh.Custom, R{Hardware: []string{"cpu", "rocm"}}, "no rocm (no driver)"},
		"a kind it cannot run":   {labmesh.Benchmark, R{}, "runs no benchmark"},
		"memory just enough":     {labmesh.Custom, R{MinMemoryGB: 16}, ""},
		"too little memory":      {labmesh.Custom, R{MinMemoryGB: 16.5}, "needs 16.5"},
		"10.0 is more than 9.0":  {labmesh.Custom, R{MinCUDACompute: 9}, ""},
		"compute too low":        {labmesh.Custom, R{MinCUDACompute: 10.1}, "10.1 or higher, it has 10.0"},
		"all slots":              {labmesh.Custom, R{CPUs: 4}, ""},
		"too many slots":         {labmesh.Custom, R{CPUs: 5}, "it has 4 slots"},
		"exclusive always fits":  {labmesh.Custom, R{Exclusive: true}, ""},
		"too many GPUs":          {labmesh.Custom, R{GPUs: 2}, "it has 1 GPUs"},
		"tags equal":             {labmesh.Custom, R{Tags: map[string]string{"site": "lab-2"}}, ""},
		"tags other":             {labmesh.Custom, R{Tags: map[string]string{"site": "lab-1"}}, "tag site=lab-1"},
		"another worker by name": {labmesh.Custom, R{WorkerID: "w2"}, "worker w2"},
	} {
		misfits := c.needs.Misfits(c.kind, &w)
		if fits := c.needs.Fits(c.kind, &w); fits != (c.want == "") || fits != (len(misfits) == 0) {
			t.Errorf("%s: fits is %v, misfits %q", name, fits, misfits)
		}
		if c.want != "" && (len(misfits) != 1 || !strings.Contains(misfits[0], c.want)) {
			t.Errorf("%s: %q does not say %q", name, misfits, c.want)
		}
	}
}

func TestBackoffDoublesUpToItsBound(t *testing.T) {
	t.Parallel()
	s := labmesh.Spec{Retry: &labmesh.RetryPolicy{MaxRetries: 9, BackoffSeconds: 1}}
	for n, want := range map[int]time.Duration{0: 0, 1: time.Second, 2: 2 * time.Second, 5: 16 * time.Second, 50: labmesh.BackoffMax} {
		if got := s.Backoff(n); got != want {
			t.Errorf("after %d failures %s, want %s", n, got, want)
		}
	}
}

func FuzzDecodeEntry(f *testing.F) {
	data, err := labmesh.Entry{At: at, Commands: samples()}.Encode()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(data)
	f.Add([]byte("labmesh-entry-1 2026-01-02T03:04:05Z\nwake_tasks.v1 {}\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		e, err := labmesh.DecodeEntry(data)
		if err != nil {
			return
		}
		again, err := e.Encode()
		if err != nil {
			t.Fatalf("an entry that was read cannot be written: %v", err)
		}
		e2, err := labmesh.DecodeEntry(again)
		if err != nil || len(e2.Commands) != len(e.Commands) || !e2.At.Equal(e.At) {
			t.Fatalf("%q came back otherwise: %v", data, err)
		}
	})
}

// TestCommandsOfALevelToComeStopABuild: a build that does not know a feature level must not go on under it.
func TestCommandsOfALevelToComeStopABuild(t *testing.T) {
	t.Parallel()
	for level, ok := range map[int]bool{labmesh.Feature: true, labmesh.Feature + 1: false} {
		line, err := labmesh.EncodeCommand(labmesh.RaiseLevel{Level: level})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := labmesh.DecodeCommand(line); (err == nil) != ok {
			t.Errorf("level %d: %v", level, err)
		}
	}
	for _, c := range samples() {
		if n := labmesh.LevelOf(c); n < 1 || n > labmesh.Feature {
			t.Errorf("%s is of level %d", c.CommandName(), n)
		}
	}
}
