package quiet

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"labmesh"
	"labmesh/bench"
)

// GPUs asks the driver how the GPUs are, in a process of its own.
type GPUs interface {
	// Sample is how all GPUs are now.
	Sample(ctx context.Context) ([]bench.GPUState, error)
	Close() error
}

// gpuState is how the GPU of a benchmark is.
type gpuState struct{ bench.GPUState }

// find picks the GPU of a device: by its UUID, which may be that of a slice, or by its index.
func find(all []bench.GPUState, d bench.Device) *gpuState {
	for _, s := range all {
		switch {
		case d.UUID == "" && s.Index == d.Index, d.UUID != "" && strings.EqualFold(s.UUID, d.UUID):
			return &gpuState{s}
		case d.UUID != "" && slices.Contains(s.Slices, d.UUID):
			// What the other slices do is none of its business, and what they take not its own.
			s.Processes, s.Utilization, s.EnergyJ, s.PowerW = nil, nil, nil, nil
			return &gpuState{s}
		}
	}
	return nil
}

// unquiet says what is not quiet of a GPU on which nothing of ours runs.
func (g *gpuState) unquiet(ours func(pid int) bool) (out []finding) {
	if p := g.foreign(ours); len(p) > 0 {
		out = append(out, finding{labmesh.FlagForeignGPU, sayForeign(p)})
	}
	if u := g.Utilization; u != nil && *u > gpuBusyMost && len(out) == 0 {
		out = append(out, finding{labmesh.FlagContended, fmt.Sprintf("the GPU is %.0f %% busy", *u)})
	}
	return append(out, g.slow()...)
}

// slow says what keeps the GPU from being as fast as it can.
func (g *gpuState) slow() []finding {
	if g.Throttle == nil || *g.Throttle&bench.ThrottleSlows == 0 {
		return nil
	}
	say := "the GPU is slowed down: " + strings.Join(bench.ThrottleWords(*g.Throttle&bench.ThrottleSlows), ", ")
	if g.TempC != nil {
		say += fmt.Sprintf(" (%.0f °C)", *g.TempC)
	}
	return []finding{{labmesh.FlagThrottled, say}}
}

// foreign lists the processes that compute on the GPU and are not ours.
func (g *gpuState) foreign(ours func(pid int) bool) (out []bench.GPUProcess) {
	for _, p := range g.Processes {
		if ours == nil || !ours(p.PID) {
			out = append(out, p)
		}
	}
	return out
}

// intruders lists the processes that compute on the GPU beside the runner that
// is being measured. before are those that were there ahead of it.
//
// In a container the driver may give process ids of the machine outside, of which
// none is known here: then one that came after before is taken for the runner.
func (g *gpuState) intruders(before []bench.GPUProcess, ours func(pid int) bool) []bench.GPUProcess {
	all := g.foreign(ours)
	if len(all) < len(g.Processes) {
		return all
	}
	var there, came []bench.GPUProcess
	for _, p := range all {
		if slices.ContainsFunc(before, func(b bench.GPUProcess) bool { return b.PID == p.PID }) {
			there = append(there, p)
		} else {
			came = append(came, p)
		}
	}
	if len(came) > 1 {
		return append(there, came[1:]...)
	}
	return there
}

func sayForeign(p []bench.GPUProcess) string {
	var names []string
	for _, p := range p[:min(len(p), 3)] {
		name := ""
		if p.Name != "" {
			name = clean(p.Name) + " "
		}
		names = append(names, fmt.Sprintf("%s(pid %d)", name, p.PID))
	}
	if len(p) == 1 {
		return "another process computes on the GPU: " + names[0]
	}
	return fmt.Sprintf("%d other processes compute on the GPU: %s", len(p), strings.Join(names, ", "))
}

// watched says what was seen of a GPU while it was measured.
func watched(states []*gpuState, before []bench.GPUProcess, ours func(pid int) bool) (out []finding) {
	var clocks []float64
	var slow, foreign []finding
	for i, g := range states {
		if p := g.intruders(before, ours); len(p) > 0 && foreign == nil {
			foreign = []finding{{labmesh.FlagForeignGPU, sayForeign(p)}}
		}
		if s := g.slow(); s != nil && slow == nil {
			slow = s
		}
		busy := g.Utilization != nil && *g.Utilization > gpuBusyMost
		if g.SMMHz != nil && busy && i > 0 { // at first its clocks may still be rising
			clocks = append(clocks, *g.SMMHz)
		}
	}
	return append(append(append(out, foreign...), slow...), drift("GPU", clocks)...)
}

// consumed is the energy that a GPU took between the first and the last of
// states: by its own counter, or from its power.
func consumed(states []*gpuState, at []time.Time) (joules, watts *float64) {
	if len(states) < 2 {
		return nil, nil
	}
	first, last, wall := states[0], states[len(states)-1], at[len(at)-1].Sub(at[0]).Seconds()
	if wall <= 0 {
		return nil, nil
	}
	var j float64
	if first.EnergyJ != nil && last.EnergyJ != nil && *last.EnergyJ >= *first.EnergyJ {
		j = *last.EnergyJ - *first.EnergyJ
	} else {
		for i := 1; i < len(states); i++ {
			a, b := states[i-1].PowerW, states[i].PowerW
			if a == nil || b == nil {
				return nil, nil
			}
			j += (*a + *b) / 2 * at[i].Sub(at[i-1]).Seconds()
		}
	}
	w := j / wall
	return &j, &w
}

// gpuIdle is for how long the process that asks the driver is kept when it is not
// asked: to start one takes up to a second.
const gpuIdle = 15 * time.Second

// gpuLink is the process that asks the driver, started when it is needed.
type gpuLink struct {
	open func(context.Context) (GPUs, error)

	mu    sync.Mutex
	gpus  GPUs
	timer *time.Timer
}

// sample is how the GPU of d is; nil where nobody can say.
func (l *gpuLink) sample(ctx context.Context, d bench.Device) *gpuState {
	if l.open == nil || d.Class != classCUDA {
		return nil
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.gpus == nil {
		gpus, err := l.open(ctx)
		if err != nil {
			return nil
		}
		l.gpus = gpus
	}
	if l.timer == nil {
		l.timer = time.AfterFunc(gpuIdle, l.close)
	} else {
		l.timer.Reset(gpuIdle)
	}
	all, err := l.gpus.Sample(ctx)
	if err != nil {
		return nil
	}
	return find(all, d)
}

// close ends the process. It is started again when it is needed.
func (l *gpuLink) close() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.timer != nil {
		l.timer.Stop()
		l.timer = nil
	}
	if l.gpus != nil {
		_ = l.gpus.Close() // it has nothing to lose
		l.gpus = nil
	}
}
