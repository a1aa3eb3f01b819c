package exec

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"syscall"

	"labmesh"
)

// What every attempt's directory holds from the start, empty.
const (
	workName = "work" // where the program runs
	tmpName  = "tmp"  // its TMPDIR
)

const (
	freeName    = ".free" // holds directories that wait for an attempt
	freeDirsMax = 64
	firstName   = "1" // the attempt's own part of a free directory
	dirMode     = 0o700
)

// Work is where the attempt's program runs unless its config says otherwise.
func (a Attempt) Work() string { return filepath.Join(a.Dir, workName) }

// Tmp is the attempt's directory for temporary files.
func (a Attempt) Tmp() string { return filepath.Join(a.Dir, tmpName) }

// dirs gives attempts their directories. Directories that an attempt left as it
// found them are renamed to serve the next: to make new ones costs a file system
// more than a small program costs the machine.
type dirs struct {
	root string

	mu   sync.Mutex
	free []string
	made int
}

func openDirs(root string) (*dirs, error) {
	pool := filepath.Join(root, freeName)
	if err := os.MkdirAll(pool, dirMode); err != nil {
		return nil, err
	}
	old, err := os.ReadDir(pool)
	if err != nil {
		return nil, err
	}
	d := &dirs{root: root}
	for _, e := range old { // of an earlier life; perhaps half made
		if err := os.RemoveAll(filepath.Join(pool, e.Name())); err != nil {
			return nil, err
		}
	}
	return d, nil
}

// take makes the directory of k, which must not be there.
func (d *dirs) take(k key) error {
	free, err := d.get()
	if err != nil {
		return err
	}
	task, dir := taskDir(d.root, k.task), attemptDir(d.root, k)
	err = os.Rename(free, task)
	if err == nil {
		if inner := filepath.Join(task, firstName); inner != dir {
			return os.Rename(inner, dir)
		}
		return nil
	}
	if !errors.Is(err, fs.ErrExist) { // or not empty
		return err
	}
	if err := os.Rename(filepath.Join(free, firstName), dir); err != nil { // beside earlier attempts
		d.put(free)
		return err
	}
	return os.Remove(free)
}

// get is a free directory.
func (d *dirs) get() (string, error) {
	d.mu.Lock()
	if n := len(d.free); n > 0 {
		defer d.mu.Unlock()
		free := d.free[n-1]
		d.free = d.free[:n-1]
		return free, nil
	}
	free := d.name()
	d.mu.Unlock()
	for _, dir := range []string{free, filepath.Join(free, firstName), filepath.Join(free, firstName, workName), filepath.Join(free, firstName, tmpName)} {
		if err := os.Mkdir(dir, dirMode); err != nil {
			return "", err
		}
	}
	return free, nil
}

// name is a new name for a free directory. The caller holds mu.
func (d *dirs) name() string {
	d.made++
	return filepath.Join(d.root, freeName, strconv.Itoa(d.made))
}

func (d *dirs) put(free string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.free = append(d.free, free)
}

// give takes back the directory of k if the attempt left it as it found it, and
// reports whether it did.
func (d *dirs) give(k key) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	dir, task := attemptDir(d.root, k), taskDir(d.root, k.task)
	if len(d.free) >= freeDirsMax || k.attempt != 1 ||
		!holds(task, 1) || !holds(dir, 2) || !holds(filepath.Join(dir, workName), 0) || !holds(filepath.Join(dir, tmpName), 0) {
		return false
	}
	free := d.name()
	if os.Rename(task, free) != nil {
		return false
	}
	d.free = append(d.free, free)
	return true
}

// holds reports whether dir is as it was made and holds n entries.
func holds(dir string, n int) bool {
	f, err := os.OpenFile(dir, os.O_RDONLY|syscall.O_NOFOLLOW|syscall.O_DIRECTORY, 0)
	if err != nil {
		return false
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil || info.Mode() != fs.ModeDir|dirMode {
		return false
	}
	names, err := f.Readdirnames(n + 1)
	return len(names) == n && (err == nil || errors.Is(err, io.EOF))
}

// AttemptDir is the directory of an attempt below root, whatever the task's id holds.
func AttemptDir(root string, task labmesh.TaskID, attempt int) string {
	return attemptDir(root, key{task, attempt})
}

func attemptDir(root string, k key) string {
	return filepath.Join(taskDir(root, k.task), strconv.Itoa(k.attempt))
}

func diskProblem(err error) string { return fmt.Sprintf("make the attempt's directory: %v", err) }
