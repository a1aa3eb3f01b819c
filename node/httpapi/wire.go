package httpapi

import (
	"fmt"

	"labmesh"
	"labmesh/api"
)

func taskRow(t *labmesh.Task) api.Task {
	return api.Task{
		ID: t.ID, Kind: t.Spec.Kind, Name: api.Text(t.Spec.Name), Status: t.Phase, Priority: t.Spec.Priority,
		Worker: api.Text(t.Worker), Attempts: t.Attempt,
		Created: api.Time{Time: t.Created}, Started: api.Time{Time: t.Started}, Ended: api.Time{Time: t.Ended},
	}
}

func taskRows(tasks []labmesh.Task) []api.Task {
	out := make([]api.Task, len(tasks))
	for i := range tasks {
		out[i] = taskRow(&tasks[i])
	}
	return out
}

func taskDetail(t *labmesh.Task) api.TaskDetail {
	d := api.TaskDetail{
		Task: taskRow(t), Config: t.Spec.Config, Requirements: t.Spec.Requirements, Result: t.Result,
		Error: api.Text(t.Error), Cause: api.Text(t.Cause), History: make([]api.Attempt, len(t.History)),
		Labels: orEmpty(t.Spec.Labels), Env: t.Spec.Env,
		TimeoutSeconds: t.Spec.TimeoutSeconds, QueueTimeoutSeconds: t.Spec.QueueTimeoutSeconds,
		Bundle: t.Spec.Bundle, Artifacts: t.Spec.Artifacts, Limits: t.Spec.Limits, Outputs: t.Outputs,
		MaxAttempts: t.Spec.MaxAttempts, Retry: t.Spec.Retry, IdempotencyKey: t.Spec.IdempotencyKey,
		DependsOn: t.Spec.DependsOn, OnDisconnect: t.Spec.OnDisconnect, UnknownSince: api.Time{Time: t.Unknown},
		SubmittedBy: api.Text(t.By), NotBefore: api.Time{Time: t.NotBefore}, Index: t.Index,
	}
	for i := range t.History {
		d.History[i] = attempt(&t.History[i])
	}
	return d
}

func attempt(a *labmesh.Attempt) api.Attempt {
	return api.Attempt{
		Number: a.Number, Worker: a.Worker, Status: a.Status,
		Started: api.Time{Time: a.Started}, Ended: api.Time{Time: a.Ended}, Seconds: a.Seconds,
		Error: api.Text(a.Error), Cause: api.Text(a.Cause), Metrics: a.Metrics, Outputs: a.Outputs,
	}
}

func whyReply(y Why) api.Why {
	out := api.Why{Task: y.Task, Status: y.Status, Summary: y.Summary, Ahead: y.Ahead, Workers: make([]api.WhyWorker, len(y.Workers))}
	for i, w := range y.Workers {
		out.Workers[i] = api.WhyWorker{Worker: w.Worker, Hostname: w.Hostname, Fits: w.Fits, Reasons: orNone(w.Reasons)}
	}
	return out
}

func workerSummary(w *Worker) api.WorkerSummary {
	status := string(w.Status)
	if w.Busy && w.Status == labmesh.WorkerActive {
		status = api.WorkerBusy
	}
	c := &w.Capabilities
	sum := api.CapabilitiesSummary{
		Hardware: orNone(c.Hardware), Platform: api.Text(c.Platform),
		CPUs: max(c.CPU.Threads, c.CPU.Cores), MemoryGB: c.Memory.TotalGB, GPUs: c.GPUCount(),
	}
	if c.GPU != nil {
		sum.GPU = api.Text(c.GPU.Name)
	}
	return api.WorkerSummary{
		ID: w.ID, Node: w.Node, Hostname: w.Hostname, Status: status, Reason: api.Text(w.Reason),
		LastHeartbeat: api.Time{Time: w.Heartbeat}, Slots: w.Slots, SlotsUsed: w.SlotsUsed, Capabilities: sum,
	}
}

func workerDetail(w *Worker, tasks []labmesh.Task) api.Worker {
	full := w.Capabilities
	full.Hardware = orNone(full.Hardware)
	return api.Worker{
		WorkerSummary: workerSummary(w), Kinds: orNone(w.Kinds), Full: full, Metrics: w.Metrics,
		Tags: orEmpty(w.Tags), Registered: api.Time{Time: w.Registered}, Tasks: taskRows(tasks),
	}
}

func statusReply(s Status) api.Status {
	tasks := map[string]int{"total": s.TasksTotal}
	for _, p := range labmesh.Phases() {
		tasks[string(p)] = s.Tasks[p]
	}
	return api.Status{
		Workers: api.WorkerCounts(s.Workers), Tasks: tasks, Uptime: s.Uptime.Seconds(), Version: s.Version,
		Node: s.Node, Mesh: s.Mesh, Role: s.Role, Leader: api.Text(s.Leader), Term: s.Term,
		Voters: orNone(s.Voters), Replicas: orNone(s.Replicas), Leaves: orNone(s.Leaves), Quorum: s.Quorum, VotersAlive: s.Alive,
		Applied: s.Applied, Ledger: s.Ledger, Stale: s.StaleSeconds, Warnings: orNone(s.Warnings),
	}
}

func eventData(e *labmesh.Event) api.Event {
	out := api.Event{
		ID: eventID(e.Index, e.N), Index: e.Index, N: e.N, At: api.Time{Time: e.At}, Type: e.Type,
		Actor: e.Actor, Detail: e.Detail,
	}
	if t := e.Task; t != nil {
		out.Task = &api.EventTask{Task: taskRow(t), Error: api.Text(t.Error), Cause: api.Text(t.Cause)}
	}
	if e.Attempt != nil {
		at := attempt(e.Attempt)
		out.Attempt = &at
	}
	if w := e.Worker; w != nil {
		out.Worker = &api.EventWorker{
			ID: w.ID, Node: w.Node, Hostname: w.Hostname, Status: w.Status, Reason: api.Text(w.Reason), Slots: w.Slots,
		}
	}
	if m := e.Member; m != nil {
		out.Member = &api.EventMember{Node: m.Node, Role: m.Role, Hostname: m.Hostname, Banned: m.Banned}
	}
	if t := e.Tests; t != nil {
		out.Tests = &api.EventTests{Task: t.Task, Attempt: t.Attempt, Worker: t.Worker, From: t.From, Cases: orNone(t.Cases)}
	}
	if b := e.Bench; b != nil {
		out.Bench = &api.EventBench{Task: b.Task, Attempt: b.Attempt, Worker: b.Worker, From: b.From, Rows: orNone(b.Rows)}
	}
	return out
}

// benchRows are rows of benchmarks, each with whose it is.
func benchRows(list []labmesh.Bench) []api.BenchTaskRow {
	out := []api.BenchTaskRow{}
	for _, b := range list {
		for i, r := range b.Rows {
			out = append(out, api.BenchTaskRow{ID: b.ID + int64(i), Task: b.Task, Attempt: b.Attempt, Worker: b.Worker, Place: b.From + i, BenchRow: r})
		}
	}
	return out
}

func eventID(index uint64, n int) string { return fmt.Sprintf("%d-%d", index, n) }

// orNone is s, or a list that is empty and not null.
func orNone[T any](s []T) []T {
	if s == nil {
		return []T{}
	}
	return s
}

// orEmpty is m, or an object that is empty and not null.
func orEmpty(m map[string]string) map[string]string {
	if m == nil {
		return map[string]string{}
	}
	return m
}
