package main

import (
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"labmesh"
	"labmesh/api"
	"labmesh/client"
)

func newWorkersCommand(a *app) *cobra.Command {
	return &cobra.Command{
		Use:     "workers [ID]",
		Short:   "List the workers, or show one in full",
		Example: "  labmesh workers\n  labmesh workers --json\n  labmesh workers \"$(labmesh workers --json | jq -r '.[0].worker_id')\"",
		Args:    args(cobra.MaximumNArgs(1), "it takes one worker id at most"),
		RunE: func(cmd *cobra.Command, ids []string) error {
			c, err := a.client()
			if err != nil {
				return err
			}
			defer c.Close()
			if len(ids) == 1 {
				w, err := c.Worker(cmd.Context(), labmesh.WorkerID(ids[0]))
				if err != nil {
					return named(err, ids[0])
				}
				return a.printWorker(w)
			}
			return a.printWorkers(cmd, c)
		},
	}
}

func (a *app) printWorkers(cmd *cobra.Command, c *client.Client) error {
	workers, err := c.Workers(cmd.Context())
	if err != nil {
		return err
	}
	if a.json {
		if workers == nil {
			workers = []api.WorkerSummary{}
		}
		return a.printJSON(workers)
	}
	t := newTable(a.out, "WORKER", "HOST", "STATUS", "SLOTS", "CPUS", "MEMORY", "GPU", "HARDWARE", "HEARD")
	for _, w := range workers {
		status := w.Status
		if w.Reason != "" {
			status += " (" + string(w.Reason) + ")"
		}
		t.row(w.ID, w.Hostname, status, fmt.Sprintf("%d/%d", w.SlotsUsed, w.Slots), w.Capabilities.CPUs,
			gib(w.Capabilities.MemoryGB), gpus(w.Capabilities), strings.Join(w.Capabilities.Hardware, ","), ago(a.now(), w.LastHeartbeat.Time))
	}
	return t.flush()
}

func (a *app) printWorker(w api.Worker) error {
	if a.json {
		return a.printJSON(w)
	}
	t := newTable(a.out)
	show := func(name, value string) {
		if value != "" {
			t.line([]string{name, printable(value)})
		}
	}
	show("worker", string(w.ID))
	show("host", w.Hostname)
	show("node", string(w.Node))
	show("status", strings.TrimSpace(w.Status+" "+string(w.Reason)))
	show("slots", fmt.Sprintf("%d of %d used", w.SlotsUsed, w.Slots))
	show("kinds", join(w.Kinds))
	show("platform", w.Full.Platform)
	show("hardware", strings.Join(w.Full.Hardware, ", "))
	show("cpu", strings.TrimSpace(fmt.Sprintf("%s %d cores, %d threads", w.Full.CPU.Model, w.Full.CPU.Cores, w.Full.CPU.Threads)))
	show("memory", fmt.Sprintf("%s, %s available", gib(w.Full.Memory.TotalGB), gib(w.Full.Memory.AvailableGB)))
	if d := w.Full.Disk; d != nil {
		show("disk", fmt.Sprintf("%s, %s free", gib(d.TotalGB), gib(d.FreeGB)))
	}
	for i := range w.Full.Devices {
		show("device", deviceLine(&w.Full.Devices[i]))
	}
	for _, e := range w.Full.Engines {
		show("engine", engineLine(e))
	}
	if c := w.Full.Calibration; c != nil {
		show("speed", calibrationLine(c))
		show("slower", c.Slower)
	}
	show("sandboxes", join(w.Full.Sandboxes))
	for _, name := range sortedKeys(w.Full.Absent) {
		show("no "+name, w.Full.Absent[name])
	}
	for _, name := range sortedKeys(w.Full.Tools) {
		show(name, w.Full.Tools[name])
	}
	for _, name := range sortedKeys(w.Tags) {
		show("tag", name+"="+w.Tags[name])
	}
	if m := w.Metrics; m != nil {
		show("now", fmt.Sprintf("cpu %.0f%%, load %.2f, %s memory available, %d running", m.CPUPercent, m.Load1, gib(m.MemoryAvailableGB), m.Running))
	}
	show("registered", local(a.now(), w.Registered.Time))
	show("heard", local(a.now(), w.LastHeartbeat.Time))
	if err := t.flush(); err != nil || len(w.Tasks) == 0 {
		return err
	}
	fmt.Fprintln(a.out)
	return a.printTasks(w.Tasks)
}

// deviceLine says in a line what a device is, and why it is not usable.
func deviceLine(d *labmesh.Device) string {
	parts := []string{strings.TrimSpace(fmt.Sprintf("%s:%d %s", d.Class, d.Index, d.Name))}
	for _, p := range []struct{ before, value string }{{"", gib(d.MemoryGB)}, {"compute ", d.Compute}, {"driver ", d.Driver}, {"", d.UUID}, {"runs with ", strings.Join(d.Engines, ", ")}} {
		if p.value != "" {
			parts = append(parts, p.before+p.value)
		}
	}
	line := fmt.Sprintf("%s: %s", d.Level, strings.Join(parts, ", "))
	if d.Reason != "" {
		line += " (" + d.Reason + ")"
	}
	return line
}

// calibrationLine says in a line how fast a machine was when it was last measured.
func calibrationLine(c *labmesh.Calibration) string {
	line := fmt.Sprintf("%.2f × the reference on one processor", c.Speed)
	for _, p := range []struct {
		value float64
		unit  string
	}{{c.GFLOPSOne, "GFLOPS on one"}, {c.GFLOPS, "GFLOPS on all"}, {c.MemoryGBs, "GB/s of memory"}, {c.DiskMBs, "MB/s of disk"}, {c.DeviceGFLOPS, "GFLOPS on the accelerator"}} {
		if p.value > 0 {
			line += fmt.Sprintf(", %.3g %s", p.value, p.unit)
		}
	}
	return line + ", measured " + c.At.Local().Format("2006-01-02 15:04")
}

// engineLine says in a line what an engine is, or why it does not work.
func engineLine(e labmesh.Engine) string {
	line := strings.TrimSpace(e.Name + " " + e.Version + " " + e.Path)
	if e.Reason != "" {
		line += " does not work: " + e.Reason
	}
	return line
}

func gib(n float64) string {
	if n == 0 {
		return ""
	}
	return fmt.Sprintf("%.1f GiB", n)
}

func gpus(c api.CapabilitiesSummary) string {
	switch {
	case c.GPUs == 0:
		return ""
	case c.GPU == "":
		return fmt.Sprint(c.GPUs)
	}
	return fmt.Sprintf("%d× %s", c.GPUs, c.GPU)
}

func join[S ~string](words []S) string {
	parts := make([]string, len(words))
	for i, w := range words {
		parts[i] = string(w)
	}
	return strings.Join(parts, ", ")
}

// named is err with the id that it is about, where it does not say.
func named(err error, id string) error {
	if err == nil || strings.Contains(err.Error(), id) {
		return err
	}
	if labmesh.ReasonOf(err) == labmesh.NotFound || labmesh.ReasonOf(err) == labmesh.Invalid {
		return fmt.Errorf("%s: %w", id, err)
	}
	return err
}
