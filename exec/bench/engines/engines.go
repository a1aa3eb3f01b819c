package engines

import (
	"context"
	"log/slog"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"labmesh"
	"labmesh/bench"
	"labmesh/exec/bench/py"
)

// Config says where to look.
type Config struct {
	Dir     string          // for the runner's files, and for what is remembered
	Pythons func() []string // paths of the interpreters there are, the preferred first
	Env     []string        // that runners run in
	BuiltIn []string        // launches the built-in engine's runner; run or probe is added. None without
	Limit   time.Duration   // for one probe; 0 means 20 s
	Logger  *slog.Logger
}

// Found is an engine, or why it does not work.
type Found struct {
	labmesh.Engine
	Command []string          `json:"command,omitempty"` // launches its runner; run or probe is added
	Env     []string          `json:"env,omitempty"`     // beside Config.Env
	Devices []bench.Device    `json:"devices,omitempty"` // those it ran a kernel on
	Absent  map[string]string `json:"absent,omitempty"`  // by class of device: why it uses none
	Tools   map[string]string `json:"tools,omitempty"`   // what came with it, with versions, by name
	Late    bool              `json:"late,omitempty"`    // it did not answer in time: it may yet
}

// Finder finds engines and remembers them. Its methods may be called at the same time.
type Finder struct {
	cfg Config

	mu     sync.Mutex // held while an engine is asked: nobody asks twice
	memory memory
	read   bool // the file of what is remembered
}

// New makes a finder; it asks nothing yet.
func New(cfg Config) *Finder {
	if cfg.Limit <= 0 {
		cfg.Limit = limit
	}
	return &Finder{cfg: cfg}
}

// Find finds the engines of this machine, those that work before those that do
// not, and of each in the order in which to prefer them. What has not changed since it was asked is not asked again.
func (f *Finder) Find(ctx context.Context) []Found { return f.find(ctx, trust) }

// Ask finds the engines of this machine and asks each anew.
func (f *Finder) Ask(ctx context.Context) []Found { return f.find(ctx, nothing) }

// Remembered is what was found last, by this process or an earlier one, without
// what has changed since. It asks nobody.
func (f *Finder) Remembered() []Found { return f.find(context.Background(), only) }

// faith says when what is remembered will do.
type faith int

const (
	trust   faith = iota // where nothing changed
	nothing              // never
	only                 // and nothing else is wanted
)

func (f *Finder) find(ctx context.Context, how faith) []Found {
	f.mu.Lock()
	defer f.mu.Unlock()
	if !f.read {
		f.memory.read(f.file())
		f.read = true
	}
	var found, failed []Found
	for _, c := range f.candidates() {
		a, ok := f.memory.answer(c, f.cfg.Env)
		if !ok || how == nothing {
			if how == only || ctx.Err() != nil {
				continue
			}
			a = f.ask(ctx, c)
			if ctx.Err() != nil {
				continue // it may have failed for that
			}
			f.memory.put(a)
		}
		if a.Found.Reason != "" {
			failed = append(failed, a.Found)
			continue
		}
		if adds(found, a.Found) {
			found = append(found, a.Found)
		}
	}
	if how != only {
		f.memory.write(f.file(), f.cfg.Logger)
	}
	return append(found, reasons(found, failed)...)
}

func (f *Finder) file() string { return filepath.Join(f.cfg.Dir, "engines.json") }

// candidate is a program that may be, or have, an engine.
type candidate struct {
	engine  string
	path    string   // of the interpreter or program
	command []string // to which run or probe is added
	env     []string
}

// candidates lists them, the preferred first.
func (f *Finder) candidates() (all []candidate) {
	pythons := f.cfg.Pythons()
	if len(pythons) > 0 {
		script, err := py.Write(filepath.Join(f.cfg.Dir, "python"))
		if err != nil {
			f.cfg.Logger.Warn("no Python engines", "err", err)
			pythons = nil
		}
		for _, engine := range []string{bench.EngineTorch, bench.EngineONNX} {
			for _, path := range pythons {
				all = append(all, candidate{engine, path, []string{path, "-B", script, engine}, pythonEnv()})
			}
		}
	}
	if len(f.cfg.BuiltIn) > 0 {
		all = append(all, candidate{engine: bench.EngineBuiltIn, path: f.cfg.BuiltIn[0], command: f.cfg.BuiltIn})
	}
	return all
}

// pythonEnv is what an interpreter is told: nothing is fetched while it measures.
func pythonEnv() []string {
	return []string{"HF_HUB_OFFLINE=1", "TRANSFORMERS_OFFLINE=1", "PYTHONUNBUFFERED=1"}
}

// adds reports whether an engine can do what those before it of the same name
// cannot: it has a device of a class that they lack.
func adds(before []Found, f Found) bool {
	known := map[string]bool{}
	first := true
	for _, b := range before {
		if b.Name != f.Name {
			continue
		}
		first = false
		for _, d := range b.Devices {
			known[d.Class] = true
		}
	}
	return first || slices.ContainsFunc(f.Devices, func(d bench.Device) bool { return !known[d.Class] })
}

// reasons makes one of the failures of each engine that was not found, which tells of all.
func reasons(found, failed []Found) (out []Found) {
	for _, f := range failed {
		if slices.ContainsFunc(found, func(g Found) bool { return g.Name == f.Name }) {
			continue
		}
		i := slices.IndexFunc(out, func(g Found) bool { return g.Name == f.Name })
		if i < 0 {
			out = append(out, Found{Engine: labmesh.Engine{Name: f.Name, Path: f.Path, Reason: f.Reason}, Late: f.Late})
			continue
		}
		out[i].Path, out[i].Late = "", out[i].Late || f.Late
		if !strings.Contains(out[i].Reason, f.Reason) {
			out[i].Reason += "; " + f.Reason
		}
	}
	return out
}

// Tools are the engines that work, and what came with them, with their versions, by name.
func Tools(found []Found) map[string]string {
	tools := map[string]string{}
	put := func(name, version string) {
		if _, ok := tools[name]; !ok {
			tools[name] = version
		}
	}
	for _, f := range found {
		if f.Reason != "" {
			continue
		}
		if f.Name != bench.EngineBuiltIn {
			put(f.Name, f.Version)
		}
		for name, version := range f.Tools {
			put(name, version)
		}
	}
	return tools
}
