package exec

import (
	"errors"
	"os"

	"golang.org/x/sys/unix"
)

// moveNew renames a directory to what must not be there. The kernel looks whether
// it is, in the same call: os.Rename does in one of its own, before.
func moveNew(from, to string) error {
	for {
		err := unix.Renameat2(unix.AT_FDCWD, from, unix.AT_FDCWD, to, unix.RENAME_NOREPLACE)
		switch {
		case err == nil:
			return nil
		case errors.Is(err, unix.EINTR):
			continue
		case errors.Is(err, unix.EINVAL), errors.Is(err, unix.ENOSYS): // a file system, or a kernel, that cannot
			return os.Rename(from, to)
		}
		return &os.LinkError{Op: "rename", Old: from, New: to, Err: err}
	}
}
