package serve

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"strings"
	"testing"
	"time"

	"labmesh"
	"labmesh/bench"
)

// These tests run one after another: a runner sets how many threads the whole process has.

func run(t *testing.T, ctx context.Context, spec string, probe bool) ([]bench.Event, error) {
	t.Helper()
	var out bytes.Buffer
	err := Run(ctx, strings.NewReader(spec), &out, probe)
	return events(t, &out), err
}

// events reads what a runner said, and sees that it keeps to the protocol.
func events(t *testing.T, out io.Reader) (all []bench.Event) {
	t.Helper()
	last := 0.0
	for d := json.NewDecoder(out); d.More(); {
		var e bench.Event
		if err := d.Decode(&e); err != nil {
			t.Fatal(err)
		}
		if e.V != bench.Protocol || e.Seq != len(all)+1 || e.T < last {
			t.Fatalf("after %d events: %+v", len(all), e)
		}
		last, all = e.T, append(all, e)
	}
	return all
}

func kinds(all []bench.Event) string {
	var out []string
	for _, e := range all {
		if len(out) == 0 || out[len(out)-1] != string(e.Kind) { // samples may come in any number of events
			out = append(out, string(e.Kind))
		}
	}
	return strings.Join(out, " ")
}

func only(t *testing.T, all []bench.Event, kind bench.EventKind) (out []bench.Event) {
	t.Helper()
	for _, e := range all {
		if e.Kind == kind {
			out = append(out, e)
		}
	}
	return out
}

const quick = `"iterations":20,"warmup_iterations":2,"max_seconds_per_batch":20,"threads":1`

func TestAMeasurement(t *testing.T) {
	all, err := run(t, t.Context(), `{"v":1,"model":"mlp","device":"cpu","precision":"fp32","batch_sizes":[2,1],`+quick+`}`, false)
	if err != nil {
		t.Fatal(err)
	}
	if got, want := kinds(all), "hello model batch_start warmup samples batch_end batch_start warmup samples batch_end done"; got != want {
		t.Fatalf("%s, not %s", got, want)
	}
	m := only(t, all, bench.EventModel)[0]
	if m.Params != 25_076_712 || m.Requested != fp32 || m.Effective != fp32 || m.Threads != 1 || m.Kernel == "" || m.LoadS == nil || m.FLOPs != 2*(1024*4096+4096*4096+4096*1000) || m.Shape["features"] != 1024 {
		t.Errorf("%+v", m)
	}
	for i, e := range only(t, all, bench.EventBatchEnd) {
		if e.Batch != 2-i || e.Status != labmesh.BenchOK || e.N != 20 || e.WallS == nil || e.CPUMS == nil || *e.CPUMS <= 0 || e.Finite == nil || !*e.Finite || e.Checksum == "" {
			t.Errorf("%+v", e)
		}
		if e.HostPeak != nil && *e.HostPeak < m.ParamBytes {
			t.Errorf("a peak of %d bytes is less than the weights", *e.HostPeak)
		}
	}
	next, sum := 0, 0.0
	for _, e := range only(t, all, bench.EventSamples) {
		if e.Batch == 2 && e.I0 != next {
			t.Errorf("samples go on at %d, not %d", e.I0, next)
		}
		if e.Batch == 2 {
			next += len(e.MS)
			for _, ms := range e.MS {
				sum += ms[0]
			}
		}
	}
	if end := only(t, all, bench.EventBatchEnd)[0]; next != 20 || sum > *end.WallS*1000 {
		t.Errorf("%d samples of %v ms in all, %v s", next, sum, *end.WallS)
	}
}

func TestProbe(t *testing.T) {
	all, err := run(t, t.Context(), `{"v":1}`, true)
	if err != nil || kinds(all) != "hello" || len(all[0].Devices) != 1 || all[0].Devices[0].Class != "cpu" || all[0].Runner != bench.EngineBuiltIn {
		t.Errorf("%+v, %v", all, err)
	}
}

func TestKernelsComeToTheSame(t *testing.T) {
	var sums []string
	for _, kernel := range []string{"", "scalar"} {
		t.Setenv(KernelEnv, kernel)
		all, err := run(t, t.Context(), `{"v":1,"model":"resnet-18","image_size":64,"precision":"fp32","batch_sizes":[1],"iterations":1,"warmup_iterations":1,"threads":2}`, false)
		if err != nil {
			t.Fatal(err)
		}
		if m := only(t, all, bench.EventModel)[0]; m.Name != "resnet18" || kernel != "" && m.Kernel != kernel {
			t.Errorf("%+v", m)
		}
		sums = append(sums, only(t, all, bench.EventBatchEnd)[0].Checksum)
	}
	if a, b := sums[0], sums[1]; a[:6] != b[:6] { // the last digits may differ
		t.Errorf("%s and %s", a, b)
	}
}

func TestABatchThatIsTooLargeIsOOMAndTheNextGoesOn(t *testing.T) {
	all, err := run(t, t.Context(), `{"v":1,"model":"resnet18","image_size":2048,"precision":"fp32","batch_sizes":[1000000],`+quick+`}`, false)
	ends := only(t, all, bench.EventBatchEnd)
	if err != nil || len(ends) != 1 || ends[0].Status != labmesh.BenchOOM || !strings.Contains(ends[0].Reason, "TiB") {
		t.Errorf("%+v, %v", ends, err)
	}
	all, err = run(t, t.Context(), `{"v":1,"model":"mlp","precision":"fp32","batch_sizes":[1000000,1],`+quick+`}`, false)
	if ends = only(t, all, bench.EventBatchEnd); err != nil || len(ends) != 2 || ends[0].Status != labmesh.BenchOOM || ends[1].Status != labmesh.BenchOK {
		t.Errorf("%+v, %v", ends, err)
	}
}

func TestPrecisionsThatAreNotThere(t *testing.T) {
	all, err := run(t, t.Context(), `{"v":1,"model":"bert","precision":"fp16","batch_sizes":[1,2],`+quick+`}`, false)
	if ends := only(t, all, bench.EventBatchEnd); err != nil || len(ends) != 2 || ends[1].Status != labmesh.BenchUnsupported || !strings.Contains(ends[1].Reason, "fp32 only") {
		t.Errorf("%+v, %v", ends, err)
	}
	all, err = run(t, t.Context(), `{"v":1,"model":"mlp","precision":"int8","on_unsupported_precision":"fp32","batch_sizes":[1],`+quick+`}`, false)
	if err != nil {
		t.Fatal(err)
	}
	m, ends := only(t, all, bench.EventModel)[0], only(t, all, bench.EventBatchEnd)
	if m.Requested != "int8" || m.Effective != fp32 || len(m.Notes) != 1 || ends[0].Status != labmesh.BenchOK {
		t.Errorf("%+v, %+v", m, ends)
	}
}

func TestTimeThatIsUp(t *testing.T) {
	all, err := run(t, t.Context(), `{"v":1,"model":"mlp","batch_sizes":[1],"iterations":1000000,"warmup_iterations":1,"max_seconds_per_batch":0.3,"threads":1}`, false)
	ends := only(t, all, bench.EventBatchEnd)
	if err != nil || len(ends) != 1 || ends[0].Status != labmesh.BenchTruncated || ends[0].N < 1 || ends[0].N >= 1_000_000 || ends[0].Reason == "" {
		t.Errorf("%+v, %v", ends, err)
	}
}

// stopAt ends a context when a runner says something.
type stopAt struct {
	io.Writer
	word string
	stop context.CancelFunc
}

func (s stopAt) Write(p []byte) (int, error) {
	if bytes.Contains(p, []byte(s.word)) {
		s.stop()
	}
	return s.Writer.Write(p)
}

func TestStoppedItSaysWhatItHas(t *testing.T) {
	for word, want := range map[string]string{
		`"batch_start"`: "hello model batch_start batch_end done",
		`"samples"`:     "hello model batch_start warmup samples batch_end done",
	} {
		ctx, stop := context.WithCancel(t.Context())
		var out bytes.Buffer
		err := Run(ctx, strings.NewReader(`{"v":1,"model":"mlp","precision":"fp32","batch_sizes":[1,2],"iterations":1000000,"warmup_iterations":1,"threads":1}`), stopAt{&out, word, stop}, false)
		all := events(t, &out)
		ends := only(t, all, bench.EventBatchEnd)
		if err != nil || kinds(all) != want || ends[0].Status != labmesh.BenchCancelled || len(ends) != 1 {
			t.Errorf("%s: %s, %+v, %v", word, kinds(all), ends, err)
		}
		stop()
	}
}

func TestAContextEndsLater(t *testing.T) {
	ctx, stop := context.WithCancel(t.Context())
	after, cancel := later(ctx, time.Millisecond)
	defer cancel()
	if after.Err() != nil {
		t.Error("it ended before")
	}
	stop()
	<-after.Done()
}

func TestWhatIsFatal(t *testing.T) {
	for spec, code := range map[string]string{
		``:        codeSpec,
		`[]`:      codeSpec,
		`{"v":2}`: codeSpec,
		`{"v":1,"model":"mlp","precision":"fp32"}`:                                                         codeSpec,
		`{"v":1,"model":"mlp","precision":"fp32","batch_sizes":[0]}`:                                       codeSpec,
		`{"v":1,"model":"mlp","precision":"fp32","batch_sizes":[1000000001]}`:                              codeSpec,
		`{"v":1,"model":"mlp","precision":"fp32","batch_sizes":[1],"threads":-1}`:                          codeSpec,
		`{"v":1,"model":"mlp","precision":"fp32","batch_sizes":[1],"iterations":-1}`:                       codeSpec,
		`{"v":1,"model":"bert","precision":"fp32","batch_sizes":[1],"sequence_length":513}`:                codeSpec,
		`{"v":1,"model":"gpt2","precision":"fp32","batch_sizes":[1]}`:                                      codeModel,
		`{"v":1,"model":"gpt2","precision":"fp16","batch_sizes":[1]}`:                                      codeModel,
		`{"v":1,"model":"mlp","source":"hf","precision":"fp32","batch_sizes":[1]}`:                         codeModel,
		`{"v":1,"model":"mlp","device":"cuda","precision":"fp32","batch_sizes":[1]}`:                       codeDevice,
		`{"v":1,"model":"mlp","device":"cpu:1","precision":"fp32","batch_sizes":[1]}`:                      codeDevice,
		`{"v":1,"model":"mlp","device":"auto","device_uuid":"GPU-1","precision":"fp32","batch_sizes":[1]}`: codeDevice,
	} {
		all, err := run(t, t.Context(), spec, false)
		if err == nil || len(all) < 2 || all[len(all)-2].Kind != bench.EventFatal || all[len(all)-2].Code != code || all[len(all)-2].Message == "" {
			t.Errorf("%s: %+v, %v", spec, all, err)
		}
	}
	t.Setenv(KernelEnv, "abacus")
	if _, err := run(t, t.Context(), `{"v":1}`, true); err == nil {
		t.Error("there is no such kernel")
	}
}

type broken struct{}

func (broken) Write([]byte) (int, error) { return 0, errors.New("nobody listens") }

func TestNobodyListens(t *testing.T) {
	if err := Run(t.Context(), strings.NewReader(`{"v":1,"model":"mlp","precision":"fp32","batch_sizes":[1],`+quick+`}`), broken{}, false); err == nil {
		t.Error("it did not notice")
	}
}

func FuzzSpec(f *testing.F) {
	f.Add(`{"v":1,"model":"mlp","precision":"fp32","batch_sizes":[1]}`)
	f.Add(`{"v":1,"model":"bert","precision":"fp16","batch_sizes":[1,2],"threads":3}`)
	f.Fuzz(func(t *testing.T, spec string) {
		ended, stop := context.WithCancel(t.Context())
		stop() // nothing is loaded
		all, _ := run(t, ended, spec, false)
		if len(all) == 0 || all[len(all)-1].Kind != bench.EventDone {
			t.Errorf("%+v", all)
		}
	})
}
