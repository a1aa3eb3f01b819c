package main

import (
	"context"
	"fmt"

	"github.com/dustin/go-humanize"
	"github.com/spf13/cobra"

	"labmesh"
	"labmesh/api"
	"labmesh/client"
)

func newTasksCommand(a *app) *cobra.Command {
	var status, kind, worker string
	var limit int
	var all bool
	cmd := &cobra.Command{
		Use:   "tasks",
		Short: "List tasks",
		Long:  "List tasks in the order of their submits, one page of them or with --all every one.",
		Example: `  labmesh tasks
  labmesh tasks --status failed --type test --limit 20
  labmesh tasks --all --json`,
		Args: args(cobra.NoArgs, "it takes no arguments (labmesh task ID shows one)"),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if status != "" && !labmesh.Phase(status).Known() {
				return usagef("--status %s: it is one of %s", status, join(labmesh.Phases()))
			}
			if limit < 1 || limit > api.PageMax {
				return usagef("--limit %d: it is 1 to %d (--all lists every task)", limit, api.PageMax)
			}
			c, err := a.client()
			if err != nil {
				return err
			}
			defer c.Close()
			q := client.TaskQuery{Status: labmesh.Phase(status), Type: labmesh.Kind(kind), Worker: labmesh.WorkerID(worker), Limit: limit}
			return a.listTasks(cmd, c, q, all)
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&status, "status", "", "only tasks that are `STATUS`: "+join(labmesh.Phases()))
	flags.StringVar(&kind, "type", "", "only tasks of `TYPE`: "+join(labmesh.Kinds()))
	flags.StringVar(&worker, "worker", "", "only tasks that this `WORKER` holds or held last")
	flags.IntVar(&limit, "limit", api.PageDefault, "how many")
	flags.BoolVar(&all, "all", false, "all of them, however many")
	return cmd
}

func (a *app) listTasks(cmd *cobra.Command, c *client.Client, q client.TaskQuery, all bool) error {
	tasks := []api.Task{}
	more := false
	if all {
		q.Limit = api.PageMax
		for t, err := range c.AllTasks(cmd.Context(), q) {
			if err != nil {
				return err
			}
			tasks = append(tasks, t)
		}
	} else {
		page, err := c.Tasks(cmd.Context(), q)
		if err != nil {
			return err
		}
		tasks, more = append(tasks, page.Tasks...), page.NextCursor != ""
	}
	if a.json {
		return a.printJSON(tasks)
	}
	if err := a.printTasks(tasks); err != nil {
		return err
	}
	if more {
		a.note("There are more: --all lists every one.")
	}
	return nil
}

func (a *app) printTasks(tasks []api.Task) error {
	t := newTable(a.out, "TASK", "TYPE", "NAME", "STATUS", "PRIORITY", "WORKER", "ATTEMPTS", "SUBMITTED", "TOOK")
	for _, task := range tasks {
		t.row(task.ID, task.Kind, task.Name, task.Status, task.Priority, task.Worker, task.Attempts,
			ago(a.now(), task.Created.Time), lasted(a.now(), task.Started.Time, task.Ended.Time))
	}
	return t.flush()
}

func newTaskCommand(a *app) *cobra.Command {
	return &cobra.Command{
		Use:     "task ID",
		Short:   "Show one task in full, with its attempts",
		Example: "  labmesh task \"$(labmesh run --detach -- echo hello)\"\n  labmesh task --json \"$(labmesh run --detach -- echo hello)\"",
		Args:    args(cobra.ExactArgs(1), "it takes one task id (labmesh tasks lists them)"),
		RunE:    ofTask(a, (*client.Client).Task, a.printTask),
	}
}

func (a *app) printTask(d api.TaskDetail) error {
	t := newTable(a.out)
	show := func(name, value string) {
		if value != "" && value != "-" && value != "null" && value != "{}" {
			t.line([]string{name, printable(value)})
		}
	}
	show("task", string(d.ID))
	show("name", string(d.Name))
	show("type", string(d.Kind))
	t.line([]string{"status", a.paint(a.out, phaseColour(d.Status), string(d.Status))})
	show("error", string(d.Error))
	show("cause", string(d.Cause))
	show("priority", fmt.Sprint(d.Priority))
	show("worker", string(d.Worker))
	show("submitted", local(a.now(), d.Created.Time))
	show("by", string(d.SubmittedBy))
	show("started", local(a.now(), d.Started.Time))
	show("ended", local(a.now(), d.Ended.Time))
	show("took", lasted(a.now(), d.Started.Time, d.Ended.Time))
	show("config", string(d.Config))
	show("requires", requirements(d.Requirements))
	if d.TimeoutSeconds > 0 {
		show("timeout", short(seconds(d.TimeoutSeconds)))
	}
	for _, name := range sortedKeys(d.Labels) {
		show("label", name+"="+d.Labels[name])
	}
	show("bundle", d.Bundle)
	if d.Outputs != nil {
		show("left", fmt.Sprintf("%d files, %s: labmesh artifacts %s", d.Outputs.Files, humanize.IBytes(uint64(d.Outputs.Bytes)), d.ID))
	}
	show("result", string(d.Result))
	if err := t.flush(); err != nil || len(d.History) == 0 {
		return err
	}
	fmt.Fprintln(a.out)
	h := newTable(a.out, "ATTEMPT", "WORKER", "STATUS", "CAUSE", "STARTED", "TOOK", "ERROR")
	for _, at := range d.History {
		h.row(at.Number, at.Worker, at.Status, at.Cause, ago(a.now(), at.Started.Time), short(seconds(at.Seconds)), at.Error)
	}
	return h.flush()
}

func newWhyCommand(a *app) *cobra.Command {
	return &cobra.Command{
		Use:     "why ID",
		Short:   "Say why a task is where it is, above all why it waits",
		Example: "  labmesh why \"$(labmesh run --detach --hardware cuda -- nvidia-smi)\"",
		Args:    args(cobra.ExactArgs(1), "it takes one task id (labmesh tasks lists them)"),
		RunE:    ofTask(a, (*client.Client).Why, a.printWhy),
	}
}

func (a *app) printWhy(w api.Why) error {
	fmt.Fprintf(a.out, "%s is %s: %s\n", w.Task, w.Status, printable(w.Summary))
	if w.Ahead > 0 {
		fmt.Fprintf(a.out, "%d tasks go first\n", w.Ahead)
	}
	t := newTable(a.out)
	for _, worker := range w.Workers {
		fit := "does not fit"
		if worker.Fits {
			fit = "fits"
		}
		t.line([]string{string(worker.Worker), fit, printable(join(worker.Reasons))})
	}
	return t.flush()
}

// ofTask runs a command about one task: it asks the node and prints the answer.
func ofTask[T any](a *app, ask func(*client.Client, context.Context, labmesh.TaskID) (T, error), print func(T) error) func(*cobra.Command, []string) error {
	return func(cmd *cobra.Command, ids []string) error {
		c, err := a.client()
		if err != nil {
			return err
		}
		defer c.Close()
		answer, err := ask(c, cmd.Context(), labmesh.TaskID(ids[0]))
		if err != nil {
			return named(err, ids[0])
		}
		if a.json {
			return a.printJSON(answer)
		}
		return print(answer)
	}
}

// requirements is r in one line.
func requirements(r labmesh.Requirements) string {
	var words []string
	add := func(want bool, format string, v any) {
		if want {
			words = append(words, fmt.Sprintf(format, v))
		}
	}
	add(len(r.Hardware) > 0, "hardware %s", join(r.Hardware))
	add(r.MinMemoryGB > 0, "memory ≥ %g GiB", r.MinMemoryGB)
	add(r.MinCUDACompute > 0, "CUDA compute ≥ %g", r.MinCUDACompute)
	add(r.CPUs > 0, "cpus %d", r.CPUs)
	add(r.GPUs > 0, "gpus %d", r.GPUs)
	add(r.Exclusive, "%s", "the whole worker")
	add(r.WorkerID != "", "worker %s", r.WorkerID)
	add(len(r.Tools) > 0, "tools %s", join(r.Tools))
	add(r.Sandbox != "", "sandbox %s", r.Sandbox)
	for _, k := range sortedKeys(r.Tags) {
		add(true, "tag %s", k+"="+r.Tags[k])
	}
	return join(words)
}
