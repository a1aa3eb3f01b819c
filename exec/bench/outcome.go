package bench

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"labmesh"
	"labmesh/bench"
	"labmesh/exec/bench/engines"
	"labmesh/stats"
)

// spot is what the runs of a task came to at one batch size of one arm.
type spot struct {
	arm   string
	batch int

	settled    labmesh.BenchStatus // why no other run need try it
	failures   int                 // runs in which the runner failed at it
	status     labmesh.BenchStatus // of the best row
	reason     string
	p50        []float64 // of each run that measured it
	throughput []float64
	comparable int
	flags      []labmesh.BenchFlag
}

// add takes a row.
func (s *spot) add(row *labmesh.BenchRow) {
	switch row.Status {
	case labmesh.BenchOOM, labmesh.BenchOOMKilled, labmesh.BenchUnsupported:
		s.settled = row.Status
	case labmesh.BenchError, labmesh.BenchCrashed, labmesh.BenchSilent:
		s.failures++
	}
	if s.status == "" || rank(row.Status) < rank(s.status) {
		s.status, s.reason = row.Status, row.Reason
	}
	for _, f := range row.Flags {
		if !slices.Contains(s.flags, f) {
			s.flags = append(s.flags, f)
		}
	}
	if row.Wall == nil {
		return
	}
	s.p50, s.throughput = append(s.p50, row.Wall.P50), append(s.throughput, *row.Throughput)
	if row.Comparable {
		s.comparable++
	}
}

// rank orders statuses: what was measured, what cannot be measured, what failed.
func rank(s labmesh.BenchStatus) int {
	return slices.Index([]labmesh.BenchStatus{
		labmesh.BenchOK, labmesh.BenchTruncated, labmesh.BenchUnsupported, labmesh.BenchOOM, labmesh.BenchOOMKilled,
		labmesh.BenchSilent, labmesh.BenchCrashed, labmesh.BenchError, labmesh.BenchCancelled,
	}, s)
}

func (s *spot) measured() bool { return len(s.p50) > 0 }

// failed reports whether the runner failed at it in every run.
func (s *spot) failed() bool { return !s.measured() && s.settled == "" }

// summary is the result of a benchmark task. The rows say more.
type summary struct {
	Model     string       `json:"model"`
	Precision string       `json:"precision"`
	Runs      int          `json:"runs"` // asked for, of each arm
	Arms      []armSummary `json:"arms"`
	Samples   string       `json:"samples_ref,omitempty"`
}

// armSummary is what one config came to.
type armSummary struct {
	Arm     string         `json:"arm,omitempty"`
	Engine  string         `json:"engine"`
	Why     string         `json:"engine_why"`
	Device  string         `json:"device"`
	Batches []batchSummary `json:"batches"`
}

// batchSummary is what the runs came to at one batch size.
type batchSummary struct {
	Batch      int                 `json:"batch"`
	Status     labmesh.BenchStatus `json:"status,omitempty"` // of the best run; "" where none got so far
	Reason     string              `json:"reason,omitempty"`
	Runs       int                 `json:"runs"`                 // that measured it
	Comparable int                 `json:"comparable"`           // of them
	P50        *float64            `json:"p50_ms,omitempty"`     // the median of the runs'
	Throughput *float64            `json:"throughput,omitempty"` // items a second, the same
	Flags      []labmesh.BenchFlag `json:"flags,omitempty"`      // of any run
}

// reasonBytesMax bounds a reason in the result of a task, which has one for each batch size.
const reasonBytesMax = 200

func (r *run) summary() json.RawMessage {
	c := r.arms[0].conf
	sum := summary{Model: c.Model, Precision: c.Precision, Runs: c.Repeats}
	if r.samples.size > 0 {
		sum.Samples = samplesRef
	}
	for _, a := range r.arms {
		as := armSummary{Arm: a.name, Engine: engineName(a.engine), Why: clip(a.why, messageBytesMax), Device: strings.TrimSpace(a.device.Class + " " + a.device.Name)}
		if w := a.ran; w != nil {
			as.Engine, as.Device = strings.TrimSpace(w.Engine+" "+w.EngineVersion), strings.TrimSpace(w.DeviceClass+" "+w.DeviceName)
		}
		for _, n := range a.conf.BatchSizes {
			s := r.spot(a.name, n)
			b := batchSummary{Batch: n, Status: s.status, Reason: clip(s.reason, reasonBytesMax), Runs: len(s.p50), Comparable: s.comparable, Flags: s.flags}
			if s.measured() {
				b.P50, b.Throughput = new(stats.Median(s.p50)), new(stats.Median(s.throughput))
			}
			as.Batches = append(as.Batches, b)
		}
		sum.Arms = append(sum.Arms, as)
	}
	data, err := json.Marshal(sum)
	if err != nil {
		return nil // it is made of texts and finite numbers: it cannot be
	}
	return data
}

// outcome is the verdict on a task whose runs are over.
func (r *run) outcome() labmesh.Outcome {
	measured, words := false, []string{}
	var bad *spot
	for _, s := range r.spots {
		measured = measured || s.measured()
		if s.failed() && bad == nil {
			bad = s
		}
		if !s.measured() {
			words = append(words, fmt.Sprintf("%sbatch size %d: %s: %s", prefix(s.arm), s.batch, s.status, clip(s.reason, reasonBytesMax)))
		}
	}
	switch {
	case bad != nil:
		return r.fail(causeOf(bad.status), "not every batch size could be measured: "+strings.Join(words, "; ")+r.lastWords())
	case !measured:
		hint := ""
		if r.spots[0].settled == labmesh.BenchUnsupported && r.arms[0].conf.Fallback == "" && r.arms[0].conf.Precision != bench.DefaultPrecision {
			hint = "; ask for another precision, or for fp32 in its place (on_unsupported_precision)"
		}
		return r.fail(causeOf(r.spots[0].settled), "nothing could be measured: "+strings.Join(words, "; ")+hint)
	}
	return labmesh.Outcome{OK: true, Result: r.summary()}
}

func causeOf(s labmesh.BenchStatus) labmesh.Cause {
	switch s {
	case labmesh.BenchOOM, labmesh.BenchOOMKilled:
		return labmesh.CauseOOM
	case labmesh.BenchUnsupported:
		return labmesh.CauseConfig
	case labmesh.BenchCrashed:
		return labmesh.CauseSignal
	case labmesh.BenchSilent:
		return labmesh.CauseTimeout
	}
	return labmesh.CauseExit
}

// fail is the outcome of a task that did not end well, with what it measured.
func (r *run) fail(cause labmesh.Cause, message string) labmesh.Outcome {
	return labmesh.Outcome{Cause: cause, Error: message, Result: r.summary()}
}

func engineName(e engines.Found) string {
	return strings.TrimSpace(e.Name + " " + e.Version)
}

func prefix(arm string) string {
	if arm == "" {
		return ""
	}
	return strings.ToUpper(arm) + ": "
}

// oneLine is s without the breaks of its lines.
func oneLine(s string) string { return strings.Join(strings.Fields(s), " ") }
