package exec

import (
	"context"
	"os"
	"strconv"

	"labmesh"
	"labmesh/exec/output"
)

// Logs reads what an attempt printed or prints. Attempt 0 means the newest that
// is on this disk. An attempt unknown here, or swept, is refused as NotFound.
func (w *Worker) Logs(ctx context.Context, task labmesh.TaskID, attempt int, q output.Query) (*output.Reader, error) {
	if attempt == 0 {
		attempt = w.newest(task)
	}
	k := key{task, attempt}
	if o := w.outputOf(k); o != nil {
		return o.Open(ctx, q), nil
	}
	dir := attemptDir(w.cfg.Dir, k)
	if w.journal.wasQuiet(k) {
		o := output.New(dir)
		o.Close()
		return o.Open(ctx, q), nil
	}
	if _, err := os.Stat(dir); attempt < 1 || err != nil {
		return nil, labmesh.Refuse(labmesh.NotFound, "the output of attempt %d of %s is not on this machine: it did not run here, or was swept", attempt, task)
	}
	o, err := output.Load(dir)
	if err != nil {
		return nil, err
	}
	return o.Open(ctx, q), nil
}

// Runs reports whether an attempt runs here, or has ended here so lately that
// its end is still to be reported: its output is whole when it ends.
func (w *Worker) Runs(task labmesh.TaskID, attempt int) bool {
	return w.outputOf(key{task, attempt}) != nil
}

func (w *Worker) outputOf(k key) *output.Output {
	w.mu.Lock()
	defer w.mu.Unlock()
	if r := w.have[k]; r != nil {
		return r.output
	}
	return nil
}

// newest is the highest number of an attempt of task known here, 0 without one.
func (w *Worker) newest(task labmesh.TaskID) (most int) {
	w.mu.Lock()
	for k := range w.have {
		if k.task == task {
			most = max(most, k.attempt)
		}
	}
	w.mu.Unlock()
	entries, err := os.ReadDir(taskDir(w.cfg.Dir, task))
	if err != nil && most == 0 && w.journal.wasQuiet(key{task, 1}) {
		return 1 // only first attempts leave nothing
	}
	for _, e := range entries {
		if n, err := strconv.Atoi(e.Name()); err == nil {
			most = max(most, n)
		}
	}
	return most
}
