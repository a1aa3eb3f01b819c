package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"math"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/dustin/go-humanize"
	"github.com/spf13/cobra"
	"go.yaml.in/yaml/v3"
	"golang.org/x/sys/unix"

	"labmesh"
	"labmesh/client"
	"labmesh/consensus"
	"labmesh/exec/calibrate"
	"labmesh/exec/probe"
	"labmesh/node"
	"labmesh/node/httpapi"
	"labmesh/scheduler"
)

// What the invite that `labmesh up` prints is good for.
const (
	upInviteTTL  = 24 * time.Hour
	upInviteUses = 16
)

// upFlags are the flags of `labmesh up` as they are given.
type upFlags struct {
	cfg      node.Config
	worker   string
	tags     map[string]string
	declared declaredFlag
	level    string
	format   string
	profile  string
	file     string
	noInvite bool
	leaf     bool
	noGauge  bool
	onStop   string

	blobCache string
}

func newUpCommand(a *app) *cobra.Command {
	f := &upFlags{}
	cmd := &cobra.Command{
		Use:   "up [--join INVITE]",
		Short: "Run this machine's node",
		Long: `Run this machine's node in the foreground. With an empty data dir and no --join
it founds a new mesh; with --join it comes into the mesh of the invite; with a data
dir that was used before it resumes where it was.

When it serves it prints one line on stdout,
  labmesh ready <api-url> node=<id> mesh=<id> role=<role>
and the command to paste on the next machine.

Ctrl-C ends running attempts, hands them back to the mesh, passes leadership on and
leaves. After SIGTERM, or kill -9, what runs goes on for 6 seconds (on Linux): a node
that is started again by then takes it up, and nothing is lost. --on-stop stop ends
attempts after SIGTERM too, --on-stop keep lets them go on also after Ctrl-C.

Tasks run as the user who runs the node.`,
		Example: `  labmesh up                                  # found a mesh, or resume
  labmesh up --join labmesh1:eyJtIjoi…        # join one
  labmesh up --data-dir /srv/labmesh --port 9000 --slots 4 --tag site=lab-2
  labmesh up --on-stop keep                   # a restart never ends what runs
  labmesh up --config /etc/labmesh.yaml       # the same names, as YAML`,
		Args: args(cobra.NoArgs, "it takes no arguments"),
		RunE: func(cmd *cobra.Command, _ []string) error { return runUp(cmd, a, f) },
	}
	fl := cmd.Flags()
	fl.StringVar(&f.cfg.Host, "host", "127.0.0.1", "`address` of the HTTP API; another than loopback needs TLS")
	fl.IntVar(&f.cfg.Port, "port", 8080, "`port` of the HTTP API; 0 picks one")
	fl.StringVar(&f.cfg.DBPath, "db-path", "", "the ledger `file` (default <data-dir>/ledger.duckdb)")
	fl.StringArrayVar(&f.cfg.MeshListen, "mesh-listen", nil, "`multiaddr` for other nodes; may be repeated (default /ip4/0.0.0.0/tcp/4080)")
	fl.StringArrayVar(&f.cfg.Join, "join", nil, "`invite` into a mesh; may be repeated, the first that opens counts")
	fl.StringVar(&f.cfg.Hostname, "hostname", "", "`name` of this machine (default its host name)")
	fl.StringVar(&f.worker, "worker-id", "", "`id` of this node's worker (default derived from the node's key)")
	fl.IntVar(&f.cfg.Slots, "slots", 0, "how many tasks of one CPU run at a time (default one for each core)")
	fl.BoolVar(&f.cfg.NoWork, "no-work", false, "take no tasks on this machine")
	fl.StringToStringVar(&f.tags, "tag", nil, "`key=value` that tasks may ask for; may be repeated")
	fl.Var(&f.declared, "declare", "a `device` that this machine has, whatever is found: cuda:name=NVIDIA T4,memory_gb=16,compute=7.5; may be repeated")
	fl.StringVar(&f.blobCache, "blob-cache", "", "how much `SIZE` bundles and artifacts may take on this disk, e.g. 50GiB (default 10GiB, or a tenth of a smaller disk)")
	fl.IntVar(&f.cfg.MaxReplicas, "max-replicas", consensus.MaxReplicas, "how many nodes of the mesh hold a copy of its log; those that join beyond are leaves, which work without one")
	fl.BoolVar(&f.leaf, "leaf", false, "join without a copy of the log, even where the mesh has room for one; --leaf=false makes a leaf take one")
	fl.StringVar(&f.profile, "raft-profile", "fast", "`profile` of the timeouts between nodes: fast, or wan for long lines and saturated machines")
	fl.StringVar(&f.cfg.TLSCert, "tls-cert", "", "certificate `file` for the HTTP API")
	fl.StringVar(&f.cfg.TLSKey, "tls-key", "", "key `file` for the HTTP API")
	fl.StringVar(&f.level, "log-level", "info", "debug, info, warn or error")
	fl.StringVar(&f.format, "log-format", "text", "text or json")
	fl.StringVar(&f.file, "config", "", "YAML `file` with any of these flags by name")
	fl.StringVar(&f.onStop, "on-stop", onStopAuto, "what becomes of running attempts: stop, keep, or auto (SIGTERM keeps them, Ctrl-C stops them)")
	fl.BoolVar(&f.noGauge, "no-calibrate", false, "do not measure how fast this machine is; else it is, some seconds a day while nothing runs here")
	fl.BoolVar(&f.noInvite, "no-invite", false, "mint and print no invite at start")
	return cmd
}

// declaredFlag are devices that the person at the machine declares. In one value, as
// in the environment, there may be several with semicolons between.
type declaredFlag []labmesh.Device

func (f *declaredFlag) String() string { return "" }

// Type names the values for pflag.
func (f *declaredFlag) Type() string { return "device" }

// Set adds devices.
func (f *declaredFlag) Set(value string) error {
	for s := range strings.SplitSeq(value, ";") {
		d, err := probe.ParseDeclared(s)
		if err != nil {
			return err
		}
		*f = append(*f, d)
	}
	return nil
}

func runUp(cmd *cobra.Command, a *app, f *upFlags) error {
	if err := flagsFromFile(cmd, f.file); err != nil {
		return usageError{err}
	}
	cfg, err := f.config(a)
	if err != nil {
		return usageError{err}
	}
	if cmd.Flags().Changed("leaf") {
		cfg.Leaf = &f.leaf
	}
	cfg.KeepOnStop = func() bool { return f.keeps(context.Cause(cmd.Context())) }
	noCores()
	n, err := node.Open(cmd.Context(), cfg)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(cmd.Context())
	defer cancel()
	defer context.AfterFunc(cmd.Context(), func() { a.note("%s", f.sayStop(n, context.Cause(cmd.Context()))) })()
	var beside sync.WaitGroup
	beside.Go(func() { tellReady(ctx, a, n, !f.noInvite) })
	beside.Go(func() { onHangup(ctx, n.Recheck) })
	if _, set := a.lookup("GOGC"); !set {
		beside.Go(func() { paceGC(ctx) })
	}
	err = n.Run(ctx)
	cancel()
	beside.Wait()
	return errors.Join(err, n.Close())
}

// noCores has what the node starts leave no core dumps, unless it asks for them
// itself (ulimit -c).
func noCores() {
	var l unix.Rlimit
	if unix.Getrlimit(unix.RLIMIT_CORE, &l) == nil {
		l.Cur = 0
		_ = unix.Setrlimit(unix.RLIMIT_CORE, &l) // to lower it is everybody's right
	}
}

// config turns flags into the node's configuration.
func (f *upFlags) config(a *app) (node.Config, error) {
	cfg := f.cfg
	cfg.DataDir = a.dataDir
	if cfg.DataDir == "" {
		cfg.DataDir = client.DefaultDataDir(a.getenv)
	}
	cfg.WorkerID, cfg.Tags, cfg.Declared, cfg.Version = labmesh.WorkerID(f.worker), f.tags, f.declared, version()
	switch f.profile {
	case "fast":
		cfg.Profile = consensus.Fast
	case "wan":
		cfg.Profile = consensus.WAN
	default:
		return cfg, fmt.Errorf("--raft-profile: %q is none of fast, wan", f.profile)
	}
	if f.blobCache != "" {
		n, err := humanize.ParseBytes(f.blobCache)
		if err != nil || n > math.MaxInt64 {
			return cfg, fmt.Errorf("--blob-cache: %q is no size: write it as 50GiB", f.blobCache)
		}
		cfg.BlobCache = max(int64(n), 1) // 0 would be the default
	}
	switch f.onStop {
	case onStopStop, onStopKeep, onStopAuto:
	default:
		return cfg, fmt.Errorf("--on-stop: %q is none of stop, keep, auto", f.onStop)
	}
	var level slog.Level
	if err := level.UnmarshalText([]byte(f.level)); err != nil {
		return cfg, fmt.Errorf("--log-level: %q is none of debug, info, warn, error", f.level)
	}
	switch opts := (&slog.HandlerOptions{Level: level}); f.format {
	case "text":
		cfg.Logger = slog.New(slog.NewTextHandler(a.err, opts))
	case "json":
		cfg.Logger = slog.New(slog.NewJSONHandler(a.err, opts))
	default:
		return cfg, fmt.Errorf("--log-format: %q is none of text, json", f.format)
	}
	self, err := os.Executable()
	if err != nil {
		return cfg, fmt.Errorf("find this program: %w", err)
	}
	cfg.Keeper = []string{self, internalCommand, keeperCommand}
	cfg.Sandbox = []string{self, internalCommand, sandboxCommand}
	cfg.GPUStates = []string{self, internalCommand, statesCommand}
	cfg.BuiltIn = []string{self, internalCommand, runnerCommand}
	cfg.GPUChild = probe.Child(self, internalCommand, gpuCommand)
	if !f.noGauge {
		cfg.Calibrate = calibrate.Child(self, internalCommand, calibrateCommand)
	}
	cfg.LedgerCheck = func(ctx context.Context, path string) error {
		out, err := exec.CommandContext(ctx, self, internalCommand, ledgerCommand, path).CombinedOutput()
		if err != nil {
			return fmt.Errorf("%w: %s", err, strings.TrimSpace(string(out)))
		}
		return nil
	}
	return cfg, cfg.Validate()
}

// What --on-stop takes.
const (
	onStopStop = "stop"
	onStopKeep = "keep"
	onStopAuto = "auto"
)

// keeps reports whether what runs goes on when the node stops for a reason: as
// signal.NotifyContext gives it, or nil when no signal asked for it.
func (f *upFlags) keeps(why error) bool {
	if f.onStop == onStopAuto {
		return why == nil || !strings.HasPrefix(why.Error(), os.Interrupt.String())
	}
	return f.onStop == onStopKeep
}

// sayStop says in a line what becomes of what runs.
func (f *upFlags) sayStop(n *node.Node, why error) string {
	running := n.Running()
	switch {
	case running == 0:
		return "labmesh: stopping; nothing runs here"
	case f.keeps(why) && n.Keeps():
		return fmt.Sprintf("labmesh: stopping; the attempts running here (%d) go on for %s, and are taken up if the node is started again by then (--on-stop stop ends them)", running, scheduler.Lease)
	}
	return fmt.Sprintf("labmesh: stopping; the attempts running here (%d) are ended and handed back (--on-stop keep lets them go on for a restart)", running)
}

// tellReady prints the ready line and the invite once the node serves.
func tellReady(ctx context.Context, a *app, n *node.Node, invite bool) {
	select {
	case <-n.Ready():
	case <-ctx.Done():
		return
	}
	st := n.Status(ctx)
	fmt.Fprintf(a.out, "labmesh ready %s node=%s mesh=%s role=%s\n", n.URL(), st.Node, st.Mesh, st.Role)
	for _, w := range st.Warnings {
		a.note("note: %s", w)
	}
	if !invite || n.Leaf() || n.Role() != labmesh.RoleNode {
		return
	}
	inv, err := n.Service().Invite(ctx, httpapi.InviteRequest{Role: labmesh.RoleNode, TTL: upInviteTTL, Uses: upInviteUses, By: "up"})
	if err != nil {
		if ctx.Err() == nil {
			a.note("no invite minted: %v; get one with: labmesh invite", err)
		}
		return
	}
	fmt.Fprintf(a.out, "on the next machine: labmesh up --join %s\n", inv)
}

// flagsFromFile sets every flag that neither the command line nor the
// environment has set from a YAML file with the same names.
func flagsFromFile(cmd *cobra.Command, path string) error {
	if path == "" {
		return nil
	}
	data, err := os.ReadFile(path)
	if err != nil {
		return fmt.Errorf("--config: %w", err)
	}
	var file map[string]any
	if err := yaml.Unmarshal(data, &file); err != nil {
		return fmt.Errorf("--config %s: %w", path, err)
	}
	for _, name := range slices.Sorted(maps.Keys(file)) {
		flag := cmd.Flags().Lookup(name)
		if flag == nil || name == "config" || name == "help" {
			return fmt.Errorf("--config %s: there is no setting %q", path, name)
		}
		if flag.Changed {
			continue
		}
		for _, v := range flagValues(file[name]) {
			if err := cmd.Flags().Set(name, v); err != nil {
				return fmt.Errorf("--config %s: %s: %w", path, name, err)
			}
		}
	}
	return nil
}

// flagValues is a YAML value as the words a flag takes.
func flagValues(v any) (out []string) {
	switch v := v.(type) {
	case []any:
		for _, e := range v {
			out = append(out, fmt.Sprint(e))
		}
	case map[string]any:
		for k, e := range v {
			out = append(out, k+"="+fmt.Sprint(e))
		}
	default:
		out = append(out, fmt.Sprint(v))
	}
	return out
}
