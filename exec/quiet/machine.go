package quiet

import (
	"context"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"labmesh/bench"
)

const (
	// window is how long is looked at before it is said that a machine is quiet:
	// long enough for a process that wakes up every second to be seen.
	window = time.Second
	// sampleEvery is how often the machine is looked at while it is measured. A
	// look takes some 100 µs of CPU time.
	sampleEvery = time.Second
	// gpuTimeout is for one answer of the driver.
	gpuTimeout = 5 * time.Second
	// samplesMax bounds what is kept of one watch: beyond, every other is forgotten.
	samplesMax = 4096
	// restAfter is how long after a watch heavy work still has to wait: the next
	// batch, or the next run, follows at once.
	restAfter = 5 * time.Second

	classCUDA = "cuda"
)

// Config says what a [Machine] cannot find out alone.
type Config struct {
	Root    string // of the file system with /proc and /sys; "" means /
	Version string // of labmesh, for the fingerprint
	// Own is the CPU time of all that this node has run for tasks, and false where that
	// is not known; then what others use is not known either.
	Own func() (time.Duration, bool)
	// Owns reports whether a process is one of those; nil means that none is known.
	Owns func(pid int) bool
	// GPUs starts the process that asks the NVIDIA driver; nil does without.
	GPUs func(context.Context) (GPUs, error)
}

// Machine is the machine that this process runs on. It is safe for many
// goroutines. Close it.
type Machine struct {
	cfg   Config
	files files
	look  func() look // found once, when first needed
	gpus  gpuLink
	fixed fixed // what does not change of the fingerprint

	using atomic.Int64 // waits and watches under way
	until atomic.Int64 // Unix ns: heavy work waits until then even when none is

	mu     sync.Mutex
	before []bench.GPUProcess // what computed on the GPU when the last wait ended
	seen   map[string]span    // by device, of the last watch
}

// span is how a GPU was when a watch began, and when it ended.
type span struct{ before, after *gpuState }

// New makes the Machine.
func New(cfg Config) *Machine {
	m := &Machine{cfg: cfg, files: files{cfg.Root}, seen: make(map[string]span)}
	m.look = sync.OnceValue(m.files.look)
	m.gpus.open = cfg.GPUs
	return m
}

// Close ends what asks the driver. It is safe twice, and on a nil Machine.
func (m *Machine) Close() error {
	if m != nil {
		m.gpus.close()
	}
	return nil
}

// Held reports whether a measurement is under way here or about to begin, so
// that work which is heavy and can wait should. On a nil Machine nothing is.
func (m *Machine) Held() bool {
	return m != nil && (m.using.Load() > 0 || time.Now().UnixNano() < m.until.Load())
}

// Calm waits, for at most so long, while a measurement is under way here: for
// work that is heavy and can wait.
func (m *Machine) Calm(ctx context.Context, most time.Duration) {
	for began := time.Now(); m.Held() && time.Since(began) < most; {
		if !pause(ctx, window) {
			return
		}
	}
}

// hold marks the beginning of a wait or a watch; what it returns, the end.
func (m *Machine) hold() (release func()) {
	m.using.Add(1)
	return sync.OnceFunc(func() {
		m.until.Store(time.Now().Add(restAfter).UnixNano())
		m.using.Add(-1)
	})
}

// Wait waits until nothing else uses the processors, or the GPU that d is, for at
// most so long, and never longer. It looks at a second at a time, so that takes
// the least. A bound that is not positive is no wait at all: nothing is looked at,
// and nothing is said against the machine.
func (m *Machine) Wait(ctx context.Context, d bench.Device, most time.Duration) (q bench.Quiet) {
	began := time.Now()
	defer m.hold()()
	defer func() { q.WaitedS = time.Since(began).Seconds() }()
	if most <= 0 {
		return bench.Quiet{OK: true}
	}
	ctx, cancel := context.WithDeadline(ctx, began.Add(most))
	defer cancel()
	for a := m.snapshot(ctx, d); ; {
		if !pause(ctx, min(window, most/2)) && time.Since(began) < most {
			return bench.Quiet{Reasons: []string{"the wait was broken off"}}
		}
		b := m.snapshot(ctx, d)
		m.remember(b)
		if q.Reasons != nil && b.at.Sub(a.at) < leastWindow {
			return q // the rest of the time was too short to say otherwise
		}
		q.Reasons = observed(unquiet(a, b, m.cfg.Owns)).Reasons
		if q.OK = q.Reasons == nil; q.OK || ctx.Err() != nil || time.Since(began) >= most {
			return q
		}
		a = b
	}
}

// remember notes what computes on the GPU ahead of a measurement.
func (m *Machine) remember(s *snapshot) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.before = nil; s.gpu != nil {
		m.before = s.gpu.Processes
	}
}

// pause waits, and reports whether ctx goes on.
func pause(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// snapshot is all that the machine shows now.
func (m *Machine) snapshot(ctx context.Context, d bench.Device) *snapshot {
	s := m.counters()
	s.processes = m.files.processes()
	s.gpu = m.sampleGPU(ctx, d)
	return s
}

// counters are what is cheap to read.
func (m *Machine) counters() *snapshot {
	s := &snapshot{at: time.Now()}
	m.files.cpu(s)
	if s.processors == 0 {
		s.processors = ownProcessors()
	}
	if m.cfg.Own != nil {
		if own, ok := m.cfg.Own(); ok {
			s.own = &own
		}
	}
	l := m.look()
	s.stalled, s.starved, s.load = m.files.pressure("cpu"), m.files.pressure("memory"), m.files.load()
	s.quota, s.hot, s.mhz = m.files.throttled(l.groups), l.hot(), l.mhz()
	return s
}

func (m *Machine) sampleGPU(ctx context.Context, d bench.Device) *gpuState {
	ctx, cancel := context.WithTimeout(ctx, gpuTimeout)
	defer cancel()
	return m.gpus.sample(ctx, d)
}

// Watch looks on while something is measured on d, until stop is called, which
// says what was seen. It costs a thousandth of one processor. Call stop once the
// measurement has ended and its process still lives: the CPU time of a process that has
// gone may not be told from that of others.
func (m *Machine) Watch(ctx context.Context, d bench.Device) (stop func() bench.Observed) {
	w := &watch{m: m, device: d, release: m.hold(), meter: meter{zones: m.look().energy}, ended: make(chan struct{})}
	m.mu.Lock()
	w.before = m.before
	m.mu.Unlock()
	w.first = m.snapshot(ctx, d)
	w.take(w.first.at, w.first.mhz, w.first.gpu)
	ctx, cancel := context.WithCancel(ctx)
	go func() {
		defer close(w.ended)
		w.run(ctx)
	}()
	return sync.OnceValue(func() bench.Observed {
		cancel()
		<-w.ended
		return w.stop()
	})
}

// watch is one measurement that is looked at.
type watch struct {
	m       *Machine
	device  bench.Device
	release func()
	before  []bench.GPUProcess
	first   *snapshot
	meter   meter
	ended   chan struct{}

	began  time.Time // of the energy
	last   time.Time
	clocks []float64
	states []*gpuState
	at     []time.Time // of states
}

func (w *watch) run(ctx context.Context) {
	for pause(ctx, sampleEvery) {
		w.take(time.Now(), w.m.look().mhz(), w.m.sampleGPU(ctx, w.device))
	}
}

// take takes up what is looked at again and again.
func (w *watch) take(at time.Time, mhz *float64, gpu *gpuState) {
	if w.began.IsZero() {
		w.began = at
	}
	w.last = at
	w.meter.take()
	if mhz != nil {
		w.clocks = thin(append(w.clocks, *mhz))
	}
	if gpu != nil {
		w.states, w.at = thin(append(w.states, gpu)), thin(append(w.at, at))
	}
}

// thin keeps x within its bound.
func thin[T any](x []T) []T {
	if len(x) < samplesMax {
		return x
	}
	half := x[:0]
	for i := 0; i < len(x); i += 2 {
		half = append(half, x[i])
	}
	return half
}

// stop says what was seen. The context of the watch may have ended.
func (w *watch) stop() bench.Observed {
	defer w.release()
	b := w.m.snapshot(context.Background(), w.device)
	w.take(b.at, b.mhz, b.gpu)
	all := disturbed(w.first, b, w.m.cfg.Owns)
	if len(w.clocks) > 0 {
		all = append(all, drift("processor", w.clocks[1:])...) // at first it may still be asleep
	}
	all = append(all, watched(w.states, w.before, w.m.cfg.Owns)...)
	o := observed(all)
	w.energy(&o)
	if len(w.states) > 0 {
		w.m.mu.Lock()
		w.m.seen[keyOf(w.device)] = span{w.states[0], w.states[len(w.states)-1]}
		w.m.mu.Unlock()
	}
	return o
}

// energy says what the device took.
func (w *watch) energy(o *bench.Observed) {
	if w.device.Class == classCUDA {
		if o.EnergyJ, o.PowerW = consumed(w.states, w.at); o.EnergyJ != nil {
			o.EnergySource = "nvml"
		}
		return
	}
	if !slices.Contains([]string{"", "cpu", "auto"}, w.device.Class) {
		return // it is on no counter that we know
	}
	if j := w.meter.joules(); j != nil && w.last.After(w.began) {
		p := *j / w.last.Sub(w.began).Seconds()
		o.EnergyJ, o.EnergySource, o.PowerW = j, "rapl", &p
	}
}

// keyOf tells devices apart.
func keyOf(d bench.Device) string {
	if d.UUID != "" {
		return d.UUID
	}
	return d.Class + ":" + strconv.Itoa(d.Index)
}
