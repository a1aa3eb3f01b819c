package serve

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"runtime/debug"
	"strings"
	"time"

	"github.com/shirou/gopsutil/v4/cpu"
	"github.com/shirou/gopsutil/v4/mem"

	"labmesh"
	"labmesh/bench"
	"labmesh/infer"
	"labmesh/infer/gemm"
)

// KernelEnv is the variable of the environment that chooses a kernel.
const KernelEnv = "LABMESH_ENGINE_KERNEL"

const (
	specBytesMax = 1 << 20
	graceful     = 3 * time.Second // what an iteration has left to end in when the runner is asked to stop

	// The engine takes its memory outside the heap: what remains is so little that it
	// may grow fivefold before anyone looks for garbage in the middle of a measurement.
	garbagePercent = 400

	fp32 = "fp32"
)

// The codes of what is fatal.
const (
	codeSpec    = "bad_spec"
	codeModel   = "unknown_model"
	codeDevice  = "no_device"
	codeParams  = "params"
	codeMemory  = "out_of_memory"
	codeFailure = "internal"
)

// fatal is the end of a run before its time.
type fatal struct{ code, message string }

func (f fatal) Error() string { return f.message }

// Run is the runner: it reads a spec from in and measures what it asks for, or with probe
// sees whether the engine works here, and writes events to out. When ctx ends it finishes the iteration under way
// and says what it has. An error has been said on out too, unless that was what failed.
func Run(ctx context.Context, in io.Reader, out io.Writer, probe bool) error {
	r := &runner{start: time.Now(), out: json.NewEncoder(out)}
	err := r.run(ctx, in, probe)
	var f fatal
	if errors.As(err, &f) {
		err = errors.Join(err, r.say(bench.Event{Kind: bench.EventFatal, Code: f.code, Message: f.message}))
	}
	if !probe {
		err = errors.Join(err, r.say(bench.Event{Kind: bench.EventDone, TotalS: new(time.Since(r.start).Seconds())}))
	}
	return err
}

// runner is one run and what it has said.
type runner struct {
	start time.Time
	out   *json.Encoder
	seq   int
	lost  error // why nothing more can be said
	spec  bench.Spec
}

// say writes an event. After an error all others fail with it.
func (r *runner) say(e bench.Event) error {
	if r.lost != nil {
		return r.lost
	}
	r.seq++
	e.V, e.Seq, e.T = bench.Protocol, r.seq, time.Since(r.start).Seconds()
	if err := r.out.Encode(e); err != nil {
		r.lost = fmt.Errorf("say %s: %w", e.Kind, err)
	}
	return r.lost
}

func (r *runner) run(ctx context.Context, in io.Reader, probe bool) error {
	kernel, err := gemm.Choose(os.Getenv(KernelEnv))
	if err != nil {
		return fatal{codeSpec, KernelEnv + ": " + err.Error()}
	}
	data, err := io.ReadAll(io.LimitReader(in, specBytesMax))
	if err != nil {
		return fatal{codeSpec, "read the spec: " + err.Error()}
	}
	if err := json.Unmarshal(data, &r.spec); err != nil {
		return fatal{codeSpec, "the spec is no JSON of ours: " + err.Error()}
	}
	if r.spec.V != bench.Protocol {
		return fatal{codeSpec, fmt.Sprintf("the spec is of version %d of the protocol, this runner speaks %d", r.spec.V, bench.Protocol)}
	}
	if probe {
		return r.probe(ctx, kernel)
	}
	r.spec.Precision = cmp.Or(r.spec.Precision, fp32)
	if err := r.hello(kernel); err != nil {
		return err
	}
	if f := r.check(); f != nil {
		return *f
	}
	return r.measure(ctx, kernel)
}

// check refuses a spec that this engine cannot follow whatever the batch.
func (r *runner) check() *fatal {
	class, index, _ := strings.Cut(r.spec.Device, ":")
	switch {
	case class != "" && class != "auto" && class != "cpu" || index != "" && index != "0" || r.spec.DeviceUUID != "":
		return &fatal{codeDevice, fmt.Sprintf("labmesh-go runs on the processor only, not on %.60q", cmp.Or(r.spec.DeviceUUID, r.spec.Device))}
	case r.spec.Source == "hf" || r.spec.Source == "file":
		return &fatal{codeModel, fmt.Sprintf("labmesh-go has models of its own only, none from %s", r.spec.Source)}
	case len(r.spec.BatchSizes) == 0 || len(r.spec.BatchSizes) > bench.BatchSizesMax:
		return &fatal{codeSpec, fmt.Sprintf("batch_sizes: there are %d, not 1 to %d", len(r.spec.BatchSizes), bench.BatchSizesMax)}
	case r.spec.Threads < 0 || r.spec.Threads > bench.ThreadsMax:
		return &fatal{codeSpec, fmt.Sprintf("threads: %d is not in 0 to %d", r.spec.Threads, bench.ThreadsMax)}
	case r.spec.Iterations < 0 || r.spec.Iterations > bench.IterationsMax || r.spec.WarmupIterations < 0 || r.spec.WarmupIterations > bench.IterationsMax:
		return &fatal{codeSpec, fmt.Sprintf("iterations: they are not in 0 to %d", bench.IterationsMax)}
	}
	for _, n := range r.spec.BatchSizes {
		if n < 1 || n > bench.BatchSizeMax {
			return &fatal{codeSpec, fmt.Sprintf("batch_sizes: %d is not in 1 to %d", n, bench.BatchSizeMax)}
		}
	}
	return nil
}

func (r *runner) hello(k *gemm.Kernel) error {
	env, err := json.Marshal(map[string]string{"go": runtime.Version(), "os": runtime.GOOS, "arch": runtime.GOARCH, "kernel": k.Name})
	if err != nil {
		return fatal{codeFailure, err.Error()}
	}
	return r.say(bench.Event{Kind: bench.EventHello, Runner: bench.EngineBuiltIn, RunnerVersion: infer.Version, Pid: os.Getpid(), Devices: []bench.Device{processor()}, Env: env})
}

// processor is the one device of this engine.
func processor() bench.Device {
	d := bench.Device{Class: "cpu"}
	if info, err := cpu.Info(); err == nil && len(info) > 0 {
		d.Name = strings.TrimSpace(info[0].ModelName)
	}
	if vm, err := mem.VirtualMemory(); err == nil {
		d.MemoryGB = float64(vm.Total) / (1 << 30)
	}
	return d
}

// probe says hello once the processor has shown that it can do what the kernel asks of it.
func (r *runner) probe(ctx context.Context, k *gemm.Kernel) error {
	if err := infer.Check(ctx, k); err != nil {
		return fatal{codeFailure, err.Error()}
	}
	return r.hello(k)
}

// measure makes the model and measures each batch size.
func (r *runner) measure(ctx context.Context, k *gemm.Kernel) error {
	threads := r.spec.Threads
	if threads == 0 {
		threads = runtime.GOMAXPROCS(0)
	}
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(threads))
	defer debug.SetGCPercent(debug.SetGCPercent(garbagePercent))

	unsupported := r.spec.Precision != fp32 && r.spec.Fallback != fp32
	if unsupported {
		return r.refuse()
	}
	began := time.Now()
	m, err := infer.Load(ctx, infer.Options{Model: r.spec.Model, SequenceLength: r.spec.SequenceLength, ImageSize: r.spec.ImageSize, Seed: r.spec.Seed, Kernel: k, Threads: threads})
	switch {
	case ctx.Err() != nil:
		return nil // it was asked to stop before there was anything to say
	case err != nil:
		return loadFailed(err)
	}
	defer m.Close()
	if err := r.describe(m, time.Since(began)); err != nil {
		return err
	}
	abandon, cancel := later(ctx, graceful)
	defer cancel()
	for _, n := range r.spec.BatchSizes {
		if ctx.Err() != nil {
			return nil
		}
		if err := r.batch(ctx, abandon, m, n); err != nil {
			return err
		}
	}
	return nil
}

func loadFailed(err error) fatal {
	var shape infer.InputError
	var unknown infer.UnknownError
	var count infer.CountError
	switch {
	case errors.As(err, &shape):
		return fatal{codeSpec, err.Error()}
	case errors.As(err, &unknown):
		return fatal{codeModel, err.Error()}
	case errors.As(err, &count):
		return fatal{codeParams, err.Error()}
	case errors.Is(err, infer.ErrMemory):
		return fatal{codeMemory, err.Error()}
	}
	return fatal{codeFailure, err.Error()}
}

// later is a context that ends so long after ctx does.
func later(ctx context.Context, wait time.Duration) (context.Context, context.CancelFunc) {
	out, cancel := context.WithCancel(context.WithoutCancel(ctx))
	stop := context.AfterFunc(ctx, func() {
		t := time.NewTimer(wait)
		defer t.Stop()
		select {
		case <-t.C:
		case <-out.Done():
		}
		cancel()
	})
	return out, func() { stop(); cancel() }
}

// describe says what the model is.
func (r *runner) describe(m *infer.Model, took time.Duration) error {
	e := bench.Event{
		Kind: bench.EventModel, Name: m.Name, Source: "builtin", Weights: "random", Params: m.Params, ParamBytes: m.ParamBytes(), FLOPs: m.FLOPs(), Shape: m.Shape,
		LoadS: new(took.Seconds()), Requested: r.spec.Precision, Effective: fp32, Cast: "native", Kernel: m.Kernel(),
		DeviceClass: "cpu", DeviceName: processor().Name, Threads: m.Threads(),
	}
	if r.spec.Precision != fp32 {
		e.Notes = append(e.Notes, fmt.Sprintf("labmesh-go computes in fp32 only: it runs that in place of %s", r.spec.Precision))
	}
	for _, option := range []struct {
		asked bool
		name  string
	}{{r.spec.Compile, "compile"}, {r.spec.TF32, "tf32"}, {r.spec.Cast == "autocast", "autocast"}} {
		if option.asked {
			e.Notes = append(e.Notes, option.name+" means nothing to labmesh-go")
		}
	}
	return r.say(e)
}

// refuse answers for each batch size that the precision asked for is not to be had.
func (r *runner) refuse() error {
	known, ok := bench.FindModel(r.spec.Model)
	if !ok || !known.BuiltIn {
		return loadFailed(infer.UnknownError{Name: r.spec.Model})
	}
	if err := r.say(bench.Event{Kind: bench.EventModel, Name: known.Name, Source: "builtin", Weights: "random", Params: known.Params, Requested: r.spec.Precision, DeviceClass: "cpu", DeviceName: processor().Name}); err != nil {
		return err
	}
	why := fmt.Sprintf("labmesh-go computes in fp32 only, not in %.20s; with on_unsupported_precision fp32 it would run that", r.spec.Precision)
	for _, n := range r.spec.BatchSizes {
		if err := errors.Join(r.say(bench.Event{Kind: bench.EventBatchStart, Batch: n}), r.end(bench.Event{Batch: n, Status: labmesh.BenchUnsupported, Reason: why})); err != nil {
			return err
		}
	}
	return nil
}

func (r *runner) end(e bench.Event) error {
	e.Kind = bench.EventBatchEnd
	return r.say(e)
}
