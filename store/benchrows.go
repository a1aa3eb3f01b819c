package store

import (
	"database/sql/driver"
	"encoding/json"
	"fmt"

	"labmesh"
)

// benchRow is the row at place i of those that e tells of.
func benchRow(e *labmesh.Event, i int) (Row, error) {
	b := e.Bench
	r, w := &b.Rows[i], &b.Rows[i].Work
	var labels driver.Value
	if e.Task != nil {
		var err error
		if labels, err = mapJSON(e.Task.Spec.Labels); err != nil {
			return nil, fmt.Errorf("labels of task %s: %w", b.Task, err)
		}
	}
	shape, err := shapeJSON(w.Shape)
	if err != nil {
		return nil, fmt.Errorf("input shape of a row of task %s: %w", b.Task, err)
	}
	flags, err := listJSON(r.Flags)
	if err != nil {
		return nil, fmt.Errorf("flags of a row of task %s: %w", b.Task, err)
	}
	doubts, err := listJSON(r.Doubts)
	if err != nil {
		return nil, fmt.Errorf("doubts of a row of task %s: %w", b.Task, err)
	}
	row := make(Row, 0, len(BenchTable.Columns))
	row = append(row,
		int64(e.Index), b.ID+int64(i), text(b.Task), int64(b.Attempt), text(b.Worker),
		text(r.Run), nonZero(r.Repeat), text(r.Arm), timestamp(r.Started), timestamp(r.Finished),
		text(r.Series), text(r.Compare), labels,

		text(w.Model), text(w.Source), text(w.Weights), w.Seed, nonZero(w.Params),
		nonZeroFloat(w.FLOPs), shape, nonZero(w.Batch),
		text(w.Requested), text(w.Effective), text(w.Cast),
		nonZero(w.Iterations), nonZero(w.Warmup), nonZero(w.Threads),
		w.Compile, w.TF32, text(w.Attention), nonZero(w.Devices),
		text(w.Engine), text(w.EngineVersion), text(w.EngineWhy), text(w.Kernel),
		text(w.DeviceClass), text(w.DeviceName), text(w.DeviceUUID), text(w.DriverMajor), nonZero(w.Protocol),

		text(r.Status), text(r.Reason), int64(r.N))
	row = append(row, timingValues(r.Wall)...)
	row = append(row, timingValues(r.Device)...)
	row = append(row, known(r.FirstMS), known(r.LoadS), known(r.Throughput), known(r.GFLOPS), text(r.Samples))
	row = append(row, stableValues(r.Stability)...)
	res := &r.Resources
	return append(row, known(r.Finite), text(r.Checksum),
		known(res.CPUMS), known(res.CPUUtil), known(res.HostPeak), known(res.DevicePeak),
		known(res.DeviceReserved), known(res.DeviceTotal), known(res.EnergyJ), text(res.EnergySource), known(res.PowerW),
		rawJSON(r.Env), flags, doubts, r.Comparable,
		int64(b.From+i), int64(e.N)), nil
}

// BenchOf is what a row of benchmark_results holds. Labels are the task's.
func BenchOf(row Row) (RecordedBench, error) {
	r := reader{row: row}
	b := RecordedBench{Position: Position{Index: uint64(r.integer())}}
	b.ID = r.integer()
	b.Task, b.Attempt, b.Worker = labmesh.TaskID(r.text()), int(r.integer()), labmesh.WorkerID(r.text())
	x := labmesh.BenchRow{
		Run: r.text(), Repeat: int(r.integer()), Arm: r.text(), Started: r.time(), Finished: r.time(),
		Series: r.text(), Compare: r.text(),
	}
	r.next() // the labels are those of the task
	x.Work = r.work()
	x.Status, x.Reason, x.N = labmesh.BenchStatus(r.text()), r.text(), int(r.integer())
	x.Wall, x.Device = r.timing(), r.timing()
	x.FirstMS, x.LoadS, x.Throughput, x.GFLOPS, x.Samples = r.knownFloat(), r.knownFloat(), r.knownFloat(), r.knownFloat(), r.text()
	x.Stability = r.stable()
	x.Finite, x.Checksum = r.knownTruth(), r.text()
	x.Resources = labmesh.BenchResources{
		CPUMS: r.knownFloat(), CPUUtil: r.knownFloat(), HostPeak: r.knownInteger(), DevicePeak: r.knownInteger(),
		DeviceReserved: r.knownInteger(), DeviceTotal: r.knownInteger(), EnergyJ: r.knownFloat(), EnergySource: r.text(), PowerW: r.knownFloat(),
	}
	x.Env = r.raw()
	r.json(&x.Flags)
	r.json(&x.Doubts)
	if len(x.Flags) == 0 {
		x.Flags = nil
	}
	if len(x.Doubts) == 0 {
		x.Doubts = nil
	}
	x.Comparable = r.truth()
	b.From, b.N = int(r.integer()), int(r.integer())
	b.Rows = []labmesh.BenchRow{x}
	return b, r.err
}

// AddBench appends b, of one row, to list: to the last of them if one event told
// of both. Backends call it with the rows in the order of their ids.
func AddBench(list []RecordedBench, b RecordedBench) []RecordedBench {
	if n := len(list); n > 0 {
		last := &list[n-1]
		if last.Index == b.Index && last.N == b.N {
			last.Rows = append(last.Rows, b.Rows...)
			return list
		}
	}
	return append(list, b)
}

// work reads what was run.
func (r *reader) work() labmesh.BenchWork {
	w := labmesh.BenchWork{
		Model: r.text(), Source: r.text(), Weights: r.text(), Seed: r.integer(), Params: r.integer(), FLOPs: r.float(),
	}
	r.json(&w.Shape)
	w.Batch, w.Requested, w.Effective, w.Cast = int(r.integer()), r.text(), r.text(), r.text()
	w.Iterations, w.Warmup, w.Threads = int(r.integer()), int(r.integer()), int(r.integer())
	w.Compile, w.TF32, w.Attention, w.Devices = r.truth(), r.truth(), r.text(), int(r.integer())
	w.Engine, w.EngineVersion, w.EngineWhy, w.Kernel = r.text(), r.text(), r.text(), r.text()
	w.DeviceClass, w.DeviceName, w.DeviceUUID, w.DriverMajor, w.Protocol = r.text(), r.text(), r.text(), r.text(), int(r.integer())
	return w
}

// timingColumns is how many columns the statistics of times take.
const timingColumns = 12

func timingValues(t *labmesh.BenchTiming) Row {
	if t == nil {
		return make(Row, timingColumns)
	}
	row := Row{t.P50, known(t.P90), known(t.P95), known(t.P99), t.Min, t.Max, t.Mean, known(t.SD), t.MAD, known(t.CV), nil, nil}
	if ci := t.CI95; ci != nil {
		row[10], row[11] = ci[0], ci[1]
	}
	return row
}

// timing reads statistics of times; without a median there are none.
func (r *reader) timing() *labmesh.BenchTiming {
	p50 := r.knownFloat()
	t := labmesh.BenchTiming{
		P90: r.knownFloat(), P95: r.knownFloat(), P99: r.knownFloat(), Min: r.float(), Max: r.float(),
		Mean: r.float(), SD: r.knownFloat(), MAD: r.float(), CV: r.knownFloat(),
	}
	if low, high := r.knownFloat(), r.knownFloat(); low != nil && high != nil {
		t.CI95 = &[2]float64{*low, *high}
	}
	if p50 == nil {
		return nil
	}
	t.P50 = *p50
	return &t
}

func stableValues(s *labmesh.BenchStable) Row {
	if s == nil {
		return make(Row, 4)
	}
	return Row{s.Verdict, known(s.WindowSpread), known(s.Autocorr), known(s.Drift)}
}

// stable reads how steady the times were; without a verdict nothing is known.
func (r *reader) stable() *labmesh.BenchStable {
	said := r.next()
	s := labmesh.BenchStable{WindowSpread: r.knownFloat(), Autocorr: r.knownFloat(), Drift: r.knownFloat()}
	verdict, ok := said.(string)
	if !ok {
		if said != nil {
			r.fail("text", said)
		}
		return nil
	}
	s.Verdict = verdict
	return &s
}

// known is the value at p, or NULL where there is none.
func known[T int64 | float64 | bool](p *T) driver.Value {
	if p == nil {
		return nil
	}
	return *p
}

func nonZeroFloat(f float64) driver.Value {
	if f == 0 {
		return nil
	}
	return f
}

func shapeJSON(m map[string]int) (driver.Value, error) {
	if len(m) == 0 {
		return nil, nil
	}
	data, err := json.Marshal(m)
	return json.RawMessage(data), err
}

// listJSON is list as a JSON list: that there is nothing in it is known.
func listJSON[S ~string](list []S) (driver.Value, error) {
	if len(list) == 0 {
		return json.RawMessage("[]"), nil
	}
	data, err := json.Marshal(list)
	return json.RawMessage(data), err
}
