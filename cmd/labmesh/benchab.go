package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/spf13/pflag"

	"labmesh"
	"labmesh/api"
	"labmesh/bench"
)

// abSpecs is the one task that compares two files on one machine.
func (a *app) abSpecs(flags *pflag.FlagSet, f *benchFlags, baseFile, candFile string) ([]labmesh.Spec, error) {
	if err := f.common(); err != nil {
		return nil, err
	}
	if err := onlyPlace(flags); err != nil {
		return nil, err
	}
	base, err := a.benchFile(baseFile)
	if err != nil {
		return nil, err
	}
	cand, err := a.benchFile(candFile)
	if err != nil {
		return nil, err
	}
	repeats := 0
	if flags.Changed("repeats") {
		repeats = f.conf.Repeats
	}
	s, equal, err := pairOf(base, cand, repeats)
	if err != nil {
		return nil, usagef("%s and %s: %w", baseFile, candFile, err)
	}
	if equal {
		a.note("labmesh: %s and %s ask for the same: whatever differs is the machine's noise", baseFile, candFile)
	}
	if s, err = f.place(flags, s, a.lookup); err != nil {
		return nil, err
	}
	s.Labels = f.labelled(s.Labels)
	return []labmesh.Spec{s}, nil
}

// abFlags are those that go with --ab; what is to be measured is in the files.
var abFlags = []string{
	"ab", "gate", "plot", "each", "on", "repeats", "wait", "detach", "no-git", "name", "label", "priority", "timeout", "queue-timeout",
	"hardware", "min-memory-gb", "min-cuda-compute", "tag", "worker",
	"addr", "api-key", "data-dir", "json", "no-color",
}

// onlyPlace refuses flags that say what to measure.
func onlyPlace(flags *pflag.FlagSet) (err error) {
	flags.Visit(func(fl *pflag.Flag) {
		if err == nil && !slices.Contains(abFlags, fl.Name) {
			err = usagef("--%s: with --ab the two files say what to measure, but for --repeats", fl.Name)
		}
	})
	return err
}

// benchFile reads the one benchmark task of a file.
func (a *app) benchFile(file string) (labmesh.Spec, error) {
	tasks, err := a.readSpecs(file)
	switch {
	case err != nil:
		return labmesh.Spec{}, err
	case len(tasks) != 1 || tasks[0].Kind != labmesh.Benchmark:
		return labmesh.Spec{}, usagef("%s: for --ab it holds one benchmark task, not %s", file, plural(len(tasks), "task", "tasks"))
	case tasks[0].forEach != "":
		return labmesh.Spec{}, usagef("%s: with --ab, say --each %s in place of for_each", file, tasks[0].forEach)
	}
	return tasks[0].Spec, nil
}

// pairOf makes the task whose config is that of base, with what cand differs in
// as its candidate. They must agree in all but config, env and name. equal says that
// they do not differ. repeats are those of both, 0 for what they say.
func pairOf(base, cand labmesh.Spec, repeats int) (s labmesh.Spec, equal bool, err error) {
	if name := differing(base, cand); name != "" {
		return s, false, fmt.Errorf("they differ in %s: they may differ in config and env only", name)
	}
	said := saysRepeats(base.Config) || saysRepeats(cand.Config)
	a, refused := bench.Parse(base.Config)
	if refused == nil && a.Candidate != nil {
		refused = labmesh.RefuseField("config.candidate", "config.candidate: the first has one already")
	}
	if refused != nil {
		return s, false, refused
	}
	b, refused := bench.Parse(cand.Config)
	if refused == nil && b.Candidate != nil {
		refused = labmesh.RefuseField("config.candidate", "config.candidate: the second has one already")
	}
	if refused != nil {
		return s, false, refused
	}
	switch {
	case repeats > 0:
		a.Repeats, b.Repeats = repeats, repeats
	case !said:
		a.Repeats, b.Repeats = abRepeats, abRepeats
	}
	if s.Env, err = splitEnv(base.Env, cand.Env, &a, &b); err != nil {
		return s, false, err
	}
	diff, err := candidateOf(a, b)
	if err != nil {
		return s, false, err
	}
	env := s.Env
	s = base
	s.Env = env
	if a.Candidate, err = json.Marshal(diff); err != nil {
		return s, false, err
	}
	if s.Config, err = json.Marshal(a); err != nil {
		return s, false, err
	}
	if refused := sameDifference(s.Config, b); refused != nil {
		return s, false, refused
	}
	return s, len(diff) == 0, nil
}

// sameDifference makes sure that the mesh will read the candidate as it was written.
func sameDifference(config json.RawMessage, want bench.Config) error {
	c, refused := bench.Parse(config)
	if refused != nil {
		return refused
	}
	got, refused := c.B()
	if refused != nil {
		return refused
	}
	g, err := json.Marshal(got)
	w, err2 := json.Marshal(want)
	if err := errors.Join(err, err2); err != nil {
		return err
	}
	if !bytes.Equal(g, w) {
		return fmt.Errorf("the candidate would be run as %s, not as %s: write out the fields in which they differ in both files", g, w)
	}
	return nil
}

func saysRepeats(config json.RawMessage) bool {
	var c struct{ Repeats *int }
	return json.Unmarshal(config, &c) == nil && c.Repeats != nil
}

// differing is the first field, but for config, env and name, in which two tasks
// differ; "" for none.
func differing(a, b labmesh.Spec) string {
	x, y := fieldsOf(a), fieldsOf(b)
	for _, name := range slices.Sorted(maps.Keys(x)) {
		if !bytes.Equal(x[name], y[name]) {
			return name
		}
	}
	for _, name := range slices.Sorted(maps.Keys(y)) {
		if x[name] == nil {
			return name
		}
	}
	return ""
}

func fieldsOf(s labmesh.Spec) map[string]json.RawMessage {
	s.Config, s.Env, s.Name, s.IdempotencyKey = nil, nil, "", ""
	fields := map[string]json.RawMessage{}
	if data, err := json.Marshal(s); err == nil {
		_ = json.Unmarshal(data, &fields) // it was just written
	}
	return fields
}

// splitEnv is what two environments have in common. The rest goes into the
// configs, whose variables count for one side.
func splitEnv(base, cand map[string]string, a, b *bench.Config) (map[string]string, error) {
	common := map[string]string{}
	a.Env, b.Env = maps.Clone(a.Env), maps.Clone(b.Env)
	for _, side := range []struct {
		mine, other map[string]string
		to          *bench.Config
	}{{base, cand, a}, {cand, base, b}} {
		for k, v := range side.mine {
			if w, ok := side.other[k]; ok && w == v {
				common[k] = v
				continue
			}
			if side.to.Env == nil {
				side.to.Env = map[string]string{}
			}
			if _, ok := side.to.Env[k]; !ok {
				side.to.Env[k] = v
			}
		}
	}
	for k := range a.Env {
		if _, ok := b.Env[k]; !ok {
			return nil, fmt.Errorf("env.%s is only in the first: a candidate can change a variable and not take it away; set it in the second too, to nothing if need be", k)
		}
	}
	if len(common) == 0 {
		return nil, nil
	}
	return common, nil
}

// candidateOf is the fields of b that differ from those of a, as config.candidate takes them.
func candidateOf(a, b bench.Config) (map[string]json.RawMessage, error) {
	var x, y map[string]json.RawMessage
	for _, c := range []struct {
		conf bench.Config
		to   *map[string]json.RawMessage
	}{{a, &x}, {b, &y}} {
		data, err := json.Marshal(c.conf)
		if err != nil {
			return nil, err
		}
		if err := json.Unmarshal(data, c.to); err != nil {
			return nil, err
		}
	}
	diff := map[string]json.RawMessage{}
	for k, v := range y {
		if !bytes.Equal(v, x[k]) {
			diff[k] = v
		}
	}
	for k, v := range x {
		if y[k] == nil {
			diff[k] = nothing(v)
		}
	}
	return diff, nil
}

// nothing is the empty value of the same type as v: null would leave a field as it is.
func nothing(v json.RawMessage) json.RawMessage {
	switch v[0] {
	case '"':
		return json.RawMessage(`""`)
	case '[':
		return json.RawMessage(`[]`)
	case '{':
		return json.RawMessage(`{}`)
	case 't', 'f':
		return json.RawMessage(`false`)
	}
	return json.RawMessage(`0`)
}

// place narrows down where s runs, and names it, as the flags say.
func (f *benchFlags) place(flags *pflag.FlagSet, s labmesh.Spec, lookup func(string) (string, bool)) (labmesh.Spec, error) {
	said, err := f.spec(labmesh.Benchmark, json.RawMessage(s.Config), lookup)
	if err != nil {
		return s, err
	}
	r, more := &s.Requirements, said.Requirements
	for _, h := range more.Hardware {
		if !slices.ContainsFunc(r.Hardware, func(have string) bool { return strings.EqualFold(have, h) }) {
			r.Hardware = append(slices.Clone(r.Hardware), h)
		}
	}
	r.MinMemoryGB, r.MinCUDACompute = max(r.MinMemoryGB, more.MinMemoryGB), max(r.MinCUDACompute, more.MinCUDACompute)
	if more.WorkerID != "" {
		r.WorkerID = more.WorkerID
	}
	r.Tags, s.Labels = joined(r.Tags, more.Tags), joined(s.Labels, said.Labels)
	if said.Name != "" {
		s.Name = said.Name
	}
	if flags.Changed("priority") {
		s.Priority = said.Priority
	}
	if said.TimeoutSeconds > 0 {
		s.TimeoutSeconds = said.TimeoutSeconds
	}
	if said.QueueTimeoutSeconds > 0 {
		s.QueueTimeoutSeconds = said.QueueTimeoutSeconds
	}
	local := s
	if !api.ValidContentID(local.Bundle) {
		local.Bundle = "" // a directory here, which is to be uploaded
	}
	if err := api.ValidateSpec(&local); err != nil {
		return s, usageError{err}
	}
	return s, nil
}

// joined is a with what b adds or changes.
func joined(a, b map[string]string) map[string]string {
	if len(a)+len(b) == 0 {
		return nil
	}
	out := maps.Clone(a)
	if out == nil {
		out = map[string]string{}
	}
	maps.Copy(out, b)
	return out
}
