package light_test

import (
	"encoding/json"
	"strings"
	"testing"

	"labmesh"
	"labmesh/light"
)

func decode(t *testing.T, text string) light.Message {
	t.Helper()
	m, err := light.Decode([]byte(text))
	if err != nil {
		t.Fatalf("%s: %v", text, err)
	}
	return m
}

func TestWorkersAreReadLiberally(t *testing.T) {
	t.Parallel()
	m := decode(t, `{"type":"register","worker_id":"worker-1","hostname":"hostA","capabilities":{"platform":"Linux","hardware":["cpu","cuda",7,"cpu"],
		"cpu":{"model":"x","cores":null,"threads":"8","freq_mhz":2400.5},"memory":{"total_gb":23.54,"available_gb":NaN},
		"gpu":{"count":1,"devices":[{"index":0,"name":"RTX","memory_gb":24,"compute_capability":8.6}],"cuda_version":"12.4"},"webnn":{"available":false}}}`)
	c := m.Capabilities
	if m.Worker != "worker-1" || m.Hostname != "hostA" || len(m.Kinds) != 3 || len(c.Hardware) != 2 || c.CPU.Cores != 0 || c.CPU.Threads != 8 || c.Memory.TotalGB != 23.54 || c.Memory.AvailableGB != 0 {
		t.Fatalf("got %+v", m)
	}
	w := labmesh.Worker{ID: m.Worker, Light: true, Slots: 1, Kinds: m.Kinds, Capabilities: c}
	for _, r := range []labmesh.Requirements{
		{}, {Hardware: []string{"cuda"}}, {Hardware: []string{"CUDA"}, MinCUDACompute: 8.6}, {MinMemoryGB: 20, GPUs: 1},
	} {
		for _, k := range labmesh.Kinds() {
			if !r.Fits(k, &w) {
				t.Errorf("%s %+v does not fit: %v", k, r, r.Misfits(k, &w))
			}
		}
	}
	if r := (labmesh.Requirements{MinCUDACompute: 9}); r.Fits(labmesh.Custom, &w) {
		t.Error("it has no compute capability 9")
	}
}

func TestResults(t *testing.T) {
	t.Parallel()
	big := strings.Repeat("x", labmesh.ResultBytesMax)
	for name, c := range map[string]struct {
		text string
		want func(light.Message) bool
	}{
		"completed": {`{"type":"task_result","task_id":"t","status":"completed","execution_time_seconds":1.5,"result":{"a": 1},"hardware_metrics":{"cpu":1}}`, func(m light.Message) bool {
			return m.Outcome.OK && m.Outcome.Seconds == 1.5 && string(m.Outcome.Result) == `{"a":1}` && m.Outcome.Metrics != nil
		}},
		"failed": {`{"type":"task_result","task_id":"t","status":"failed","execution_time_seconds":4e-05,"error":"boom"}`, func(m light.Message) bool {
			return !m.Outcome.OK && m.Outcome.Error == "boom" && m.Outcome.Cause == labmesh.CauseExit
		}},
		"no reason": {`{"type":"task_result","task_id":"t","status":"failed"}`, func(m light.Message) bool { return m.Outcome.Error != "" }},
		"an object": {`{"type":"task_result","task_id":"t","status":"failed","error":{"code":3}}`, func(m light.Message) bool { return m.Outcome.Error == `{"code":3}` }},
		"no status": {`{"type":"task_result","task_id":"t"}`, func(m light.Message) bool { return !m.Outcome.OK }},
		"Python's NaN": {`{"type":"task_result","task_id":"t","status":"completed","execution_time_seconds":NaN,"result":{"x":-Infinity,"s":"NaN \" NaN"}}`, func(m light.Message) bool {
			return m.Outcome.OK && string(m.Outcome.Result) == `{"x":null,"s":"NaN \" NaN"}`
		}},
		"too large": {`{"type":"task_result","task_id":"t","status":"completed","result":"` + big + `"}`, func(m light.Message) bool {
			return m.Outcome.OK && strings.Contains(string(m.Outcome.Result), "truncated")
		}},
		"its own cause":  {`{"type":"task_result","task_id":"t","status":"failed","cause":"oom","error":"e"}`, func(m light.Message) bool { return m.Outcome.Cause == labmesh.CauseOOM }},
		"no such cause":  {`{"type":"task_result","task_id":"t","status":"failed","cause":"cosmic","error":"e"}`, func(m light.Message) bool { return m.Outcome.Cause == labmesh.CauseExit }},
		"a number as id": {`{"type":"task_result","task_id":12,"status":"completed"}`, func(m light.Message) bool { return m.Task == "12" }},
		"no id":          {`{"type":"task_result","task_id":{},"status":"completed"}`, func(m light.Message) bool { return m.Task == "" }},
		"negative time":  {`{"type":"task_result","task_id":"t","status":"completed","execution_time_seconds":-1}`, func(m light.Message) bool { return m.Outcome.Seconds == 0 }},
	} {
		if m := decode(t, c.text); !c.want(m) {
			t.Errorf("%s: got %+v", name, m)
		}
	}
}

func TestHeartbeats(t *testing.T) {
	t.Parallel()
	m := decode(t, `{"type":"heartbeat","worker_id":"w","timestamp":1715000000,"task_status":{"task_id":"t","status":"running","progress":33.3}}`)
	if m.Running != "t" || m.Progress == nil || *m.Progress != 33.3 {
		t.Fatalf("got %+v", m)
	}
	for _, idle := range []string{`{"type":"heartbeat"}`, `{"type":"heartbeat","task_status":null}`, `{"type":"heartbeat","task_status":{}}`, `{"type":"heartbeat","task_status":{"task_id":"t","status":"completed"}}`, `{"type":"heartbeat","task_status":[1]}`} {
		if m := decode(t, idle); m.Running != "" || m.Progress != nil {
			t.Errorf("%s: got %+v", idle, m)
		}
	}
}

func TestWhatIsNoObjectIsRefused(t *testing.T) {
	t.Parallel()
	for _, text := range []string{"", "null", "[]", `"auth"`, "7", "{", `{"type":"auth"`, `{"a":1}{`, "NaN", "\xff"} {
		if m, err := light.Decode([]byte(text)); err == nil {
			t.Errorf("%q was read as %+v", text, m)
		}
	}
}

func TestFramesToWorkersAreBounded(t *testing.T) {
	t.Parallel()
	config := json.RawMessage(`{"s":"` + strings.Repeat("x", light.FrameOutMax) + `"}`)
	if _, err := light.Encode(light.Execute{Type: light.TypeExecuteTask, Config: config}); labmesh.ReasonOf(err) != labmesh.TooLarge {
		t.Fatalf("got %v", err)
	}
	config = json.RawMessage(`{"s":"` + strings.Repeat("x", labmesh.LightConfigMax-8) + `"}`)
	if _, err := light.Encode(light.Execute{Type: light.TypeExecuteTask, Task: "t", Kind: labmesh.Custom, Config: config}); err != nil {
		t.Fatalf("the largest config that is placed: %v", err)
	}
}

func FuzzDecode(f *testing.F) {
	for _, s := range []string{
		`{"type":"auth","auth_type":"api_key","api_key":"k","worker_id":"w"}`,
		`{"type":"register","worker_id":"w","capabilities":{"hardware":["cpu"],"gpu":{"count":1e9,"devices":[{}]}}}`,
		`{"type":"heartbeat","task_status":{"task_id":"t"},"hardware_metrics":{"x":NaN}}`,
		`{"type":"task_result","task_id":"t","status":"failed","error":"e","benchmark_rows":[{}],"test_cases":[{}]}`,
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		m, err := light.Decode(data)
		if err != nil {
			return
		}
		if len(m.Worker) > 256 || len(m.Task) > 256 || len(m.Capabilities.Hardware) > 64 || m.Capabilities.GPUCount() > 1024 {
			t.Fatalf("out of bounds: %+v", m)
		}
		if len(m.Outcome.Result) > labmesh.ResultBytesMax || len(m.Outcome.Error) > 3<<10 {
			t.Fatalf("a result of %d bytes, an error of %d", len(m.Outcome.Result), len(m.Outcome.Error))
		}
		for _, raw := range []json.RawMessage{m.Outcome.Result, m.Outcome.Metrics, m.Metrics} {
			if len(raw) > 0 && !json.Valid(raw) {
				t.Fatalf("no JSON: %s", raw)
			}
		}
	})
}
