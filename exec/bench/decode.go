package bench

import (
	"bytes"
	"encoding/json"
	"math"
	"slices"
	"strings"

	"labmesh"
	"labmesh/bench"
)

// Limits on what a runner says.
const (
	lineBytesMax    = 4 << 20 // of one line; the rest of it is dropped
	lineBytesKept   = 64 << 10
	nameBytesMax    = 500
	messageBytesMax = 1 << 10
	notesMax        = 20
	shapeMax        = 16
	devicesMax      = 64
	timesMax        = 4096               // iterations in one line; the protocol has 256
	timesOfMax      = 2                  // of one iteration
	iterationMSMax  = 24 * 3600 * 1000.0 // of one iteration
	countMax        = 1 << 60
)

// said is what a line came to.
type said struct {
	event  *bench.Event // nil where the line was none; of a kind that a later version may have brought
	faults int          // lines so far that were not as the protocol has them
}

// decoder takes the standard output of a runner apart. What is no event, or not
// in its turn, is counted and otherwise ignored. It is for one goroutine.
type decoder struct {
	emit func(said)

	line   []byte
	over   bool // the line is longer than lines may be
	seq    int
	faults int
}

// Write takes what was printed. It never fails.
func (d *decoder) Write(p []byte) (int, error) {
	n := len(p)
	for len(p) > 0 {
		end := bytes.IndexByte(p, '\n')
		if end < 0 {
			d.add(p)
			break
		}
		d.add(p[:end])
		d.end()
		p = p[end+1:]
	}
	return n, nil
}

// flush takes a last line that has no end.
func (d *decoder) flush() {
	if len(d.line) > 0 {
		d.end()
	}
	d.line = nil
}

func (d *decoder) add(p []byte) {
	room := lineBytesMax - len(d.line)
	if len(p) > room {
		p, d.over = p[:room], true
	}
	d.line = append(d.line, p...)
}

// end takes the line that has come to its end.
func (d *decoder) end() {
	line, over := bytes.TrimSpace(d.line), d.over
	if d.line, d.over = d.line[:0], false; cap(d.line) > lineBytesKept {
		d.line = nil
	}
	if len(line) == 0 {
		return
	}
	var e bench.Event
	if over || json.Unmarshal(line, &e) != nil || e.Kind == "" {
		d.faults++
		d.emit(said{nil, d.faults})
		return
	}
	if sound := tidy(&e); !sound || e.V != bench.Protocol || e.Seq != d.seq+1 {
		d.faults++
	}
	d.seq = e.Seq
	d.emit(said{&e, d.faults})
}

// tidy takes out of an event what cannot be, and bounds the rest. It reports
// whether all was as it should be. JSON has no NaN and no infinity.
func tidy(e *bench.Event) bool {
	ok := true
	for _, f := range []struct {
		text *string
		most int
	}{
		{&e.Runner, nameBytesMax}, {&e.RunnerVersion, nameBytesMax}, {&e.Name, nameBytesMax}, {&e.Source, nameBytesMax}, {&e.Weights, nameBytesMax},
		{&e.Requested, nameBytesMax}, {&e.Effective, nameBytesMax}, {&e.Cast, nameBytesMax}, {&e.Kernel, nameBytesMax}, {&e.AttnImpl, nameBytesMax},
		{&e.DeviceClass, nameBytesMax}, {&e.DeviceName, nameBytesMax}, {&e.DeviceUUID, nameBytesMax}, {&e.Checksum, nameBytesMax}, {&e.Code, nameBytesMax},
		{&e.Reason, messageBytesMax}, {&e.Message, messageBytesMax},
	} {
		*f.text = clip(*f.text, f.most)
	}
	for _, f := range []**float64{&e.LoadS, &e.FirstMS, &e.TotalS, &e.WallS, &e.CPUMS, &e.EnergyJ} {
		if *f != nil && !(**f >= 0 && **f < countMax) {
			*f, ok = nil, false
		}
	}
	for _, f := range []**int64{&e.HostPeak, &e.DevicePeak, &e.DeviceReserved, &e.DeviceTotal} {
		if *f != nil && (**f < 0 || **f > countMax) {
			*f, ok = nil, false
		}
	}
	for _, f := range []*int64{&e.Params, &e.ParamBytes} {
		if *f < 0 || *f > countMax {
			*f, ok = 0, false
		}
	}
	for _, f := range []*int{&e.N, &e.I0, &e.Batch, &e.Threads} {
		if *f < 0 || *f > math.MaxInt32 {
			*f, ok = 0, false
		}
	}
	if !(e.FLOPs >= 0 && e.FLOPs < countMax) {
		e.FLOPs, ok = 0, false
	}
	return tidyLists(e) && ok
}

// tidyLists is tidy for lists. What is cut is copied: the rest of it is let go.
func tidyLists(e *bench.Event) bool {
	ok := len(e.Notes) <= notesMax && len(e.Shape) <= shapeMax && len(e.Devices) <= devicesMax && len(e.MS) <= timesMax && len(e.Env) <= labmesh.BenchEnvBytesMax
	if !ok {
		e.Notes = slices.Clone(e.Notes[:min(len(e.Notes), notesMax)])
		e.Devices = slices.Clone(e.Devices[:min(len(e.Devices), devicesMax)])
		e.MS = slices.Clone(e.MS[:min(len(e.MS), timesMax)])
	}
	for i := range e.Notes {
		e.Notes[i] = clip(e.Notes[i], messageBytesMax)
	}
	for i := range e.MS {
		if len(e.MS[i]) > timesOfMax {
			e.MS[i], ok = nil, false
		}
	}
	for name, n := range e.Shape {
		ok = ok && len(name) <= nameBytesMax && n >= 0
	}
	if !ok {
		e.Shape = nil
	}
	if len(e.Env) > labmesh.BenchEnvBytesMax || len(e.Env) > 0 && e.Env[0] != '{' {
		e.Env = nil
	}
	return ok
}

// clip is s without what no text should hold, and no longer than most bytes.
func clip(s string, most int) string {
	s = strings.Map(func(r rune) rune {
		if r < ' ' && r != '\n' && r != '\t' {
			return -1
		}
		return r
	}, s)
	if len(s) <= most {
		return s
	}
	return strings.ToValidUTF8(s[:most], "") + "…"
}
