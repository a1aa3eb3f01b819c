package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/spf13/cobra"

	"labmesh"
	"labmesh/api"
	"labmesh/client"
)

// Waits of `labmesh run`.
const (
	hintAfter   = 2 * time.Second  // of waiting, it says why
	outputDrain = 10 * time.Second // for output that is still on its way when the task has ended
	orderlyEnd  = 30 * time.Second // for a task to end that was cancelled
	submitGrace = 2 * time.Second  // after Ctrl-C, for the answer to a submit, to know what to cancel
)

type customConfig struct {
	Name  string   `json:"name"`
	Args  []string `json:"args,omitempty"`
	Shell bool     `json:"shell,omitempty"`
	Dir   string   `json:"dir,omitempty"`
	Umask string   `json:"umask,omitempty"`
}

func newRunCommand(a *app) *cobra.Command {
	var f taskFlags
	var conf customConfig
	var detach bool
	cmd := &cobra.Command{
		Use:   "run [flags] -- PROG ARGS…",
		Short: "Run a program somewhere in the mesh, as if it ran here",
		Long: `Run a program on a worker of the mesh that fits: its output comes here live, Ctrl-C
cancels it (a second one leaves at once), and labmesh exits with its exit code, or
with 124 when it timed out. A PROG that is a relative path, such as ./job.sh, means
that file here: it must be on the worker too, e.g. on a shared file system. With
--bundle it means that file of the bundle, and nothing needs to be on the worker: the
directory is shipped there, and what the mesh has of it already is not sent again.

With --json the output goes to stderr, and the task as JSON to stdout at the end.`,
		Example: `  labmesh run -- echo hello
  labmesh run --timeout 10m --retries 2 -- python3 -c 'print(6*7)'
  labmesh run --shell -- 'echo $HOME | wc -c'
  labmesh run --bundle . --artifact 'out/**' -- ./build.sh
  labmesh run --sandbox no_network --memory-limit 2GiB --cpu-limit 1.5 -- ./untrusted.sh
  labmesh run --detach --hardware cuda --gpus 1 -- nvidia-smi`,
		Args: args(cobra.MinimumNArgs(1), "it takes a program to run, e.g. labmesh run -- echo hello"),
		RunE: func(cmd *cobra.Command, words []string) error {
			conf.Name, conf.Args = words[0], words[1:]
			if f.bundle != "" {
				if err := checkBundle(f.bundle); err != nil {
					return err
				}
			} else if !conf.Shell {
				conf.Name = here(conf.Name)
			}
			spec, err := f.spec(labmesh.Custom, conf, a.lookup)
			if err != nil {
				return err
			}
			c, err := a.client()
			if err != nil {
				return err
			}
			defer c.Close()
			if f.bundle != "" {
				if spec.Bundle, err = a.bundleOf(cmd.Context(), c, f.bundle); err != nil {
					return err
				}
			}
			if detach {
				return a.submitOne(cmd.Context(), c, spec)
			}
			return a.runTask(cmd.Context(), c, spec)
		},
	}
	flags := cmd.Flags()
	flags.SetInterspersed(false) // what follows PROG is the program's
	f.bind(flags)
	f.bindFiles(flags)
	flags.BoolVar(&conf.Shell, "shell", false, "PROG is a script for /bin/sh, which sees ARGS as $1, $2, …")
	flags.StringVar(&conf.Dir, "dir", "", "`DIRECTORY` of the worker to run it in (default one of its own)")
	flags.StringVar(&conf.Umask, "umask", "", "file mode creation `MASK` in octal, e.g. 022 (default the node's)")
	flags.BoolVar(&detach, "detach", false, "print the task's id and do not wait")
	return cmd
}

// here makes a relative path to a file here absolute; a plain name stays one.
func here(prog string) string {
	if !strings.Contains(prog, "/") || filepath.IsAbs(prog) {
		return prog
	}
	abs, err := filepath.Abs(prog)
	if err != nil {
		return prog
	}
	if _, err := os.Stat(abs); err != nil {
		return prog
	}
	return abs
}

func (a *app) submitOne(ctx context.Context, c *client.Client, spec labmesh.Spec) error {
	reply, err := c.Submit(ctx, spec)
	if err != nil {
		return err
	}
	if a.json {
		return a.printJSON(reply)
	}
	_, err = fmt.Fprintln(a.out, reply.ID)
	return err
}

// runTask submits a task, follows it to its end and exits as it did. When ctx
// ends, by Ctrl-C, it cancels the task and still waits for its end.
func (a *app) runTask(ctx context.Context, c *client.Client, spec labmesh.Spec) error {
	work, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	watch := c.Watch(work)
	defer watch.Close()
	var reply api.SubmitReply
	err := unhurried(ctx, func(ctx context.Context) (err error) {
		reply, err = c.Submit(ctx, spec)
		return err
	})
	if err != nil {
		return err
	}
	id := reply.ID
	cancelled := a.cancelWith(ctx, work, stop, c, id)
	defer cancelled()
	end := a.followOutput(work, c, id)
	err = watch.Wait(work, []labmesh.TaskID{id}, !reply.Created, func(client.Verdict) {})
	incomplete := end(err == nil)
	if err != nil {
		return fmt.Errorf("follow %s: %w; see `labmesh task %s`", id, err, id)
	}
	if incomplete != nil {
		a.note("labmesh: not all output of %s came through: %v", id, incomplete)
	}
	t, err := c.Task(work, id)
	if err != nil {
		return err
	}
	if a.json {
		if err := a.printJSON(t); err != nil {
			return err
		}
	}
	if t.Outputs != nil && len(spec.Artifacts) > 0 {
		a.note("labmesh: it left %d files: labmesh artifacts %s -o DIR", t.Outputs.Files, id)
	}
	return runVerdict(t, ctx.Err() != nil)
}

// unhurried calls submit with a context that outlives ctx a little: whoever
// leaves in the middle of a submit would not know what to cancel.
func unhurried(ctx context.Context, submit func(context.Context) error) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	own, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	defer context.AfterFunc(ctx, func() { time.AfterFunc(submitGrace, cancel) })()
	err := submit(own)
	if err != nil && own.Err() != nil {
		return exitError{exitInterrupted, "interrupted while submitting: `labmesh tasks` shows whether it came in"}
	}
	return err
}

// cancelWith cancels the task when ctx ends, and stops all work when the task
// has not ended some time after that. What it returns undoes and joins it.
func (a *app) cancelWith(ctx, work context.Context, stop func(), c *client.Client, id labmesh.TaskID) (join func()) {
	over, leave := context.WithCancel(work)
	var g sync.WaitGroup
	g.Go(func() {
		select {
		case <-ctx.Done():
		case <-over.Done():
			return
		}
		a.note("labmesh: cancelling %s (Ctrl-C again leaves at once)", id)
		if _, err := c.Cancel(over, id, "interrupted"); err != nil && over.Err() == nil && labmesh.ReasonOf(err) != labmesh.Invalid {
			a.note("labmesh: could not cancel it: %v; try `labmesh cancel %s`", err, id)
			stop()
			return
		}
		select {
		case <-time.After(orderlyEnd):
			a.note("labmesh: %s has not ended within %s; see `labmesh task %s`", id, orderlyEnd, id)
			stop()
		case <-over.Done():
		}
	})
	return func() { leave(); g.Wait() }
}

// followOutput copies a task's output while it runs, and says why it waits when
// it does. The function it returns joins that: after a task that ended well it
// waits for the rest of the output, and returns why it was not complete.
func (a *app) followOutput(work context.Context, c *client.Client, id labmesh.TaskID) (end func(drain bool) error) {
	ctx, stop := context.WithCancel(work)
	hints, noHints := context.WithCancel(ctx)
	var g sync.WaitGroup
	errs := make([]error, 2)
	said := &notes{to: a.err}
	for i, s := range []struct {
		name string
		to   io.Writer
	}{{client.Stdout, a.out}, {client.Stderr, a.err}} {
		if a.json {
			s.to = a.err
		}
		g.Go(func() {
			q := client.LogQuery{Stream: s.name, Follow: true, After: api.LogPosition{Attempt: 1}} // whatever was before we came too
			errs[i] = copyStream(ctx, c, id, q, nil, s.to, said)
		})
	}
	var hint sync.WaitGroup
	hint.Go(func() { a.hint(hints, c, id) })
	return func(drain bool) error {
		noHints()
		hint.Wait()
		wait := time.Duration(0)
		if drain {
			wait = outputDrain
		}
		timer := time.AfterFunc(wait, stop)
		g.Wait()
		timer.Stop()
		stop()
		for i, err := range errs {
			if labmesh.ReasonOf(err) == labmesh.NotFound {
				errs[i] = nil // it printed nothing, or never ran
			}
		}
		return errors.Join(errs...)
	}
}

// hint says on stderr why a task waits, once it has for a while.
func (a *app) hint(ctx context.Context, c *client.Client, id labmesh.TaskID) {
	a.hintVia(ctx, c, id, func(format string, args ...any) { a.note("labmesh: "+format, args...) })
}

func (a *app) hintVia(ctx context.Context, c *client.Client, id labmesh.TaskID, note func(format string, args ...any)) {
	select {
	case <-time.After(hintAfter):
	case <-ctx.Done():
		return
	}
	w, err := c.Why(ctx, id)
	if err == nil && w.Status == labmesh.Pending {
		note("%s waits: %s", id, printable(w.Summary))
	}
}

// runVerdict is how `labmesh run` ends after a task that ended as t.
func runVerdict(t api.TaskDetail, interrupted bool) error {
	var result struct {
		ExitCode int `json:"exit_code"`
	}
	_ = json.Unmarshal(t.Result, &result) // a task that did not get to run has none
	code := result.ExitCode
	if code < 1 || code > 255 {
		code = exitFailed
	}
	why := string(t.Error)
	switch {
	case t.Status == labmesh.Completed:
		return nil
	case t.Status == labmesh.TimedOut:
		return exitError{exitTimedOut, orElse(why, "the task timed out")}
	case t.Status == labmesh.Cancelled && interrupted:
		return exitError{exitInterrupted, ""}
	case t.Status == labmesh.Cancelled:
		return exitError{exitFailed, orElse(why, "somebody cancelled the task")}
	case labmesh.Cause(t.Cause) == labmesh.CauseExit:
		return exitError{code, ""} // the program has said why
	}
	return exitError{code, orElse(why, "the task failed")}
}

func orElse(s, other string) string {
	if s == "" {
		return other
	}
	return s
}
