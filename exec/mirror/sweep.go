package mirror

import (
	"context"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"labmesh/exec"
)

const (
	sweepEvery = 10 * time.Minute
	blockBytes = 4096 // what even an empty file takes
)

// sweepLoop removes old copies, at once, from time to time, and when much has come.
func (k *Keeper) sweepLoop(ctx context.Context) {
	tick := time.NewTicker(sweepEvery)
	defer tick.Stop()
	for {
		if n, err := k.sweep(time.Now()); err != nil {
			k.cfg.Logger.WarnContext(ctx, "old copies of output not swept", "removed", n, "err", err)
		} else if n > 0 {
			k.cfg.Logger.InfoContext(ctx, "old copies of output swept", "removed", n)
		}
		select {
		case <-tick.C:
		case <-k.much:
		case <-ctx.Done():
			return
		}
	}
}

// kept is the copy of one attempt.
type kept struct {
	dir   string
	at    time.Time
	bytes int64
}

// sweep removes the copies over what is to be kept, the oldest first, but none
// that output comes for now.
func (k *Keeper) sweep(now time.Time) (removed int, err error) {
	copies, err := k.list()
	if err != nil {
		return 0, err
	}
	var bytes int64
	for i, c := range copies {
		bytes += c.bytes
		if i < k.cfg.Keep.Attempts && bytes <= k.cfg.Keep.Bytes && now.Sub(c.at) <= k.cfg.Keep.Age {
			continue
		}
		gone, err := k.remove(c.dir)
		if err != nil {
			return removed, err
		}
		if gone {
			removed++
		}
	}
	return removed, nil
}

// remove removes a copy unless output comes for it now.
func (k *Keeper) remove(dir string) (bool, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	for id := range k.open {
		if exec.AttemptDir(k.cfg.Dir, id.task, id.attempt) == dir {
			return false, nil
		}
	}
	if err := os.RemoveAll(dir); err != nil {
		return false, err
	}
	_ = os.Remove(filepath.Dir(dir)) // the task's, if that was its last
	return true, nil
}

// list lists the copies, the newest first.
func (k *Keeper) list() ([]kept, error) {
	dirs, err := filepath.Glob(filepath.Join(globQuote(k.cfg.Dir), "*", "*"))
	if err != nil {
		return nil, err
	}
	var all []kept
	for _, dir := range dirs {
		files, err := os.ReadDir(dir)
		if err != nil {
			continue // swept meanwhile, or no directory of ours
		}
		c := kept{dir: dir}
		if info, err := os.Stat(dir); err == nil {
			c.at = info.ModTime()
		}
		for _, f := range files {
			if info, err := f.Info(); err == nil && info.Mode().Type()&fs.ModeType == 0 {
				c.bytes += max(info.Size(), blockBytes)
				if info.ModTime().After(c.at) {
					c.at = info.ModTime()
				}
			}
		}
		all = append(all, c)
	}
	slices.SortFunc(all, func(a, b kept) int { return b.at.Compare(a.at) })
	return all, nil
}

// globQuote is path as a pattern that matches it alone.
func globQuote(path string) string {
	var out []byte
	for i := range len(path) {
		switch path[i] {
		case '*', '?', '[', '\\':
			out = append(out, '\\')
		}
		out = append(out, path[i])
	}
	return string(out)
}

// below reports whether the disk of dir has less than floor bytes left.
func below(dir string, floor uint64) bool {
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		return true
	}
	return uint64(st.Bavail)*uint64(st.Bsize) < floor //nolint:unconvert // the types differ by system
}
