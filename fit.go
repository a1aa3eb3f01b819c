package labmesh

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// need is one thing that a task may ask of a worker: whether it is met, and
// what to tell people when it is not.
type need struct {
	met func(Kind, *Requirements, *Worker) bool
	say func(Kind, *Requirements, *Worker) string
}

// needs is the whole of matching tasks with workers. It knows nothing of what
// is free at the moment, only of what a worker is.
//
// Hardware, memory and compute capability are asked of the machine as a whole, but by a
// benchmark that asks for an accelerator of one device that an engine can use: see [Requirements.Device].
var needs = []need{
	{func(_ Kind, r *Requirements, w *Worker) bool { return r.WorkerID == "" || r.WorkerID == w.ID },
		func(_ Kind, r *Requirements, _ *Worker) string {
			return "the task asks for worker " + string(r.WorkerID)
		}},
	{func(k Kind, _ *Requirements, w *Worker) bool { return slices.Contains(w.Kinds, k) },
		func(k Kind, _ *Requirements, _ *Worker) string { return fmt.Sprintf("it runs no %s tasks", k) }},
	{func(_ Kind, r *Requirements, w *Worker) bool { return r.Slots(w.Slots) <= w.Slots },
		func(_ Kind, r *Requirements, w *Worker) string {
			return fmt.Sprintf("it has %d slots, the task takes %d", w.Slots, r.Slots(w.Slots))
		}},
	{func(k Kind, r *Requirements, w *Worker) bool {
		if !r.ofDevice(k) {
			return true
		}
		_, ok := r.Device(&w.Capabilities)
		return ok
	}, func(_ Kind, r *Requirements, w *Worker) string { return r.noDevice(&w.Capabilities) }},
	{func(k Kind, r *Requirements, w *Worker) bool { return r.ofDevice(k) || r.hasAll(w) },
		func(_ Kind, r *Requirements, w *Worker) string {
			words := r.lacking(w)
			why := ""
			if a := w.Capabilities.Absent[words[0]]; a != "" {
				why = " (" + a + ")"
			}
			return "it has no " + strings.Join(words, ", ") + why
		}},
	{func(_ Kind, r *Requirements, w *Worker) bool { return len(r.missing(w)) == 0 },
		func(_ Kind, r *Requirements, w *Worker) string {
			return "these tools are not on it: " + strings.Join(r.missing(w), ", ")
		}},
	{func(_ Kind, r *Requirements, w *Worker) bool {
		return r.Sandbox == SandboxNone || slices.Contains(w.Capabilities.Sandboxes, r.Sandbox)
	}, func(_ Kind, r *Requirements, w *Worker) string {
		why := ""
		if a := w.Capabilities.Absent["sandbox:"+string(r.Sandbox)]; a != "" {
			why = " (" + a + ")"
		}
		return "it cannot make the sandbox " + string(r.Sandbox) + why
	}},
	{func(k Kind, r *Requirements, w *Worker) bool {
		return r.ofDevice(k) || r.MinMemoryGB <= w.Capabilities.Memory.TotalGB
	},
		func(_ Kind, r *Requirements, w *Worker) string {
			return fmt.Sprintf("it has %.1f GiB of memory, the task needs %g", w.Capabilities.Memory.TotalGB, r.MinMemoryGB)
		}},
	{func(_ Kind, r *Requirements, w *Worker) bool { return r.GPUs <= w.Capabilities.GPUCount() },
		func(_ Kind, r *Requirements, w *Worker) string {
			return fmt.Sprintf("it has %d GPUs, the task takes %d", w.Capabilities.GPUCount(), r.GPUs)
		}},
	{func(k Kind, r *Requirements, w *Worker) bool {
		return r.ofDevice(k) || r.MinCUDACompute <= 0 || bestCompute(w) >= r.minCompute()
	}, func(_ Kind, r *Requirements, w *Worker) string {
		return fmt.Sprintf("the task needs CUDA compute capability %g or higher, it has %s", r.MinCUDACompute, bestCompute(w))
	}},
	{func(_ Kind, r *Requirements, w *Worker) bool {
		for k, v := range r.Tags {
			if w.Tags[k] != v {
				return false
			}
		}
		return true
	}, func(_ Kind, r *Requirements, w *Worker) string {
		var miss []string
		for k, v := range r.Tags {
			if w.Tags[k] != v {
				miss = append(miss, k+"="+v)
			}
		}
		slices.Sort(miss)
		return "it lacks the tag " + strings.Join(miss, ", ")
	}},
}

// Fits reports whether a task of kind with requirements r may ever run on w.
func (r *Requirements) Fits(kind Kind, w *Worker) bool {
	for i := range needs {
		if !needs[i].met(kind, r, w) {
			return false
		}
	}
	return true
}

// Misfits says in plain words everything about w that keeps a task of kind
// with requirements r from ever running there; none when it fits.
func (r *Requirements) Misfits(kind Kind, w *Worker) []string {
	var out []string
	for i := range needs {
		if !needs[i].met(kind, r, w) {
			out = append(out, needs[i].say(kind, r, w))
		}
	}
	return out
}

func (r *Requirements) lacking(w *Worker) (words []string) {
	for _, h := range r.Hardware {
		if !w.Capabilities.has(h) {
			words = append(words, h)
		}
	}
	return words
}

// hasAll reports whether every word for hardware is one of w.
func (r *Requirements) hasAll(w *Worker) bool {
	for _, h := range r.Hardware {
		if !w.Capabilities.has(h) {
			return false
		}
	}
	return true
}

// missing are the tools that w does not have.
func (r *Requirements) missing(w *Worker) (tools []string) {
	for _, t := range r.Tools {
		if _, ok := w.Capabilities.Tools[t]; !ok {
			tools = append(tools, t)
		}
	}
	return tools
}

func (c *Capabilities) has(word string) bool {
	for _, have := range c.Hardware {
		if strings.EqualFold(word, have) {
			return true
		}
	}
	return false
}

// compute is a CUDA compute capability as major*1000+minor, so that 10.0 is
// more than 9.0. A float would do for that; it would not for a minor of 10.
type compute int

func (c compute) String() string {
	if c == 0 {
		return "none"
	}
	return fmt.Sprintf("%d.%d", c/1000, c%1000)
}

func computeOf(s string) compute {
	major, minor, _ := strings.Cut(s, ".")
	a, err := strconv.Atoi(major)
	if err != nil || a < 0 || a > 1000 {
		return 0
	}
	b, err := strconv.Atoi(minor)
	if err != nil || b < 0 || b > 999 {
		b = 0
	}
	return compute(a*1000 + b)
}

func bestCompute(w *Worker) (best compute) {
	g := w.Capabilities.GPU
	if g == nil {
		return 0
	}
	for _, d := range g.Devices {
		best = max(best, computeOf(d.ComputeCapability))
	}
	return max(best, computeOf(strconv.FormatFloat(g.CUDACompute, 'f', -1, 64)))
}
