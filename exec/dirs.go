package exec

import (
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"time"

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

	// mark is the time that a new directory is said to have been changed at. What
	// still bears it holds what it was made with: to ask for the time is a quarter of the work of looking.
	mark time.Time

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
	d := &dirs{root: root, mark: time.Unix(rand.Int64N(1<<30), rand.Int64N(int64(time.Second)))}
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
	err = moveNew(free, task)
	if err == nil {
		if inner := filepath.Join(task, firstName); inner != dir {
			return moveNew(inner, dir)
		}
		return nil
	}
	if !errors.Is(err, fs.ErrExist) { // or not empty
		return err
	}
	if err := moveNew(filepath.Join(free, firstName), dir); err != nil { // beside earlier attempts
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
	all := tree(free, filepath.Join(free, firstName))
	for _, dir := range all {
		if err := os.Mkdir(dir, dirMode); err != nil {
			return "", err
		}
	}
	for _, dir := range all {
		if err := os.Chtimes(dir, time.Time{}, d.mark); err != nil {
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
	if len(d.free) >= freeDirsMax || k.attempt != 1 {
		return false
	}
	task := taskDir(d.root, k.task)
	for _, dir := range tree(task, attemptDir(d.root, k)) {
		info, err := os.Lstat(dir)
		if err != nil || info.Mode() != fs.ModeDir|dirMode || !info.ModTime().Equal(d.mark) {
			return false
		}
	}
	free := d.name()
	if moveNew(task, free) != nil {
		return false
	}
	d.free = append(d.free, free)
	return true
}

// tree lists the directories that a task and its attempt begin with, those above first.
func tree(task, attempt string) []string {
	return []string{task, attempt, filepath.Join(attempt, workName), filepath.Join(attempt, tmpName)}
}

// AttemptDir is the directory of an attempt below root, whatever the task's id holds.
func AttemptDir(root string, task labmesh.TaskID, attempt int) string {
	return attemptDir(root, key{task, attempt})
}

func attemptDir(root string, k key) string {
	return filepath.Join(taskDir(root, k.task), strconv.Itoa(k.attempt))
}

func diskProblem(err error) string { return fmt.Sprintf("make the attempt's directory: %v", err) }
