package bench

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"labmesh"
)

// The engines. A task that asks for auto, or nothing, leaves the choice to the worker.
const (
	EngineAuto    = "auto"
	EngineTorch   = "torch"
	EngineONNX    = "onnxruntime"
	EngineBuiltIn = "labmesh-go"
	EngineCommand = "command" // a runner of the task's own, see [Config].Runner
)

// deviceAuto leaves the device to what the requirements ask for.
const deviceAuto = "auto"

// Engines lists every engine that a task may ask for.
func Engines() []string {
	return []string{EngineAuto, EngineTorch, EngineONNX, EngineBuiltIn, EngineCommand}
}

// Precisions lists the number formats that a task may ask for.
func Precisions() []string {
	return []string{"fp64", "fp32", "tf32", "fp16", "bf16", "fp8", "int8", "int4", "mixed"}
}

// Sources lists where a model may come from: whatever is there; the Hugging Face
// cache or library of the worker; the definitions in our own engines; a file of the bundle.
func Sources() []string { return []string{"auto", "hf", "builtin", "file"} }

// Limits on a config.
const (
	BatchSizesMax = 64
	BatchSizeMax  = 1_000_000
	IterationsMax = 1_000_000
	RepeatsMax    = 100
	SecondsMax    = 24 * 3600
	ThreadsMax    = 4096
	LengthMax     = 1 << 20
	RunnerArgsMax = 100
	ModelBytesMax = 500

	DeviceIndexMax = 255
)

// Config is the config of a benchmark task. [Parse] fills in what is not said.
type Config struct {
	Model  string   `json:"model"`
	Source string   `json:"model_source,omitempty"`
	Engine string   `json:"engine,omitempty"`
	Runner []string `json:"runner,omitempty"` // a program of the bundle, or of the machine, that speaks the protocol, with its arguments

	Device     string `json:"device,omitempty"`
	DeviceUUID string `json:"device_uuid,omitempty"`
	Precision  string `json:"precision,omitempty"`
	Fallback   string `json:"on_unsupported_precision,omitempty"`
	Cast       string `json:"cast,omitempty"`

	BatchSizes     []int `json:"batch_sizes,omitempty"`
	SequenceLength int   `json:"sequence_length,omitempty"`
	ImageSize      int   `json:"image_size,omitempty"`

	Iterations       int     `json:"iterations,omitempty"`
	MinSeconds       float64 `json:"min_seconds,omitempty"`
	MaxSeconds       float64 `json:"max_seconds_per_batch,omitempty"`
	WarmupIterations int     `json:"warmup_iterations,omitempty"`
	WarmupSeconds    float64 `json:"warmup_min_seconds,omitempty"`
	Repeats          int     `json:"repeats,omitempty"`       // launches of the runner, each a run of its own
	QuietSeconds     float64 `json:"quiet_seconds,omitempty"` // how long to wait for a quiet machine, in all runs together; negative: not at all

	// SilenceSeconds is after how long without a word a runner counts as hung; 0 leaves that to
	// the supervisor, which goes by how long its iterations take.
	SilenceSeconds float64 `json:"silence_seconds,omitempty"`

	Threads int   `json:"threads,omitempty"` // of the processor; 0 means one for each that the task may use
	Seed    int64 `json:"seed,omitempty"`
	Compile bool  `json:"compile,omitempty"`
	TF32    bool  `json:"tf32,omitempty"`

	// Env are variables of the runner's environment, beside those of the task.
	Env map[string]string `json:"env,omitempty"`
	// Candidate makes the task a comparison of two configs on one machine, whose runs alternate in the order A, B, B, A:
	// A is this config, B the same with the fields of Candidate in place of its own.
	Candidate json.RawMessage `json:"candidate,omitempty"`
}

// The defaults of a config.
const (
	DefaultPrecision        = "fp32"
	DefaultIterations       = 100
	DefaultMaxSeconds       = 60
	DefaultWarmupIterations = 10
	DefaultWarmupSeconds    = 1
	DefaultMinSeconds       = 1
	DefaultRepeats          = 5
	DefaultQuietSeconds     = 60
)

// Parse reads the config of a benchmark task, fills in the defaults, and refuses
// what makes no sense. The field that is refused is named from the task on: config.model.
func Parse(raw json.RawMessage) (Config, *labmesh.Error) {
	c, refused := read(raw)
	if refused != nil {
		return Config{}, refused
	}
	if _, refused := c.B(); refused != nil {
		return Config{}, refused
	}
	return c, nil
}

func read(raw json.RawMessage) (c Config, _ *labmesh.Error) {
	if err := json.Unmarshal(raw, &c); err != nil { // fields of later versions are left alone
		return c, labmesh.RefuseField("config", "config: %v", err)
	}
	var said struct{ Iterations, Repeats *int }
	_ = json.Unmarshal(raw, &said) // it can
	switch {
	case said.Iterations != nil && *said.Iterations < 1:
		return c, refuse("iterations", "%d is not in 1 to %d", *said.Iterations, IterationsMax)
	case said.Repeats != nil && *said.Repeats < 1:
		return c, refuse("repeats", "%d is not in 1 to %d", *said.Repeats, RepeatsMax)
	}
	c.fill()
	return c, c.check()
}

// B is the candidate of a comparison. Without one it is c.
func (c Config) B() (Config, *labmesh.Error) {
	b := c
	b.Candidate = nil
	if len(c.Candidate) == 0 {
		return b, nil
	}
	b.BatchSizes, b.Runner, b.Env = slices.Clone(c.BatchSizes), slices.Clone(c.Runner), maps.Clone(c.Env)
	if err := json.Unmarshal(c.Candidate, &b); err != nil {
		return b, labmesh.RefuseField("config.candidate", "config.candidate: %v", err)
	}
	switch {
	case b.Candidate != nil:
		return b, labmesh.RefuseField("config.candidate", "config.candidate: it has a candidate of its own")
	case !slices.Equal(b.BatchSizes, c.BatchSizes) || b.Repeats != c.Repeats:
		return b, labmesh.RefuseField("config.candidate", "config.candidate: batch_sizes and repeats must be those of the base: rows are compared in pairs")
	}
	b.fill()
	return b, b.check()
}

// fill puts the defaults where nothing is said.
func (c *Config) fill() {
	for _, f := range []struct {
		field *string
		value string
	}{{&c.Source, "auto"}, {&c.Engine, EngineAuto}, {&c.Device, deviceAuto}, {&c.Precision, DefaultPrecision}} {
		if *f.field == "" {
			*f.field = f.value
		}
	}
	for _, f := range []struct {
		field *float64
		value float64
	}{{&c.MinSeconds, DefaultMinSeconds}, {&c.MaxSeconds, DefaultMaxSeconds}, {&c.WarmupSeconds, DefaultWarmupSeconds}, {&c.QuietSeconds, DefaultQuietSeconds}} {
		if *f.field == 0 {
			*f.field = f.value
		}
	}
	for _, f := range []struct {
		field *int
		value int
	}{{&c.Iterations, DefaultIterations}, {&c.WarmupIterations, DefaultWarmupIterations}, {&c.Repeats, DefaultRepeats}} {
		if *f.field == 0 {
			*f.field = f.value
		}
	}
	if len(c.BatchSizes) == 0 {
		c.BatchSizes = []int{1}
	}
	if len(c.Runner) > 0 && c.Engine == EngineAuto {
		c.Engine = EngineCommand
	}
	if m, ok := FindModel(c.Model); ok && c.Source != "hf" && c.Source != "file" {
		c.Model = m.Name
	}
}

// check refuses what makes no sense in a config that is filled in.
func (c *Config) check() *labmesh.Error {
	for _, f := range []struct {
		name  string
		value string
		known []string
	}{
		{"engine", c.Engine, Engines()}, {"precision", c.Precision, Precisions()}, {"model_source", c.Source, Sources()},
		{"on_unsupported_precision", c.Fallback, []string{"", "fp32"}}, {"cast", c.Cast, []string{"", "native", "autocast"}},
	} {
		if !slices.Contains(f.known, f.value) {
			return refuse(f.name, "%.40q is not one of %s", f.value, strings.Join(slices.DeleteFunc(slices.Clone(f.known), func(s string) bool { return s == "" }), ", "))
		}
	}
	for _, f := range []struct {
		name      string
		value     float64
		low, high float64
	}{
		{"iterations", float64(c.Iterations), 1, IterationsMax}, {"warmup_iterations", float64(c.WarmupIterations), 1, IterationsMax},
		{"repeats", float64(c.Repeats), 1, RepeatsMax}, {"threads", float64(c.Threads), 0, ThreadsMax},
		{"sequence_length", float64(c.SequenceLength), 0, LengthMax}, {"image_size", float64(c.ImageSize), 0, LengthMax},
		{"min_seconds", c.MinSeconds, 0, SecondsMax}, {"max_seconds_per_batch", c.MaxSeconds, 0, SecondsMax},
		{"warmup_min_seconds", c.WarmupSeconds, 0, SecondsMax}, {"quiet_seconds", c.QuietSeconds, -1, SecondsMax},
		{"silence_seconds", c.SilenceSeconds, 0, SecondsMax},
	} {
		if !(f.value >= f.low && f.value <= f.high) {
			return refuse(f.name, "%s is not in %s to %s", plainly(f.value), plainly(f.low), plainly(f.high))
		}
	}
	if refused := c.checkDevice(); refused != nil {
		return refused
	}
	if refused := c.checkBatches(); refused != nil {
		return refused
	}
	return c.checkModel()
}

// Devices lists the classes of devices that a task may name.
func Devices() []string {
	return []string{deviceAuto, labmesh.ClassCPU, "cuda", "rocm", "mps", "openvino", "qnn", "webgpu", "webnn"}
}

// checkDevice refuses what is neither a class nor a class with an index.
func (c *Config) checkDevice() *labmesh.Error {
	class, index, indexed := strings.Cut(c.Device, ":")
	if !slices.Contains(Devices(), class) {
		return refuse("device", "%.40q is not one of %s, with an index after a colon if it matters, as in cuda:1", c.Device, strings.Join(Devices(), ", "))
	}
	if n, err := strconv.Atoi(index); indexed && (err != nil || n < 0 || n > DeviceIndexMax || class == deviceAuto) {
		return refuse("device", "%.40q: after the colon belongs an index of 0 to %d", c.Device, DeviceIndexMax)
	}
	return nil
}

func (c *Config) checkBatches() *labmesh.Error {
	if len(c.BatchSizes) > BatchSizesMax {
		return refuse("batch_sizes", "there are %d; at most %d are allowed", len(c.BatchSizes), BatchSizesMax)
	}
	for i, n := range c.BatchSizes {
		switch {
		case n < 1 || n > BatchSizeMax:
			return refuse(fmt.Sprintf("batch_sizes[%d]", i), "%d is not in 1 to %d", n, BatchSizeMax)
		case slices.Contains(c.BatchSizes[:i], n):
			return refuse(fmt.Sprintf("batch_sizes[%d]", i), "%d is there twice: for more runs raise repeats", n)
		}
	}
	return nil
}

func (c *Config) checkModel() *labmesh.Error {
	_, known := FindModel(c.Model)
	switch {
	case c.Model == "":
		return refuse("model", "it is missing; known are %s", names())
	case len(c.Model) > ModelBytesMax || strings.ContainsRune(c.Model, 0):
		return refuse("model", "it is longer than %d bytes or holds a NUL character", ModelBytesMax)
	case c.Engine == EngineCommand && len(c.Runner) == 0:
		return refuse("runner", "the engine command needs a program that speaks the runner protocol")
	case c.Engine != EngineCommand && len(c.Runner) > 0:
		return refuse("runner", "it is for the engine command, the task asks for %s", c.Engine)
	case len(c.Runner) > RunnerArgsMax:
		return refuse("runner", "it has %d arguments; at most %d are allowed", len(c.Runner), RunnerArgsMax)
	case c.Engine == EngineCommand || c.FromFile():
		return nil
	case c.Engine == EngineONNX:
		return refuse("model", "%.60q is no file of the bundle that ends in .onnx, which is what onnxruntime runs", c.Model)
	case known || c.Source == "hf" || strings.Contains(c.Model, "/") && c.Source == "auto":
		return c.checkBuiltIn()
	}
	hint := ""
	if n := Nearest(c.Model); n != "" {
		hint = fmt.Sprintf(": did you mean %s?", n)
	}
	return refuse("model", "%.60q is not known%s Known are %s; a Hugging Face model that is in the cache of the worker has model_source hf", c.Model, hint, names())
}

// checkBuiltIn refuses a model that the engine asked for does not have.
func (c *Config) checkBuiltIn() *labmesh.Error {
	if m, _ := FindModel(c.Model); c.Engine == EngineBuiltIn && (!m.BuiltIn || c.Source == "hf") {
		return refuse("engine", "labmesh-go does not run %.60s; it runs %s", c.Model, builtInNames())
	}
	return nil
}

// FromFile reports whether the model is a file of the bundle.
func (c *Config) FromFile() bool {
	return c.Source == "file" || c.Source == "auto" && strings.HasSuffix(c.Model, ".onnx")
}

// Tools are the words that a worker must have among its tools so that it can
// run c: those of the engines that it does not carry itself.
func (c *Config) Tools() []string {
	m, known := FindModel(c.Model)
	switch {
	case c.Engine == EngineCommand || c.Engine == EngineBuiltIn:
		return nil
	case c.Engine == EngineONNX || c.FromFile():
		return []string{EngineONNX}
	case c.Engine == EngineTorch || known && !m.BuiltIn:
		return []string{EngineTorch}
	case !known || c.Source == "hf":
		return []string{EngineTorch, "transformers"}
	}
	return nil
}

// Place adds to the requirements of a benchmark task what its config calls for: the
// engine it needs, the class of the device it names, and the worker to itself, so that nothing disturbs the measurement.
// The config of s has been checked; other tasks stay as they are.
func Place(s *labmesh.Spec) {
	if s.Kind != labmesh.Benchmark {
		return
	}
	s.Requirements.Exclusive = true
	c, refused := Parse(s.Config)
	if refused != nil {
		return
	}
	b, _ := c.B()
	r := &s.Requirements
	r.Tools = with(r.Tools, append(c.Tools(), b.Tools()...)...)
	for _, device := range []string{c.Device, b.Device} {
		if class, _, _ := strings.Cut(device, ":"); class != deviceAuto && class != labmesh.ClassCPU {
			r.Hardware = with(r.Hardware, class)
		}
	}
}

// with is list with those words added that it lacks. It leaves the list it was given alone.
func with(list []string, words ...string) []string {
	for _, w := range words {
		if !slices.Contains(list, w) {
			list = append(list[:len(list):len(list)], w)
		}
	}
	return list
}

// plainly is v without an exponent.
func plainly(v float64) string { return strconv.FormatFloat(v, 'f', -1, 64) }

func names() string { return join(func(Model) bool { return true }) }

func builtInNames() string { return join(func(m Model) bool { return m.BuiltIn }) }

func join(which func(Model) bool) string {
	var out []string
	for _, m := range models {
		if which(m) {
			out = append(out, m.Name)
		}
	}
	return strings.Join(out, ", ")
}

func refuse(field, format string, args ...any) *labmesh.Error {
	return labmesh.RefuseField("config."+field, "config."+field+": "+format, args...)
}
