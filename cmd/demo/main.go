// Command demo shows on one machine what labmesh is for. It runs three real
// nodes on loopback, submits real tasks to all three, kills the leader with -9 in
// the middle, and checks that every task ended exactly once, that no task was
// restarted because the leader died, and that all nodes tell the same story. It
// exits with 1 when any of that does not hold. With -stay it only runs the three
// nodes, for somebody to try things on.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"

	"labmesh/lab"
)

// demoWait bounds the whole demonstration, but for a build.
const demoWait = 3 * time.Minute

// The exit codes.
const (
	exitHeld        = 0
	exitFailed      = 1 // something did not hold
	exitUsage       = 2
	exitInterrupted = 130
)

// options are the flags.
type options struct {
	bin   string
	dir   string
	slots int
	tasks int
	stay  bool
	logs  bool
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // a second Ctrl-C ends at once; the nodes end by themselves then
	os.Exit(run(ctx))
}

func run(ctx context.Context) int {
	o := options{}
	flag.StringVar(&o.bin, "bin", "", "the labmesh `binary` to run (default: build one)")
	flag.StringVar(&o.dir, "dir", "", "`directory` for the nodes' data, kept afterwards (default: a temporary one)")
	flag.IntVar(&o.slots, "slots", 2, "tasks that each node runs at a `time`")
	flag.IntVar(&o.tasks, "tasks", 150, "about how many tasks to submit")
	flag.BoolVar(&o.stay, "stay", false, "only run the mesh, until Ctrl-C")
	flag.BoolVar(&o.logs, "logs", false, "show what the nodes log")
	flag.Parse()
	if flag.NArg() > 0 || o.tasks < 30 || o.slots < 1 {
		fmt.Fprintln(os.Stderr, "demo: it takes flags only, at least 30 tasks and one slot; see -help")
		return exitUsage
	}
	err := o.run(ctx, newScreen(os.Stdout))
	switch {
	case err == nil:
		return exitHeld
	case ctx.Err() != nil:
		fmt.Fprintln(os.Stderr, "demo: interrupted; the nodes are ended")
		if o.stay {
			return exitHeld
		}
		return exitInterrupted
	}
	fmt.Fprintln(os.Stderr, "demo:", err)
	return exitFailed
}

// run readies the binary and the directory and plays on them.
func (o options) run(ctx context.Context, s *screen) (err error) {
	dir := o.dir
	if dir == "" {
		if dir, err = os.MkdirTemp("", "labmesh-demo-"); err != nil {
			return err
		}
		defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	} else if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	if o.bin == "" {
		s.say("building labmesh")
		if o.bin, err = lab.Build(ctx, dir); err != nil {
			return err
		}
	} else if o.bin, err = filepath.Abs(o.bin); err != nil {
		return err
	}
	if o.stay {
		return o.stayUp(ctx, s, dir)
	}
	ctx, cancel := context.WithTimeoutCause(ctx, demoWait, fmt.Errorf("not done after %s", demoWait))
	defer cancel()
	return o.play(ctx, s, dir)
}

// mesh starts the three nodes.
func (o options) mesh(ctx context.Context, s *screen, dir string) (*lab.Mesh, error) {
	cfg := lab.Config{Bin: o.bin, Dir: dir, Nodes: 3, Slots: o.slots, Joined: func(n *lab.Node) {
		s.say("%s is up at %s (process %d)", n.Name, n.URL(), n.PID())
	}}
	if o.logs {
		cfg.Output = os.Stderr
	}
	return lab.Start(ctx, cfg)
}

// stayUp runs the mesh until ctx ends.
func (o options) stayUp(ctx context.Context, s *screen, dir string) error {
	m, err := o.mesh(ctx, s, dir)
	if err != nil {
		return err
	}
	s.say("three nodes, three voters. In another terminal:")
	s.plain("")
	s.plain("  export LABMESH_DATA_DIR=%s", m.Nodes[0].Dir)
	s.plain("  %s status", o.bin)
	s.plain("  %s run -- echo hello", o.bin)
	s.plain("  %s sql 'SELECT task_id, status, worker_id FROM distributed_tasks'", o.bin)
	s.plain("  kill -9 %d     # %s; then ask another: --data-dir %s", m.Nodes[0].PID(), m.Nodes[0].Name, m.Nodes[1].Dir)
	s.plain("  curl -H 'X-API-Key: %s' %s/status", m.Nodes[1].Key(), m.Nodes[1].URL())
	s.plain("")
	s.say("Ctrl-C ends them all")
	<-ctx.Done()
	return m.Close()
}
