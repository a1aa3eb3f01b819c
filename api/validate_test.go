package api_test

import (
	"encoding/json"
	"fmt"
	"math"
	"strings"
	"testing"

	"labmesh"
	"labmesh/api"
)

func custom() *labmesh.Spec {
	return &labmesh.Spec{Kind: labmesh.Custom, Priority: 1, Config: json.RawMessage(`{"name":"/bin/true"}`)}
}

// pairs is n labels.
func pairs(n int) map[string]string {
	m := map[string]string{}
	for i := range n {
		m[fmt.Sprintf("k%d", i)] = "v"
	}
	return m
}

func TestValidateSpecBounds(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("é", 257)
	for _, c := range []struct {
		name  string
		set   func(*labmesh.Spec)
		field string // at fault; "" for a task that may be submitted
	}{
		{"plain", func(s *labmesh.Spec) {}, ""},
		{"no type", func(s *labmesh.Spec) { s.Kind = "" }, "type"},
		{"unknown type", func(s *labmesh.Spec) { s.Kind = "dance" }, "type"},
		{"highest priority", func(s *labmesh.Spec) { s.Priority = 1e6 }, ""},
		{"priority too high", func(s *labmesh.Spec) { s.Priority = 1e6 + 1 }, "priority"},
		{"lowest priority", func(s *labmesh.Spec) { s.Priority = -1e6 }, ""},
		{"priority too low", func(s *labmesh.Spec) { s.Priority = -1e6 - 1 }, "priority"},
		{"a year", func(s *labmesh.Spec) { s.TimeoutSeconds = 365 * 86400 }, ""},
		{"over a year", func(s *labmesh.Spec) { s.TimeoutSeconds = 365*86400 + 1 }, "timeout_seconds"},
		{"timeout below 0", func(s *labmesh.Spec) { s.TimeoutSeconds = -0.1 }, "timeout_seconds"},
		{"timeout not a number", func(s *labmesh.Spec) { s.TimeoutSeconds = math.NaN() }, "timeout_seconds"},
		{"timeout endless", func(s *labmesh.Spec) { s.TimeoutSeconds = math.Inf(1) }, "timeout_seconds"},
		{"queue timeout below 0", func(s *labmesh.Spec) { s.QueueTimeoutSeconds = -1 }, "queue_timeout_seconds"},
		{"queue timeout not a number", func(s *labmesh.Spec) { s.QueueTimeoutSeconds = math.NaN() }, "queue_timeout_seconds"},
		{"once", func(s *labmesh.Spec) { s.MaxAttempts = 1 }, ""},
		{"attempts below 0", func(s *labmesh.Spec) { s.MaxAttempts = -1 }, "max_attempts"},
		{"too many attempts", func(s *labmesh.Spec) { s.MaxAttempts = 1001 }, "max_attempts"},
		{"100 retries", func(s *labmesh.Spec) { s.Retry = &labmesh.RetryPolicy{MaxRetries: 100, BackoffSeconds: 300} }, ""},
		{"101 retries", func(s *labmesh.Spec) { s.Retry = &labmesh.RetryPolicy{MaxRetries: 101} }, "retry_policy.max_retries"},
		{"retries below 0", func(s *labmesh.Spec) { s.Retry = &labmesh.RetryPolicy{MaxRetries: -1} }, "retry_policy.max_retries"},
		{"backoff too long", func(s *labmesh.Spec) { s.Retry = &labmesh.RetryPolicy{BackoffSeconds: 301} }, "retry_policy.backoff_seconds"},
		{"backoff below 0", func(s *labmesh.Spec) { s.Retry = &labmesh.RetryPolicy{BackoffSeconds: -1} }, "retry_policy.backoff_seconds"},
		{"a good id", func(s *labmesh.Spec) { s.TaskID = "A.b_c:d-9" }, ""},
		{"longest id", func(s *labmesh.Spec) { s.TaskID = labmesh.TaskID(strings.Repeat("a", 128)) }, ""},
		{"id too long", func(s *labmesh.Spec) { s.TaskID = labmesh.TaskID(strings.Repeat("a", 129)) }, "task_id"},
		{"id with a slash", func(s *labmesh.Spec) { s.TaskID = "../x" }, "task_id"},
		{"id with a line break", func(s *labmesh.Spec) { s.TaskID = "x\n" }, "task_id"},
		{"longest key", func(s *labmesh.Spec) { s.IdempotencyKey = strings.Repeat("a", 256) }, ""},
		{"key too long", func(s *labmesh.Spec) { s.IdempotencyKey = strings.Repeat("a", 257) }, "idempotency_key"},
		{"key with NUL", func(s *labmesh.Spec) { s.IdempotencyKey = "a\x00" }, "idempotency_key"},
		{"name in another script", func(s *labmesh.Spec) { s.Name = strings.Repeat("é", 256) }, ""},
		{"name too long", func(s *labmesh.Spec) { s.Name = long }, "name"},
		{"name with a line break", func(s *labmesh.Spec) { s.Name = "a\nb" }, "name"},
		{"64 labels", func(s *labmesh.Spec) { s.Labels = pairs(64) }, ""},
		{"65 labels", func(s *labmesh.Spec) { s.Labels = pairs(65) }, "labels"},
		{"empty label", func(s *labmesh.Spec) { s.Labels = map[string]string{"": "x"} }, "labels"},
		{"label too long", func(s *labmesh.Spec) { s.Labels = map[string]string{long: "x"} }, "labels"},
		{"label value too long", func(s *labmesh.Spec) { s.Labels = map[string]string{"k": long} }, "labels.k"},
		{"env", func(s *labmesh.Spec) { s.Env = map[string]string{"_A9": "any\nthing"} }, ""},
		{"env name with =", func(s *labmesh.Spec) { s.Env = map[string]string{"A=B": "x"} }, "env"},
		{"env name empty", func(s *labmesh.Spec) { s.Env = map[string]string{"": "x"} }, "env"},
		{"env name with digit first", func(s *labmesh.Spec) { s.Env = map[string]string{"9A": "x"} }, "env"},
		{"env value with NUL", func(s *labmesh.Spec) { s.Env = map[string]string{"A": "a\x00"} }, "env.A"},
		{"env value too long", func(s *labmesh.Spec) { s.Env = map[string]string{"A": strings.Repeat("a", 128<<10+1)} }, "env.A"},
		{"too much env", func(s *labmesh.Spec) { s.Env = pairs(1025) }, "env"},
		{"requirements", func(s *labmesh.Spec) {
			s.Requirements = labmesh.Requirements{Hardware: []string{"cuda"}, MinMemoryGB: 8, MinCUDACompute: 7.5, CPUs: 2, GPUs: 1, Tags: pairs(3), WorkerID: "w"}
		}, ""},
		{"cpus below 0", func(s *labmesh.Spec) { s.Requirements.CPUs = -1 }, "requirements.cpus"},
		{"gpus below 0", func(s *labmesh.Spec) { s.Requirements.GPUs = -1 }, "requirements.gpus"},
		{"too many gpus", func(s *labmesh.Spec) { s.Requirements.GPUs = 1 << 30 }, "requirements.gpus"},
		{"memory below 0", func(s *labmesh.Spec) { s.Requirements.MinMemoryGB = -1 }, "requirements.min_memory_gb"},
		{"memory not a number", func(s *labmesh.Spec) { s.Requirements.MinMemoryGB = math.NaN() }, "requirements.min_memory_gb"},
		{"compute below 0", func(s *labmesh.Spec) { s.Requirements.MinCUDACompute = -1 }, "requirements.min_cuda_compute"},
		{"empty word", func(s *labmesh.Spec) { s.Requirements.Hardware = []string{""} }, "requirements.hardware"},
		{"too many words", func(s *labmesh.Spec) { s.Requirements.Hardware = strings.Split(strings.Repeat("a,", 65), ",") }, "requirements.hardware"},
		{"too many tags", func(s *labmesh.Spec) { s.Requirements.Tags = pairs(65) }, "requirements.tags"},
		{"worker with a line break", func(s *labmesh.Spec) { s.Requirements.WorkerID = "a\n" }, "requirements.worker_id"},
	} {
		s := custom()
		c.set(s)
		check(t, c.name, s, c.field)
	}
}

func check(t *testing.T, name string, s *labmesh.Spec, field string) {
	t.Helper()
	err := api.ValidateSpec(s)
	if field == "" {
		if err != nil {
			t.Errorf("%s: %v", name, err)
		}
		return
	}
	e, ok := err.(*labmesh.Error)
	if !ok || e.Reason != labmesh.Invalid || e.Field != field || !strings.Contains(e.Message, field) {
		t.Errorf("%s: %#v, not a refusal of %s that names it", name, err, field)
	}
}

func TestValidateSpecConfig(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		kind   labmesh.Kind
		config string
		field  string
	}{
		{labmesh.Custom, `{"name":"x","args":["a",""],"shell":true,"further":1}`, ""},
		{labmesh.Custom, ``, "config"},
		{labmesh.Custom, `null`, "config"},
		{labmesh.Custom, `[]`, "config"},
		{labmesh.Custom, `"x"`, "config"},
		{labmesh.Custom, `{}`, "config.name"},
		{labmesh.Custom, `{"name":""}`, "config.name"},
		{labmesh.Custom, `{"name":7}`, "config.name"},
		{labmesh.Custom, `{"name":"a\u0000b"}`, "config.name"},
		{labmesh.Custom, `{"name":"x","args":"a"}`, "config.args"},
		{labmesh.Custom, `{"name":"x","args":[1]}`, "config.args"},
		{labmesh.Custom, `{"name":"x","args":["ok","\u0000"]}`, "config.args[1]"},
		{labmesh.Custom, `{"name":"x","shell":"yes"}`, "config.shell"},
		{labmesh.Custom, `{"name":"x","args":["` + strings.Repeat("a", 128<<10+1) + `"]}`, "config.args[0]"},
		{labmesh.Custom, `{"name":"x","args":[` + strings.Repeat(`"",`, 10_000) + `""]}`, "config.args"},
		{labmesh.Custom, `{"name":"x","umask":"0027","dir":"a/../b"}`, ""},
		{labmesh.Custom, `{"name":"x","umask":"77","dir":"/var/tmp"}`, ""},
		{labmesh.Custom, `{"name":"x","umask":"rwx"}`, "config.umask"},
		{labmesh.Custom, `{"name":"x","umask":"1777"}`, "config.umask"},
		{labmesh.Custom, `{"name":"x","umask":18}`, "config.umask"},
		{labmesh.Custom, `{"name":"x","dir":"a/../../b"}`, "config.dir"},
		{labmesh.Test, `{"test_file":"x","dir":".."}`, "config.dir"},
		{labmesh.Test, `{"test_file":"x","umask":"8"}`, "config.umask"},
		{labmesh.Test, `{"test_file":"a_test.py","test_args":["-x"]}`, ""},
		{labmesh.Test, `{}`, "config.test_file"},
		{labmesh.Test, `{"test_file":["a"]}`, "config.test_file"},
		{labmesh.Test, `{"test_file":"a","test_args":[null,1]}`, "config.test_args"},
		{labmesh.Benchmark, `{"model":"mlp"}`, ""},
		{labmesh.Benchmark, `{"model":"bert-bas-uncased"}`, "config.model"},
		{labmesh.Benchmark, `{"model":"some/model"}`, ""},
		{labmesh.Benchmark, `{"model":"gpt2","engine":"labmesh-go"}`, "config.engine"},
		{labmesh.Benchmark, `{"model":"mlp","candidate":{"precision":"fp17"}}`, "config.precision"},
		{labmesh.Benchmark, `{"model":"mlp","batch_sizes":[1,1000000],"precision":"bf16","iterations":1000000}`, ""},
		{labmesh.Benchmark, `{}`, "config.model"},
		{labmesh.Benchmark, `{"model":"mlp","batch_sizes":[1,0]}`, "config.batch_sizes[1]"},
		{labmesh.Benchmark, `{"model":"mlp","batch_sizes":[1000001]}`, "config.batch_sizes[0]"},
		{labmesh.Benchmark, `{"model":"mlp","batch_sizes":[1.5]}`, "config.batch_sizes"},
		{labmesh.Benchmark, `{"model":"mlp","batch_sizes":[` + strings.Repeat("1,", 1024) + `1]}`, "config.batch_sizes"},
		{labmesh.Benchmark, `{"model":"mlp","precision":"fp17"}`, "config.precision"},
		{labmesh.Benchmark, `{"model":"mlp","iterations":0}`, "config.iterations"},
		{labmesh.Benchmark, `{"model":"mlp","iterations":1000001}`, "config.iterations"},
	} {
		s := &labmesh.Spec{Kind: c.kind, Config: json.RawMessage(c.config)}
		check(t, fmt.Sprintf("%s %.60s", c.kind, c.config), s, c.field)
	}
}

func TestValidateSpecBoundsTheWhole(t *testing.T) {
	t.Parallel()
	for name, set := range map[string]func(*labmesh.Spec){
		"config": func(s *labmesh.Spec) {
			s.Config = json.RawMessage(`{"name":"x","further":"` + strings.Repeat("a", 256<<10) + `"}`)
		},
		"env": func(s *labmesh.Spec) {
			v := strings.Repeat("a", 100<<10)
			s.Env = map[string]string{"A": v, "B": v, "C": v}
		},
	} {
		s := custom()
		set(s)
		if err := api.ValidateSpec(s); labmesh.ReasonOf(err) != labmesh.TooLarge {
			t.Errorf("%s: %v", name, err)
		}
	}
}
