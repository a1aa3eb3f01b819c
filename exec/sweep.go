package exec

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"labmesh"
)

// Keep says which ended attempts stay on disk. Of each bound the newest stay.
type Keep struct {
	Age      time.Duration
	Attempts int
	Bytes    int64
}

// DefaultKeep is what a worker keeps unless told otherwise.
func DefaultKeep() Keep { return Keep{Age: 7 * 24 * time.Hour, Attempts: 20_000, Bytes: 10 << 30} }

const nameBytesMax = 128 // of a task id as the name of a directory

// taskDir is the directory of a task's attempts. Ids are chosen by submitters:
// what could lead elsewhere is escaped.
func taskDir(root string, id labmesh.TaskID) string {
	plain := func(c byte) bool {
		return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '-' || c == '_' || c == '.'
	}
	var b strings.Builder
	for i := range len(id) {
		if c := id[i]; plain(c) && (i > 0 || c != '.') {
			b.WriteByte(c)
		} else {
			fmt.Fprintf(&b, "%%%02X", c)
		}
	}
	name := b.String()
	if len(name) > nameBytesMax || name == "" {
		sum := sha256.Sum256([]byte(id))
		name = "%sha256-" + hex.EncodeToString(sum[:])
	}
	return filepath.Join(root, name)
}

// sweepLoop removes old attempts: at once, from time to time, and as soon as the
// disk is below its floor.
func (w *Worker) sweepLoop(ctx context.Context) {
	for {
		w.untilCalm(ctx)
		if n, err := w.sweep(ctx, time.Now()); err != nil {
			w.cfg.Logger.WarnContext(ctx, "old attempts not swept", "removed", n, "err", err)
		} else if n > 0 {
			w.cfg.Logger.InfoContext(ctx, "old attempts swept", "removed", n)
		}
		if !w.untilSweep(ctx) {
			return
		}
	}
}

// untilCalm waits, within a bound, while something is measured here. It does not
// while the disk is below its floor.
func (w *Worker) untilCalm(ctx context.Context) {
	for began := time.Now(); w.cfg.Held != nil && w.cfg.Held() && time.Since(began) < heldMax; {
		if ok, _ := w.Accepts(); !ok || !pause(ctx, nil, pressureEvery) {
			return
		}
	}
}

// untilSweep waits until it is time to sweep, and reports whether ctx goes on.
// A sweep that could not help is not tried again at once: to list all attempts of
// a worker is work.
func (w *Worker) untilSweep(ctx context.Context) bool {
	calm, _ := w.Accepts()
	for began := time.Now(); time.Since(began) < sweepEvery; {
		if !pause(ctx, nil, pressureEvery) {
			return false
		}
		switch ok, _ := w.Accepts(); {
		case ok:
			calm = true
		case calm || time.Since(began) >= pressureRest:
			return true
		}
	}
	return true
}

// kept is an attempt's directory.
type kept struct {
	dir   string
	at    time.Time
	bytes int64
}

// sweep removes the attempts that are over what is to be kept, and all that have
// ended when the disk is below its floor. It never touches one that is held.
func (w *Worker) sweep(ctx context.Context, now time.Time) (removed int, err error) {
	all, err := listAttempts(ctx, w.cfg.Dir)
	if err != nil {
		return 0, err
	}
	held := w.heldDirs() // after the list: an attempt is held before it has a directory, so one that begins meanwhile is not in the list, or is held
	for _, dir := range surplus(all, w.cfg.Keep, now) {
		if held[dir] || ctx.Err() != nil {
			continue
		}
		if err := removeAttempt(dir); err != nil {
			return removed, err
		}
		removed++
	}
	if ok, _ := w.Accepts(); ok {
		return removed, nil
	}
	slices.Reverse(all) // oldest first, for the disk's sake
	for _, a := range all {
		if !w.tight() || ctx.Err() != nil {
			break
		}
		if held[a.dir] {
			continue
		}
		if err := removeAttempt(a.dir); err != nil {
			return removed, err
		}
		removed++
	}
	return removed, nil
}

func (w *Worker) heldDirs() map[string]bool {
	dirs := make(map[string]bool)
	for _, t := range w.cfg.Desk.Assigned() {
		dirs[attemptDir(w.cfg.Dir, keyOf(t))] = true
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	for k := range w.have {
		dirs[attemptDir(w.cfg.Dir, k)] = true
	}
	return dirs
}

// surplus picks from all, which is sorted newest first, the directories over what is to be kept.
func surplus(all []kept, k Keep, now time.Time) []string {
	var dirs []string
	var bytes int64
	for i, a := range all {
		bytes += a.bytes
		if i >= k.Attempts || bytes > k.Bytes || now.Sub(a.at) > k.Age {
			dirs = append(dirs, a.dir)
		}
	}
	return dirs
}

// listAttempts lists the attempts below root, newest first.
func listAttempts(ctx context.Context, root string) ([]kept, error) {
	tasks, err := os.ReadDir(root)
	if err != nil {
		return nil, fmt.Errorf("list attempts: %w", err)
	}
	var all []kept
	for _, t := range tasks {
		if strings.HasPrefix(t.Name(), ".") {
			continue // not a task's
		}
		numbers, err := os.ReadDir(filepath.Join(root, t.Name()))
		if err != nil || ctx.Err() != nil {
			continue // swept meanwhile, or no directory of ours
		}
		for _, n := range numbers {
			dir := filepath.Join(root, t.Name(), n.Name())
			if info, err := n.Info(); err == nil && info.IsDir() {
				all = append(all, kept{dir, changed(dir, info.ModTime()), treeBytes(dir)})
			}
		}
	}
	slices.SortFunc(all, func(a, b kept) int { return b.at.Compare(a.at) })
	return all, ctx.Err()
}

// changed is when an attempt last made, renamed or removed something right in its
// directory, which was changed at, or in one that it began with. What nobody
// touched still bears the time of long ago that all are made with.
func changed(dir string, at time.Time) time.Time {
	for _, name := range []string{workName, tmpName} {
		if info, err := os.Lstat(filepath.Join(dir, name)); err == nil && info.ModTime().After(at) {
			at = info.ModTime()
		}
	}
	return at
}

// treeBytes is roughly what dir takes on disk.
func treeBytes(dir string) int64 {
	const blockBytes = 4096 // even an empty one takes this
	var sum int64
	_ = filepath.WalkDir(dir, func(_ string, d fs.DirEntry, err error) error {
		if err != nil {
			return nil //nolint:nilerr // what cannot be read is not counted
		}
		if info, err := d.Info(); err == nil {
			sum += max(info.Size(), blockBytes)
		}
		return nil
	})
	return sum
}

func removeAttempt(dir string) error {
	if err := os.RemoveAll(dir); err != nil {
		return fmt.Errorf("remove attempt: %w", err)
	}
	_ = os.Remove(filepath.Dir(dir)) // the task's, if that was its last
	return nil
}
