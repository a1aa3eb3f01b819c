package main

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"labmesh"
	"labmesh/api"
	"labmesh/exec/bench/engines"
	"labmesh/exec/probe"
	"labmesh/exec/process"
	"labmesh/exec/quiet"
	"labmesh/exec/runner"
	"labmesh/light/attach"
)

// workerFlags are the flags of `labmesh worker`.
type workerFlags struct {
	urls     []string
	id       string
	hostname string
	results  string
	level    string
}

func newWorkerCommand(a *app) *cobra.Command {
	f := &workerFlags{}
	cmd := &cobra.Command{
		Use:   "worker --coordinator URL...",
		Short: "Run tasks of a mesh on this machine without being a node of it",
		Long: `Run tasks of a mesh on this machine as a light worker: it attaches to the WebSocket
of a node, holds no copy of anything, and comes back by itself, to another of the
given nodes if need be. It takes one task at a time, and none with a bundle, secrets
or artifacts: those need a node (labmesh up).

The key is one with the role worker, best given in LABMESH_API_KEY. Ctrl-C stops
what runs, gives it back to the mesh, and removes what it left on this machine.`,
		Example: `  export LABMESH_API_KEY=$(labmesh key create --role worker --name shed)   # where a node is
  labmesh worker --coordinator http://10.0.0.5:8080
  labmesh worker --coordinator http://a:8080 --coordinator http://b:8080 --worker-id bench-3`,
		Args: args(cobra.NoArgs, "it takes no arguments; the node is given with --coordinator"),
		RunE: func(cmd *cobra.Command, _ []string) error { return runWorker(cmd.Context(), a, f) },
	}
	flags := cmd.Flags()
	flags.StringSliceVar(&f.urls, "coordinator", nil, "`URL` of a node; repeat it for others to go to when that is gone")
	flags.StringVar(&f.id, "worker-id", "", "`id` in the mesh (default: made of the hostname, and new each time)")
	flags.StringVar(&f.hostname, "hostname", "", "`name` of this machine as the mesh shows it (default: its own)")
	flags.StringVar(&f.results, "db-path", "", "also write each result to the end of `FILE`, a line of JSON each; DuckDB reads it with read_json")
	flags.StringVar(&f.level, "log-level", "info", "debug, info, warn or error")
	return cmd
}

func runWorker(ctx context.Context, a *app, f *workerFlags) (err error) {
	cfg, err := f.config(a)
	if err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "labmesh-worker-")
	if err != nil {
		return fmt.Errorf("make a directory for what runs: %w", err)
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	if f.results != "" {
		file, ferr := os.OpenFile(f.results, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
		if ferr != nil {
			return usagef("--db-path: %v", ferr)
		}
		defer func() { err = errors.Join(err, file.Close()) }()
		cfg.Results = file
	}
	close, err := equipWorker(ctx, a, dir, &cfg)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, close()) }()
	w, err := attach.Open(ctx, cfg)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, w.Close()) }()
	return w.Run(ctx)
}

// config is what the flags ask for.
func (f *workerFlags) config(a *app) (cfg attach.Config, err error) {
	var level slog.Level
	if err := level.UnmarshalText([]byte(f.level)); err != nil {
		return cfg, usagef("--log-level: %q is none of debug, info, warn, error", f.level)
	}
	switch {
	case len(f.urls) == 0:
		return cfg, usagef("--coordinator: give the URL of a node, e.g. http://127.0.0.1:8080")
	case a.key == "":
		return cfg, usagef("--api-key: it takes a key with the role worker; make one where a node is: labmesh key create --role worker")
	case f.id != "" && !api.ValidID(f.id):
		return cfg, usagef("--worker-id: %.40q is not 1 to %d of A-Z a-z 0-9 . _ : -", f.id, api.IDBytesMax)
	}
	if f.hostname == "" {
		if f.hostname, err = os.Hostname(); err != nil {
			return cfg, usagef("--hostname: this machine has no name: give it one")
		}
	}
	if f.id == "" {
		f.id = lightID(f.hostname)
	}
	said := ""
	return attach.Config{
		URLs: f.urls, Key: a.key, Worker: labmesh.WorkerID(f.id), Hostname: f.hostname,
		Logger: slog.New(slog.NewTextHandler(a.err, &slog.HandlerOptions{Level: level})),
		Attached: func(url string) {
			if url != said { // it comes back by a new socket for each task
				said = url
				_, _ = fmt.Fprintf(a.out, "labmesh worker attached %s worker=%s\n", url, f.id)
			}
		},
	}, nil
}

// lightID is a new id for a worker of a machine.
func lightID(hostname string) string {
	name := strings.Map(func(r rune) rune {
		if api.ValidID(string(r)) {
			return r
		}
		return -1
	}, hostname)
	var chance [3]byte
	_, _ = rand.Read(chance[:]) // it never fails
	return "light-" + name[:min(len(name), 64)] + "-" + hex.EncodeToString(chance[:])
}

// equipWorker readies what runs tasks, and looks at what the machine offers.
func equipWorker(ctx context.Context, a *app, dir string, cfg *attach.Config) (close func() error, err error) {
	self, err := os.Executable()
	if err != nil {
		return nil, fmt.Errorf("find this program: %w", err)
	}
	environ := make([]string, 0, 64)
	for _, v := range os.Environ() {
		if !strings.HasPrefix(v, "LABMESH_") {
			environ = append(environ, v)
		}
	}
	host, err := process.Open(ctx, process.Config{Dir: filepath.Join(dir, "running"), Nice: workerNice, Memory: probe.MemoryBytes(ctx), Logger: cfg.Logger})
	if err != nil {
		return nil, err
	}
	machine := quiet.New(quiet.Config{
		Version: readVersion().Version, Own: host.CPUTime, Owns: host.Owns,
		GPUs: func(context.Context) (quiet.GPUs, error) {
			return probe.OpenGPUs(nil, []string{self, internalCommand, statesCommand}), nil
		},
	})
	finder := engines.New(engines.Config{
		Dir: filepath.Join(dir, "engines"), Pythons: func() []string { return probe.Pythons(environ) },
		Env: runner.Environ(environ), BuiltIn: []string{self, internalCommand, runnerCommand}, Logger: cfg.Logger,
	})
	if cfg.Runners, err = runner.New(host, environ, runner.Benchmarks(finder.Find, machine)); err != nil {
		return nil, errors.Join(err, machine.Close(), host.Close())
	}
	cfg.Dir = filepath.Join(dir, "attempts")
	cfg.Capabilities = probe.Probe(ctx, probe.Config{Dir: dir, GPUChild: probe.Child(self, internalCommand, gpuCommand)})
	found := finder.Ask(ctx) // benchmarks go to workers with the engine that they ask for
	if cfg.Capabilities.Tools == nil {
		cfg.Capabilities.Tools = map[string]string{}
	}
	maps.Copy(cfg.Capabilities.Tools, engines.Tools(found))
	return func() error { return errors.Join(machine.Close(), host.Close()) }, nil
}

// workerNice is added to the priority number of what is run.
const workerNice = 5
