package bench

import (
	"fmt"
	"math"
	"os"
	"path/filepath"
	"runtime"
	"strconv"

	"labmesh"
	"labmesh/bench"
)

// arm is one of the configs that a task measures.
type arm struct {
	name string // a or b of a comparison, else ""
	conf bench.Config
	choice
	ran *labmesh.BenchWork // what its rows say it ran, once there is one
}

// turn is one launch of the runner that a task asks for: a run.
type turn struct {
	arm    *arm
	repeat int // from 1
}

// turns is the order of the runs: A, B, B, A, … so that what drifts touches both alike.
func turns(arms []*arm, repeats int) (out []turn) {
	for i := range repeats {
		for j := range arms {
			if i%2 == 1 {
				j = len(arms) - 1 - j
			}
			out = append(out, turn{arms[j], i + 1})
		}
	}
	return out
}

// specOf is what the runner of an arm is told.
func specOf(a *arm, batches []int, file string) bench.Spec {
	c := a.conf
	s := bench.Spec{
		V: bench.Protocol, Model: c.Model, Source: c.Source, File: file,
		Device: a.device.Class, DeviceUUID: a.device.UUID, Precision: c.Precision, Fallback: c.Fallback, Cast: c.Cast, BatchSizes: batches,
		SequenceLength: c.SequenceLength, ImageSize: c.ImageSize,
		Iterations: c.Iterations, MinSeconds: c.MinSeconds, MaxSeconds: c.MaxSeconds, WarmupIterations: c.WarmupIterations, WarmupSeconds: c.WarmupSeconds,
		Threads: c.Threads, Seed: c.Seed, Compile: c.Compile, TF32: c.TF32,
	}
	if visible(a.device) == "" && (a.index || a.device.Index > 0) {
		s.Device = fmt.Sprintf("%s:%d", a.device.Class, a.device.Index)
	}
	return s
}

// processors is how many threads an engine gets that the task does not tell how many: one
// for each processor it may use. Left to themselves engines disagree, and some use more than they say.
func processors(l *labmesh.Limits) int {
	n := runtime.NumCPU()
	if l != nil && l.CPUs > 0 {
		n = min(n, int(math.Ceil(l.CPUs)))
	}
	return n
}

// environment is what the runner of an arm sees beside what the task says.
func environment(a *arm) []string {
	env := append(a.engine.Env[:len(a.engine.Env):len(a.engine.Env)], "HF_HUB_OFFLINE=1", "TRANSFORMERS_OFFLINE=1")
	if n := a.conf.Threads; n > 0 {
		for _, name := range []string{"OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"} {
			env = append(env, name+"="+strconv.Itoa(n))
		}
	}
	if v := visible(a.device); v != "" {
		env = append(env, "CUDA_VISIBLE_DEVICES="+v)
	}
	return env
}

// modelFile is the path of a model that is a file of the bundle unpacked in dir, "" for any other.
func modelFile(c bench.Config, dir string) (string, *labmesh.Error) {
	if !c.FromFile() || c.Engine == bench.EngineCommand && c.Source != "file" {
		return "", nil
	}
	if !filepath.IsLocal(c.Model) {
		return "", labmesh.RefuseField("config.model", "config.model: %.200q leads out of the task's bundle", c.Model)
	}
	path := filepath.Join(dir, c.Model)
	if info, err := os.Stat(path); err != nil || !info.Mode().IsRegular() {
		return "", labmesh.RefuseField("config.model", "config.model: there is no file %.200s in the task's bundle: submit it with the task (bundle)", c.Model)
	}
	return path, nil
}
