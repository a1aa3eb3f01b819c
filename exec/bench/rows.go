package bench

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	"labmesh"
	"labmesh/bench"
	"labmesh/stats"
)

// What a row must have so that statistics may use it.
const (
	iterationsMin = 5
	threadsOver   = 1.2 // CPU time against wall time and threads: more means that there were more threads
)

// doubtful are the flags of rows that no statistics may use: something else was
// measured too. Times that wander (unstable) are a property of the work or
// of the machine, and tests on runs bear them.
var doubtful = []labmesh.BenchFlag{
	labmesh.FlagContended, labmesh.FlagThrottled, labmesh.FlagFew, labmesh.FlagForeignGPU, labmesh.FlagClockDrift, labmesh.FlagProtocol, labmesh.FlagNoisy,
}

// end makes the row of a batch size that the runner says has ended.
func (s *session) end(ctx context.Context, e *bench.Event) {
	b, status, reason := s.open, e.Status, e.Reason
	if reason == "" {
		reason = e.Message
	}
	if e.N != b.n {
		s.wrong++
	}
	switch status {
	case labmesh.BenchOK, labmesh.BenchTruncated:
		if len(b.wall) == 0 {
			status, reason = labmesh.BenchError, "the runner sent no times"
		}
	case labmesh.BenchOOM, labmesh.BenchUnsupported, labmesh.BenchError, labmesh.BenchCancelled:
	default:
		s.wrong++
		status, reason = labmesh.BenchError, fmt.Sprintf("the runner said %.40q, which is no status", status)
	}
	s.record(ctx, status, reason, e)
}

// close makes the row of a batch size of whose end the runner said nothing.
func (s *session) close(ctx context.Context, status labmesh.BenchStatus, reason string) {
	s.record(ctx, status, reason, &bench.Event{})
}

// record makes the row of the batch size that is being measured, and hands it in.
func (s *session) record(ctx context.Context, status labmesh.BenchStatus, reason string, e *bench.Event) {
	b := s.open
	seen := b.observed()
	env := s.r.machine.Env(ctx, s.t.arm.device) // which knows of the watch that has just ended
	s.open, s.since = nil, time.Now()
	row := s.row(b, env, status, reason)
	s.measure(&row, b, e, seen)
	s.doubt(&row, b, seen)
	if row.Wall != nil {
		s.keep(&row, b)
	}
	row.Series, row.Compare = stats.Keys(row.Work)
	s.made++
	s.r.add(s, row)
}

// row is what is known of a batch size before its numbers.
func (s *session) row(b *batch, env json.RawMessage, status labmesh.BenchStatus, reason string) labmesh.BenchRow {
	return labmesh.BenchRow{
		Run: s.id, Repeat: s.t.repeat, Arm: s.t.arm.name, Started: b.began.UTC(), Finished: time.Now().UTC(),
		Work: s.work(b, env), Status: status, Reason: clip(reason, messageBytesMax), N: b.n, FirstMS: b.firstMS, LoadS: s.model.LoadS,
		Env: fingerprint(env, s.hello.Env),
	}
}

// work is what was run, and on what.
func (s *session) work(b *batch, env json.RawMessage) labmesh.BenchWork {
	a, m := s.t.arm, &s.model
	c := a.conf
	w := labmesh.BenchWork{
		Model: c.Model, Source: m.Source, Weights: m.Weights, Seed: c.Seed, Params: m.Params, FLOPs: m.FLOPs, Shape: m.Shape, Batch: b.size,
		Requested: c.Precision, Effective: m.Effective, Cast: m.Cast, Iterations: c.Iterations, Warmup: b.warmup, Threads: m.Threads,
		Compile: c.Compile, TF32: c.TF32, Attention: m.AttnImpl, Devices: 1,
		Engine: a.engine.Name, EngineVersion: s.hello.RunnerVersion, EngineWhy: clip(a.why, messageBytesMax), Kernel: m.Kernel,
		DeviceClass: a.device.Class, DeviceName: m.DeviceName, DeviceUUID: m.DeviceUUID, DriverMajor: driverMajor(env), Protocol: bench.Protocol,
	}
	if w.EngineVersion == "" {
		w.EngineVersion = a.engine.Version
	}
	if a.engine.Name == bench.EngineCommand && s.hello.Runner != "" {
		w.Engine += ":" + s.hello.Runner // what a task brings is not the worker's engine of that name
	}
	if w.DeviceName == "" || strings.EqualFold(w.DeviceName, a.device.Class) {
		w.DeviceName = a.device.Name
	}
	if w.DeviceUUID == "" {
		w.DeviceUUID = a.device.UUID
	}
	return w
}

// measure puts the numbers into a row. Only one that is ok, or truncated, has times.
func (s *session) measure(row *labmesh.BenchRow, b *batch, e *bench.Event, seen bench.Observed) {
	res := &row.Resources
	res.HostPeak, res.DevicePeak, res.DeviceReserved, res.DeviceTotal = e.HostPeak, e.DevicePeak, e.DeviceReserved, e.DeviceTotal
	row.Finite, row.Checksum = e.Finite, e.Checksum
	if row.Status != labmesh.BenchOK && row.Status != labmesh.BenchTruncated {
		return
	}
	row.Wall, row.Stability = stats.Timing(b.wall), stats.Stability(b.wall)
	if len(b.device) == len(b.wall) {
		row.Device = stats.Timing(b.device)
	}
	sum := 0.0
	for _, ms := range b.wall {
		sum += ms
	}
	row.Throughput = new(1000 * float64(b.size*len(b.wall)) / sum)
	if row.Work.FLOPs > 0 {
		row.GFLOPS = new(row.Work.FLOPs * *row.Throughput / 1e9)
	}
	if e.CPUMS != nil {
		res.CPUMS = new(*e.CPUMS / float64(b.n))
		if e.WallS != nil && *e.WallS > 0 {
			sum = *e.WallS * 1000
		}
		if row.Work.Threads > 0 {
			res.CPUUtil = new(*e.CPUMS / (sum * float64(row.Work.Threads)))
		}
	}
	res.EnergyJ, res.EnergySource, res.PowerW = seen.EnergyJ, seen.EnergySource, seen.PowerW
	if e.EnergyJ != nil && res.EnergyJ == nil {
		res.EnergyJ, res.EnergySource = e.EnergyJ, "runner"
	}
}

// doubt puts into a row what makes it doubtful, and whether statistics may use it.
func (s *session) doubt(row *labmesh.BenchRow, b *batch, seen bench.Observed) {
	flag := func(f labmesh.BenchFlag, doubt string, args ...any) {
		if !slices.Contains(row.Flags, f) {
			row.Flags, row.Doubts = append(row.Flags, f), append(row.Doubts, clip(fmt.Sprintf(doubt, args...), messageBytesMax))
		}
	}
	if !s.quiet.OK {
		flag(labmesh.FlagNoisy, "the machine was not quiet after %.3g s: %s", s.quiet.WaitedS, strings.Join(s.quiet.Reasons, "; "))
	}
	for i, f := range seen.Flags {
		why := string(f)
		if i < len(seen.Reasons) {
			why = seen.Reasons[i]
		}
		flag(f, "%s", why)
	}
	if n := s.faults + s.wrong - b.faults; n > 0 {
		flag(labmesh.FlagProtocol, "the runner said %d things that cannot be, or not then", n)
	}
	if row.Work.Effective != "" && row.Work.Effective != row.Work.Requested {
		flag(labmesh.FlagFallback, "it ran in %s, not in %s", row.Work.Effective, row.Work.Requested)
	}
	if row.Wall == nil {
		return
	}
	if row.Status == labmesh.BenchTruncated {
		flag(labmesh.FlagTruncated, "its time was up after %d of %d iterations", row.N, row.Work.Iterations)
	}
	if len(b.wall) < iterationsMin {
		flag(labmesh.FlagFew, "%d iterations say little; at least %d are needed", len(b.wall), iterationsMin)
	}
	if st := row.Stability; st != nil && st.Verdict == stats.Unstable {
		flag(labmesh.FlagUnstable, "the medians of three windows lie %.3g %% apart", *st.WindowSpread)
	}
	if u := row.Resources.CPUUtil; u != nil && *u > threadsOver && row.Work.DeviceClass == labmesh.ClassCPU {
		flag(labmesh.FlagThreads, "it took %.2f times the CPU time that its %d threads can take", *u, row.Work.Threads)
	}
	row.Comparable = !slices.ContainsFunc(row.Flags, func(f labmesh.BenchFlag) bool { return slices.Contains(doubtful, f) })
}

// keep keeps the raw times of a row.
func (s *session) keep(row *labmesh.BenchRow, b *batch) {
	l := sampleLine{Run: row.Run, Repeat: row.Repeat, Arm: row.Arm, Batch: b.size, Wall: b.wall}
	if row.Device != nil {
		l.Device = b.device
	}
	if err := s.r.samples.add(l); err != nil {
		s.r.complain("the raw times of batch size %d are not kept: %v", b.size, err)
		return
	}
	row.Samples = samplesRef
}

// fingerprint puts what is known of the machine and of the runner into one object.
func fingerprint(machine, runner json.RawMessage) json.RawMessage {
	all := map[string]json.RawMessage{}
	if json.Unmarshal(machine, &all) != nil {
		all = map[string]json.RawMessage{} // there is none
	}
	if len(runner) > 0 {
		all["runner"] = runner
	}
	if len(all) == 0 {
		return nil
	}
	data, err := json.Marshal(all)
	if err == nil && len(data) > labmesh.BenchEnvBytesMax {
		delete(all, "runner") // the larger by far, and the one that others wrote
		data, err = json.Marshal(all)
	}
	if err != nil || len(data) > labmesh.BenchEnvBytesMax {
		return nil
	}
	return data
}

// driverMajor is the major version of the device's driver, as a fingerprint has it.
func driverMajor(machine json.RawMessage) string {
	var env struct {
		GPU struct {
			Before struct {
				Driver string `json:"driver"`
			} `json:"before"`
		} `json:"gpu"`
	}
	_ = json.Unmarshal(machine, &env) // it may say nothing of it
	major, _, _ := strings.Cut(env.GPU.Before.Driver, ".")
	return clip(major, nameBytesMax)
}
