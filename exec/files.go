package exec

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"labmesh"
	"labmesh/exec/output"
)

// Files brings attempts the trees of files that they start from, and keeps
// those that they leave.
type Files interface {
	// Unpack makes a copy of the bundle id below dir, which is there and empty.
	// It fetches what is not on this machine. A refusal with reason Invalid or
	// TooLarge says that the bundle itself is no good, on any machine.
	Unpack(ctx context.Context, id, dir string) error
	// Keep keeps the files below dir that match patterns, and all files of the
	// directory extra as .labmesh/<name>. It may move extra into dir. Where
	// nothing is to be kept, it returns nil. A refusal with reason Invalid or
	// TooLarge says that these files cannot be kept, on any machine.
	Keep(ctx context.Context, dir string, patterns []string, extra string) (*labmesh.Outputs, error)
}

// Limits on what is done for an attempt before and after it runs.
const (
	unpackMax = 10 * time.Minute
	keepMax   = 10 * time.Minute
	// keepSoon is the same where the mesh waits for the end of the attempt: it gives
	// up 30 s after its timeout, and a minute after a cancel.
	keepSoon = 20 * time.Second
	// startWithin is how long word of a start waits for the bundle, so that
	// fetching it is not part of the attempt's time. It is less than the mesh
	// waits for a start.
	startWithin = 40 * time.Second
)

// Names in an attempt's directory, beside those of dirs.go.
const (
	keepName     = "keep"         // what its runner wants kept
	unpackedName = "unpacked"     // there once the bundle is in the work directory
	outputsName  = "outputs.json" // what was kept
)

// Keep is a directory, to be made by whoever needs it. The files that a runner puts there
// are kept with the attempt's outputs, whatever the task asks for, as .labmesh/<name>.
func (a Attempt) Keep() string { return filepath.Join(a.Dir, keepName) }

// unpack brings a its bundle. What kept it from that is an outcome.
func (w *Worker) unpack(ctx context.Context, a Attempt) (o labmesh.Outcome, failed bool) {
	id := a.Task.Spec.Bundle
	marker := filepath.Join(a.Dir, unpackedName)
	if _, err := os.Lstat(marker); err == nil {
		return o, false // by an earlier life of this worker, and the attempt has gone on since
	}
	if w.cfg.Files == nil {
		return labmesh.Outcome{Cause: labmesh.CauseBundle, Error: "this worker cannot fetch bundles"}, true
	}
	bounded, cancel := context.WithTimeout(ctx, unpackMax)
	defer cancel()
	err := emptied(a.Work())
	if err == nil {
		err = w.cfg.Files.Unpack(bounded, id, a.Work())
	}
	if err == nil {
		err = os.WriteFile(marker, nil, 0o600)
	}
	if err == nil {
		return o, false
	}
	if cause, message, stopped := Stopped(ctx); stopped {
		return labmesh.Outcome{Cause: cause, Error: message}, true
	}
	if bounded.Err() != nil {
		err = fmt.Errorf("it took longer than %s: %w", unpackMax, err)
	}
	return labmesh.Outcome{Cause: filesCause(err), Error: fmt.Sprintf("bundle %.12s…: %v", id, err)}, true
}

// emptied clears away what an unpacking that was cut off has left.
func emptied(dir string) error {
	if left, err := os.ReadDir(dir); err != nil || len(left) == 0 {
		return err
	}
	if err := os.RemoveAll(dir); err != nil {
		return err
	}
	return os.Mkdir(dir, dirMode)
}

// filesCause says whose fault it is that files could not be had or kept.
func filesCause(err error) labmesh.Cause {
	switch r := labmesh.ReasonOf(err); {
	case DiskFull(err):
		return labmesh.CauseDisk
	case r == labmesh.Invalid || r == labmesh.TooLarge:
		return labmesh.CauseConfig
	}
	return labmesh.CauseBundle
}

// keep keeps what the attempt leaves, and says so in its outcome. Most attempts
// leave nothing and cost nothing here.
// Run is the context that it ran under.
func (w *Worker) keep(run context.Context, a Attempt, o labmesh.Outcome) labmesh.Outcome {
	asked := a.Task.Spec.Artifacts
	whole := len(asked) > 0 || a.Output.Excerpt(output.Stdout).Truncated || a.Output.Excerpt(output.Stderr).Truncated
	if w.cfg.Files == nil || !whole && !there(a.Keep()) {
		return o
	}
	if kept := loadOutputs(a.Dir); kept != nil {
		o.Outputs = kept
		return o
	}
	most, ok := keepTime(run)
	if !ok {
		return o // nobody will hear of it
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(run), most)
	defer cancel()
	out, err := w.keepFiles(ctx, a, whole)
	switch {
	case err == nil:
		o.Outputs = out
	case o.OK && len(asked) > 0:
		o.OK, o.Cause, o.Error = false, filesCause(err), fmt.Sprintf("its artifacts could not be kept: %v", err)
	default: // its verdict stands
		a.Output.Write(output.Stderr, fmt.Appendf(nil, "\n[labmesh: the files that this attempt left could not be kept: %v]\n", err))
	}
	return o
}

// keepTime is how long keeping files may take after an attempt that ran under ctx.
func keepTime(ctx context.Context) (most time.Duration, ok bool) {
	if err := context.Cause(ctx); errors.Is(err, ErrSuperseded) || errors.Is(err, ErrShutdown) {
		return 0, false
	} else if err != nil {
		return keepSoon, true
	}
	if until, bounded := ctx.Deadline(); bounded {
		return min(keepMax, time.Until(until)+keepSoon), true
	}
	return keepMax, true
}

// keepFiles hands the files over. With whole the complete output goes with them.
func (w *Worker) keepFiles(ctx context.Context, a Attempt, whole bool) (*labmesh.Outputs, error) {
	if whole {
		if err := keepOutput(ctx, a); err != nil {
			return nil, err
		}
	}
	own, _ := os.ReadDir(a.Keep()) // there may be none
	asked := a.Task.Spec.Artifacts
	out, err := w.cfg.Files.Keep(ctx, a.Work(), asked, a.Keep())
	if err != nil {
		return nil, err
	}
	if len(asked) > 0 && (out == nil || out.Files <= len(own)) {
		a.Output.Write(output.Stderr, fmt.Appendf(nil, "\n[labmesh: no file in the work directory matches the artifacts %s]\n", strings.Join(asked, ", ")))
	}
	if out == nil {
		return nil, nil
	}
	if data, err := json.Marshal(out); err == nil {
		_ = os.WriteFile(filepath.Join(a.Dir, outputsName), data, 0o600) // without it a restart keeps them again
	}
	return out, nil
}

// keepOutput puts what a printed, as far as it is kept, among the files to keep.
func keepOutput(ctx context.Context, a Attempt) error {
	if err := os.MkdirAll(a.Keep(), dirMode); err != nil {
		return err
	}
	for _, s := range []output.Stream{output.Stdout, output.Stderr} {
		if a.Output.Excerpt(s).Bytes == 0 {
			continue
		}
		if err := copyOutput(ctx, a, s); err != nil {
			return err
		}
	}
	return nil
}

func copyOutput(ctx context.Context, a Attempt, s output.Stream) (err error) {
	from := a.Output.Open(ctx, output.Query{Stream: s})
	defer from.Close()
	to, err := os.OpenFile(filepath.Join(a.Keep(), string(s)), os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = io.Copy(to, from)
	return errors.Join(err, to.Close())
}

func there(path string) bool {
	_, err := os.Lstat(path)
	return err == nil
}

func loadOutputs(dir string) *labmesh.Outputs {
	data, err := os.ReadFile(filepath.Join(dir, outputsName))
	if err != nil {
		return nil
	}
	var out labmesh.Outputs
	if json.Unmarshal(data, &out) != nil || out.Tree == "" {
		return nil
	}
	return &out
}

// clear removes what is kept elsewhere once the attempt has ended: the copy of
// its bundle, with all that its program made of it, and the files handed over.
func (w *Worker) clear(k key, bundle bool, o labmesh.Outcome) {
	dir := attemptDir(w.cfg.Dir, k)
	var err error
	if bundle {
		err = os.RemoveAll(filepath.Join(dir, workName))
	}
	if o.Outputs != nil {
		err = errors.Join(err, os.RemoveAll(filepath.Join(dir, keepName)))
	} else {
		_ = os.Remove(filepath.Join(dir, keepName)) // where nothing was put there
	}
	if err != nil {
		w.cfg.Logger.Warn("files of an attempt not removed; the sweep will try again", "dir", dir, "err", strings.TrimSpace(err.Error()))
	}
}
