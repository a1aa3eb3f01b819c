package bench_test

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"

	"labmesh"
	"labmesh/bench"
)

func TestConfigIsFilledInAndChecked(t *testing.T) {
	t.Parallel()
	for config, field := range map[string]string{
		`{"model":"bert-base-uncased","batch_sizes":[1,2,4,8,16],"precision":"fp16","iterations":100}`: "", // the seed's own
		`{"model":"BERT"}`:                                  "",
		`{"model":"nets/a.onnx"}`:                           "",
		`{"model":"bert-bas-uncased"}`:                      "config.model",
		`{"model":"mlp","iterations":0}`:                    "config.iterations",
		`{"model":"mlp","batch_sizes":[0]}`:                 "config.batch_sizes[0]",
		`{"model":"mlp","batch_sizes":[1000000000]}`:        "config.batch_sizes[0]",
		`{"model":"mlp","batch_sizes":[2,2]}`:               "config.batch_sizes[1]",
		`{"model":"mlp","precision":"fp17"}`:                "config.precision",
		`{"model":"mlp","engine":"command"}`:                "config.runner",
		`{"model":"mine","runner":["./r"]}`:                 "",
		`{"model":"gpt2","engine":"labmesh-go"}`:            "config.engine",
		`{"model":"mlp","device":"cuda:1"}`:                 "",
		`{"model":"mlp","device":"gpu"}`:                    "config.device",
		`{"model":"mlp","device":"cuda:one"}`:               "config.device",
		`{"model":"mlp","device":"auto:1"}`:                 "config.device",
		`{"model":"mlp","candidate":{"repeats":3}}`:         "config.candidate",
		`{"model":"mlp","candidate":{"threads":-1}}`:        "config.threads",
		`{"model":"mlp","candidate":{"candidate":{"a":1}}}`: "config.candidate",
		`[]`: "config",
	} {
		_, refused := bench.Parse(json.RawMessage(config))
		switch {
		case refused == nil && field != "":
			t.Errorf("%s was taken", config)
		case refused != nil && refused.Field != field:
			t.Errorf("%s was refused for %q (%s), not for %q", config, refused.Field, refused.Message, field)
		}
	}
	c, refused := bench.Parse(json.RawMessage(`{"model":"BERT"}`))
	if refused != nil || c.Model != "bert-base-uncased" || c.Repeats != bench.DefaultRepeats || !slices.Equal(c.BatchSizes, []int{1}) {
		t.Errorf("filled in: %+v, %v", c, refused)
	}
}

func TestCandidateTakesWhatItDoesNotSayFromTheBase(t *testing.T) {
	t.Parallel()
	c, refused := bench.Parse(json.RawMessage(`{"model":"mlp","env":{"A":"1"},"batch_sizes":[1,2],"candidate":{"threads":2,"env":{"B":"2"}}}`))
	if refused != nil {
		t.Fatal(refused)
	}
	b, refused := c.B()
	if refused != nil || b.Threads != 2 || b.Model != "mlp" || !slices.Equal(b.BatchSizes, c.BatchSizes) || b.Env["A"] != "1" || b.Env["B"] != "2" {
		t.Errorf("candidate %+v, %v", b, refused)
	}
	if c.Threads != 0 || len(c.Env) != 1 {
		t.Errorf("the base has changed: %+v", c)
	}
}

func TestNearest(t *testing.T) {
	t.Parallel()
	for name, want := range map[string]string{"bert-bas-uncased": "bert-base-uncased", "ResNet51": "resnet50", "gpt-2": "gpt2", "whisper": "", "qqqqqqqqqqqqqqqqqqqqqq": ""} {
		if got := bench.Nearest(name); got != want && want != "" || want == "" && strings.HasPrefix(name, "q") && got != "" {
			t.Errorf("nearest to %s is %q, want %q", name, got, want)
		}
	}
}

func TestPlaceAsksForWhatTheConfigNeeds(t *testing.T) {
	t.Parallel()
	for config, want := range map[string][]string{
		`{"model":"bert-base-uncased"}`:                              nil,
		`{"model":"gpt2"}`:                                           {"torch"},
		`{"model":"a.onnx"}`:                                         {"onnxruntime"},
		`{"model":"org/net"}`:                                        {"torch", "transformers"},
		`{"model":"mlp","candidate":{"engine":"torch"}}`:             {"torch"},
		`{"model":"mlp","engine":"torch","candidate":{"threads":1}}`: {"torch"},
	} {
		s := labmesh.Spec{Kind: labmesh.Benchmark, Config: json.RawMessage(config)}
		bench.Place(&s)
		if !s.Requirements.Exclusive || !slices.Equal(s.Requirements.Tools, want) {
			t.Errorf("%s: %+v, want the tools %v", config, s.Requirements, want)
		}
	}
	for config, want := range map[string][]string{
		`{"model":"mlp","device":"cpu"}`:                               {"cuda"},
		`{"model":"mlp","device":"cuda:1"}`:                            {"cuda"},
		`{"model":"mlp","device":"rocm"}`:                              {"cuda", "rocm"},
		`{"model":"mlp","device":"cuda","candidate":{"device":"mps"}}`: {"cuda", "mps"},
	} {
		had := []string{"cuda"}
		s := labmesh.Spec{Kind: labmesh.Benchmark, Config: json.RawMessage(config), Requirements: labmesh.Requirements{Hardware: had}}
		if bench.Place(&s); !slices.Equal(s.Requirements.Hardware, want) || len(had) != 1 {
			t.Errorf("%s: hardware %v, want %v", config, s.Requirements.Hardware, want)
		}
	}
	s := labmesh.Spec{Kind: labmesh.Custom}
	if bench.Place(&s); s.Requirements.Exclusive {
		t.Error("a custom task takes the whole worker")
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte(`{"model":"mlp","candidate":{"threads":2}}`))
	f.Fuzz(func(t *testing.T, raw []byte) {
		c, refused := bench.Parse(raw)
		if refused != nil {
			return
		}
		if _, refused := c.B(); refused != nil {
			t.Errorf("taken, but its candidate is refused: %v", refused)
		}
	})
}
