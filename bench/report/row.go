package report

import (
	"strings"
	"time"

	"labmesh"
)

// Row is a row of benchmark_results: what one run of a runner measured at one
// batch size, and whose it is.
type Row struct {
	Task    labmesh.TaskID    `json:"task_id"`
	Attempt int               `json:"attempt"`
	Worker  labmesh.WorkerID  `json:"worker_id"`
	Host    string            `json:"hostname"`
	Labels  map[string]string `json:"labels"` // of the task
	labmesh.BenchRow
}

// commitLabels are the labels that name the commit a task measured, the first that is there.
var commitLabels = []string{"git_sha", "commit"}

// Commit is the commit that was measured, "" where no label says it.
func (r *Row) Commit() string { return commitOf(r.Labels) }

func commitOf(labels map[string]string) string {
	for _, l := range commitLabels {
		if v := labels[l]; v != "" {
			return v
		}
	}
	return ""
}

// timed reports whether the row holds times.
func (r *Row) timed() bool {
	return r.Wall != nil && r.Wall.P50 > 0 && (r.Status == labmesh.BenchOK || r.Status == labmesh.BenchTruncated)
}

// usable reports whether statistics may use the row.
func (r *Row) usable() bool { return r.timed() && r.Comparable }

// precision is the number format that was used, as far as is known.
func (r *Row) precision() string {
	if r.Work.Effective != "" {
		return r.Work.Effective
	}
	return r.Work.Requested
}

// machine is where it ran, as people call it.
func machine(host string, id labmesh.WorkerID) string {
	if host != "" {
		return host
	}
	return string(id)
}

// deviceName is a device as people call it.
func deviceName(class, name string) string {
	if name == "" {
		return class
	}
	return strings.Join(strings.Fields(name), " ")
}

// span is the time from the first to the last of rows.
func span(rows []Row) (from, to time.Time) {
	for i := range rows {
		at := rows[i].Started
		if from.IsZero() || at.Before(from) {
			from = at
		}
		if at.After(to) {
			to = at
		}
	}
	return from, to
}
