package httpapi

import (
	"bytes"
	"encoding/json"
	"fmt"
	"reflect"
	"strings"
	"testing"

	"labmesh"
	"labmesh/api"
)

const custom = `{"type":"custom","config":{"name":"/bin/true"}}`

func TestDecodeSubmitRefuses(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ body, field, message string }{
		{`{}`, "type", "Missing required field: type"},
		{`null`, "type", "Missing required field: type"},
		{`{"priority":3}`, "type", "Missing required field: type"},
		{`{"type":""}`, "type", "Missing required field: type"},
		{`{"type":null}`, "type", "Missing required field: type"},
		{`{"type":"dance"}`, "type", `type: "dance" is not one of benchmark, test, custom`},
		{`{"type":7}`, "type", "type: it should be a string, not number"},
		{`{"type":"custom","colour":"red"}`, "colour", "Unknown field: colour"},
		{`{"type":"custom","requirements":{"color":1}}`, "color", "Unknown field: color"},
		{`{"type":"custom","priority":"high"}`, "priority", "priority: it should be an integer, not string"},
		{`{"type":"custom","priority":1.5}`, "priority", "priority: it should be an integer, not number 1.5"},
		{`{"type":"custom","priority":99999999999999999999}`, "priority", "priority: it should be an integer, not number 99999999999999999999"},
		{`{"type":"custom","timeout_seconds":1e999}`, "timeout_seconds", "timeout_seconds: it should be a number, not number 1e999"},
		{`{"type":"custom","labels":[]}`, "labels", "labels: it should be an object, not array"},
		{`{"type":"custom","labels":{"a":1}}`, "labels", "labels: it should be a string, not number"},
		{`{"type":"custom","requirements":{"hardware":"cuda"}}`, "requirements.hardware", "requirements.hardware: it should be a list, not string"},
		{`{"type":"custom","requirements":{"exclusive":1}}`, "requirements.exclusive", "requirements.exclusive: it should be true or false, not number"},
		{`{"type":"custom","retry_policy":{"max_retries":"2"}}`, "retry_policy.max_retries", "retry_policy.max_retries: it should be an integer, not string"},
		{`{"type":"custom","config":{"name":"x"},"bundle":"x"}`, "bundle", `bundle: "x" is no content id: it is 64 hexadecimal digits, as an upload of a bundle answers`},
		{`{"type":"custom","config":{"name":"x"},"artifacts":["../x"]}`, "artifacts", `artifacts: "../x" is no pattern for files in the work directory: 1 to 1024 bytes, no .. and no control character`},
		{`{"type":"custom","config":{"name":"x"},"limits":{"pids":-1}}`, "limits.pids", "limits.pids: -1 is not in 0 to 4194304"},
		{`{"type":"custom","config":{"name":"x"},"requirements":{"sandbox":"sand"}}`, "requirements.sandbox", `requirements.sandbox: "sand" is no sandbox: there are [no_network bubblewrap]`},
		{`[]`, "", "a JSON object is needed here, not array"},
		{`"custom"`, "", "a JSON object is needed here, not string"},
		{``, "", "Malformed JSON at byte 0: unexpected end of JSON input"},
		{`{"type":"custom"`, "", "Malformed JSON at byte 16: unexpected end of JSON input"},
		{`{"type":"custom",}`, "", "Malformed JSON at byte 18: invalid character '}' looking for beginning of object key string"},
		{`{'type':1}`, "", "Malformed JSON at byte 2: invalid character '\\'' looking for beginning of object key string"},
		{custom + ` {}`, "", "Malformed JSON at byte 49: something follows the value"},
		{custom + `x`, "", "Malformed JSON at byte 48: something follows the value"},
	} {
		s, err := decodeSubmit([]byte(c.body))
		e, ok := err.(*labmesh.Error)
		if !ok || e.Reason != labmesh.Invalid || e.Field != c.field || e.Message != c.message {
			t.Errorf("%s: %+v, %#v", c.body, s, err)
		}
	}
}

func TestDecodeSubmitReadsEveryField(t *testing.T) {
	t.Parallel()
	body := `{"type":"custom","priority":-3,"config":{"name":"x","args":["a"]},"requirements":{"hardware":["cuda"],"min_memory_gb":8,
		"min_cuda_compute":7.5,"cpus":2,"gpus":1,"exclusive":true,"tags":{"site":"lab-2"},"worker_id":"w"},
		"task_id":"t-1","idempotency_key":"k","name":"n","labels":{"a":"b"},"timeout_seconds":600,"queue_timeout_seconds":3600,
		"retry_policy":{"max_retries":2,"backoff_seconds":1},"max_attempts":3,"env":{"A":"b"}}` + "\n\t "
	got, err := decodeSubmit([]byte(body))
	if err != nil {
		t.Fatal(err)
	}
	want := labmesh.Spec{
		Kind: labmesh.Custom, Priority: -3, Config: json.RawMessage(`{"name":"x","args":["a"]}`),
		Requirements: labmesh.Requirements{
			Hardware: []string{"cuda"}, MinMemoryGB: 8, MinCUDACompute: 7.5, CPUs: 2, GPUs: 1, Exclusive: true,
			Tags: map[string]string{"site": "lab-2"}, WorkerID: "w",
		},
		TaskID: "t-1", IdempotencyKey: "k", Name: "n", Labels: map[string]string{"a": "b"}, Env: map[string]string{"A": "b"},
		TimeoutSeconds: 600, QueueTimeoutSeconds: 3600, MaxAttempts: 3, Retry: &labmesh.RetryPolicy{MaxRetries: 2, BackoffSeconds: 1},
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v", got)
	}
	if s, err := decodeSubmit([]byte(custom)); err != nil || s.Priority != api.PriorityDefault {
		t.Errorf("without a priority: %d, %v", s.Priority, err)
	}
	if s, err := decodeSubmit([]byte(`{"type":"custom","priority":0,"config":{"name":"x"}}`)); err != nil || s.Priority != 0 {
		t.Errorf("with priority 0: %d, %v", s.Priority, err)
	}
}

func TestDecodeBatchRefuses(t *testing.T) {
	t.Parallel()
	three := custom + "," + custom + ","
	for _, c := range []struct {
		body, field, message string
		reason               labmesh.Reason
	}{
		{`{}`, "tasks", "Missing required field: tasks", ""},
		{`{"tasks":[]}`, "tasks", "tasks: there are none", ""},
		{`{"tasks":{}}`, "", "tasks: it should be a list", ""},
		{`[]`, "", "the body should be an object", ""},
		{`{"jobs":[]}`, "jobs", "Unknown field: jobs", ""},
		{`{"tasks":[` + custom + `],"tasks":[]}`, "tasks", "tasks: it is there twice", ""},
		{`{"tasks":[` + three + `{"type":"custom","priority":"x"}]}`, "tasks[2].priority", "tasks[2].priority: it should be an integer, not string", ""},
		{`{"tasks":[` + three + `{"type":"custom","config":{}}]}`, "tasks[2].config.name", "tasks[2]: Missing required field: config.name", ""},
		{`{"tasks":[` + three + `{}]}`, "tasks[2].type", "tasks[2]: Missing required field: type", ""},
		{`{"tasks":[` + three + `7]}`, "tasks[2]", "tasks[2]: a JSON object is needed here, not number", ""},
		{`{"tasks":[` + three + `{"type":"custom","bundle":1}]}`, "tasks[2].bundle", "tasks[2].bundle: it should be a string, not number", ""},
		{`{"tasks":[` + three + `{"type":"custom","x":1}]}`, "tasks[2].x", "tasks[2]: Unknown field: x", ""},
		{`{"tasks":[` + custom + `,{"type":}]}`, "tasks[1]", "tasks[1]: Malformed JSON at byte 67: invalid character '}' looking for beginning of value", ""},
		{`{"tasks":[` + custom, "", "Malformed JSON at byte 57: unexpected end of JSON input", ""},
		{`{"tasks":[` + custom + `]`, "", "Malformed JSON at byte 58: unexpected end of JSON input", ""},
		{`{"tasks":[` + custom + `]} x`, "", "Malformed JSON at byte 61: something follows the value", ""},
		{`{"tasks":[` + three + custom + "," + custom + `]}`, "", "tasks: there are more than 3", labmesh.TooLarge},
	} {
		_, err := decodeBatch([]byte(c.body), 3)
		want := c.reason
		orElse(&want, labmesh.Invalid)
		e, ok := err.(*labmesh.Error)
		if !ok || e.Reason != want || e.Field != c.field || e.Message != c.message {
			t.Errorf("%s: %#v", c.body, err)
		}
	}
}

func TestDecodeBatchGivesEachTaskItsOwnFields(t *testing.T) {
	t.Parallel()
	specs, err := decodeBatch([]byte(`{"tasks":[{"type":"custom","priority":5,"labels":{"a":"b"},"config":{"name":"x"}},`+custom+`]}`), 10)
	if err != nil || len(specs) != 2 {
		t.Fatalf("%d tasks, %v", len(specs), err)
	}
	if s := specs[1]; s.Priority != api.PriorityDefault || s.Labels != nil || string(s.Config) != `{"name":"/bin/true"}` {
		t.Errorf("the second task has something of the first: %+v", s)
	}
}

// FuzzDecodeSubmit holds that a body is either refused with a reason or gives a
// task that survives the way through JSON and still may be submitted.
func FuzzDecodeSubmit(f *testing.F) {
	for _, s := range []string{
		custom, `{}`, `{"type":"benchmark","config":{"model":"m","batch_sizes":[1,2],"precision":"fp16","iterations":3}}`,
		`{"type":"test","config":{"test_file":"a","test_args":["-x"]},"retry_policy":{"max_retries":1}}`, `[1]`, `{"type":"custom","config":null}`,
		`{"type":"custom","config":{"name":"` + "\xff" + `"}}`, `{"type":"custom","config":{"name":"a"},"env":{"A":"\u0000"}}`, custom + `{`,
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		for _, in := range [][]byte{body, fmt.Appendf(nil, `{"tasks":[%s]}`, body)} {
			if _, err := decodeBatch(in, 5); err != nil && labmesh.ReasonOf(err) == labmesh.Internal {
				t.Fatalf("decode a batch: %v", err)
			}
		}
		s, err := decodeSubmit(body)
		if err != nil {
			if r := labmesh.ReasonOf(err); r != labmesh.Invalid && r != labmesh.TooLarge || err.Error() == "" {
				t.Fatalf("refused with reason %s: %v", r, err)
			}
			return
		}
		line, err := labmesh.EncodeCommand(labmesh.SubmitTask{ID: "t", Spec: s})
		if err != nil || bytes.ContainsRune(line, '\n') {
			t.Fatalf("it cannot enter the log: %v: %q", err, line)
		}
		data, _ := json.Marshal(s)
		if again, err := decodeSubmit(data); err != nil {
			t.Fatalf("what was accepted is refused when it comes again: %v: %s: %+v", err, data, again)
		}
	})
}

// typical is a task of the length that users send.
const typical = `{"type":"benchmark","priority":5,"config":{"model":"resnet50","batch_sizes":[1,2,4,8],"precision":"fp16","iterations":100},` +
	`"requirements":{"hardware":["cuda"],"min_memory_gb":8,"gpus":1},"labels":{"commit":"0123abcd","branch":"main"},"timeout_seconds":600}`

func BenchmarkDecodeSubmit(b *testing.B) {
	for name, body := range map[string]string{"short": custom, "typical": typical} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			b.SetBytes(int64(len(body)))
			for b.Loop() {
				if _, err := decodeSubmit([]byte(body)); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func BenchmarkDecodeBatch(b *testing.B) {
	for name, task := range map[string]string{"short": custom, "typical": typical} {
		b.Run(name, func(b *testing.B) {
			body := []byte(`{"tasks":[` + strings.Repeat(task+",", api.BatchTasksMax-1) + task + `]}`)
			b.ReportAllocs()
			b.SetBytes(int64(len(body)))
			for b.Loop() {
				if _, err := decodeBatch(body, api.BatchTasksMax); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64(b.N)*api.BatchTasksMax/b.Elapsed().Seconds(), "tasks/s")
		})
	}
}

// BenchmarkSubmitRequest is all that the API does for one submit, the network left out.
func BenchmarkSubmitRequest(b *testing.B) {
	f := newFake()
	a, _ := newAPI(b, f)
	f.submit = func([]labmesh.Spec) { f.tasks = f.tasks[:0] }
	b.ReportAllocs()
	for b.Loop() {
		if w := do(a, "POST", "/api/tasks", typical); w.Code != 200 {
			b.Fatal(w.Body)
		}
	}
}
