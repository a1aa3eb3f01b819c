package exec

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"github.com/dustin/go-humanize"

	"labmesh"
)

// The directory of an attempt with a limit on disk is measured again and again,
// and never with more than a fraction of the time, however large it is.
const (
	quotaEvery = 2 * time.Second // between two measurements, at least
	quotaRest  = 5               // times as long as a measurement took, it rests
	batchMax   = 1024            // entries looked at in one go
	linksMax   = 1 << 16         // files with several names that are counted once
)

// quotaError ends the context of an attempt that takes more disk than it may.
type quotaError struct{ limit, taken int64 }

func (e *quotaError) Error() string {
	return fmt.Sprintf("the attempt's directory took %s, more than its limit of %s (limits.disk_gb)", size(e.taken), size(e.limit))
}

func size(bytes int64) string { return humanize.IBytes(uint64(max(bytes, 0))) } //nolint:gosec // it is not negative

// underQuota is a context for a that ends when its directory takes more than it
// may. join ends the watch.
func underQuota(ctx context.Context, a Attempt) (run context.Context, join func()) {
	if a.Task.Spec.Limits == nil || a.Task.Spec.Limits.DiskGB <= 0 {
		return ctx, func() {}
	}
	limit := int64(a.Task.Spec.Limits.DiskGB * (1 << 30))
	run, stop := context.WithCancelCause(ctx)
	var watch sync.WaitGroup
	watch.Go(func() {
		for {
			began := time.Now()
			if taken, err := diskUse(run, a.Dir, limit); err == nil && taken > limit {
				stop(&quotaError{limit, taken})
				return
			}
			if !pause(run, nil, max(quotaEvery, quotaRest*time.Since(began))) {
				return
			}
		}
	})
	return run, func() {
		stop(nil)
		watch.Wait()
	}
}

// diskUse is what dir takes on disk, or as soon as that is more than enough, at
// least that. It follows no links, and rests while it walks a large tree.
func diskUse(ctx context.Context, dir string, enough int64) (bytes int64, err error) {
	m := meter{ctx: ctx, enough: enough, links: make(map[[2]uint64]bool), began: time.Now()}
	err = m.walk(dir)
	if errors.Is(err, errEnough) {
		err = nil
	}
	return m.bytes, err
}

var errEnough = errors.New("enough is known")

type meter struct {
	ctx    context.Context //nolint:containedctx // of one measurement
	enough int64
	bytes  int64
	seen   int
	began  time.Time // the present batch
	links  map[[2]uint64]bool
}

func (m *meter) walk(dir string) error {
	f, err := os.OpenFile(dir, os.O_RDONLY|syscall.O_NOFOLLOW|syscall.O_DIRECTORY, 0)
	if err != nil {
		return nil //nolint:nilerr // gone meanwhile, or not to be read: it is not counted
	}
	var dirs []string
	for {
		entries, err := f.ReadDir(batchMax)
		for _, e := range entries {
			if info, err := e.Info(); err == nil {
				m.add(info)
			}
			if e.IsDir() {
				dirs = append(dirs, filepath.Join(dir, e.Name()))
			}
		}
		if restErr := m.rest(len(entries)); restErr != nil || err != nil {
			f.Close()
			if restErr != nil {
				return restErr
			}
			if !errors.Is(err, io.EOF) {
				return err
			}
			break
		}
	}
	for _, d := range dirs {
		if err := m.walk(d); err != nil {
			return err
		}
	}
	return nil
}

// add counts a file by what it takes on disk: one that is mostly holes takes little.
func (m *meter) add(info os.FileInfo) {
	st, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		m.bytes += info.Size()
		return
	}
	if st.Nlink > 1 && !info.IsDir() {
		id := [2]uint64{uint64(st.Dev), st.Ino} //nolint:unconvert // the types differ by system
		if m.links[id] {
			return
		}
		if len(m.links) < linksMax {
			m.links[id] = true
		}
	}
	m.bytes += st.Blocks * 512
}

// rest keeps the measuring to a fraction of the time.
func (m *meter) rest(entries int) error {
	if m.bytes > m.enough {
		return errEnough
	}
	if m.seen += entries; m.seen < batchMax {
		return m.ctx.Err()
	}
	m.seen = 0
	pause(m.ctx, nil, quotaRest*time.Since(m.began))
	m.began = time.Now()
	return m.ctx.Err()
}

// blame finds out who filled the disk when a program failed on a full one: that
// is no verdict on the program, unless it was the program.
func (w *Worker) blame(ctx context.Context, a Attempt, o labmesh.Outcome) labmesh.Outcome {
	if o.OK || o.Cause != labmesh.CauseExit && o.Cause != labmesh.CauseSignal {
		return o
	}
	free, err := freeBytes(w.cfg.Dir)
	if err != nil || free >= w.cfg.Floor {
		return o
	}
	lacks := int64(w.cfg.Floor - free) //nolint:gosec // a floor is below 2^62
	if own, err := diskUse(ctx, a.Dir, lacks); err == nil && own >= lacks {
		o.Cause, o.Error = labmesh.CauseQuota, fmt.Sprintf("it filled the disk of its worker: %s; its own directory takes %s or more", o.Error, size(own))
		return o
	}
	o.Cause, o.Error = labmesh.CauseDisk, o.Error+"; "+tooFull(w.cfg.Dir, free, w.cfg.Floor)
	return o
}
