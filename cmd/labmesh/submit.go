package main

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"labmesh"
	"labmesh/api"
	"labmesh/client"
)

func newSubmitCommand(a *app) *cobra.Command {
	var file string
	var wait bool
	var timeout time.Duration
	cmd := &cobra.Command{
		Use:   "submit [-f] FILE|-",
		Short: "Submit tasks from a file: JSON, JSON Lines or YAML",
		Long: `Submit tasks from a file or stdin: one task, a list of them, JSON Lines, or YAML
documents. Either all are good or none is submitted. Prints their ids in the order
of the file, one a line. A task's bundle may be the id of one that was uploaded, or a
directory, as seen from the file (from here for stdin): it is uploaded first. A task
with the field for_each stands for one task for each worker, device, gpu.name or tag.KEY
that there is just now; which are left out, and why, goes to stderr.

With --wait it follows them all, exits with 1 when any did not complete, and with 124
when --timeout passes first; the tasks then go on.`,
		Example: `  echo '{"type":"custom","config":{"name":"echo","args":["hello"]}}' | labmesh submit --wait
  printf 'type: custom\nconfig: {name: sleep, args: ["1"]}\n' | labmesh submit
  printf 'type: benchmark\nfor_each: gpu.name\nconfig: {model: bert-base-uncased, precision: fp16}\n' | labmesh submit
  for i in 1 2 3; do echo '{"type":"custom","config":{"name":"true"}}'; done | labmesh submit -f - --wait --timeout 1m`,
		Args: args(cobra.MaximumNArgs(1), "it takes one file at most, - for stdin"),
		RunE: func(cmd *cobra.Command, files []string) error {
			if len(files) > 0 {
				if cmd.Flags().Changed("file") {
					return usagef("name the file once: %s or -f %s", files[0], file)
				}
				file = files[0]
			}
			if timeout < 0 || timeout > 0 && !wait {
				return usagef("--timeout %s: it bounds the wait of --wait", timeout)
			}
			tasks, err := a.readSpecs(file)
			if err != nil {
				return err
			}
			c, err := a.client()
			if err != nil {
				return err
			}
			defer c.Close()
			specs, err := a.expandAll(cmd.Context(), c, tasks)
			if err != nil {
				return err
			}
			if err := a.uploadAll(cmd.Context(), c, specs); err != nil {
				return err
			}
			return a.submitAll(cmd.Context(), c, specs, wait, timeout)
		},
	}
	flags := cmd.Flags()
	flags.StringVarP(&file, "file", "f", "-", "the `FILE` with the tasks; - is stdin")
	flags.BoolVar(&wait, "wait", false, "wait until all have ended")
	flags.DurationVar(&timeout, "timeout", 0, "with --wait, wait no longer than this (default for ever)")
	return cmd
}

// submitAll submits specs, prints their ids and, if asked, waits for their end.
func (a *app) submitAll(ctx context.Context, c *client.Client, specs []labmesh.Spec, wait bool, timeout time.Duration) error {
	var watch *client.Watch
	if wait {
		watch = c.Watch(ctx)
		defer watch.Close()
	}
	reply, err := a.submitSpecs(ctx, c, specs)
	if !a.json || !wait {
		if perr := a.printIDs(reply.IDs); perr != nil && err == nil {
			err = perr
		}
	}
	if err != nil {
		if n := len(reply.IDs); n > 0 {
			return fmt.Errorf("%d of %d tasks were submitted, then: %w", n, len(specs), err)
		}
		return err
	}
	if !wait {
		return nil
	}
	check := reply.Created < len(specs)
	verdicts, err := a.await(ctx, watch, reply.IDs, check, timeout, "tasks")
	if a.json {
		if perr := a.printJSON(inOrder(reply.IDs, verdicts)); perr != nil && err == nil {
			err = perr
		}
	}
	if err != nil {
		return err
	}
	return a.sumUp(reply.IDs, verdicts)
}

func (a *app) submitSpecs(ctx context.Context, c *client.Client, specs []labmesh.Spec) (api.BatchReply, error) {
	if len(specs) > 1 {
		return c.SubmitBatch(ctx, specs)
	}
	one, err := c.Submit(ctx, specs[0])
	if err != nil {
		return api.BatchReply{}, err
	}
	reply := api.BatchReply{IDs: []labmesh.TaskID{one.ID}}
	if one.Created {
		reply.Created = 1
	}
	return reply, nil
}

func (a *app) printIDs(ids []labmesh.TaskID) error {
	if a.json {
		if ids == nil {
			ids = []labmesh.TaskID{}
		}
		return a.printJSON(map[string]any{"task_ids": ids})
	}
	var b strings.Builder
	for _, id := range ids {
		b.WriteString(string(id))
		b.WriteByte('\n')
	}
	_, err := fmt.Fprint(a.out, b.String())
	return err
}

// await waits until all of ids have ended, with a bar on a terminal.
func (a *app) await(ctx context.Context, w *client.Watch, ids []labmesh.TaskID, check bool, timeout time.Duration, what string) (map[labmesh.TaskID]client.Verdict, error) {
	wait := ctx
	if timeout > 0 {
		var cancel context.CancelFunc
		wait, cancel = context.WithTimeout(ctx, timeout)
		defer cancel()
	}
	verdicts := make(map[labmesh.TaskID]client.Verdict, len(ids))
	bar := a.newProgress(len(ids), what)
	err := w.Wait(wait, ids, check, func(v client.Verdict) {
		verdicts[v.ID] = v
		bar.one(v.OK(), what)
	})
	bar.end()
	if err != nil && wait.Err() != nil && ctx.Err() == nil {
		return verdicts, exitError{exitTimedOut, fmt.Sprintf("%d of %d %s have not ended within %s; they go on", len(ids)-len(verdicts), len(ids), what, timeout)}
	}
	if err != nil && ctx.Err() != nil {
		return verdicts, exitError{exitInterrupted, fmt.Sprintf("stopped waiting: %d of %d %s go on", len(ids)-len(verdicts), len(ids), what)}
	}
	return verdicts, err
}

// failuresShown bounds how many failures are named one by one.
const failuresShown = 20

// sumUp says on stderr how the tasks ended; it is an error when any did not complete.
func (a *app) sumUp(ids []labmesh.TaskID, verdicts map[labmesh.TaskID]client.Verdict) error {
	counts := map[labmesh.Phase]int{}
	shown := 0
	for _, v := range inOrder(ids, verdicts) {
		counts[v.Status]++
		if v.OK() {
			continue
		}
		if shown++; shown <= failuresShown {
			a.note("%s %s: %s", v.ID, a.paint(a.err, phaseColour(v.Status), string(v.Status)), printable(orElse(v.Error, "no reason was given")))
		}
	}
	if shown > failuresShown {
		a.note("… and %d more: `labmesh tasks --status failed`", shown-failuresShown)
	}
	var parts []string
	for _, p := range labmesh.Phases() {
		if counts[p] > 0 {
			parts = append(parts, fmt.Sprintf("%d %s", counts[p], p))
		}
	}
	a.note("%s", strings.Join(parts, ", "))
	if shown > 0 {
		return exitError{exitFailed, ""}
	}
	return nil
}

// inOrder is the verdicts in the order of ids, each once.
func inOrder(ids []labmesh.TaskID, verdicts map[labmesh.TaskID]client.Verdict) []client.Verdict {
	list := make([]client.Verdict, 0, len(verdicts))
	seen := make(map[labmesh.TaskID]bool, len(ids))
	for _, id := range ids {
		if v, ok := verdicts[id]; ok && !seen[id] {
			seen[id] = true
			list = append(list, v)
		}
	}
	return list
}
