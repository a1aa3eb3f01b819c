package exec

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// The disk floor: below it a worker takes no work. It is the smaller of the two.
const (
	diskFloorBytes    = 512 << 20
	diskFloorFraction = 100 // one part in so many of the disk
)

// DiskFloor is how many bytes must be free on the disk that holds dir for a
// worker to take work.
func DiskFloor(dir string) (uint64, error) {
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		return 0, fmt.Errorf("look at the disk of %s: %w", dir, err)
	}
	return min(diskFloorBytes, uint64(st.Blocks)*uint64(st.Bsize)/diskFloorFraction), nil //nolint:unconvert // the types differ by system
}

func freeBytes(dir string) (uint64, error) {
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		return 0, fmt.Errorf("look at the disk of %s: %w", dir, err)
	}
	return uint64(st.Bavail) * uint64(st.Bsize), nil //nolint:unconvert // the types differ by system
}

func tooFull(dir string, free, floor uint64) string {
	return fmt.Sprintf("the disk of %s has %d KiB left, less than the %d KiB it must have free: remove something, or give the node another data dir",
		dir, free>>10, floor>>10)
}

// Accepts reports whether the worker takes new work just now, and why not.
func (w *Worker) Accepts() (bool, string) {
	free, err := freeBytes(w.cfg.Dir)
	if err != nil {
		return false, err.Error()
	}
	if free < w.cfg.Floor {
		return false, tooFull(w.cfg.Dir, free, w.cfg.Floor)
	}
	return true, ""
}

// tight reports whether less is free than what lets the worker work on for a
// while: a sweep that ends right at the floor would have to be repeated at once.
func (w *Worker) tight() bool {
	free, err := freeBytes(w.cfg.Dir)
	return err != nil || free < w.cfg.Floor+w.cfg.Floor/4
}
