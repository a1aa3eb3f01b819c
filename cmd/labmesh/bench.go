package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"labmesh"
	"labmesh/bench"
	"labmesh/each"
)

// benchFlags are the flags of `labmesh bench`.
type benchFlags struct {
	taskFlags
	conf       bench.Config
	precisions []string
	runner     string
	on         []string
	each       string
	ab, gate   bool
	wait       bool
	detach     bool
	noGit      bool
	plot       string   // file to draw to
	files      []string // of --ab
}

// abRepeats is how many pairs of runs a comparison on one machine makes unless
// it is told: enough for a verdict, with one to spare.
const abRepeats = 10

func newBenchCommand(a *app) *cobra.Command {
	f := &benchFlags{}
	cmd := &cobra.Command{
		Use:   "bench [flags] MODEL",
		Short: "Time a model on machines of the mesh, and print what it took",
		Long: `Time a model: on one machine that fits, or with --each on every one of them. A worker
takes nothing else while it measures, waits until its machine is quiet, and runs the
model in --repeats processes, one after the other. Every run and batch size is a row of
benchmark_results, which labmesh sql, compare and trend look at; what disturbed a run
is in its row, and in the table.

MODEL is one of ` + strings.Join(modelNames(), ", ") + `,
a Hugging Face model that is in a worker's cache (--source hf), or an .onnx file of the
--bundle. It runs by torch or onnxruntime where they are, else by the engine that is
part of labmesh, which needs nothing (bert, resnet and mlp, fp32 on the processor).

--ab BASE CANDIDATE, two files with a benchmark task each, compares two configs on one
machine: their runs take turns, and are compared in pairs. The files may differ in
config and env only.

Ctrl-C cancels the tasks; what was measured by then is shown and stays on record.
Exit code: 0 measured; 1 a task did not complete, nothing could be measured, or with
--gate the candidate is slower; 2 bad usage; 3 no node; 130 interrupted.`,
		Example: `  labmesh bench bert-base-uncased
  labmesh bench bert-base-uncased --batch-sizes 1,2,4,8,16 --precision fp32,fp16 --on hardware=cuda --min-memory-gb 8
  labmesh bench resnet50 --each gpu.name
  labmesh bench bert-base-uncased --each worker --engine labmesh-go --repeats 3
  labmesh bench model.onnx --bundle ./models --on tag.site=attic
  labmesh bench --ab base.yaml candidate.yaml --gate
  labmesh bench mlp --bundle . --runner 'python3 my_runner.py' --json`,
		Args: func(cmd *cobra.Command, words []string) error {
			switch {
			case f.ab && len(words) != 2:
				return usagef("bench --ab: it takes two files, the base and the candidate; see `labmesh bench --help`")
			case !f.ab && len(words) != 1:
				return usagef("bench: it takes one model, e.g. labmesh bench bert-base-uncased; see `labmesh bench --help`")
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, words []string) error {
			if f.detach && cmd.Flags().Changed("wait") && f.wait {
				return usagef("--wait and --detach: it is one or the other")
			}
			if f.plot != "" && (f.detach || !f.wait) {
				return usagef("--plot needs the results: it does not go with --detach")
			}
			if err := checkPlot(f.plot); err != nil {
				return err
			}
			f.detach = f.detach || !f.wait
			var specs []labmesh.Spec
			var err error
			if f.ab {
				f.files = words
				specs, err = a.abSpecs(cmd.Flags(), f, words[0], words[1])
			} else {
				specs, err = a.benchSpecs(f, words[0])
			}
			if err != nil {
				return err
			}
			c, err := a.client()
			if err != nil {
				return err
			}
			defer c.Close()
			return a.bench(cmd.Context(), c, f, specs)
		},
	}
	f.bindBench(cmd.Flags())
	return cmd
}

func (f *benchFlags) bindBench(flags *pflag.FlagSet) {
	f.bind(flags)
	f.bindFiles(flags)
	hide(flags, "exclusive", "cpus", "gpus", "retries", "backoff", "tool", "cpu-limit", "pids-limit", "after") // a benchmark has the whole machine
	flags.Lookup("timeout").Usage = "end the benchmark of a machine that takes longer, with what it has (default never)"
	c := &f.conf
	flags.IntSliceVar(&c.BatchSizes, "batch-sizes", []int{1}, "`ITEMS` in one iteration: each is measured, e.g. 1,2,4,8")
	flags.StringSliceVar(&f.precisions, "precision", []string{bench.DefaultPrecision}, "number `FORMATS`, each a task of its own: "+strings.Join(bench.Precisions(), ", "))
	flags.IntVar(&c.Iterations, "iterations", bench.DefaultIterations, "measured, at least, for each batch size")
	flags.IntVar(&c.WarmupIterations, "warmup", bench.DefaultWarmupIterations, "iterations before that, at least; it goes on until times are steady")
	flags.Float64Var(&c.MinSeconds, "min-seconds", bench.DefaultMinSeconds, "measure each batch size for at least so many `SECONDS`")
	flags.Float64Var(&c.MaxSeconds, "max-seconds", bench.DefaultMaxSeconds, "and no longer than these `SECONDS`: the row then says truncated")
	flags.IntVar(&c.Repeats, "repeats", bench.DefaultRepeats, "processes to run it in, one after the other: what varies between them is what comparisons go by")
	flags.StringVar(&c.Engine, "engine", bench.EngineAuto, strings.Join(bench.Engines(), ", "))
	flags.StringVar(&c.Device, "device", "auto", "`DEVICE` to run on: a class, with an index if it matters, e.g. cpu, cuda, cuda:1")
	flags.IntVar(&c.Threads, "threads", 0, "threads of the processor (default one for each that the task may use)")
	flags.Int64Var(&c.Seed, "seed", 0, "of weights and inputs that are made up")
	flags.IntVar(&c.SequenceLength, "sequence-length", 0, "tokens of an item (default the model's)")
	flags.IntVar(&c.ImageSize, "image-size", 0, "pixels of a side (default the model's)")
	flags.StringVar(&c.Source, "source", "auto", "where the model comes from: "+strings.Join(bench.Sources(), ", "))
	flags.StringVar(&c.Fallback, "fallback", "", "run at this `PRECISION` (fp32) where the one asked for is not supported")
	flags.StringVar(&c.Cast, "cast", "", "native or autocast (default the engine's choice)")
	flags.BoolVar(&c.Compile, "compile", false, "have the engine compile the model first")
	flags.BoolVar(&c.TF32, "tf32", false, "let fp32 products use TF32 where the device has it")
	flags.Float64Var(&c.QuietSeconds, "quiet-seconds", bench.DefaultQuietSeconds, "wait so many `SECONDS` for a quiet machine, then measure and say that it was not; -1 does not wait")
	flags.StringVar(&f.runner, "runner", "", "measure by this `COMMAND`, a program of the --bundle or the machine that speaks the runner protocol (docs/benchmarks.md)")
	flags.StringArrayVar(&f.on, "on", nil, "where: `WHERE` is hardware=cuda, worker=ID or tag.KEY=VALUE (repeatable)")
	flags.StringVar(&f.each, "each", "", "once for each `WHAT` of the mesh: gpu.name, device, worker or tag.KEY; those left out are named")
	flags.BoolVar(&f.ab, "ab", false, "compare two task files on one machine")
	flags.BoolVar(&f.gate, "gate", false, "with --ab, exit with 1 when the candidate is slower")
	flags.StringVar(&f.plot, "plot", "", "draw latency and throughput over the batch size to this `FILE`, .svg or .png")
	flags.BoolVar(&f.noGit, "no-git", false, "do not label it with the git commit and branch of this directory")
	flags.BoolVar(&f.wait, "wait", true, "wait for the end and print the table")
	flags.BoolVar(&f.detach, "detach", false, "print the ids of the tasks and do not wait")
}

func hide(flags *pflag.FlagSet, names ...string) {
	for _, n := range names {
		flags.Lookup(n).Hidden = true
	}
}

func modelNames() (names []string) {
	for _, m := range bench.Models() {
		names = append(names, m.Name)
	}
	return names
}

// benchSpecs are the tasks that the flags describe: one for each precision.
func (a *app) benchSpecs(f *benchFlags, model string) ([]labmesh.Spec, error) {
	if f.gate {
		return nil, usagef("--gate: it is for --ab; for runs that were made before there is labmesh compare")
	}
	f.conf.Model = model
	for flag, bad := range map[string]bool{"--warmup": f.conf.WarmupIterations < 1, "--min-seconds": f.conf.MinSeconds <= 0, "--max-seconds": f.conf.MaxSeconds <= 0} {
		if bad {
			return nil, usagef("%s: it is more than 0", flag)
		}
	}
	if f.conf.QuietSeconds == 0 {
		return nil, usagef("--quiet-seconds: it is more than 0, or -1 for no wait")
	}
	if err := f.common(); err != nil {
		return nil, err
	}
	if f.runner != "" {
		var err error
		if f.conf.Runner, err = splitWords(f.runner); err != nil {
			return nil, usagef("--runner: %w", err)
		}
	}
	if f.bundle == "" && f.conf.FromFile() {
		return nil, usagef("%s: a model from a file comes in a bundle: name its directory by --bundle, and MODEL as seen from there", model)
	}
	if len(f.precisions) == 0 {
		return nil, usagef("--precision: it is empty; known are %s", strings.Join(bench.Precisions(), ", "))
	}
	var specs []labmesh.Spec
	for i, p := range f.precisions {
		if slices.Contains(f.precisions[:i], p) {
			return nil, usagef("--precision: %s is there twice", p)
		}
		conf := f.conf
		conf.Precision = p
		s, err := f.benchSpec(a, conf)
		if err != nil {
			return nil, err
		}
		specs = append(specs, s)
	}
	return specs, nil
}

// common checks what both kinds of benchmark share, and reads where they are to run.
func (f *benchFlags) common() error {
	if f.each != "" {
		if refused := each.Check(f.each); refused != nil {
			return usagef("--each%s", strings.TrimPrefix(refused.Message, each.Label))
		}
	}
	for _, w := range f.on {
		key, value, ok := strings.Cut(w, "=")
		tag, isTag := strings.CutPrefix(key, "tag.")
		switch {
		case !ok || value == "" || key == "":
			return usagef("--on %s: it is hardware=WORD, worker=ID or tag.KEY=VALUE", w)
		case key == "hardware":
			f.hardware = append(f.hardware, strings.Split(value, ",")...)
		case key == "worker" && f.worker != "" && f.worker != value:
			return usagef("--on %s: it cannot be worker %s too; for several of them there is --each worker", w, f.worker)
		case key == "worker":
			f.worker = value
		case isTag && tag != "":
			f.tags = append(f.tags, tag+"="+value)
		default:
			return usagef("--on %s: there is no %s; it is hardware=WORD, worker=ID or tag.KEY=VALUE", w, key)
		}
	}
	if f.bundle != "" {
		return checkBundle(f.bundle)
	}
	return nil
}

// benchSpec is one task, checked as the mesh will check it.
func (f *benchFlags) benchSpec(a *app, conf bench.Config) (labmesh.Spec, error) {
	s, err := f.spec(labmesh.Benchmark, explicit(conf), a.lookup)
	if err != nil {
		return s, flagged(err)
	}
	s.Labels, s.Bundle = f.labelled(s.Labels), f.bundle
	return s, nil
}

// labelled is labels with what git says of this directory, where they do not say it.
func (f *benchFlags) labelled(labels map[string]string) map[string]string {
	if f.noGit {
		return labels
	}
	out := gitLabels("")
	maps.Copy(out, labels)
	return out
}

// explicit is conf with the numbers that bench.Config leaves out when they are 0:
// a 0 that was asked for is to be refused, and not to become the default.
func explicit(conf bench.Config) map[string]any {
	data, err := json.Marshal(conf)
	fields := map[string]any{}
	if err == nil {
		err = json.Unmarshal(data, &fields)
	}
	if err != nil {
		return map[string]any{"model": conf.Model} // it is made of texts and numbers: it cannot be
	}
	fields["iterations"], fields["repeats"], fields["batch_sizes"] = conf.Iterations, conf.Repeats, conf.BatchSizes
	fields["seed"] = conf.Seed
	return fields
}

// flagNames are the flags of fields of a config whose name is another.
var flagNames = map[string]string{
	"config.model": "MODEL", "config.batch_sizes": "--batch-sizes", "config.max_seconds_per_batch": "--max-seconds", "config.warmup_iterations": "--warmup",
	"config.model_source": "--source", "config.on_unsupported_precision": "--fallback",
}

// flagged puts the flag in place of the field that a refusal names.
func flagged(err error) error {
	var refused *labmesh.Error
	if !errors.As(err, &refused) || !strings.HasPrefix(refused.Field, "config.") {
		return err
	}
	field, _, _ := strings.Cut(refused.Field, "[")
	flag := flagNames[field]
	if flag == "" {
		flag = "--" + strings.ReplaceAll(strings.TrimPrefix(field, "config."), "_", "-")
	}
	return usagef("%s", flag+strings.TrimPrefix(refused.Message, refused.Field))
}

// benchName is a task as people call it.
func benchName(s *labmesh.Spec) string {
	var conf struct{ Model, Precision string }
	_ = json.Unmarshal(s.Config, &conf) // it was checked
	return fmt.Sprintf("%s %s", conf.Model, orElse(conf.Precision, bench.DefaultPrecision))
}
