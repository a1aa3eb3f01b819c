//go:build !linux

package exec

import "os"

// moveNew renames a directory to what must not be there.
func moveNew(from, to string) error { return os.Rename(from, to) }
