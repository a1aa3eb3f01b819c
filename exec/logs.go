package exec

import (
	"context"
	"io"
	"os"
	"path/filepath"
	"strconv"

	"labmesh"
	"labmesh/exec/output"
)

// Logs reads what an attempt printed or prints. Attempt 0 means the newest that
// is on this disk. An attempt unknown here, or swept, is refused as NotFound.
func (w *Worker) Logs(ctx context.Context, task labmesh.TaskID, attempt int, q output.Query) (io.ReadCloser, error) {
	if attempt == 0 {
		attempt = newest(taskDir(w.cfg.Dir, task))
	}
	k := key{task, attempt}
	if o := w.outputOf(k); o != nil {
		return o.Open(ctx, q), nil
	}
	dir := attemptDir(w.cfg.Dir, k)
	if _, err := os.Stat(dir); attempt < 1 || err != nil {
		return nil, labmesh.Refuse(labmesh.NotFound, "the output of attempt %d of %s is not on this machine: it did not run here, or was swept", attempt, task)
	}
	o, err := output.Load(dir)
	if err != nil {
		return nil, err
	}
	return o.Open(ctx, q), nil
}

func (w *Worker) outputOf(k key) *output.Output {
	w.mu.Lock()
	defer w.mu.Unlock()
	if r := w.have[k]; r != nil {
		return r.output
	}
	return nil
}

// newest is the highest attempt number in a task's directory, 0 without one.
func newest(dir string) int {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return 0
	}
	most := 0
	for _, e := range entries {
		if n, err := strconv.Atoi(e.Name()); err == nil {
			most = max(most, n)
		}
	}
	return most
}

func attemptDir(root string, k key) string {
	return filepath.Join(taskDir(root, k.task), strconv.Itoa(k.attempt))
}
